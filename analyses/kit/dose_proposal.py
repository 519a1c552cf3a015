"""A dose that was found on a model, and what was measured at it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyses.kit.option_types import format_layers

if TYPE_CHECKING:
    from mechint.stats.intervals import Interval


@dataclass(frozen=True)
class Measured:
    """A mean over concepts with its 95% interval; its bounds are None of one concept alone."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Interval, at: tuple[int, ...] = ()) -> Measured:
        """Return what was measured at a place of an array."""
        return cls(_rounded(values.mean[at]), _bound(values.low[at]), _bound(values.high[at]))


@dataclass(frozen=True)
class Proposal:
    """A dose that was found on a model, and what was measured at it on texts that had no part in the choice.

    `works` and `coherent` say whether the rule holds there too; `strengths` are the least and the largest at these
    layers at which it holds (None: at none). `measured` has `specific` (nats), `own_first` (share of concepts whose
    own name rises most), `perplexity` (times the clean one), and of replies under steering the shares that name the
    own concept (`named`), another one (`others_named`), and that repeat themselves (`repeated`), each clean too.
    """

    layers: tuple[int, ...]
    relative_strength: float
    extraction: str
    works: bool
    coherent: bool
    strengths: tuple[float, float] | None
    concepts: tuple[str, ...]
    measured: Mapping[str, Measured]
    rule: str

    @property
    def text(self) -> str:
        """The dose, how vectors are extracted for it, and what was measured at it, for whoever waits."""
        where = f"layers {format_layers(self.layers)}, relative strength {self.relative_strength:g}, {self.extraction}"
        specific, perplexity = self.measured["specific"].mean, self.measured["perplexity"].mean
        effect = (
            f"own names rise by {specific:+.2f} nats above others', perplexity is {perplexity:.2f} times the clean one"
        )
        return f"{where}: {effect} ({self.source})"

    @property
    def source(self) -> str:
        """Who chose the dose, in a few words for captions."""
        if self.works and self.coherent:
            return "calibrated by analyses.dose: the largest at which vectors work and text is coherent"
        if self.coherent:
            return "calibrated by analyses.dose: the largest at which text is coherent, NOT FELT: vectors do not work"
        return "calibrated by analyses.dose: NO coherent text at any strength"


def _bound(value: float) -> float | None:
    return _rounded(value) if math.isfinite(value) else None


def _rounded(value: float) -> float:
    return float(f"{float(value):.4g}")
