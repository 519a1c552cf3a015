"""Facts of a run: the SAE with how well it rebuilds the stream, and a text with activations of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyses.kit.facts import RunFacts

if TYPE_CHECKING:
    from mechint.attribution.features.dictionary import Dictionary, Quality


@dataclass(frozen=True)
class Reconstruction:
    """How well an SAE rebuilds the stream (see `Quality`), and whether that is poor."""

    explained: float
    error: float
    l0: float
    positions: int
    poor: bool

    @property
    def quality(self) -> Quality:
        """The same, as the library has it."""
        from mechint.attribution.features.dictionary import Quality

        return Quality(self.explained, self.error, self.l0, self.positions)


@dataclass(frozen=True)
class SAEFacts:
    """An SAE: its name, the layer whose stream it reads, its size, its name on Neuronpedia, and what it rebuilds."""

    name: str
    layer: int
    d_sae: int
    neuronpedia: str | None
    reconstruction: Reconstruction

    @classmethod
    def of(cls, dictionary: Dictionary, quality: Quality) -> SAEFacts:
        """Return the facts of an SAE, with what it has been measured to rebuild."""
        rebuilt = Reconstruction(**vars(quality), poor=quality.poor)
        return cls(dictionary.name, dictionary.layer, dictionary.d_sae, dictionary.neuronpedia, rebuilt)

    def link(self, feature: int) -> str | None:
        """Return the address of a feature's page on Neuronpedia, or None."""
        return None if self.neuronpedia is None else f"https://www.neuronpedia.org/{self.neuronpedia}/{feature}"


@dataclass(frozen=True)
class ExcerptTurn:
    """Who speaks from token `start` to `stop`."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class FeatureActivations:
    """The activations of one feature at every token, clean and injected."""

    component: str
    clean: tuple[float, ...]
    injected: tuple[float, ...]


@dataclass(frozen=True)
class Excerpt:
    """The end of a conversation, from token `first` on, under one concept, with activations of some features."""

    conversation: str
    concept: str
    first: int
    tokens: tuple[str, ...]
    speakers: tuple[ExcerptTurn, ...]
    features: tuple[FeatureActivations, ...]


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """What `run.json` says of a run."""

    sae: SAEFacts
    text: Excerpt
