"""A cheap screen of a cache: gradients of logit_diff with respect to keys and values, instead of replacing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.attribution.features.gradients import CLEAN_END, INJECTED_END, check_differentiable, straight_path
from mechint.attribution.kv.slices import SIDES, patched
from mechint.attribution.reading import Reading
from mechint.base.errors import UsageError
from mechint.base.signatures import Count, checked
from mechint.interventions.listing import check_at_least
from mechint.models.cache import KVCache

Where = Literal["clean", "injected", "path"]


@checked
def by_gradient(reading: Reading, clean: int, injected: int, *, at: Where = "path", steps: Count = 16) -> pd.DataFrame:
    """Return gradient x (injected - clean) for every cached key and value, summed over its dimensions.

    `at="clean"` is attribution patching (Nanda, 2023): what `insert` would do, were the model linear; `at="injected"`
    is the same for `remove`. `at="path"` takes the mean gradient over the straight line between the two caches, at
    `steps` points (integrated gradients: Sundararajan et al., 2017), whose sum comes to the true shift with many steps.

    Columns: `conversation`, `intervention`, `kind` ("cache"), `component` ("L4 values head 1"), `layer`, `index` (the
    key-value head), `side`, `position`, `clean`, `injected` (NaN: it has no single activation), `attribution` (logits).
    `attrs["total"]` is their sum, to be held against `attrs["logit_diff_shift"]`. Raises UsageError for a quantised
    model.
    """
    _check_differentiable(reading)
    if at not in ("clean", "injected", "path"):
        raise UsageError(f"at={at!r}", "clean, injected, path", "choose one of them")
    check_at_least("steps", steps)
    points = {"clean": CLEAN_END, "injected": INJECTED_END, "path": straight_path(steps)}[at]
    ends = [patched(reading.cache, row, row, [()]) for row in (clean, injected)]
    change = [stop.float() - start.float() for start, stop in zip(_tensors(ends[0]), _tensors(ends[1]), strict=True)]
    mean = [torch.zeros_like(tensor) for tensor in change]
    for place, weight in points:
        for total, gradient in zip(mean, _gradients(reading, ends[0], change, place), strict=True):
            total.add_(gradient, alpha=weight)
    attributions = [
        (gradient * difference).sum(-1)[0].cpu().numpy() for gradient, difference in zip(mean, change, strict=True)
    ]
    before, after = reading.logit_diffs([clean, injected]).tolist()
    return _table(reading, injected, attributions, after - before)


def _check_differentiable(reading: Reading) -> None:
    try:
        check_differentiable(reading.model)
    except UsageError as error:
        advice = "use mi.kv.attribute, which replaces slices of the cache and needs no gradients"
        raise UsageError(error.given, error.allowed, advice) from error


def _tensors(cache: KVCache) -> tuple[Tensor, ...]:
    return (*cache.keys, *cache.values)


def _gradients(reading: Reading, clean: KVCache, change: Sequence[Tensor], place: float) -> list[Tensor]:
    """Return the gradients of logit_diff at a cache between clean and injected, in float32."""
    between = [
        (start.float() + place * difference).to(start.dtype).requires_grad_()
        for start, difference in zip(_tensors(clean), change, strict=True)
    ]
    half = len(between) // 2
    cache = KVCache(tuple(between[:half]), tuple(between[half:]), clean.mask)
    with torch.enable_grad():
        diff = reading.logit_diffs([0], cache=cache).sum()
    return [gradient.float() for gradient in torch.autograd.grad(diff, between, materialize_grads=True)]


def _table(
    reading: Reading, injected: int, attributions: Sequence[Float[np.ndarray, "head pos"]], shift: float
) -> pd.DataFrame:
    half = len(attributions) // 2
    frames = []
    for number, values in enumerate(attributions):
        side, layer = SIDES[number // half], number % half
        heads, positions = np.indices(values.shape)
        head, position = heads.ravel(), positions.ravel()
        labels = np.array([f"L{layer} {side} head {index}" for index in range(len(values))], dtype=object)
        frames.append(
            pd.DataFrame(
                {
                    "component": labels[head],
                    "layer": layer,
                    "index": head,
                    "side": side,
                    "position": position,
                    "clean": np.nan,
                    "injected": np.nan,
                    "attribution": values.ravel(),
                }
            )
        )
    table = pd.concat(frames, ignore_index=True)
    subject = {"conversation": reading.rendered.label, "intervention": reading.names[injected], "kind": "cache"}
    table = table.assign(**subject)[[*subject, *table.columns]]
    table.attrs = {"total": float(table["attribution"].sum()), "logit_diff_shift": shift}
    return table
