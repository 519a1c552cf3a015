"""Attribution of the change of logit_diff between two runs to features, the SAE's error and the cached prefix.

At the read positions, two runs differ in the stream after the dictionary's layer (features, and what the SAE leaves
out) and in the keys and values that the blocks above it have cached. All of it is attributed, so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.attribution.features.cases import check_row, clean_row
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.features.gradients import (
    CLEAN_END,
    INJECTED_END,
    Gradient,
    cache_parts,
    mean_gradient,
    straight_path,
)
from mechint.attribution.features.patching import cache_effects, error_effect, feature_effects
from mechint.base.errors import UsageError
from mechint.base.signatures import Count, checked
from mechint.models.capture import EMBED

Method = Literal["gradient", "integrated", "patching"]
Base = Literal["clean", "injected"]


@checked
def attribute(
    states: FeatureReading,
    clean: int,
    injected: int,
    *,
    method: Method = "gradient",
    base: Base = "clean",
    steps: Count = 16,
    features: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Return how much of logit_diff(injected) - logit_diff(clean) each component carries, for two rows of `states`.

    - "gradient": gradient at the `base` run x difference (injected - clean) of activations.
    - "integrated": gradients averaged over `steps` points of the straight path between the runs, stream and caches
      together (integrated gradients; Sundararajan et al., 2017). Their total comes near the whole shift.
    - "patching": measured, by giving the `base` run one component of the other. Needs no gradient, and need not add up.

    One row for each feature that is active in either run (or each of `features`; the others share one row of kind
    "other"), largest first; one for the SAE's error; one for each layer's cached prefix above the dictionary's layer.
    Columns: conversation, intervention, kind, component, layer, index, clean and injected (mean activation over the
    read positions), attribution (summed over them), and clean_at_answer and injected_at_answer. `attrs` holds `total`
    (the sum; for gradients the first-order total, worked out apart), `logit_diff_shift` (what happened) and their
    difference `gap`. Raises UsageError for bad arguments and, unless patching, for a quantised model.
    """
    _check(states, (clean, injected), method, base, steps)
    runs = _Runs(states, clean, injected)
    chosen = runs.active() if features is None else list(features)
    if features is not None:
        states.dictionary.check_features(chosen)
    if method == "patching":
        parts = _measured(runs, base, chosen)
    else:
        parts = _linear(runs, mean_gradient(states, clean, injected, _points(method, base, steps)), chosen)
    table = _table(runs, parts, chosen)
    shift = runs.shift
    settings = {"method": method, "steps": steps} if method == "integrated" else {"method": method, "base": base}
    table.attrs = {"total": parts.total, "logit_diff_shift": shift, "gap": shift - parts.total, **settings}
    return table


@checked
def attribute_all(
    states: FeatureReading,
    injected: Sequence[int] | None = None,
    *,
    clean: int | None = None,
    method: Method = "gradient",
    base: Base = "clean",
    steps: Count = 16,
    features: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Return the tables of `attribute` for several rows (all but `clean` if None), one below the other.

    `clean` is by default the row of `mi.CLEAN`. `attrs` holds `total`, `logit_diff_shift` and `gap` by intervention.
    """
    clean = clean_row(states) if clean is None else clean
    rows = [row for row in range(len(states.resid)) if row != clean] if injected is None else list(injected)
    if not rows:
        raise UsageError("no row but the clean one", "one or more", "read the conversation under an intervention too")
    tables = [attribute(states, clean, row, method=method, base=base, steps=steps, features=features) for row in rows]
    names = [states.reading.names[row] for row in rows]
    attrs = dict(tables[0].attrs)
    for key in ("total", "logit_diff_shift", "gap"):
        attrs[key] = {name: table.attrs[key] for name, table in zip(names, tables, strict=True)}
    for table in tables:
        table.attrs = {}
    joined = pd.concat(tables, ignore_index=True)
    joined.attrs = attrs
    return joined


@checked
def by_position(
    states: FeatureReading,
    clean: int,
    injected: int,
    features: Sequence[int],
    *,
    method: Method = "gradient",
    base: Base = "clean",
    steps: Count = 16,
) -> Float[Tensor, "pos feature"]:
    """Return the attributions of some features at each read position; arguments and errors as of `attribute`.

    Summed over positions they are the features' rows of its table; measured ones ("patching") need not be.
    """
    _check(states, (clean, injected), method, base, steps)
    states.dictionary.check_features(features)
    runs, chosen = _Runs(states, clean, injected), list(features)
    if method != "patching":
        return _slopes(runs, mean_gradient(states, clean, injected, _points(method, base, steps)), chosen).float()
    row, source, sign = runs.ends(base)
    masks = torch.eye(states.resid.shape[1], dtype=torch.bool)
    changed = [feature_effects(states, row, source, [[feature] for feature in chosen], mask) for mask in masks]
    return (sign * torch.stack(changed)).float()


def layer_label(layer: int) -> str:
    """Return the name of a layer in labels of components."""
    return "embed" if layer == EMBED else f"L{layer}"


def feature_label(layer: int, feature: int) -> str:
    """Return the label of a feature of a dictionary at `layer`."""
    return f"{layer_label(layer)} f{feature}"


@dataclass(frozen=True)
class _Runs:
    """Two rows of `states`, and the differences between them."""

    states: FeatureReading
    clean: int
    injected: int

    @property
    def shift(self) -> float:
        """logit_diff(injected) - logit_diff(clean)."""
        return float(self.states.logit_diffs[self.injected]) - float(self.states.logit_diffs[self.clean])

    def ends(self, base: Base) -> tuple[int, int, int]:
        """The row that is changed, the row that gives, and the sign that makes effects parts of the shift."""
        return (self.clean, self.injected, 1) if base == "clean" else (self.injected, self.clean, -1)

    def active(self) -> list[int]:
        """Features that are not zero at some read position of either run."""
        both = self.states.acts[[self.clean, self.injected]]
        features: list[int] = (both != 0).any(0).any(0).nonzero()[:, 0].tolist()
        return features

    def change(self, features: Sequence[int]) -> Float[Tensor, "pos features"]:
        """Injected minus clean activations, in float64."""
        before = self.states.acts[self.clean][:, list(features)].cpu().double()
        after = self.states.acts[self.injected][:, list(features)].cpu().double()
        return after - before


@dataclass(frozen=True)
class _Parts:
    """Attributions in logits; `other` is that of all features that were not asked for, None where all were."""

    features: np.ndarray
    other: float | None
    error: float
    caches: Mapping[int, float]
    total: float


def _points(method: Method, base: Base, steps: int) -> Sequence[tuple[float, float]]:
    if method == "integrated":
        return straight_path(steps)
    return CLEAN_END if base == "clean" else INJECTED_END


def _slopes(runs: _Runs, gradient: Gradient, features: Sequence[int]) -> Float[Tensor, "pos features"]:
    """Activation difference x derivative along the feature's direction, at each position."""
    return runs.change(features) * (gradient.resid.cpu().double() @ _decoder(runs, features).T)


def _decoder(runs: _Runs, features: Sequence[int]) -> Float[Tensor, "features d_model"]:
    return runs.states.dictionary.decoder[list(features)].cpu().double()


def _linear(runs: _Runs, gradient: Gradient, features: Sequence[int]) -> _Parts:
    states, active = runs.states, runs.active()
    resid = states.resid[runs.injected].cpu().double() - states.resid[runs.clean].cpu().double()
    error = gradient.times(resid - runs.change(active) @ _decoder(runs, active))
    caches = cache_parts(states, runs.clean, runs.injected, gradient)
    others = sorted(set(active) - set(features))
    other = float(_slopes(runs, gradient, others).sum()) if others else None
    attributions = _slopes(runs, gradient, features).sum(0).numpy()
    return _Parts(attributions, other, error, caches, gradient.times(resid) + sum(caches.values()))


def _measured(runs: _Runs, base: Base, features: Sequence[int]) -> _Parts:
    states, (row, source, sign) = runs.states, runs.ends(base)
    others = sorted(set(runs.active()) - set(features))
    effects = sign * feature_effects(states, row, source, [*([feature] for feature in features), others])
    attributions, other = effects[:-1].numpy(), float(effects[-1]) if others else None
    error = sign * error_effect(states, row, source)
    caches = {layer: sign * effect for layer, effect in cache_effects(states, row, source).items()}
    return _Parts(
        attributions, other, error, caches, float(attributions.sum()) + (other or 0.0) + error + sum(caches.values())
    )


def _table(runs: _Runs, parts: _Parts, features: Sequence[int]) -> pd.DataFrame:
    states, layer = runs.states, runs.states.dictionary.layer
    order = np.argsort(-np.abs(parts.features), kind="stable")
    chosen = [features[place] for place in order]
    acts = {
        name: states.acts[row][:, chosen].cpu() for name, row in (("clean", runs.clean), ("injected", runs.injected))
    }
    rows = pd.DataFrame(
        {
            "kind": "feature",
            "component": [feature_label(layer, feature) for feature in chosen],
            "layer": layer,
            "index": chosen,
            **{name: values.mean(0).numpy().astype(np.float64) for name, values in acts.items()},
            "attribution": parts.features[order],
            **{f"{name}_at_answer": values[-1].numpy().astype(np.float64) for name, values in acts.items()},
        }
    )
    rest = [("error", f"{layer_label(layer)} error", layer, parts.error)]
    rest += [
        ("cache", f"{layer_label(cache_layer)} cache", cache_layer, value)
        for cache_layer, value in parts.caches.items()
    ]
    if parts.other is not None:
        rest.insert(0, ("other", f"{layer_label(layer)} other features", layer, parts.other))
    tail = pd.DataFrame(rest, columns=["kind", "component", "layer", "attribution"]).assign(index=-1)
    table = pd.concat([rows, tail], ignore_index=True) if chosen else tail.reindex(columns=rows.columns)
    table.insert(0, "conversation", states.reading.rendered.label)
    table.insert(1, "intervention", states.reading.names[runs.injected])
    return table.astype({"clean": float, "injected": float, "clean_at_answer": float, "injected_at_answer": float})


def _check(states: FeatureReading, rows: Sequence[int], method: str, base: str, steps: int) -> None:
    for row in rows:
        check_row(states, row)
    for name, value, allowed in (("method", method, get_args(Method)), ("base", base, get_args(Base))):
        if value not in allowed:
            raise UsageError(f"{name}={value!r}", ", ".join(allowed), "choose one of them")
    if steps < 1:
        raise UsageError(f"steps={steps}", "1 or more", "16 points are enough for most models")
