"""Activation patching: effects on logit_diff of giving one run another's features, SAE error or cached layers.

Nothing is approximated and no gradient is needed: each effect is one more reading of the conversation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechint.attribution.features.clamping import mask_of, set_features
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.models.cache import KVCache


def feature_effects(
    states: FeatureReading,
    row: int,
    source: int,
    sets: Sequence[Sequence[int]],
    positions: Bool[Tensor, " pos"] | None = None,
) -> Float[Tensor, " set"]:
    """Return how logit_diff of a row changes when each set of features is given its activations in row `source`.

    Every read position (or those where `positions` is True) gets its own activation. What changes nothing has exactly
    no effect. Raises UsageError for rows and features out of range.
    """
    for features in sets:
        if len(features):
            states.dictionary.check_features(features)
    mask = mask_of(states, "read" if positions is None else positions)
    return set_features(states, row, sets, states.acts[source], mask) - float(states.logit_diffs[row])


def stream_effect(states: FeatureReading, row: int, source: int) -> float:
    """Return how logit_diff of a row changes when it is given the whole stream of row `source`, but not its caches."""
    return _effect(states, row, states.resid[source], states.reading.cache, row)


def error_effect(states: FeatureReading, row: int, source: int) -> float:
    """Return how logit_diff of a row changes when it is given the SAE's error of row `source`."""
    rest = states.rest
    return _effect(states, row, states.resid[row] + (rest[source] - rest[row]), states.reading.cache, row)


def cache_effects(states: FeatureReading, row: int, source: int) -> dict[int, float]:
    """Return, by layer, how logit_diff of a row changes when it is given that layer's cached prefix of row `source`."""
    cache = states.reading.cache
    effects = {}
    for layer in range(states.dictionary.layer + 1, cache.n_layers):
        rows = [source if other == layer else row for other in range(cache.n_layers)]
        keys = tuple(tensor[at : at + 1] for at, tensor in zip(rows, cache.keys, strict=True))
        values = tuple(tensor[at : at + 1] for at, tensor in zip(rows, cache.values, strict=True))
        effects[layer] = _effect(states, row, states.resid[row], KVCache(keys, values), 0)
    return effects


@torch.no_grad()
def _effect(states: FeatureReading, row: int, stream: Tensor, cache: KVCache, cache_row: int) -> float:
    layer = states.dictionary.layer
    diff = states.reading.logit_diffs([cache_row], resid=stream[None], layer=layer, cache=cache)
    return float(diff[0]) - float(states.logit_diffs[row])
