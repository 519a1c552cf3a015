"""Necessity and sufficiency of the top k features of an order, against random sets of as many.

Necessity: in the injected run they are set to the clean run's values; how much of the shift of logit_diff is lost?
Sufficiency: in the clean run they are set to the injected run's; how much of it is gained? The caches stay as each run
has them: what goes past the features (the SAE's error, blocks above that read the cache) is neither lost nor gained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint.attribution.features.cases import Case, check_cases
from mechint.attribution.features.clamping import Positions, mask_of, set_features, values_of
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.features.random_sets import Features, MassBy, active_features, mass, matched_sets, random_sets
from mechint.base.errors import UsageError
from mechint.base.signatures import Seed, checked

Test = Literal["necessity", "sufficiency"]
Order = Sequence[int] | Callable[[Case], Sequence[int]]
Drawn = tuple[int, str, int, Features]
TESTS: tuple[Test, ...] = ("necessity", "sufficiency")
TOP, RANDOM, MATCHED = "top", "random", "mass-matched"
NO_SHIFT = 0.01  # logits: of a shift smaller than this no fraction is given


@checked
def necessity(
    states: FeatureReading,
    clean: int,
    injected: int,
    order: Sequence[int],
    ks: Sequence[int],
    *,
    positions: Positions = "read",
    n_random: int = 20,
    mass_by: MassBy = "change",
    seed: Seed = 0,
) -> pd.DataFrame:
    """Return the logits lost when the top k of `order` are set to clean in the injected run, and for random sets.

    One row per k, kind ("top", "random", "mass-matched") and draw: logit_diff, effect (logits of the shift that are
    lost; below zero where the shift grows), fraction (effect / logit_diff_shift; NaN for a shift under NO_SHIFT), mass
    (of the set, see `random_sets.mass`); besides conversation, intervention, concept, test, logit_diff_shift.
    Random sets are drawn from the features active in either run, without the top k; sizes that are too large for that
    have rows of kind "top" only, and there are fewer draws than `n_random` where there are not so many different sets.
    k = 0 changes nothing. Raises UsageError for a k beyond the order, and for bad rows, features and positions.
    """
    case = Case(states, clean, injected, states.reading.names[injected])
    return _draws(case, ("necessity",), order, _Settings(tuple(ks), positions, n_random, mass_by, seed))[0]


@checked
def sufficiency(
    states: FeatureReading,
    clean: int,
    injected: int,
    order: Sequence[int],
    ks: Sequence[int],
    *,
    positions: Positions = "read",
    n_random: int = 20,
    mass_by: MassBy = "change",
    seed: Seed = 0,
) -> pd.DataFrame:
    """Return the logits gained when the top k of `order` are set in the clean run as in the injected one.

    As `necessity`, whose random sets it uses; `effect` is what is gained.
    """
    case = Case(states, clean, injected, states.reading.names[injected])
    return _draws(case, ("sufficiency",), order, _Settings(tuple(ks), positions, n_random, mass_by, seed))[0]


@checked
def measure(
    cases: Sequence[Case],
    order: Order,
    ks: Sequence[int],
    *,
    tests: Sequence[Test] = TESTS,
    positions: Positions = "read",
    n_random: int = 20,
    mass_by: MassBy = "change",
    seed: Seed = 0,
) -> pd.DataFrame:
    """Return the tables of `necessity` and `sufficiency` of several cases, one below the other.

    `order` is one for all, or a function that gives each case its own. An order made from the cases themselves flatters
    its top features a little; one made from other concepts or conversations does not.
    """
    check_cases(cases)
    settings = _Settings(tuple(ks), positions, n_random, mass_by, seed)
    ordered = [(case, list(order(case) if callable(order) else order)) for case in cases]
    tables = [table for case, case_order in ordered for table in _draws(case, tests, case_order, settings)]
    return pd.concat(tables, ignore_index=True)


def exchange(
    case: Case, test: Test, sets: Sequence[Sequence[int]], positions: Positions = "read"
) -> tuple[np.ndarray, np.ndarray]:
    """Return logit_diff and effect (logits lost, or gained) of giving one run each set as it is in the other run."""
    row, source = (case.injected, case.clean) if test == "necessity" else (case.clean, case.injected)
    mask = mask_of(case.states, positions)
    diffs = set_features(case.states, row, sets, values_of(case.states, source, mask), mask).numpy()
    clean, injected = case.diffs
    return diffs, (injected - diffs if test == "necessity" else diffs - clean)


@dataclass(frozen=True, eq=False)
class _Settings:
    ks: tuple[int, ...]
    positions: Positions
    n_random: int
    mass_by: MassBy
    seed: int


def _draws(case: Case, tests: Sequence[Test], order: Sequence[int], settings: _Settings) -> list[pd.DataFrame]:
    """Return the table of each test of one case; all are of the same sets."""
    order = list(order)
    _check(case, order, settings)
    masses = mass(case, mask_of(case.states, settings.positions), settings.mass_by)
    drawn = list(_sets(case, order, masses, settings))
    return [_tried(case, test, drawn, masses, settings) for test in tests]


def _tried(
    case: Case, test: Test, drawn: Sequence[Drawn], masses: Float[np.ndarray, " d_sae"], settings: _Settings
) -> pd.DataFrame:
    table = pd.DataFrame([(k, kind, draw) for k, kind, draw, _ in drawn], columns=["k", "kind", "draw"])
    table["mass"] = [float(masses[list(features)].sum()) for *_, features in drawn]
    table["logit_diff"], table["effect"] = exchange(
        case, test, [features for *_, features in drawn], settings.positions
    )
    shift = case.shift
    table["fraction"] = table["effect"] / shift if abs(shift) >= NO_SHIFT else np.nan
    subject = [case.conversation, case.intervention, case.concept, test]
    for place, (name, value) in enumerate(zip(_SUBJECT, subject, strict=True)):
        table.insert(place, name, value)
    table["logit_diff_shift"] = shift
    return table


_SUBJECT = ("conversation", "intervention", "concept", "test")


def _sets(case: Case, order: Sequence[int], masses: np.ndarray, settings: _Settings) -> Iterator[Drawn]:
    """k, kind, draw and features of every set; the same for both tests, as they are drawn from the seed alone."""
    active = active_features(case, mask_of(case.states, settings.positions))
    for k in settings.ks:
        top, rng = tuple(order[:k]), np.random.default_rng((settings.seed, k))
        yield k, TOP, 0, top
        pool = np.setdiff1d(active, top)
        if settings.n_random and 0 < k <= len(pool):
            for draw, features in enumerate(random_sets(pool, k, settings.n_random, rng)):
                yield k, RANDOM, draw, features
            for draw, features in enumerate(matched_sets(pool, top, masses, settings.n_random, rng)):
                yield k, MATCHED, draw, features


def _check(case: Case, order: Sequence[int], settings: _Settings) -> None:
    case.states.dictionary.check_features(order)
    ks = settings.ks
    if not ks or len(set(ks)) != len(ks) or not all(0 <= k <= len(order) for k in ks):
        raise UsageError(
            given=f"ks={list(ks)}",
            allowed=f"different numbers from 0 to {len(order)}, the length of the order",
            advice="give a longer order, or smaller numbers",
        )
    if settings.n_random < 0:
        raise UsageError(f"n_random={settings.n_random}", "0 or more", "20 is usual; 0 leaves random sets out")
