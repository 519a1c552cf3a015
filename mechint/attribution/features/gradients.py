"""Gradients of logit_diff in all that differs between two runs of one reading: the stream, and the caches above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.attribution.features.feature_reading import FeatureReading
from mechint.base.errors import UsageError
from mechint.models.cache import KVCache
from mechint.models.model import Model

# (fraction of the way from the clean run to the injected one, weight)
Points = Sequence[tuple[float, float]]
CLEAN_END: Points = ((0.0, 1.0),)
INJECTED_END: Points = ((1.0, 1.0),)
_ROWS = 4  # points that are held at once, each with all that its gradient needs


@dataclass(frozen=True, eq=False)
class Gradient:
    """Gradient of logit_diff in the stream after the dictionary's layer and in the caches of the blocks above it.

    `caches` holds keys' and values' gradients (in that order) by layer; it is empty where no prefix is cached.
    """

    resid: Float[Tensor, "pos d_model"]
    caches: dict[int, tuple[Float[Tensor, "heads prefix d_head"], Float[Tensor, "heads prefix d_head_v"]]]

    def times(self, resid: Float[Tensor, "pos d_model"]) -> float:
        """Return the first-order effect of a change of the stream."""
        return _dot(self.resid, resid)


def check_differentiable(model: Model) -> None:
    """Raise UsageError for a model with quantised weights, which hold no numbers that a gradient could be taken at."""
    quantised = {
        str(weight.dtype).removeprefix("torch.")
        for _, weight in model.backend.parameters()
        if not weight.is_floating_point() or weight.element_size() < 2
    }
    if not quantised and bool(getattr(getattr(model.backend, "hf_model", None), "is_quantized", False)):
        quantised = {"a quantised kind"}  # weights of some kinds are no parameters
    if quantised:
        raise UsageError(
            given=f"gradients through {model.name}, whose weights are of {', '.join(sorted(quantised))}",
            allowed="models with weights in float32, bfloat16 or float16",
            advice="measure instead: method='patching' needs no gradient",
        )


def straight_path(steps: int) -> Points:
    """Return the points and weights of Gauss-Legendre quadrature between two runs: exact to degree 2 steps - 1."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return [(float(node + 1) / 2, float(weight) / 2) for node, weight in zip(nodes, weights, strict=True)]


def mean_gradient(states: FeatureReading, clean: int, injected: int, points: Points) -> Gradient:
    """Return the weighted mean of gradients at points of the straight path from one row of `states` to another.

    Stream and caches go along the path together. Raises UsageError for a quantised model.
    """
    check_differentiable(states.reading.model)
    size = min(_ROWS, _ROWS if states.reading.batch_size is None else states.reading.batch_size)
    gradients = [_summed(states, clean, injected, points[at : at + size]) for at in range(0, len(points), size)]
    caches = {
        layer: (
            torch.stack([gradient.caches[layer][0] for gradient in gradients]).sum(0),
            torch.stack([gradient.caches[layer][1] for gradient in gradients]).sum(0),
        )
        for layer in gradients[0].caches
    }
    return Gradient(torch.stack([gradient.resid for gradient in gradients]).sum(0), caches)


def cache_parts(states: FeatureReading, clean: int, injected: int, gradient: Gradient) -> dict[int, float]:
    """Return the first-order effect of the change of each layer's cached prefix, keys and values together."""
    cache = states.reading.cache
    return {
        layer: sum(
            _dot(slope, side[layer][injected].cpu().double() - side[layer][clean].cpu().double())
            for slope, side in zip(slopes, (cache.keys, cache.values), strict=True)
        )
        for layer, slopes in gradient.caches.items()
    }


def _summed(states: FeatureReading, clean: int, injected: int, points: Points) -> Gradient:
    reading, layer, count = states.reading, states.dictionary.layer, len(points)
    fractions = torch.tensor([fraction for fraction, _ in points])
    weights = torch.tensor([weight for _, weight in points])
    above = range(layer + 1, reading.cache.n_layers)

    def between(tensor: Tensor) -> Tensor:
        fraction = fractions.to(tensor).reshape(-1, *[1] * (tensor.ndim - 1))
        return torch.lerp(tensor[clean : clean + 1], tensor[injected : injected + 1], fraction).requires_grad_()

    resid = between(states.resid)
    keys = [between(tensor) for tensor in reading.cache.keys[layer + 1 :]]
    values = [between(tensor) for tensor in reading.cache.values[layer + 1 :]]
    cache = KVCache(
        (*_expanded(reading.cache.keys[: layer + 1], count), *keys),
        (*_expanded(reading.cache.values[: layer + 1], count), *values),
    )
    with torch.enable_grad():
        diffs = reading.logit_diffs(range(count), resid=resid, layer=layer, cache=cache)
        total = (weights.to(diffs) * diffs).sum()
    inputs = [resid, *keys, *values]
    slopes = [slope.float().sum(0) for slope in torch.autograd.grad(total, inputs, materialize_grads=True)]
    pairs = zip(slopes[1 : 1 + len(keys)], slopes[1 + len(keys) :], strict=True)
    return Gradient(slopes[0], dict(zip(above, pairs, strict=True)))


def _expanded(tensors: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return caches of blocks that are not run, which only fill their places, for a batch of `count` rows."""
    return [tensor[:1].expand(count, *tensor.shape[1:]) for tensor in tensors]


def _dot(slope: Tensor, change: Tensor) -> float:
    return float((slope.cpu().double() * change.cpu().double()).sum())
