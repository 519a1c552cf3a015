"""Steering attribution: the write of an injection into each feature x the derivative of logit_diff along it.

Features of the steered turns count too: they act on the answer through the keys and values of the blocks above them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechint.attribution.features.attribution import feature_label, layer_label
from mechint.attribution.features.cases import check_row
from mechint.attribution.features.centring import centred
from mechint.attribution.features.dictionary import Dictionary
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.features.gradients import check_differentiable
from mechint.attribution.features.steered_turns import Steered, unsplit
from mechint.attribution.reading import Reading
from mechint.base.errors import UsageError
from mechint.base.signatures import Count, checked
from mechint.interventions.listing import check_at_least

Path = Literal["gradient", "integrated"]
_COMMON = ("conversation", "intervention", "kind", "component", "layer", "index", "clean", "injected", "attribution")
_STEERING = ("attribution_prefix", "attribution_read", "write", "matter", "write_direct")


@checked
def steering_attribution(
    states: FeatureReading,
    injected: int,
    *,
    method: Path = "integrated",
    steps: Count = 16,
    at: float = 0.0,
    step: float = 0.05,
) -> pd.DataFrame:
    """Return how much of the effect on logit_diff of a row's injection goes through each feature.

    The injection is scaled by s: s = 0 is the clean run, s = 1 the injection as it is. At every position of the whole
    conversation, a feature's attribution is what is written into it x how much it matters, summed over positions:

    - "integrated": along the way from s = 0 to 1, in `steps` parts: what is written in each part x d logit_diff / d
      activation in its middle. Written is then the whole change of the activation, and the sum comes near the shift.
    - "gradient": write is d activation / d s (central difference over s = `at` +- `step`), matter is d logit_diff / d
      activation at s = `at`. The sum is the slope of logit_diff in s. Activations of top-k SAEs jump, so that what is
      written depends on `step`: take the whole way.

    Columns are those of `attribute` (clean and injected: mean activation over the steered positions), then
    attribution_prefix and attribution_read (the parts of prefix and read positions), write and matter (means over the
    steered positions) and write_direct (what is added up to the dictionary's layer, along the feature's encoder
    direction: what would be written if no block came between; NaN for an SAE without such directions). A row of kind
    "error" holds what goes through the SAE's error, rows of kind "injection" what is added above its layer, at each.
    `attrs`: total (sum of all rows), measured (the same from logit_diff itself: its slope, or the shift) and
    logit_diff_shift. Raises UsageError for a row that is no injection, bad numbers, and a quantised model.
    """
    _check(states, injected, method, step, steps)
    steered = Steered.of(states.reading, states.reading.interventions[injected])
    if not steered.terms:
        name = states.reading.names[injected]
        raise UsageError(f"row {injected} ({name})", "a row with an injection", "name the row of an injection")
    spans = [_Span(at - step, at, at + step, 0.5 / step)] if method == "gradient" else _whole_way(steps)
    walk = _Walk.of(states, steered, sorted({0.0, 1.0, *(scale for span in spans for scale in span.scales)}))
    parts = _sum([walk.parts(span) for span in spans])
    table = _table(states, injected, walk, parts)
    table.attrs = {
        "total": float(table["attribution"].sum()),
        "measured": sum(span.weight * (walk.diff(span.stop) - walk.diff(span.start)) for span in spans),
        "logit_diff_shift": walk.diff(1.0) - walk.diff(0.0),
        "method": method,
        **({"at": at, "step": step} if method == "gradient" else {"steps": steps}),
    }
    return table


def encoder_directions(dictionary: Dictionary, features: Sequence[int]) -> Float[Tensor, "features d_model"] | None:
    """Return the directions that features read, in float64 on the CPU, or None for an SAE that has none."""
    weight: Tensor | None = getattr(dictionary.sae, "W_enc", None)
    if weight is None:
        return None
    directions = weight.detach()[:, list(features)].T.cpu().double()
    if dictionary.centred:  # what reads a residual without its mean has none itself
        directions = centred(directions)
    if getattr(dictionary.sae.cfg, "rescale_acts_by_decoder_norm", False):
        directions = directions * dictionary.sae.W_dec.detach()[list(features)].cpu().double().norm(dim=-1)[:, None]
    return directions


@dataclass(frozen=True)
class _Span:
    """Scales `start` to `stop`: the write between them, times `weight`, times the derivative at `middle`."""

    start: float
    middle: float
    stop: float
    weight: float

    @property
    def scales(self) -> tuple[float, float, float]:
        return self.start, self.middle, self.stop


@dataclass(frozen=True, eq=False)
class _Parts:
    """Attributions in logits at each position (`error`: past the features) and, by layer, of later additions."""

    features: Float[Tensor, "pos d_sae"]
    write: Float[Tensor, "pos d_sae"]
    matter: Float[Tensor, "pos d_sae"]
    error: Float[Tensor, " pos"]
    active: Bool[Tensor, " d_sae"]
    later: dict[int, float]


@dataclass(frozen=True, eq=False)
class _Walk:
    """The whole conversation under one injection at several scales: the stream after the dictionary's layer."""

    dictionary: Dictionary
    whole: Reading
    steered: Steered
    scales: list[float]
    streams: Float[Tensor, "scale pos d_model"]
    diffs: list[float]

    @classmethod
    def of(cls, states: FeatureReading, steered: Steered, scales: list[float]) -> _Walk:
        whole, layer, last = unsplit(states.reading), states.dictionary.layer, states.reading.model.n_layers - 1
        streams = steered.streams(whole, scales, [layer, last])
        diffs = whole.logit_diff(streams[last]).tolist()
        return cls(states.dictionary, whole, steered, scales, streams[layer].float(), diffs)

    def stream(self, scale: float) -> Float[Tensor, "pos d_model"]:
        return self.streams[self.scales.index(scale)]

    def acts(self, scale: float) -> Float[Tensor, "pos d_sae"]:
        return self.dictionary.encode(self.stream(scale))

    def diff(self, scale: float) -> float:
        return self.diffs[self.scales.index(scale)]

    def parts(self, span: _Span) -> _Parts:
        """Return the attributions of a span: the write in it x the derivative in its middle."""
        slope, later = self.slopes(span.middle)
        before, after = self.acts(span.start), self.acts(span.stop)
        active = ((before != 0) | (after != 0)).any(0)
        write = (after - before) * span.weight
        moved = (self.stream(span.stop) - self.stream(span.start)) * span.weight
        matter = slope.to(write.device) @ self.dictionary.decoder.T
        features = write * matter
        error = (slope * moved.to(slope.device)).sum(-1).cpu() - features.sum(-1).cpu()
        width = (span.stop - span.start) * span.weight
        return _Parts(features, write, matter, error, active, {layer: value * width for layer, value in later.items()})

    def slopes(self, at: float) -> tuple[Float[Tensor, "pos d_model"], dict[int, float]]:
        """Derivatives of logit_diff in the stream, and in the scale of the additions at each layer above it."""
        layer, stream = self.dictionary.layer, self.stream(at)[None].clone().requires_grad_()
        scales = {
            later_layer: torch.tensor([at], requires_grad=True)
            for later_layer in self.steered.layers
            if later_layer > layer
        }
        with torch.enable_grad():
            edits = {later_layer: self.steered.edit(later_layer, scale) for later_layer, scale in scales.items()}
            diff = self.whole.logit_diffs([0], resid=stream, layer=layer, edits=edits)
            slope, *later = torch.autograd.grad(diff.sum(), [stream, *scales.values()])
        return slope[0], {later_layer: float(value) for later_layer, value in zip(scales, later, strict=True)}


def _whole_way(steps: int) -> list[_Span]:
    return [_Span(step / steps, (step + 0.5) / steps, (step + 1) / steps, 1.0) for step in range(steps)]


def _sum(parts: Sequence[_Parts]) -> _Parts:
    """Return the parts of all spans together: writes are summed, derivatives averaged."""
    features = torch.stack([span_parts.features for span_parts in parts]).sum(0)
    write = torch.stack([span_parts.write for span_parts in parts]).sum(0)
    error = torch.stack([span_parts.error for span_parts in parts]).sum(0)
    matter = torch.stack([span_parts.matter for span_parts in parts]).mean(0)
    active = torch.stack([span_parts.active for span_parts in parts]).any(0)
    later = {layer: sum(span_parts.later[layer] for span_parts in parts) for layer in parts[0].later}
    return _Parts(features, write, matter, error, active, later)


def _table(states: FeatureReading, injected: int, walk: _Walk, parts: _Parts) -> pd.DataFrame:
    dictionary, prefix, touched = states.dictionary, states.reading.rendered.prefix_length, walk.steered.touched
    clean, whole = walk.acts(0.0), walk.acts(1.0)
    active: list[int] = (parts.active | ((clean != 0) | (whole != 0)).any(0)).nonzero()[:, 0].tolist()
    products = parts.features[:, active].cpu().double().numpy()

    def steered_mean(values: Tensor) -> np.ndarray:
        return np.asarray(values[:, active].cpu().double()[touched].mean(0).numpy())

    columns = {
        "clean": steered_mean(clean),
        "injected": steered_mean(whole),
        "attribution": products.sum(0),
        "attribution_prefix": products[:prefix].sum(0),
        "attribution_read": products[prefix:].sum(0),
        "write": steered_mean(parts.write),
        "matter": steered_mean(parts.matter),
        "write_direct": _direct(dictionary, walk.steered, active),
    }
    names = [feature_label(dictionary.layer, feature) for feature in active]
    rows = pd.DataFrame({"kind": "feature", "component": names, "layer": dictionary.layer, "index": active, **columns})
    rows = rows.sort_values("attribution", key=abs, ascending=False, kind="stable")
    table = pd.DataFrame([*rows.to_dict("records"), *_past(dictionary.layer, parts, prefix)])
    table["conversation"], table["intervention"] = states.reading.rendered.label, states.reading.names[injected]
    return table.reindex(columns=[*_COMMON, *_STEERING])


def _past(layer: int, parts: _Parts, prefix: int) -> list[dict[str, str | int | float]]:
    """Return the rows of all that does not go through features."""
    error = parts.error.double()
    entries = [("error", layer, float(error[:prefix].sum()), float(error[prefix:].sum()))]
    entries += [("injection", entry_layer, value, 0.0) for entry_layer, value in parts.later.items()]
    return [
        {
            "kind": kind,
            "component": f"{layer_label(entry_layer)} {kind}",
            "layer": entry_layer,
            "index": -1,
            "attribution": before + read,
            "attribution_prefix": before,
            "attribution_read": read,
        }
        for kind, entry_layer, before, read in entries
    ]


def _direct(dictionary: Dictionary, steered: Steered, features: Sequence[int]) -> np.ndarray:
    """Mean over the steered positions of the additions up to the dictionary's layer, along encoder directions."""
    encoder = encoder_directions(dictionary, features)
    below = [layer for layer in steered.layers if layer <= dictionary.layer]
    if encoder is None or not below:
        return np.full(len(features), np.nan if encoder is None else 0.0)
    added = torch.stack([steered.added(layer) for layer in below]).sum(0)[steered.touched].mean(0)
    return np.asarray((encoder @ added.double()).numpy())


def _check(states: FeatureReading, injected: int, method: str, step: float, steps: int) -> None:
    check_row(states, injected)
    check_differentiable(states.reading.model)
    if method not in get_args(Path):
        raise UsageError(f"method={method!r}", ", ".join(get_args(Path)), "choose one of them")
    if not step > 0:
        raise UsageError(f"step={step}", "a positive number", "use 0.05, a twentieth of the injection's strength")
    check_at_least("steps", steps)
