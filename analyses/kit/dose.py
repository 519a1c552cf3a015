"""What an analysis injects: concept vectors and random ones, at which layers, and how strongly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from analyses.kit.checks import check_layers
from analyses.kit.dose_proposal import Proposal
from analyses.kit.option_types import format_layers
from analyses.kit.options import Common
from mechint import organisms
from mechint.base.cache_folder import cache_folder
from mechint.base.errors import LayerRangeError
from mechint.vectors import presets

if TYPE_CHECKING:
    from mechint.interventions.specifications import Injection
    from mechint.models.model import Model
    from mechint.vectors.concept_vectors import ConceptVector

Sweep = Literal["main", "single", "window"]

# Embedded models are trained to report injections here; at this strength they still talk readably.
EMBEDDED_LAYERS, EMBEDDED_RELATIVE_STRENGTH = (2, 3, 4), 0.4
EMBEDDED = "dose of the embedded models"

# Everyday things of different kinds; the choice is this project's own.
CONCEPTS = ("cats", "bread", "oceans", "music", "trees", "trains", "snow", "money")
# What vectors against others are differences to: other concepts, so that vectors do not add up to zero.
OTHERS = ("dogs", "rivers", "cheese", "painting", "flowers", "ships", "thunder", "houses")


@dataclass(frozen=True)
class Dose:
    """Where and how strongly to inject, and who says so; exactly one of the two strengths is given.

    dose.times(2)               # twice as strong, in the same unit
    dose.at((3, 4))             # the same strength at other layers
    dose.inject(vector)         # the injection itself
    """

    layers: tuple[int, ...]
    strength: float | None
    relative_strength: float | None
    source: str

    def __str__(self) -> str:
        if self.strength is not None:
            return f"strength {self.strength:g}"
        return f"|added| = {self.relative_strength:g} x the model's median residual norm at each layer"

    @property
    def is_relative(self) -> bool:
        """Whether the amount is in units of the model's median residual norm, not a factor on vectors."""
        return self.strength is None

    @property
    def amount(self) -> float:
        """The strength, in whichever unit it is given."""
        amount = self.relative_strength if self.strength is None else self.strength
        assert amount is not None
        return float(amount)

    def with_amount(self, amount: float) -> Dose:
        """Return a dose of another strength, in the same unit."""
        if self.is_relative:
            return replace(self, relative_strength=amount)
        return replace(self, strength=amount)

    def times(self, factor: float) -> Dose:
        """Return a dose that is so many times as strong."""
        return self.with_amount(self.amount * factor)

    def at(self, layers: Sequence[int]) -> Dose:
        """Return the same strength at other layers."""
        return replace(self, layers=tuple(layers))

    def inject(self, vector: ConceptVector, *, positions: Sequence[int] | None = None, name: str = "") -> Injection:
        """Return the injection of a vector at this dose; `positions` narrow it (None: all marked ones)."""
        from mechint.interventions.specifications import Injection

        return Injection(vector, self.layers, self.strength, self.relative_strength, name=name, positions=positions)

    def caption(self) -> str:
        """Return layers and strength in words, and by which rule they were chosen."""
        return f"injected at layers {format_layers(self.layers)} in the marked turns only, {self} ({self.source})"


@dataclass(frozen=True)
class CalibratedDose(Dose):
    """A dose that was found on the model, and what was measured at it."""

    proposal: Proposal

    @classmethod
    def of(cls, proposal: Proposal) -> CalibratedDose:
        """Return the dose that is proposed."""
        return cls(proposal.layers, None, proposal.relative_strength, proposal.source, proposal)


@dataclass(frozen=True)
class Placement:
    """Layers of one injection, and the part of the analysis that they are for."""

    sweep: Sweep
    layers: tuple[int, ...]


def usual_dose(
    config: Common,
    model: Model,
    analysis: str = "",
    vectors: Mapping[str, ConceptVector] | None = None,
    before: Callable[[], object] | None = None,
) -> Dose:
    """Return layers and strength: those of the options, else a preset's, an embedded model's, or calibrated ones.

    `--dose` says which of these where no strength is given. A preset's strength is for vectors like those it was
    published with, so not for mean differences. `vectors` are those of files, of an `analysis`, to calibrate. `before`
    is called before a calibration, which takes minutes: it raises for what would be refused after it.
    """
    preset = presets.preset_for(config.model)
    layers = _usual_layers(preset, model) if config.layers is None else config.layers
    check_layers(layers, model.n_layers)
    if config.layers is not None:
        for vector in (vectors or {}).values():
            vector.at(layers)  # raises for layers that it lacks
    if (fixed := _fixed_dose(config, model, layers)) is not None:
        return fixed
    if before is not None:
        before()
    from analyses.kit.calibrated_dose import calibrated_dose

    published = preset is not None and config.dose is None
    tried = layers if config.layers is not None or published else None
    return calibrated_dose(config, model, analysis, tried, vectors or {})


def _fixed_dose(config: Common, model: Model, layers: tuple[int, ...]) -> Dose | None:
    """Return the dose at some layers that needs no calibration, if there is one."""
    preset = presets.preset_for(config.model)
    if config.strength is not None:
        return Dose(layers, config.strength, None, "--strength")
    if config.relative_strength is not None:
        return Dose(layers, None, config.relative_strength, "--relative-strength")
    as_published = config.vectors is not None or method_of(config, model) == "paired_pca"
    if config.dose != "auto" and preset is not None and as_published:
        return Dose(layers, preset.strength, None, preset.source)
    if config.dose != "auto" and model.prompts == "small":
        return Dose(layers, None, EMBEDDED_RELATIVE_STRENGTH, EMBEDDED)
    if config.dose == "default":
        return Dose(layers, None, presets.DEFAULT_RELATIVE_STRENGTH, "default, not calibrated on this model")
    return None


def method_of(config: Common, model: Model, dose: Dose | None = None) -> str:
    """Return how vectors are extracted where the options do not say: as the dose was calibrated with, else as usual.

    As usual is as published; for an embedded model as it was trained.
    """
    usual = "mean_difference" if model.prompts == "small" else "paired_pca"
    calibrated = dose.proposal.extraction if isinstance(dose, CalibratedDose) else usual
    return calibrated if config.method is None else config.method


def _usual_layers(preset: presets.Preset | None, model: Model) -> tuple[int, ...]:
    if preset is not None:
        return tuple(preset.layers)
    return EMBEDDED_LAYERS if model.prompts == "small" else tuple(presets.middle_third(model.n_layers))


def extracted_vectors(
    config: Common, model: Model, analysis: str, *, method: str, concepts: Sequence[str] | None = None
) -> dict[str, ConceptVector]:
    """Return vectors of concepts (None: `--concepts`) from the model; kept with results, reused if all is equal.

    What was read of the model is kept in the cache folder, for all analyses and runs. Where a method takes concepts
    against others, these are the same whichever concepts a run asks about.
    """
    from mechint.vectors.extract import Extraction, extract

    requested = config.concepts if concepts is None else concepts
    names = default_concepts(model) if requested is None else requested
    others = other_concepts(model) if Extraction.parse(method).against == "others" else None
    directory = config.out / analysis / "vectors" if analysis else None
    return extract(model, names, method, directory=directory, others=others, cache=vectors_cache(), progress=True)


def vectors_cache() -> Path | None:
    """Return the folder of what was read of models for vectors; None for a user without a home folder."""
    try:
        return cache_folder() / "vectors"
    except RuntimeError:
        return None


def default_concepts(model: Model) -> tuple[str, ...]:
    """Return the concepts to use where none are named; for an embedded model some of those it was trained on.

    Concepts that it was never injected with are another population, and would only widen the interval: name them.
    """
    if model.prompts == "full":
        return CONCEPTS
    trained = organisms.concepts("trained")
    return trained[:: len(trained) // len(CONCEPTS)][: len(CONCEPTS)]


def other_concepts(model: Model) -> tuple[str, ...]:
    """Return the concepts that vectors against others are differences to, none of which is a usual one."""
    if model.prompts == "full":
        return OTHERS
    usual = default_concepts(model)
    return tuple(name for name in organisms.concepts("trained") if name not in usual)[: len(OTHERS)]


def random_vectors(config: Common, model: Model, like: Sequence[ConceptVector]) -> dict[str, ConceptVector]:
    """Return `--n-random` random vectors, each with the layers and norms of one concept vector, in turn."""
    from mechint.vectors import extract

    controls: dict[str, ConceptVector] = {}
    for number in range(config.n_random):
        match = like[number % len(like)]
        controls[f"random-{number}"] = extract.random_controls(model, n=1, seed=config.seed + number, like=match)[0]
    return controls


def sweep_placements(window: int | None, available: Sequence[int], n_layers: int) -> list[Placement]:
    """Return every single layer and every window of `window` layers (default: a third of the depth).

    Windows with layers that some vector lacks (`available` has not) are left out. Raises LayerRangeError for a window
    that is longer than the model.
    """
    width = max(2, round(n_layers / 3)) if window is None else window
    check_window(width, n_layers)
    windows = [tuple(range(first, first + width)) for first in range(n_layers - width + 1)]
    single = [Placement("single", (layer,)) for layer in available]
    return single + [Placement("window", layers) for layers in windows if set(layers) <= set(available)]


def check_window(window: int, n_layers: int, option: str = "--window") -> None:
    """Raise LayerRangeError for a window that is longer than the model; `option` is how it was given."""
    if window > n_layers:
        raise LayerRangeError(f"{option} {window}", f"1 to {n_layers} layers", "choose a shorter window")


def common_layers(vectors: Mapping[str, ConceptVector]) -> list[int]:
    """Return the layers for which every vector has one; files from elsewhere may lack some."""
    return sorted(set.intersection(*(set(vector.layers) for vector in vectors.values())))
