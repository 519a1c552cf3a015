"""From options to what is run: conversations, concept vectors with their controls, layers and strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from analyses.cli import Common, check_layers, vector_files
from mechint import organisms, presets, prompts
from mechint.chat import Conversation, load_conversations

if TYPE_CHECKING:
    from mechint.interventions import Injection
    from mechint.model import Model
    from mechint.vectors import ConceptVector

Method = Literal["paired_pca", "mean_difference"]
VectorKind = Literal["concept", "random"]

# Everyday things of different kinds; the choice is this project's own.
CONCEPTS = ("cats", "bread", "oceans", "music", "trees", "trains", "snow", "money")


@dataclass(frozen=True)
class Dose:
    """Where and how strongly to inject, and who says so; exactly one of the two strengths is given."""

    layers: tuple[int, ...]
    strength: float | None
    relative_strength: float | None
    source: str

    def injection(self, vector: ConceptVector, name: str, layers: Sequence[int] | None = None) -> Injection:
        """Return the injection of `vector` at `layers` (default: the dose's own)."""
        from mechint.interventions import Injection

        chosen = tuple(self.layers if layers is None else layers)
        if self.strength is not None:
            return Injection(vector, layers=chosen, strength=self.strength, name=name)
        return Injection(vector, layers=chosen, relative_strength=self.relative_strength, name=name)

    def __str__(self) -> str:
        if self.strength is not None:
            return f"strength {self.strength:g}"
        return f"|added| = {self.relative_strength:g} |residual| at each layer"


def dose(config: Common, model: Model) -> Dose:
    """Return the layers and strength to use: the options', else a preset's, else the middle third and relative."""
    preset = presets.preset_for(config.model)
    check_layers(config.layers, model.n_layers)
    layers = config.layers or tuple(preset.layers if preset else presets.middle_third(model.n_layers))
    check_layers(layers, model.n_layers)
    if config.strength is not None:
        return Dose(layers, config.strength, None, "--strength")
    if config.relative_strength is not None:
        return Dose(layers, None, config.relative_strength, "--relative-strength")
    if preset is not None and config.vectors is None:
        return Dose(layers, preset.strength, None, preset.source)
    return Dose(layers, None, presets.DEFAULT_RELATIVE_STRENGTH, "default")


@dataclass(frozen=True)
class Wording:
    """Which cell of a prompt set to use; every name is checked against the set."""

    description: str
    info: str
    format: str

    def names(self) -> tuple[str, str, str]:
        """The three names as a figure tells them."""
        return (self.description, f"info {self.info}", f"format {self.format}")


def conversations(config: Common, wording: Wording, prompt_set: str) -> list[Conversation]:
    """Return those of `--conversations` (the first `--limit`), or the introspection question and its controls."""
    if config.conversations is not None:
        return load_conversations(config.conversations)[: config.limit]
    design = prompts.PromptDesign.load(prompt_set)
    cell = {"descriptions": [wording.description], "infos": [wording.info], "formats": [wording.format]}
    return prompts.introspection(design, **cell) + prompts.controls(design, **cell, limit=config.limit)


def concept_vectors(config: Common, model: Model, method: Method) -> dict[str, ConceptVector]:
    """Return concept vectors by name: the files of `--vectors`, else extracted from the model by `method`."""
    from mechint import extract
    from mechint.vectors import ConceptVector

    if config.vectors is not None:
        files = vector_files(config.vectors, config.concepts)
        return {name: ConceptVector.load(file) for name, file in files.items()}
    extractor = {"paired_pca": extract.paired_pca, "mean_difference": extract.mean_difference}[method]
    return extractor(model, list(config.concepts or default_concepts(model)))


def default_concepts(model: Model) -> tuple[str, ...]:
    """Return the concepts to use where none are named; for an embedded model some it was never injected with."""
    if model.prompts == "full":
        return CONCEPTS
    return (*organisms.concepts("trained")[:6], *organisms.concepts("held_out")[:2])


def random_vectors(config: Common, model: Model, like: Sequence[ConceptVector]) -> dict[str, ConceptVector]:
    """Return `--n-random` random vectors, each with the norms of one concept vector, in turn."""
    from mechint import extract

    found = {}
    for number in range(config.n_random):
        match = like[number % len(like)]
        found[f"random-{number}"] = extract.random_controls(model, n=1, seed=config.seed + number, like=match)[0]
    return found
