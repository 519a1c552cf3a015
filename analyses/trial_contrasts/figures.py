"""All figures of a run: those that the data carry, and why there are no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from analyses.trial_contrasts import between, within
from analyses.trial_contrasts.drawing import Drawing, NotDrawn
from analyses.trial_contrasts.scorecard import scorecard

if TYPE_CHECKING:
    from analyses.trial_contrasts.material import Material

FIGURES: Mapping[str, Callable[[Material], Drawing | NotDrawn]] = MappingProxyType(
    {
        "trial_contrasts_scorecard": scorecard,
        "trial_contrasts_categories": within.categories,
        "trial_contrasts_prompts": within.prompts,
        "trial_contrasts_models": between.models,
        "trial_contrasts_steer": within.steer,
        "trial_contrasts_scaling": between.scaling,
    }
)


def figures(material: Material) -> tuple[dict[str, Drawing], dict[str, str]]:
    """Return the figures by name, and for each that cannot be drawn why."""
    results = {name: draw(material) for name, draw in FIGURES.items()}
    drawn = {name: result for name, result in results.items() if isinstance(result, Drawing)}
    return drawn, {name: result.reason for name, result in results.items() if isinstance(result, NotDrawn)}
