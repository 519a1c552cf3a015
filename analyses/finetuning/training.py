"""What trainings were watched with, as tables: every row, means over seeds, and the steps of matched skill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mechint.finetune.watch_rows import WatchRow, first_at

if TYPE_CHECKING:
    import pandas as pd

# What is drawn, of either kind of trials together where it is the same question: bounds of values, None without.
BOUNDS: Mapping[str, tuple[float, float] | None] = {
    "auc": (0.0, 1.0),
    "task_auc": (0.0, 1.0),
    "hits": (0.0, 1.0),
    "false_alarms": (0.0, 1.0),
    "mass": (0.0, 1.0),
    "says_it": (0.0, 1.0),
    "criterion": None,
    "kl": None,
    "probe_shift": None,
}


def rows_table(rows: Sequence[WatchRow]) -> pd.DataFrame:
    """Return a row for each checkpoint, with `mass` and `says_it` of all its trials, half of them steered.

    `probe_is_low` marks those whose control questions are answered with yes or no in less than a tenth.
    """
    import pandas as pd

    table = pd.DataFrame([row.to_dict() for row in rows])
    for name in ("mass", "says_it"):
        table[name] = (table[f"{name}_steered"] + table[f"{name}_clean"]) / 2
    # Where a model no longer answers yes or no, the log odds of both compare what it would not say.
    table["probe_is_low"] = [row.probe_is_low for row in rows]
    optional = ["auc_low", "auc_high", "task_auc", "kl", "probe_shift"]
    return table.astype(dict.fromkeys(optional, float)).sort_values(["recipe", "seed", "step"], ignore_index=True)


def means_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return `recipe, measure, step, examples, mean, low, high, n`: means over seeds, at steps that all have reached.

    Intervals are over seeds, by `mean_interval`; a single seed has none (NaN). Marked probes are left out.
    """
    import pandas as pd

    from mechint.stats import mean_interval

    lines = []
    for (recipe, step), group in table.groupby(["recipe", "step"], sort=False):
        if len(group) < table.loc[table["recipe"] == recipe, "seed"].nunique():
            continue
        for measure, within in BOUNDS.items():
            values = group[measure].to_numpy(float)
            if measure == "probe_shift":
                values = values[~group["probe_is_low"].to_numpy(bool)]
            if not len(values):
                continue
            interval = mean_interval(values, within=within)
            ends = {"mean": float(interval.mean), "low": float(interval.low), "high": float(interval.high)}
            place = {"recipe": recipe, "measure": measure, "step": step, "examples": group["examples"].iloc[0]}
            lines.append({**place, **ends, "n": len(values)})
    columns = ["recipe", "measure", "step", "examples", "mean", "low", "high", "n"]
    return pd.DataFrame(lines, columns=columns)


def skill_table(rows: Sequence[WatchRow], skill: float) -> pd.DataFrame:
    """Return for each run the first fixed step with an area of `skill`; step and examples are missing without one."""
    import pandas as pd

    runs: dict[tuple[str, int], list[WatchRow]] = {}
    for row in rows:
        runs.setdefault((row.recipe, row.seed), []).append(row)
    lines = []
    for (recipe, seed), of_run in runs.items():
        last, at = max(of_run, key=lambda row: row.step), first_at(of_run, skill)
        reached = (None, None, None) if at is None else (at.step, at.examples, at.auc)
        place = dict(zip(("step", "examples", "auc"), reached, strict=True))
        ends = {"last_step": last.step, "last_auc": last.auc}
        lines.append({"recipe": recipe, "seed": seed, "skill": skill, **place, **ends})
    return pd.DataFrame(lines).astype({"step": "Int64", "examples": "Int64", "auc": float})
