"""The work of each analysis in (token x block), counted from its own questions and conditions.

Readings that are no cells of the engine (replies, texts, patched caches, features) count as passes of their tokens, so
many times as was measured on the embedded organism.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from analyses import (
    dose,
    identification,
    kv_attribution,
    layer_strength,
    location,
    logit_lens,
    model_swap,
    sae_attribution,
    steering,
    trials,
)
from analyses.gallery import training
from analyses.gallery.counts import BLOCK_STEP, Counts
from analyses.kit import finetuned, questions
from analyses.kit.options import Common
from analyses.kit.study import Condition, Group, Inputs, ask
from analyses.kit.subject import Subject
from analyses.kv_attribution import steps
from analyses.location.sites import sites
from analyses.logit_lens import conditions as panels
from analyses.sae_attribution import source
from analyses.trials.options import Config as TrialConfig
from analyses.trials.options import TrialInputs
from mechint.chat.conversations import Conversation
from mechint.prompts.design import PromptDesign
from mechint.vectors.extraction import EXTRACTIONS

_AT_ONCE = 64  # replies
_EDGES = 3  # strengths at which other extractions are tried, and at which replies are given
_TEXT_TOKENS = 100  # of a text of prose and one of the model's own
_SPOKEN = 4 * 40  # tokens of the texts that the clean model says
_CURVES = 20  # sets of windows on the two curves
_GRADIENTS = 8 * 3  # points of integrated gradients; forward and back is three passes
_FEATURE_PASSES = 40  # of a case: points of integrated gradients, random sets, single features


def every_vector(counts: Counts, _config: Common, inputs: Inputs, subject: Subject) -> float:
    """Return the work of all conversations of a run under each of its vectors."""
    return counts.of_query(ask(counts.model, [Group(inputs.conversations, subject.conditions())]))


def _dose(counts: Counts, config: dose.Config, _inputs: Inputs, subject: Subject) -> float:
    """Return the work of a trial: every vector at all places, those of other extractions at the edges, and replies."""
    tried = dose.plan(config, subject)
    ways = EXTRACTIONS if config.extractions is None else config.extractions
    places, n_vectors = len(tried.layers) * len(tried.strengths), len(subject.concepts) + len(subject.randoms)
    readings = 2 * places * n_vectors + len(ways) * len(tried.layers) * _EDGES * len(subject.concepts)
    calls = len(ways) * _EDGES
    units = counts.passes(readings * tried.n_texts * _TEXT_TOKENS)
    units += counts.passes(calls * len(subject.concepts) * tried.n_requests * tried.n_tokens)
    return units + calls * tried.n_tokens * counts.model.n_layers * BLOCK_STEP / counts.pace


def ways(config: Common) -> list[str | None]:
    """Return the ways in which a run extracts vectors (None: its usual one)."""
    if not isinstance(config, dose.Config):
        return [None]
    listed = EXTRACTIONS if config.extractions is None else config.extractions
    return [None, *map(str, listed)]


def _logit_lens(counts: Counts, config: logit_lens.Config, inputs: logit_lens.LensInputs, subject: Subject) -> float:
    every_layer = range(-1, counts.model.n_layers)
    groups = logit_lens.groups(config, subject, inputs.conversations)
    work = counts.of_query(ask(counts.model, groups, layers=every_layer))
    if inputs.panels is not None:
        work += counts.of_query(panels.query(subject, inputs.panels, None))
        work += counts.steered(inputs.panels.wordings, 2, 0, len(every_layer))
        wordings = questions.introspection(inputs.panels.wordings)
        work += counts.steered(wordings, config.n_random, subject.dose.layers[0], len(every_layer))
    return work


def _model_swap(counts: Counts, config: model_swap.Config, inputs: Inputs, subject: Subject) -> float:
    strengths = len(model_swap.FACTORS if config.contrast_strengths is None else config.contrast_strengths)
    chats, first, read = inputs.conversations, subject.dose.layers[0], counts.model.n_layers + 1
    introspection = questions.introspection(chats)
    trained = training.of_sibling(counts) if finetuned.is_trained(config) else 0.0
    return (
        trained
        + counts.steered(chats, 2, 0, read)
        + counts.steered(chats, strengths, first, read)
        + counts.steered(introspection, strengths * config.n_random, first, read)
    )


def _identification(
    counts: Counts, _config: identification.Config, inputs: identification.Inputs, subject: Subject
) -> float:
    read = len(identification.conditions(subject)) * counts.passes(_prose(counts))
    return counts.of_query(identification.query(subject, inputs)) + read


def _location(counts: Counts, _config: location.Config, inputs: location.Inputs, subject: Subject) -> float:
    places = sites(subject, inputs.sentences, inputs.conversations[0])
    return counts.of_query(location.query(subject, inputs.choices, places))


def _layer_strength(counts: Counts, config: layer_strength.Config, inputs: Inputs, subject: Subject) -> float:
    steered = layer_strength.conditions(config, subject)
    texts = layer_strength.text_conditions(subject.dose, steered)
    cells = ask(counts.model, layer_strength.groups(inputs.conversations, steered))
    return counts.of_query(cells) + _texts(counts, texts)


def _steering(counts: Counts, config: steering.Config, inputs: Inputs, subject: Subject) -> float:
    steered = steering.conditions(config, subject)
    units = _texts(counts, steered)
    for n in (1, config.n_samples):
        replies = len(inputs.conversations) * len(steered) * n
        units += counts.length(inputs.conversations) * len(steered) * n * counts.model.n_layers
        units += counts.passes(replies * config.max_new_tokens)
        n_vectors = len({condition.unit for condition in steered})
        calls = max(n_vectors, math.ceil(replies / _AT_ONCE)) if n else 0
        units += calls * config.max_new_tokens * counts.model.n_layers * BLOCK_STEP / counts.pace
    return units


def _trials(counts: Counts, config: TrialConfig, inputs: TrialInputs, subject: Subject) -> float:
    """Return the work of all replies of a design at their longest, and of the prompts before them."""
    from mechint.trials.explaining import explain_trials

    design = trials.design_of(config, subject) if inputs.design is None else inputs.design
    cost = explain_trials(counts.model, design, subject.concepts)
    return counts.passes(cost.prompt_tokens) + counts.decoding(cost.replies, design.max_new_tokens, cost.at_once)


def _texts(counts: Counts, conditions: Sequence[Condition]) -> float:
    """Return the work of plain prose and spoken texts that are read under some conditions."""
    return len(conditions) * counts.passes(_prose(counts) + _SPOKEN)


def _prose(counts: Counts) -> int:
    """Return the tokens of the plain prose of the prompt set."""
    design = PromptDesign.load(counts.model.prompts)
    return sum(len(counts.model.tokenizer.encode(text)) for text in design.tasks.plain)


def _kv_attribution(counts: Counts, config: kv_attribution.Config, inputs: Inputs, subject: Subject) -> float:
    return sum(
        len(subject.conditions(steps.SERIES[questions.kind_of(chat)])) * _patches(counts, config, chat)
        for chat in inputs.conversations
    )


def _patches(counts: Counts, config: kv_attribution.Config, chat: Conversation) -> float:
    """Return the work of all that is replaced in the cache of one conversation, in both directions."""
    from mechint.chat.render import render

    model, filled = counts.model, render(counts.model, chat).prefix_length
    suffix = len(counts.tokens(chat)) - filled
    alone = 1 + model.n_layers
    if questions.kind_of(chat) == "introspection":
        n_heads = model.cache_shapes[0][1]
        size = steps.Size(config.window_layers, config.window_positions)
        layers, positions = size.layers_of(model.n_layers), size.positions_of(filled)
        windows = math.ceil(model.n_layers / layers) * math.ceil(filled / positions)
        alone = 1 + model.n_layers * 3 * (1 + n_heads) + windows + config.most * layers * positions + _CURVES
    # What is replaced at a layer changes nothing below it: half of the blocks, on the average.
    patched = 2 * alone * (suffix * model.n_layers / 2 + model.readout_work)
    return patched + counts.passes(_GRADIENTS * (filled + suffix))


def _sae_attribution(counts: Counts, config: sae_attribution.Config, inputs: Inputs, subject: Subject) -> float:
    passes = len(subject.conditions()) * _FEATURE_PASSES
    trained = training.of_sae(counts, config.sae) if source.is_trained(config.sae) else 0.0
    return trained + passes * counts.passes(counts.length(inputs.conversations))


# An analysis that is not named here asks each of its conversations under each vector.
OF_ANALYSIS: Mapping[str, Callable[..., float]] = MappingProxyType(
    {
        "dose": _dose,
        "logit_lens": _logit_lens,
        "model_swap": _model_swap,
        "identification": _identification,
        "location": _location,
        "layer_strength": _layer_strength,
        "steering": _steering,
        "trials": _trials,
        "kv_attribution": _kv_attribution,
        "sae_attribution": _sae_attribution,
    }
)
