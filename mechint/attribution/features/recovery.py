"""From measured cells to curves: means over concepts with intervals, and top features held against random ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint import stats
from mechint.attribution.features.necessity import TOP
from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.stats import intervals

_CELL = ["test", "k", "kind"]


@checked
def curves(draws: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Return means over concepts of a table of `measure`: one row per test, k and kind.

    Columns: effect, effect_low, effect_high (logits); fraction, fraction_low, fraction_high (mean effect / mean shift,
    so that cases with a small shift do not count more; NaN where the shift's own interval covers zero); excess,
    excess_low, excess_high (logits: mean over concepts of top - mean over random sets) and p of the exact sign-flip
    test that it is above zero in the shift's direction (NaN for kind "top", and without a shift); n, the number of
    concepts; mass.
    Draws are averaged first, then a concept's conversations; random kinds use the concepts that have them for all
    conversations. With fewer than two concepts there are no intervals.
    """
    if missing := sorted({*_CELL, "concept", "effect", "mass", "logit_diff_shift"} - set(draws.columns)):
        raise UsageError(f"a table without {', '.join(missing)}", "tables of `measure`", "do not drop columns")
    effects, masses = _by_concept(draws, "effect"), _by_concept(draws, "mass")
    shifts = _by_concept(draws, "logit_diff_shift")
    rows = []
    for cell in effects.index[effects.notna().any(axis=1)]:
        top = effects.loc[(*cell[:2], TOP)]
        numbers = _summary(effects.loc[cell], shifts.loc[cell], top, level)
        rows.append({**dict(zip(_CELL, cell, strict=True)), **numbers, "mass": float(masses.loc[cell].mean())})
        if cell[-1] == TOP:
            rows[-1] |= dict.fromkeys(("excess", "excess_low", "excess_high", "p"), np.nan)
    return pd.DataFrame(rows)


def direction(shifts: Float[np.ndarray, " units"], level: float = 0.95) -> float:
    """Return +1 or -1, the sign of the mean shift, or NaN where its interval covers zero or there is none."""
    return float(intervals.mean_interval(shifts, level=level).excludes_zero()) or np.nan


def one_sided(differences: Float[np.ndarray, " units"]) -> float:
    """Return the exact p-value that the mean difference is above zero; NaN if any is."""
    return stats.sign_flip_test(differences, alternative="greater") if np.isfinite(differences).all() else np.nan


def _by_concept(draws: pd.DataFrame, value: str) -> pd.DataFrame:
    """Mean of a column by cell and concept, conversations weighing the same however many draws they have."""
    cases = stats.strict_means(draws, [*_CELL, "concept", "conversation", "intervention"], value).reset_index()
    means = stats.unit_means(cases, _CELL, value, "concept")
    counts = cases.groupby([*_CELL, "concept"], sort=False).size().unstack("concept").reindex_like(means)
    whole = counts.xs(TOP, level="kind").reindex(means.index.droplevel("kind")).to_numpy()
    return means.where(counts.to_numpy() == whole)


def _summary(effects: pd.Series, shifts: pd.Series, top: pd.Series, level: float) -> dict[str, float]:
    present = effects.notna().to_numpy()
    effect = effects.to_numpy(np.float64)[present]
    shift = shifts.to_numpy(np.float64)[present]
    excess = top.to_numpy(np.float64)[present] - effect
    summary = dict(_named("fraction", intervals.ratio_interval(effect, shift, level=level)))
    for name, values in (("effect", effect), ("excess", excess)):
        summary |= dict(_named(name, intervals.mean_interval(values, level=level)))
    return summary | {"p": one_sided(direction(shift, level) * excess), "n": int(present.sum())}


def _named(name: str, interval: intervals.Interval) -> Iterator[tuple[str, float]]:
    yield name, float(interval.mean)
    yield f"{name}_low", float(interval.low)
    yield f"{name}_high", float(interval.high)
