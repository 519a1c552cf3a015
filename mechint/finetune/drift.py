"""How far a finetune is from its base where nothing is trained: on text of the base's own, and on control questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.errors import ModelValidationError
from mechint.chat.conversations import Conversation
from mechint.finetune.batch import Example, example_of
from mechint.interventions.specifications import CLEAN
from mechint.models.capture import read_on
from mechint.models.model import Model
from mechint.prompts.design import PromptDesign
from mechint.prompts.sets import controls
from mechint.readouts.own_text import TextRecipe, own_text
from mechint.readouts.score import score

# Replies of the base, sampled once and kept in the cache folder: it would say them itself.
NEUTRAL = TextRecipe(prompts=24, samples=1, max_new_tokens=24)
QUESTIONS = 6  # of each of the four groups of control questions
_POSITIONS = 128  # whose logits over the whole vocabulary are held at once


@dataclass(frozen=True)
class Drift:
    """A divergence of next tokens in nats per token, over so many tokens."""

    kl: float
    tokens: int


@dataclass(frozen=True)
class Probe:
    """Mean log odds of yes against no over control questions, and the mean probability of both together."""

    log_odds: float
    mass: float
    questions: int


def kl_from_base(model: Model, base: Model, texts: Sequence[Conversation] | None = None) -> Drift:
    """Return the Kullback-Leibler divergence of a model's next tokens from its base's, KL(base || model).

    It is the mean over the tokens of the last messages of `texts`, by default replies that the base has sampled to
    neutral prompts, from float32 logits. Raises ModelValidationError for models of different vocabularies.
    """
    if model.backend.d_vocab != base.backend.d_vocab:
        raise ModelValidationError(
            given=f"{model.name} with {model.backend.d_vocab} tokens, and {base.name} with {base.backend.d_vocab}",
            allowed="a finetune and its base",
            advice="give the model that the adapter was trained on",
        )
    replies = own_text(base, NEUTRAL) if texts is None else texts
    total, tokens = 0.0, 0
    for reply in replies:
        example = example_of(base, reply)
        stream, reference = _before_reply(model, example), _before_reply(base, example)
        pairs = zip(torch.split(reference, _POSITIONS), torch.split(stream, _POSITIONS), strict=True)
        total += sum(_divergence(base.readout.logits(first), model.readout.logits(second)) for first, second in pairs)
        tokens += len(stream)
    return Drift(total / tokens, tokens)


def probe(model: Model) -> Probe:
    """Return what a model says to control questions that nothing was done to, of which some are true and some false."""
    design = PromptDesign.load(model.prompts)
    questions = controls(design, descriptions="injection", infos="none", formats="yes-no", limit=QUESTIONS)
    table = score(model, questions, CLEAN)
    return Probe(float(table["logit_diff"].mean()), float(table["yes_no_mass"].mean()), len(table))


def _before_reply(model: Model, example: Example) -> Float[Tensor, "pos d_model"]:
    """Return the stream from which the tokens of a reply are predicted."""
    _, stream = read_on(model, torch.tensor([example.tokens[:-1]], dtype=torch.long))
    return stream[0, example.start - 1 :]


def _divergence(base: Float[Tensor, "pos d_vocab"], model: Float[Tensor, "pos d_vocab"]) -> float:
    """Return the sum over positions of KL(base || model)."""
    expected, shifted = base.log_softmax(-1), model.to(base.device).log_softmax(-1)
    return float((expected.exp() * (expected - shifted)).sum(dtype=torch.float64))
