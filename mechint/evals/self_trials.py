"""Trials of self-prediction side by side: one model's answers, and what each model foretells of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from mechint.base.files import sha256
from mechint.evals.properties import UNANSWERED
from mechint.stats.agreement import kappa_interval, mode_baseline
from mechint.stats.estimates import Interval
from mechint.stats.information import information
from mechint.stats.intervals import PROBABILITY
from mechint.stats.jackknife import Rows, Statistic, jackknife_interval
from mechint.stats.text_classifier import foretold_from_text

Texts = Shaped[np.ndarray, " trial"]
COMMONEST, TEXT = "commonest", "text"
_KEY = ["task", "property", "item"]
NOTHING = Interval(np.array(np.nan), np.array(np.nan), np.array(np.nan), 0)


@dataclass(frozen=True)
class Foretold:
    """Answers of one model with what each model foretells; `strata` are tasks and properties, `keys` also the item."""

    keys: Texts
    strata: Texts
    units: Texts
    prompts: Texts
    actual: Texts
    predicted: Mapping[str, Texts]
    p_actual: Mapping[str, Float[np.ndarray, " trial"]]
    complied: Mapping[str, Bool[np.ndarray, " trial"]]
    unanswered: int

    def __len__(self) -> int:
        return len(self.actual)

    @property
    def baseline(self) -> float:
        """How often the commonest value of each stratum is right."""
        return mode_baseline(self.actual, strata=self.strata)

    def only(self, rows: Rows) -> Foretold:
        """Return some of the trials."""
        return replace(
            self,
            keys=self.keys[rows],
            strata=self.strata[rows],
            units=self.units[rows],
            prompts=self.prompts[rows],
            actual=self.actual[rows],
            predicted={who: values[rows] for who, values in self.predicted.items()},
            p_actual={who: values[rows] for who, values in self.p_actual.items()},
            complied={who: values[rows] for who, values in self.complied.items()},
        )

    def right(self, who: str) -> float:
        """Return the share that a model has right, NaN for a model that is not there, or no trials."""
        return float((self.predicted[who] == self.actual).mean()) if who in self.predicted and len(self) else np.nan

    def accuracy(self, models: Sequence[str], *, level: float = 0.95) -> Interval:
        """Return the share that the best of some models has right."""
        return self._interval(lambda rows: self._most_right(models, rows), level, PROBABILITY)

    def advantage(self, who: str, others: Sequence[str], *, level: float = 0.95) -> Interval:
        """Return by how much a model is oftener right than the best of others; NaN without any."""
        if not others:
            return NOTHING
        return self._interval(
            lambda rows: self._most_right([who], rows) - self._most_right(others, rows), level, (-1.0, 1.0)
        )

    def best(self, others: Sequence[str]) -> str:
        """Return which of others is right most often, "" without any."""
        return max(others, key=self.right) if others else ""

    def kappa(self, who: str, *, level: float = 0.95) -> Interval:
        """Return the agreement beyond chance of a model's predictions."""
        if not len(self):
            return NOTHING
        return kappa_interval(self.actual, self.predicted[who], [self.units], strata=self.strata, level=level)

    def compliance(self, who: str, *, level: float = 0.95) -> Interval:
        """Return how often a model would say one of the values."""
        return self._interval(lambda rows: float(self.complied[who][rows].mean()), level, PROBABILITY)

    @cached_property
    def from_text(self) -> Texts:
        """What the questions' own texts foretell, within each stratum."""
        labels = np.full(len(self), "", dtype=object)
        for stratum in np.unique(self.strata):
            rows = self.strata == stratum
            labels[rows] = self._text_labels(rows)
        return labels

    @cached_property
    def commonest(self) -> Texts:
        """The commonest value of each stratum."""
        labels = np.full(len(self), "", dtype=object)
        for stratum in np.unique(self.strata):
            rows = self.strata == stratum
            values, counts = np.unique(self.actual[rows].astype(str), return_counts=True)
            labels[rows] = values[counts.argmax()]
        return labels

    def with_references(self) -> Foretold:
        """Return the trials with two more that foretell: the commonest value (COMMONEST), and the text alone (TEXT)."""
        more = {COMMONEST: self.commonest, TEXT: self.from_text}
        return replace(self, predicted={**self.predicted, **more})

    def log_scores(self, who: str) -> dict[str, float]:
        """Return the mean log-probability (nats) of the actual values, and that of their shares in each stratum."""
        if not len(self):
            return {"log_score": np.nan, "log_score_baseline": np.nan}
        frame = pd.DataFrame({"stratum": self.strata, "actual": self.actual})
        alike = frame.groupby(["stratum", "actual"])["actual"].transform("size")
        share = alike / frame.groupby("stratum")["actual"].transform("size")
        with np.errstate(divide="ignore"):
            score = float(np.log(self.p_actual[who]).mean())
        return {"log_score": score, "log_score_baseline": float(np.log(share).mean())}

    def information(self, who: str, permutations: int, seed: int) -> dict[str, float]:
        """Return the information of predictions on values beyond the strata, in bits, and its p by permutation."""
        causes = np.char.add(np.char.add(self.strata.astype(str), "\0"), self.actual.astype(str))
        if len(np.unique(causes)) < 2:
            return {"information": np.nan, "information_p": np.nan}
        labels = np.char.add(np.char.add(self.strata.astype(str), "\0"), self.predicted[who].astype(str))
        one_hot = (labels[:, None] == np.unique(labels)).astype(np.float64)
        of_all = information(one_hot, causes, blocks=self.strata, permutations=permutations, seed=seed)
        return {"information": float(of_all.corrected), "information_p": float(of_all.p_value)}

    def follows(self, who: str, other: Foretold, *, level: float = 0.95) -> tuple[Interval, int]:
        """Return, where another answers otherwise, how much oftener the own value is foretold; and of how many."""
        theirs_by_key = dict(zip(other.keys, other.actual, strict=True))
        expected = np.array([theirs_by_key.get(key, UNANSWERED) for key in self.keys], dtype=object)
        differs = (expected != UNANSWERED) & (expected != self.actual)
        if not differs.any():
            return NOTHING, 0
        trials = self.only(differs)
        gain = (trials.predicted[who] == trials.actual) * 1.0 - (trials.predicted[who] == expected[differs])
        return trials._interval(lambda rows: float(gain[rows].mean()), level, (-1.0, 1.0)), int(differs.sum())

    def _text_labels(self, rows: Rows) -> Shaped[np.ndarray, " chosen"]:
        texts = [str(text) for text in self.prompts[rows]]
        return foretold_from_text(texts, self.actual[rows], self.units[rows])

    def _most_right(self, models: Sequence[str], rows: Rows) -> float:
        return max(float((self.predicted[name][rows] == self.actual[rows]).mean()) for name in models)

    def _interval(self, statistic: Statistic, level: float, within: tuple[float, float]) -> Interval:
        if not len(self):
            return NOTHING
        return jackknife_interval(statistic, [self.units], level=level, within=within)


def foretold(rows: pd.DataFrame, object_model: str) -> Foretold:
    """Return the trials of one model's answers, of those that every model has foretold; others count as unanswered."""
    of_it = rows[rows["object_model"] == object_model]
    models = list(of_it["meta_model"].drop_duplicates())
    wide = of_it.set_index([*_KEY, "meta_model"])[["predicted", "p_actual", "complied"]].unstack("meta_model")
    first = of_it.drop_duplicates(_KEY).set_index(_KEY)
    complete = first.loc[wide.index[wide["predicted"].notna().all(axis=1)]]
    answered = complete[complete["actual"] != UNANSWERED]
    index = answered.index
    wide = wide.loc[index]
    strata = index.get_level_values("task") + "\0" + index.get_level_values("property")
    return Foretold(
        keys=(strata + "\0" + index.get_level_values("item")).to_numpy(dtype=object),
        strata=strata.to_numpy(dtype=object),
        units=answered["unit"].to_numpy(dtype=object),
        prompts=answered["prompt"].to_numpy(dtype=object),
        actual=answered["actual"].to_numpy(dtype=object),
        predicted={name: wide["predicted", name].to_numpy(dtype=object) for name in models},
        p_actual={name: wide["p_actual", name].to_numpy(dtype=np.float64) for name in models},
        complied={name: wide["complied", name].to_numpy(dtype=bool) for name in models},
        unanswered=len(first) - len(answered),
    )


def matched_items(first: Foretold, second: Foretold) -> tuple[Bool[np.ndarray, " first"], Bool[np.ndarray, " second"]]:
    """Return which trials of both to keep so that each stratum has each value as often in both.

    Of more than enough the first are kept in an order drawn by the trials' names (after Binder et al., 2024).
    """
    counts = [_counted(trials) for trials in (first, second)]
    kept = [np.zeros(len(trials), dtype=bool) for trials in (first, second)]
    for value in set(counts[0]) & set(counts[1]):
        number = min(len(of_value[value]) for of_value in counts)
        for flags, of_value in zip(kept, counts, strict=True):
            flags[of_value[value][:number]] = True
    return kept[0], kept[1]


def _counted(trials: Foretold) -> dict[tuple[str, str], list[int]]:
    """Return the places of trials by stratum and value, in an order drawn by their names."""
    places: dict[tuple[str, str], list[int]] = {}
    for place in sorted(range(len(trials)), key=lambda place: sha256(str(trials.keys[place]).encode())):
        places.setdefault((str(trials.strata[place]), str(trials.actual[place])), []).append(place)
    return places
