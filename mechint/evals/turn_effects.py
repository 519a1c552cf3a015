"""What steering, a stated answer and its being right do to items of several turns, each apart from the others.

Of the two meanings of a stated answer one is right for steered turns, the other for clean ones. `steering` and `stated`
are main effects, `right` is half their interaction: what being right adds, whatever was stated. A stated word primes by
itself; `stated_irrelevant` is what it does as the answer to another question, and `word` what a pair's first word does
whichever way round it is meant. `estimator="published"` compares two cells of the steered ones instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.signatures import checked
from mechint.evals.detection_rates import LEAST_MASS
from mechint.stats.jackknife import Rows, jackknife_interval

Estimator = Literal["ours", "published"]
EFFECTS = (
    "steering",
    "stated",
    "right",
    "stated_irrelevant",
    "stated_above_irrelevant",
    "word",
    "steering_without_turn",
    "turn",
)
_PLACES = ("dose", "layers")  # of steered trials: clean ones are in each of them
_GROUPS = ("recipe", "side", "group", "item", "dose", "layers")
_CELLS = ("detection positive", "detection negative", "irrelevant positive", "irrelevant negative", "none ")
_MEANINGS = ("positive", "negative")
_LEAST_TEXTS = 2  # of each way round, so that one can be left out
_KEY = ["text", "vector", "turn", "meaning", "item", "format"]
Values = Float[np.ndarray, " row"]


@checked
def turn_effects(
    table: pd.DataFrame,
    by: str | Sequence[str] = ("recipe", "side"),
    *,
    estimator: Estimator = "ours",
    level: float = 0.95,
) -> pd.DataFrame:
    """Return one row for each group of items of a table of `multiturn` and effect, in nats of stance.

    A stance is half of the difference of the log odds of both keyings, so that saying yes more is none. `effect`:
    `steering` and `stated` (positive less negative), the main effects in the trained question's cells, each over both
    values of the other; `right`, of a right answer against a wrong one, over both states; `stated_irrelevant`, the
    effect of the same answers to another question, and `stated_above_irrelevant`, how far `stated` is above it; `word`,
    of a pair's first word as against its second, whatever they mean (NaN where each means always the same);
    `steering_without_turn`, with nothing in between; `turn`, of the trained question and answers as against nothing in
    between, clean. Columns `value`, `low`, `high` (over vectors and texts, both drawn), `n_vectors`, `n_texts`,
    `n_items`, `mass`, `warning` where that is below 0.1.

    `estimator="published"`: differences of normalised P(yes) over affirmed items, `right` of the two cells of steered
    trials, `steering` of the cells in which the answer is right, without intervals. Raises UsageError for a table that
    lacks cells, as that of a shard does.
    """
    names = [by] if isinstance(by, str) else list(by)
    if unknown := [name for name in names if name not in _GROUPS]:
        raise UnknownNameError(f"groups by {unknown}", ", ".join(_GROUPS), "name these")
    of_items = [name for name in names if name not in _PLACES]
    groups = table.groupby(of_items, sort=False) if of_items else [((), table)]
    rows = []
    for key, group in groups:
        for more, chosen in _by_place(group, [name for name in names if name in _PLACES]):
            effects = _published(chosen) if estimator == "published" else _ours(chosen, level)
            rows += [{**dict(zip(of_items, key, strict=True)), **more, **effect} for effect in effects]
    return pd.DataFrame(rows)


def _by_place(table: pd.DataFrame, names: Sequence[str]) -> list[tuple[dict[str, object], pd.DataFrame]]:
    """Return the steered trials of each place with all clean ones, which no place tells apart."""
    if not names:
        return [({}, table)]
    clean, steered = table[~table["steered"]], table[table["steered"]]
    groups = steered.groupby(list(names), sort=False)
    return [(dict(zip(names, key, strict=True)), pd.concat([clean, rows])) for key, rows in groups]


def _ours(table: pd.DataFrame, level: float) -> list[dict[str, object]]:
    cells = _cells(table)
    vectors = cells.index.get_level_values("vector").to_numpy(dtype=str)
    texts = cells.index.get_level_values("text").to_numpy(dtype=str)
    is_reversed = table.groupby("text")["reversed"].first().reindex(texts).to_numpy(dtype=bool)
    mass = float(table["mass"].mean())
    counts = {
        "n_vectors": len(set(vectors)),
        "n_texts": len(set(texts)),
        "n_items": table["item"].nunique(),
        "mass": mass,
        "warning": f"mass below {LEAST_MASS:g}" if mass < LEAST_MASS else "",
    }
    rows: list[dict[str, object]] = []
    for name, statistic in _statistics(cells, is_reversed).items():
        interval = jackknife_interval(statistic, [vectors, texts], level=level)
        ends = {"value": float(interval.mean), "low": float(interval.low), "high": float(interval.high)}
        rows.append({"effect": name, **ends, **counts})
    return rows


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each vector and text, and a column for each cell: `steered` or `clean`, turn and meaning."""
    wide = table.set_index([*_KEY, "keying"])["log_odds"].unstack("keying")
    if list(wide.columns) != ["affirmed", "negated"] or wide.isna().to_numpy().any():
        raise _incomplete()
    stance = ((wide["affirmed"] - wide["negated"]) / 2).groupby(["vector", "text", "turn", "meaning"]).mean()
    by_cell = stance.unstack(["turn", "meaning"])
    by_cell.columns = [f"{turn} {meaning}" for turn, meaning in by_cell.columns]
    by_cell = by_cell.reindex(columns=list(_CELLS))
    is_clean = by_cell.index.get_level_values("vector") == ""
    steered = by_cell[~is_clean].add_prefix("steered ")
    clean = by_cell[is_clean].droplevel("vector").add_prefix("clean ")
    both = steered.join(clean, on="text")
    if both.empty or both.isna().to_numpy().any():
        raise _incomplete()
    return both


def _statistics(cells: pd.DataFrame, is_reversed: Shaped[np.ndarray, " row"]) -> Mapping[str, Callable[[Rows], float]]:
    """Return each effect as a function of the rows that are in."""

    def at(state: str, turn: str, meaning: str) -> Values:
        return np.asarray(cells[f"{state} {turn} {meaning}"].to_numpy(dtype=np.float64))

    def stated(turn: str, state: str) -> Values:
        return np.asarray(at(state, turn, "positive") - at(state, turn, "negative"))

    def stated_in_both(turn: str) -> Values:
        return np.asarray((stated(turn, "steered") + stated(turn, "clean")) / 2)

    both = [at("steered", "detection", meaning) - at("clean", "detection", meaning) for meaning in _MEANINGS]
    means = {
        "steering": np.mean(both, axis=0),
        "stated": stated_in_both("detection"),
        "right": (stated("detection", "steered") - stated("detection", "clean")) / 2,
        "stated_irrelevant": stated_in_both("irrelevant"),
        "stated_above_irrelevant": stated_in_both("detection") - stated_in_both("irrelevant"),
        "steering_without_turn": at("steered", "none", "") - at("clean", "none", ""),
        "turn": np.mean([at("clean", "detection", meaning) for meaning in _MEANINGS], axis=0) - at("clean", "none", ""),
    }
    # Where each word means either, an effect of meaning is the mean of both ways round, one of the word half of their
    # difference; texts of one way round may be more than those of the other.
    texts = cells.index.get_level_values("text").to_numpy(dtype=str)
    ways = [~is_reversed, is_reversed]
    if min(len(set(texts[way])) for way in ways) < _LEAST_TEXTS:
        ways = [np.ones_like(is_reversed)]

    def balanced(values: Values) -> Callable[[Rows], float]:
        return lambda rows: float(np.mean([_mean(values, rows & way) for way in ways]))

    statistics = {name: balanced(np.asarray(values)) for name, values in means.items()}
    statistics["word"] = lambda rows: (
        (_mean(means["stated"], rows & ways[0]) - _mean(means["stated"], rows & ways[1])) / 2
        if len(ways) > 1
        else float("nan")
    )
    return {name: statistics[name] for name in EFFECTS}


def _mean(values: Values, rows: Rows) -> float:
    return float(values[rows].mean()) if rows.any() else float("nan")


def _published(table: pd.DataFrame) -> list[dict[str, object]]:
    asked = table[(table["turn"] == "detection") & (table["keying"] == "affirmed")]
    p = (asked["p_yes"] / asked["mass"]).groupby([asked["steered"], asked["meaning"]]).mean()
    if len(p) < 2 * len(_MEANINGS):
        raise _incomplete()
    differences = {
        "right": p[True, "positive"] - p[True, "negative"],
        "steering": p[True, "positive"] - p[False, "negative"],
    }
    return [{"effect": name, "value": float(value)} for name, value in differences.items()]


def _incomplete() -> UsageError:
    return UsageError(
        given="a table without some of its cells",
        allowed="every text, clean and under every vector, with every stated answer and both keyings",
        advice="compute the rest of the table: a shard has only a part of it",
    )
