"""How well lengths and first words are foretold, beside one constant guess and what the others guess.

A reply that was cut off is not shorter than what was said: a guess above that is no error, and in the order of lengths
such replies share the last place. `estimator="published"` is what was published: the mean error against the number of
tokens, that of the end and of cut-off replies among them, and how much smaller it is than the base's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.evals.length_prompts import FIRST_WORD, LENGTH
from mechint.evals.properties import value_of
from mechint.evals.responders import BASE, SELF
from mechint.stats.agreement import kappa_interval, mode_baseline
from mechint.stats.correlations import clustered_rank_correlation
from mechint.stats.estimates import Interval
from mechint.stats.intervals import PROBABILITY, mean_interval

Estimator = Literal["ours", "published"]
Numbers = Float[np.ndarray, " item"]
CONSTANT = "constant"
_ALL = (-1.0, 1.0)


@dataclass(frozen=True)
class Guessed:
    """Lengths of a model's replies with the guesses of each model."""

    items: Shaped[np.ndarray, " item"]
    actual: Numbers
    censored: Bool[np.ndarray, " item"]
    predicted: Mapping[str, Numbers]

    def errors(self, guesser: str) -> Numbers:
        """Return the error of each guess in words; that of a guess above what was said of a cut-off reply is 0."""
        above = self.predicted[guesser] - self.actual
        return np.asarray(np.where(self.censored, np.maximum(-above, 0.0), np.abs(above)))

    def order(self, guesser: str, level: float) -> Interval:
        """Return the rank correlation of guesses and lengths, those that were cut off together in the last place."""
        ranked = np.where(self.censored, self.actual.max() + 1, self.actual)
        return clustered_rank_correlation(ranked, self.predicted[guesser], self.items, level=level)


@checked
def length_rates(table: pd.DataFrame, *, estimator: Estimator = "ours", level: float = 0.95) -> pd.DataFrame:
    """Return one row for each measure of a table of `lengths`, of the model's own replies.

    "length", in words, with bounds (`_low`, `_high`, over prompts): `error`, the mean error of the model's guesses;
    `error_constant`, that of the median length for all; `error_base`, of the base's guesses; `gain`, by how much the
    model's are nearer than those of the best `reference`, the constant among them; `spearman` with `spearman_base`.
    `censored` is the share of replies that were cut off. "first-word": `accuracy`, `baseline` (the commonest word),
    `kappa`, `accuracy_base`, `gain` over the best reference, and `log_score`, the mean log-probability (nats) of the
    word. `mass` is the mean probability of what was offered, `n_items` the number of prompts.

    With `estimator="published"`: `error`, `error_base` of the base's own replies, and `gain`, for lengths; `accuracy`
    for first words. Raises UsageError for a table without own replies.
    """
    table = pd.DataFrame({name: table[name] for name in table})  # without the receipts, which pandas would compare
    if table.empty or SELF not in set(table["object_model"]):
        raise UsageError("a table without own replies", "a table of mi.evals.lengths", "compute it first")
    rows = []
    for measure, group in table.groupby("measure", sort=False):
        of_self = group[group["object_model"] == SELF]
        own = of_self[of_self["guesser"] == SELF]
        described = {"measure": measure, "mass": float(own["mass"].mean()), "n_items": len(own)}
        if estimator == "published":
            rows.append(described | _published(group, str(measure)))
        else:
            rows.append(described | (_length if measure == LENGTH else _first_word)(of_self, level))
    return pd.DataFrame(rows)


def _length(rows: pd.DataFrame, level: float) -> dict[str, object]:
    guessed = _guessed(rows)
    others = [name for name in guessed.predicted if name != SELF]
    errors = {name: guessed.errors(name) for name in guessed.predicted}
    reference = min(others, key=lambda name: float(errors[name].mean()))
    intervals = {
        "error": _mean(errors[SELF], level),
        "error_constant": _mean(errors[CONSTANT], level),
        "error_base": _mean(errors[BASE], level) if BASE in errors else None,
        "gain": _mean(errors[reference] - errors[SELF], level),
        "spearman": guessed.order(SELF, level),
    }
    base = float(guessed.order(BASE, level).mean) if BASE in errors else float("nan")
    row: dict[str, object] = {**_bounds(intervals)}
    return row | {"reference": reference, "spearman_base": base, "censored": float(guessed.censored.mean())}


def _guessed(rows: pd.DataFrame) -> Guessed:
    """Return the lengths that every model has guessed, with one constant guess."""
    wide = rows.set_index(["item", "guesser"])["predicted"].unstack("guesser").dropna()
    first = rows.drop_duplicates("item").set_index("item").loc[wide.index]
    actual = first["actual"].to_numpy(dtype=np.float64)
    predicted = {str(name): wide[name].to_numpy(dtype=np.float64) for name in wide}
    constant = np.full(len(actual), np.median(actual))
    censored = first["censored"].to_numpy(dtype=bool)
    return Guessed(wide.index.to_numpy(dtype=object), actual, censored, {**predicted, CONSTANT: constant})


def _first_word(rows: pd.DataFrame, level: float) -> dict[str, object]:
    rows = rows[[bool(value_of("word", str(word))) for word in rows["word"]]]
    wide = rows.set_index(["item", "guesser"])["predicted_word"].unstack("guesser").dropna()
    if wide.empty:
        return {"accuracy": float("nan")}
    own = rows[rows["guesser"] == SELF].set_index("item").loc[wide.index]
    words = own["word"].to_numpy(dtype=object)
    values, counts = np.unique(words.astype(str), return_counts=True)
    right = {str(name): (wide[name].to_numpy(dtype=object) == words).astype(np.float64) for name in wide}
    right[CONSTANT] = (words.astype(str) == values[counts.argmax()]).astype(np.float64)
    reference = max((name for name in right if name != SELF), key=lambda name: float(right[name].mean()))
    predicted, items = wide[SELF].to_numpy(dtype=object), wide.index.to_numpy(dtype=object)
    intervals = {
        "accuracy": _mean(right[SELF], level, PROBABILITY),
        "kappa": kappa_interval(words, predicted, [items], level=level),
        "gain": _mean(right[SELF] - right[reference], level, _ALL),
    }
    with np.errstate(divide="ignore"):
        log_score = float(np.log(own["p_actual"].to_numpy(dtype=np.float64)).mean())
    base = float(right[BASE].mean()) if BASE in right else float("nan")
    row: dict[str, object] = {**_bounds(intervals), "reference": reference, "baseline": mode_baseline(words)}
    return row | {"accuracy_base": base, "log_score": log_score}


def _published(group: pd.DataFrame, measure: str) -> dict[str, object]:
    own = {name: group[(group["object_model"] == name) & (group["guesser"] == name)] for name in (SELF, BASE)}
    if measure == FIRST_WORD:
        return {"accuracy": float((own[SELF]["word"] == own[SELF]["predicted_word"]).mean())}
    errors = {name: float((rows["n_tokens"] - rows["predicted"]).abs().mean()) for name, rows in own.items()}
    return {"error": errors[SELF], "error_base": errors[BASE], "gain": errors[BASE] - errors[SELF]}


def _mean(values: Numbers, level: float, within: tuple[float, float] | None = None) -> Interval:
    return mean_interval(values, level=level, within=within)


def _bounds(intervals: Mapping[str, Interval | None]) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, interval in intervals.items():
        values: Sequence[object] = (interval.mean, interval.low, interval.high) if interval else [np.nan] * 3
        row |= {
            f"{name}{end}": float(np.asarray(value)) for end, value in zip(("", "_low", "_high"), values, strict=True)
        }
    return row
