"""The cells of a sweep: each prompt under each vector at each place, with the number of replies, and the controls.

vectors      places    prompts                       replies in each cell
concepts     all       those of the design           samples
random       all       those of the design           samples
both         all       questions that are controls   control_samples
none         -         those of the design           controls.clean
none         -         questions that are controls   samples
none         -         with a concept mentioned      controls.mention
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Literal

import torch

from mechint.base.errors import UnknownConceptError, UsageError
from mechint.chat.conversations import Conversation, Message
from mechint.interventions.ablation import ablated
from mechint.interventions.specifications import CLEAN, Injection, InjectionSum, Intervention
from mechint.interventions.steering_modes import From, Steer
from mechint.models.model import Model
from mechint.trials.design import Place, TrialDesign
from mechint.trials.prompts import TrialPrompt, TrialPrompts, concept_categories, concept_lexicon
from mechint.trials.records import Question
from mechint.vectors.concept_vectors import ConceptVector
from mechint.vectors.extract import random_controls

# Questions whose replies a design may begin: those that ask whether something is noticed.
BEGUN: tuple[Question, ...] = ("introspection", "mention")
_FROM = "from:"
_MODES: tuple[Literal["prefill", "reply", "everything", "onward"], ...] = ("prefill", "reply", "everything", "onward")


@dataclass(frozen=True)
class Cell:
    """Replies to one prompt under one intervention. `concept` is that of the vectors, or the one that is mentioned."""

    prompt: TrialPrompt
    intervention: Intervention
    samples: int
    series: str = "clean"
    concept: str = ""
    category: str = ""
    place: Place | None = None

    @property
    def steer(self) -> Steer:
        """When the intervention acts; of a clean cell a mode that does nothing."""
        return "reply" if self.place is None else steer_of(self.place.steer)

    @property
    def is_control(self) -> bool:
        """Whether it is there for others to be held against: anything but a concept and the question of a design."""
        return self.series != "injected" or self.prompt.question != "introspection"


@dataclass(frozen=True)
class TrialVectors:
    """The vectors of a sweep: of concepts by their names, and random ones."""

    concepts: Mapping[str, ConceptVector]
    randoms: Mapping[str, ConceptVector]

    @classmethod
    def of(cls, model: Model, design: TrialDesign, vectors: Mapping[str, ConceptVector]) -> TrialVectors:
        """Return the vectors that a design needs; raises UnknownConceptError for a concept that has none."""
        concepts = {name: _vector_of(name, vectors, "of a design") for name in design.names}
        drawn = random_controls(model, design.controls.random, seed=design.seed) if design.controls.random else []
        if not design.relative:  # strengths then multiply vectors as they are: each has the norms of a concept's
            pattern = cycle(concepts.values())
            drawn = [vector.at(like.layers).rescaled(like.norms) for vector, like in zip(drawn, pattern, strict=False)]
        return cls(concepts, {f"random-{number}": vector for number, vector in enumerate(drawn)})


def model_of(model: Model, design: TrialDesign, vectors: Mapping[str, ConceptVector]) -> Model:
    """Return the model that a design samples: `model`, or it without the direction that the design ablates.

    A model that lacks the direction already is returned as it is. Raises UnknownConceptError for a direction that has
    no vector, and what `mi.ablate` raises.
    """
    if not design.ablate:
        return model
    return ablated(model, _vector_of(design.ablate, vectors, "to ablate"))


def cells(model: Model, design: TrialDesign, vectors: TrialVectors, prompts: TrialPrompts) -> list[Cell]:
    """Return all cells of a design; raises UsageError for a prompt that names a concept, and what `places` raises."""
    prompts.check_leaks(design.concepts, concept_lexicon())
    asked = [prompts.named(name) for name in design.prompts]
    controls = _control_prompts(design, prompts)
    steered = list(_steered(model, design, vectors))
    return [
        *(replace(cell, prompt=prompt, samples=design.samples) for prompt in asked for cell in steered),
        *(replace(cell, prompt=prompt, samples=design.control_samples) for prompt in controls for cell in steered),
        *(Cell(prompt, CLEAN, design.controls.clean) for prompt in asked if design.controls.clean),
        *(Cell(prompt, CLEAN, design.samples) for prompt in controls),
        *_mentions(design, prompts),
    ]


def conversation(cell: Cell, reply_start: str) -> Conversation:
    """Return what a cell's model is given: the prompt, and the beginning of its reply if there is one."""
    chat = cell.prompt.conversation()
    if not reply_start or cell.prompt.question not in BEGUN:
        return chat
    return replace(chat, messages=(*chat.messages, Message("assistant", reply_start, continue_msg=True)))


def steer_of(text: str) -> Steer:
    """Return a mode of a design as `mi.generate` takes it: "from:TEXT" is `From(TEXT)`; raises UsageError."""
    if text.startswith(_FROM):
        return From(text.removeprefix(_FROM).strip())
    for mode in _MODES:
        if mode == text:
            return mode
    raise UsageError(
        given=f"steer {text!r} in a design",
        allowed=f"{', '.join(_MODES)}, {_FROM}TEXT",
        advice="choose where the vectors act",
    )


def norms(model: Model, intervention: Intervention) -> tuple[float, float]:
    """Return the norm of what is added, and that over the stream's median norm, as means over the layers."""
    amounts: dict[int, torch.Tensor] = {}
    for term in intervention.terms:
        for layer in term.layers or ():
            amounts[layer] = amounts.get(layer, torch.zeros(())) + term.amount(layer, model)
    if not amounts:
        return float("nan"), float("nan")
    added = {layer: float(torch.linalg.vector_norm(amount)) for layer, amount in amounts.items()}
    ratios = [norm / model.residual_norms[layer] for layer, norm in added.items()]
    return sum(added.values()) / len(added), sum(ratios) / len(ratios)


def _vector_of(name: str, vectors: Mapping[str, ConceptVector], what: str) -> ConceptVector:
    if name not in vectors:
        raise UnknownConceptError(
            given=f"the concept {name!r} {what}, which has no vector",
            allowed=", ".join(vectors) or "concepts with vectors",
            advice="extract one (mi.extract.extract), or leave the concept out",
        )
    return vectors[name]


def _steered(model: Model, design: TrialDesign, vectors: TrialVectors) -> Iterator[Cell]:
    """Yield a cell for each vector at each place; its prompt and number of replies are set by whoever asks."""
    blank = TrialPrompt("", "introspection", "")
    categories = concept_categories()
    for place in design.places(model.n_layers):
        for concept in design.concepts:
            terms = [vectors.concepts[name] for name in concept.split("+")]
            category = categories.get(concept, "")
            yield Cell(blank, _injection(design, place, terms, concept), 0, "injected", concept, category, place)
        for name, vector in vectors.randoms.items():
            yield Cell(blank, _injection(design, place, [vector], name), 0, "random", name, "", place)


def _injection(design: TrialDesign, place: Place, vectors: Sequence[ConceptVector], name: str) -> Intervention:
    label = f"{name} {place.layers_text} {place.strength:g}"
    raw, relative = (None, place.strength) if design.relative else (place.strength, None)
    terms = [
        Injection(vector, place.layers, strength=raw, relative_strength=relative, name=f"{label} {number}")
        for number, vector in enumerate(vectors)
    ]
    return terms[0].renamed(label) if len(terms) == 1 else InjectionSum(tuple(terms), name=label)


def _control_prompts(design: TrialDesign, prompts: TrialPrompts) -> list[TrialPrompt]:
    kinds: dict[Question, int] = {"no": design.controls.no, "yes": design.controls.yes, "none": design.controls.none}
    return [prompt for kind, count in kinds.items() for prompt in prompts.controls(kind)[:count]]


def _mentions(design: TrialDesign, prompts: TrialPrompts) -> Iterator[Cell]:
    """Yield the clean cells in which a concept's name stands before the prompt."""
    if not design.controls.mention:
        return
    categories = concept_categories()
    for name in design.prompts:
        for concept in design.names:
            prompt = prompts.mentioning(name, concept)
            named = replace(prompt, name=f"{prompt.name}-{concept}")
            yield Cell(named, CLEAN, design.controls.mention, concept=concept, category=categories.get(concept, ""))
