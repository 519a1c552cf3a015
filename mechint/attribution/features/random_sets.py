"""Sets of features to hold a chosen set against: as many, drawn at random or matched in how much they are active."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.attribution.features.cases import Case
from mechint.base.errors import UsageError

MassBy = Literal["change", "activation"]
Features = tuple[int, ...]
NEAR = 8  # how many features near in mass a matched one is drawn among
_TRIES = 10


def active_features(case: Case, mask: Bool[Tensor, " pos"]) -> Int[np.ndarray, " features"]:
    """Return the features that are active in either run at the positions of `mask`, ascending."""
    both = case.states.acts[[case.clean, case.injected]][:, mask.to(case.states.acts.device)]
    return np.flatnonzero((both != 0).flatten(0, 1).any(0).cpu().numpy())


def mass(case: Case, mask: Bool[Tensor, " pos"], by: MassBy = "change") -> Float[np.ndarray, " d_sae"]:
    """Return every feature's activation mass at the positions of `mask`, in units of activation.

    "change": the sum over positions of |injected - clean|, which is how much setting the feature from one run's values
    to the other's changes. "activation": the sum over positions of the two runs' mean |activation|.
    """
    if by not in get_args(MassBy):
        raise UsageError(f"mass by {by!r}", ", ".join(get_args(MassBy)), "choose one of these")
    chosen = mask.to(case.states.acts.device)
    clean = case.states.acts[case.clean][chosen].double()
    injected = case.states.acts[case.injected][chosen].double()
    magnitudes = (injected - clean).abs() if by == "change" else (injected.abs() + clean.abs()) / 2
    return np.asarray(torch.sum(magnitudes, dim=0).cpu().numpy())


def random_sets(pool: Int[np.ndarray, " features"], size: int, n: int, rng: np.random.Generator) -> list[Features]:
    """Return up to `n` different sets of `size` features of `pool`, fewer where there are not so many.

    Raises UsageError if the pool has fewer features than that.
    """
    _check(pool, size)
    return _distinct(lambda: tuple(sorted(rng.choice(pool, size, replace=False).tolist())), n)


def matched_sets(
    pool: Int[np.ndarray, " features"],
    chosen: Sequence[int],
    masses: Float[np.ndarray, " d_sae"],
    n: int,
    rng: np.random.Generator,
    near: int = NEAR,
) -> list[Features]:
    """Return up to `n` different sets of features of `pool`, as many as `chosen` and as near to its mass as they come.

    Greedy: the features of `chosen` are replaced one by one, the largest mass first, each by one of the `near` features
    left over whose mass is nearest to its own plus what is still missing from those before it. So the set's mass
    matches where the pool allows it; where `chosen` has more mass than any others, it stays below, and callers report
    both. A single feature has at most `near` different matches. Raises UsageError if the pool is too small.
    """
    _check(pool, len(chosen))
    targets = np.sort(masses[list(chosen)])[::-1]
    first = _nearest(masses[pool], targets[0], near)
    return _distinct(lambda: _matched(pool, targets, masses, rng, near, first), n)


def _nearest(masses: Float[np.ndarray, " remaining"], target: float, near: int) -> Int[np.ndarray, " near"]:
    return np.argsort(np.abs(masses - target), kind="stable")[:near]


def _matched(
    pool: Int[np.ndarray, " features"],
    targets: Float[np.ndarray, " k"],
    masses: Float[np.ndarray, " d_sae"],
    rng: np.random.Generator,
    near: int,
    first: Int[np.ndarray, " near"],
) -> Features:
    """Return one set; `first` are the places of the features for the first target, the same in every set."""
    remaining, features, missing = pool, [], 0.0
    for number, target in enumerate(targets):
        place = rng.choice(_nearest(masses[remaining], target + missing, near) if number else first)
        features.append(int(remaining[place]))
        missing += target - masses[remaining[place]]
        remaining = np.delete(remaining, place)
    return tuple(sorted(features))


def _distinct(draw: Callable[[], Features], n: int) -> list[Features]:
    sets: dict[Features, None] = {}
    for _ in range(n * _TRIES):
        if len(sets) == n:
            break
        sets.setdefault(draw())
    return list(sets)


def _check(pool: Int[np.ndarray, " features"], size: int) -> None:
    if not 0 < size <= len(pool):
        raise UsageError(
            given=f"random sets of {size} features",
            allowed=f"1 to {len(pool)}: as many other features are active in either run",
            advice="ask for smaller sets, or for more positions",
        )
