"""Receipts: the changes that an intervention made to a row of the cache, as its hooks counted and measured them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.base import html
from mechint.base.errors import ReceiptError
from mechint.base.files import JSON
from mechint.models.model import Model
from mechint.models.residual_scale import typical_norms

# A token whose norm is so many times the median of its conversation is an outlier.
OUTLIER = 10.0
_SHOWN_OUTLIERS = 5


@dataclass(frozen=True)
class StreamChange:
    """The measured change of one row at one layer in one pass, at each position to which something was added.

    `change` and `before` are the norms of what the stream changed by, and of what it was before.
    """

    firings: int
    positions: Int[Tensor, " touched"]
    change: Float[Tensor, " touched"]
    before: Float[Tensor, " touched"]

    def moved(self, start: int) -> StreamChange:
        """Return the change with `start` added to its positions."""
        return replace(self, positions=self.positions + start)


@dataclass(frozen=True)
class LayerTouch:
    """The change of one row at one layer over all passes, as measured on the activations.

    `positions` counts those where the stream is another after the addition (what is too small for the model's dtype is
    lost in rounding), `firings` how often each was added to: the most, over the positions. `vector_norm` is the mean
    norm of the change, `residual_norm` the median norm of what was there before it, both over the touched positions,
    and `ratio` the first by the second. `unit` is `model.residual_norms` at this layer, the same in every conversation,
    and `dose` is `vector_norm` in it; both are None for a model that has no such unit.
    """

    layer: int
    firings: int
    positions: int
    vector_norm: float
    residual_norm: float
    ratio: float
    unit: float | None = None
    dose: float | None = None

    @classmethod
    def of(cls, layer: int, changes: Sequence[StreamChange], unit: float | None) -> LayerTouch:
        """Return the touch of a layer, from the measured changes of all passes over a row."""
        places = torch.cat([torch.zeros(0, dtype=torch.long), *(of_pass.positions for of_pass in changes)])
        if not len(places):
            return cls(layer, 0, 0, 0.0, 0.0, 0.0, unit, None if unit is None else 0.0)
        firings = torch.cat([torch.full_like(of_pass.positions, of_pass.firings) for of_pass in changes])
        change = torch.cat([of_pass.change for of_pass in changes])
        before = torch.cat([of_pass.before for of_pass in changes])
        added, there = float(change.mean()), float(np.median(before.numpy()))
        return cls(
            layer=layer,
            firings=int(torch.bincount(places, weights=firings.double()).max()),
            positions=len(set(places[change > 0].tolist())),
            vector_norm=added,
            residual_norm=there,
            ratio=added / there if there else math.nan,
            unit=unit,
            dose=None if unit is None else added / unit,
        )


@dataclass(frozen=True)
class OutlierToken:
    """A token whose norm is many times the median of its conversation: `ratio` times, at `layer`, where it is most.

    Norms are of the residual stream before something was added, at the touched positions.
    """

    position: int
    text: str
    layer: int
    ratio: float


@dataclass(frozen=True)
class Receipt:
    """The changes of one prefill to one row of the cache: an injection by layer; a swap by the positions it filled.

    `reach` is the last position that what was done can change, where sliding windows of attention end it; else None.
    `outliers` are the tokens among the touched ones whose norm is more than 10 times the median of all of them.
    Raises ReceiptError for norms that are not finite: the sum, or the stream itself, left what the dtype can hold.
    """

    conversation: str
    intervention: str
    kind: str
    n_pos: int
    positions: tuple[int, ...]
    layers: tuple[LayerTouch, ...]
    row: int = 0
    outliers: tuple[OutlierToken, ...] = ()
    reach: int | None = None

    def __post_init__(self) -> None:
        for touch in self.layers:
            if not math.isfinite(touch.vector_norm) or not math.isfinite(touch.residual_norm):
                raise ReceiptError(
                    given=f"conversation {self.conversation!r}, {self.intervention}: at layer {touch.layer} a vector "
                    f"of norm {touch.vector_norm:.3g} was added to a residual of norm {touch.residual_norm:.3g}",
                    allowed="finite norms: these are beyond what the model's dtype can hold",
                    advice="lower the strength, or load the model with a wider dtype (bfloat16, float32)",
                )

    @property
    def additions(self) -> int:
        """How many (layer, position) pairs of the stream were changed, as counted."""
        return sum(touch.positions for touch in self.layers)

    def to_dict(self) -> dict[str, JSON]:
        """Return the receipt as JSON data, positions as start:stop spans."""
        runs = [list(run) for _, run in groupby(enumerate(self.positions), lambda pair: pair[1] - pair[0])]
        spans: list[JSON] = [f"{run[0][1]}:{run[-1][1] + 1}" for run in runs]
        layers: list[JSON] = [dict(vars(layer)) for layer in self.layers]
        outliers: list[JSON] = [dict(vars(token)) for token in self.outliers]
        return {**vars(self), "positions": spans, "layers": layers, "outliers": outliers}

    def __str__(self) -> str:
        kind = "" if self.kind == self.intervention else f" ({self.kind})"
        facts = [f"{name}: {fact}" for name, fact in self._facts().items()]
        for name, values in self._curves().items():
            facts.append(f"{name}: {_range(values)}")
        return "\n  ".join([f"{self.intervention}{kind}", *facts])

    def _repr_html_(self) -> str:
        rows = {name: escape(fact) for name, fact in self._facts().items()}
        rows |= {name: html.sparkline(values) for name, values in self._curves().items()}
        kind = "" if self.kind == self.intervention else self.kind
        return html.heading(self.intervention, [kind]) + html.table(rows)

    def _facts(self) -> dict[str, str]:
        facts = {
            "filled": f"{self.n_pos} positions of {self.conversation}",
            "touched": f"positions {html.spans(self.positions)}" if self.positions else "nothing",
        }
        if self.layers:
            facts["counted"] = f"{self.additions} additions at {len(self.layers)} layers"
        if self.reach is not None:
            facts["reaches"] = f"position {self.reach} at most, by sliding windows"
        if self.outliers:
            facts["outlier tokens"] = _named(self.outliers)
        return facts

    def _curves(self) -> dict[str, dict[int, float]]:
        """Return the added norm by layer, in units of the conversation's own stream and of the model's."""
        if not self.layers:
            return {}
        curves = {"|added| / median |residual| here": {touch.layer: touch.ratio for touch in self.layers}}
        doses = {touch.layer: touch.dose for touch in self.layers if touch.dose is not None}
        return curves | ({"|added| in the model's unit": doses} if doses else {})


@dataclass(frozen=True)
class Measured:
    """A model and the tokens that it read, which with the measured changes of a row make its receipt.

    `units` are the model's by layer, where they were looked up before: it takes as long as a small pass.
    """

    model: Model
    tokens: Sequence[int]
    units: Sequence[float | None] | None = None

    def receipt(
        self,
        names: tuple[str, str],
        kind: str,
        n_pos: int,
        positions: Iterable[int],
        changes: Mapping[int, Sequence[StreamChange]],
        row: int = 0,
    ) -> Receipt:
        """Return the receipt of a row (by the names of its cell) from its measured changes at each layer."""
        units = self.units if self.units is not None or not changes else typical_norms(self.model)
        touches = tuple(
            LayerTouch.of(layer, changes[layer], None if units is None else units[layer]) for layer in sorted(changes)
        )
        return Receipt(*names, kind, n_pos, tuple(positions), touches, row, self._outliers(changes, touches))

    def _outliers(
        self, changes: Mapping[int, Sequence[StreamChange]], touches: Sequence[LayerTouch]
    ) -> tuple[OutlierToken, ...]:
        most: dict[int, tuple[float, int]] = {}
        for touch in touches:
            limit = OUTLIER * touch.residual_norm
            for of_pass in changes[touch.layer]:
                far = of_pass.before > limit if limit else torch.zeros_like(of_pass.before, dtype=torch.bool)
                for position, norm in zip(of_pass.positions[far].tolist(), of_pass.before[far].tolist(), strict=True):
                    most[position] = max(most.get(position, (0.0, 0)), (norm / touch.residual_norm, touch.layer))
        return tuple(
            OutlierToken(position, str(self.model.tokenizer.decode([self.tokens[position]])), layer, ratio)
            for position, (ratio, layer) in sorted(most.items())
        )


def _named(outliers: Sequence[OutlierToken]) -> str:
    largest = sorted(outliers, key=lambda token: -token.ratio)[:_SHOWN_OUTLIERS]
    texts = [f"{token.text!r} at {token.position} ({token.ratio:.0f}x, layer {token.layer})" for token in largest]
    more = len(outliers) - len(largest)
    return ", ".join(texts) + (f", and {more} more" if more else "")


def _range(values: Mapping[int, float]) -> str:
    low, high = min(values.values()), max(values.values())
    return f"{low:.3g}" + (f" to {high:.3g}" if high > low else "") + f" (layers {html.spans(values)})"
