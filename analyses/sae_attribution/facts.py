"""Facts of a run: the SAE with how well it rebuilds the stream, and a text with activations of features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyses.kit.facts import RunFacts
from mechint.attribution.features.held_out import HeldOut

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
    """An SAE: its name, the layer whose stream it reads, its size, its name on Neuronpedia, and what it rebuilds.

    `held_out` says how well one that was trained for the run does on other text.
    """

    name: str
    layer: int
    d_sae: int
    neuronpedia: str | None
    reconstruction: Reconstruction
    held_out: HeldOut | None = None

    @classmethod
    def of(cls, dictionary: Dictionary, quality: Quality) -> SAEFacts:
        """Return the facts of an SAE, with what it has been measured to rebuild."""
        rebuilt = Reconstruction(**vars(quality), poor=quality.poor)
        return cls(
            dictionary.name, dictionary.layer, dictionary.d_sae, dictionary.neuronpedia, rebuilt, dictionary.held_out
        )

    @property
    def caption(self) -> str:
        """What figures say of it: its name, and of one that was trained here how well it does on other text."""
        if (measured := self.held_out) is None:
            return f"SAE {self.name}"
        return (
            f"SAE {self.name} ({self.d_sae:,} features, trained on {measured.trained_on:,} tokens of the model's own "
            f"text; on {measured.tokens:,} held out it explains {measured.explained:.0%} of the variance with "
            f"{measured.l0:.0f} features a token, {measured.dead:.0%} of all never active there, and recovers "
            f"{measured.loss_recovered:.0%} of the loss)"
        )

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
