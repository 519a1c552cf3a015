"""What the identification table says: right answers, the best late layer, information in bits, and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.identification import INFOS, NONE, PROSE
from analyses.kit import choices
from mechint import stats
from mechint.figures.names import check_names
from mechint.figures.style import layer_position
from mechint.stats.information import information
from mechint.stats.intervals import PROBABILITY

if TYPE_CHECKING:
    from jaxtyping import Float

SERIES = ("injected", "clean", "random")  # in the order of trials, on which permutations depend
# What an answer is to tell, the series of its curve, and the series of the table that are the causes.
CAUSES = (
    ("among", "injected", ("injected",)),
    ("among", "random", ("random",)),
    ("with-none", "injected", ("injected", "clean")),
)


@dataclass(frozen=True)
class Measures:
    """All that figures show; `choice` has a row for each trial and layer, `naming` one for each vector and question.

    Both have `info, series, unit, target, right`; `choice` the probabilities among options, by their names, and
    with the option for none left out, so that detection does not count, `p_among` of the target and `right_among` (NaN
    for clean); `naming` the shifts of the names' log-probabilities, `own` less the others, and `question`: injected
    (asked for it), control (asked something else), prose (nothing is asked, and text is read under active steering).
    """

    choice: pd.DataFrame
    naming: pd.DataFrame
    options: tuple[str, ...]
    seed: int

    @classmethod
    def of(cls, table: pd.DataFrame, concepts: Sequence[str], seed: int) -> Measures:
        """Return the measures of a finished table."""
        options = (*concepts, NONE)
        naming = pd.concat([named(table, concepts), in_prose(table, concepts)], ignore_index=True)
        return cls(choice_trials(table, options), naming, options, seed)

    @property
    def concepts(self) -> tuple[str, ...]:
        """The concepts that were injected."""
        return self.options[:-1]

    @property
    def output(self) -> str:
        """The last layer, whose readout is the output."""
        return str(max(self.choice["layer"].unique(), key=layer_position))

    def best_layer(self, info: str) -> str:
        """Return the layer of the model's second half at which even orders tell concepts apart best."""
        late = [
            layer for layer in self.choice["layer"].unique() if layer_position(layer) > layer_position(self.output) / 2
        ]
        rows = self.choice[(self.choice["info"] == info) & (self.choice["series"] == "injected")]
        means = rows[(rows["order"] % 2 == 0) & rows["layer"].isin(late)].groupby("layer")["p_among"].mean()
        return str(means.idxmax())

    def held_out(self, info: str) -> pd.DataFrame:
        """Return the trials at the best layer, of the odd orders only: no trial has helped to choose it."""
        best = self.best_layer(info)
        rows = self.choice
        return rows[(rows["info"] == info) & (rows["layer"] == best) & (rows["order"] % 2 == 1)]

    def at_output(self, info: str) -> pd.DataFrame:
        """Return the trials at the output."""
        return self.choice[(self.choice["info"] == info) & (self.choice["layer"] == self.output)]

    @cached_property
    def accuracy(self) -> pd.DataFrame:
        """Return panel, row (info), series, mean, low, high over vectors, chance: the share right.

        Panels: `output`, all options; `among` and `best`, that for none left out, at the output and at the best layer
        on other orders; `naming`.
        """
        summary = stats.group_means(self.answered, ["panel", "row", "series"], "value", unit="unit", within=PROBABILITY)
        return summary.assign(chance=summary["panel"].map(self.chance))

    @cached_property
    def answered(self) -> pd.DataFrame:
        """Return the same for every vector: panel, row, series, unit, value."""
        naming = self.naming[self.naming["question"] == "injected"]
        parts = [naming.assign(panel="naming", value=naming["right"])]
        for info in INFOS:
            output, best = self.at_output(info), self.held_out(info)
            parts += [
                output.assign(panel="output", value=output["right"]),
                output.assign(panel="among", value=output["right_among"]),
                best.assign(panel="best", value=best["right_among"]),
            ]
        rows = pd.concat(parts).dropna(subset="value")
        means = stats.strict_means(rows, ["panel", "info", "series", "unit"], "value").reset_index()
        return means.rename(columns={"info": "row"})

    def chance(self, panel: str) -> float:
        """Return how often a guess is right."""
        return 1 / len(self.options if panel == "output" else self.concepts)

    def by_layer(self) -> pd.DataFrame:
        """Return info, series, layer, mean, low, high: the share right by readout layer."""
        return stats.group_means(self.choice, ["info", "series", "layer"], "right", unit="unit", within=PROBABILITY)

    @cached_property
    def bits(self) -> pd.DataFrame:
        """Return info, causes (`among`, `with-none`), series, layer, mean, low, high, p_value: information in bits.

        The answer to `among` is that among the concepts, so that detection tells nothing; to `with-none`, among all
        options. Series: `injected` and `random` are corrected. Random vectors have no name to tell, but may move
        answers all the same. `plug_in` and `null` (permuted within each order: mean, and as `high` its 95% quantile)
        are of concepts.
        """
        parts = [
            self._bits(info, causes, series, cause_series).assign(info=info, causes=causes)
            for info in INFOS
            for causes, series, cause_series in CAUSES
        ]
        table = pd.concat(parts, ignore_index=True)
        return table.assign(low=table["mean"].where(table["high"].notna()))

    def _bits(self, info: str, causes: str, series: str, cause_series: Sequence[str]) -> pd.DataFrame:
        rows = self.choice[(self.choice["info"] == info) & self.choice["series"].isin(cause_series)]
        if rows["unit"].nunique() < 2:
            return pd.DataFrame()
        layers, answers = self._cube(rows, self.concepts if causes == "among" else self.options)
        trials = rows[rows["layer"] == layers[0]]
        vectors, blocks = trials["unit"].to_numpy(dtype=str), trials["order"].to_numpy()
        estimate = information(answers, vectors, blocks=blocks, seed=self.seed)
        unknown = np.full(len(layers), np.nan)
        curves = {series: (estimate.corrected, unknown)}
        if series == "injected":
            curves |= {
                "plug_in": (estimate.plug_in, unknown),
                "null": (estimate.plug_in - estimate.corrected, estimate.null_95),
            }
        parts = [
            pd.DataFrame({"series": name, "layer": layers, "mean": mean, "high": high, "p_value": estimate.p_value})
            for name, (mean, high) in curves.items()
        ]
        return pd.concat(parts)

    @staticmethod
    def _cube(rows: pd.DataFrame, options: Sequence[str]) -> tuple[list[str], Float[np.ndarray, "layer trial option"]]:
        """Return the probabilities among some options, by layer; trials come in the same order at each."""
        layers = list(dict.fromkeys(rows["layer"]))
        chances = np.stack([rows.loc[rows["layer"] == layer, list(options)].to_numpy() for layer in layers])
        return layers, chances / chances.sum(axis=-1, keepdims=True)

    def own_names(self) -> pd.DataFrame:
        """Return info, question, series, mean, low, high: own name less the others, over vectors."""
        return stats.group_means(self.naming, ["info", "question", "series"], "own", unit="unit")

    def verdict(self) -> dict[str, object]:
        """Return accuracies, information at the output and own names for the record of the run."""
        bits = self.bits
        at_output = bits[(bits["layer"] == self.output) & bits["series"].isin(["injected", "random"])]
        best = {info: self.best_layer(info) for info in INFOS}
        tables = {"accuracy": self.accuracy, "bits": at_output, "own_names": self.own_names()}
        return {"best_layer": best, **{name: table.to_dict("records") for name, table in tables.items()}}


def choice_trials(table: pd.DataFrame, options: Sequence[str]) -> pd.DataFrame:
    """Return the trials of the choice, by layer, order and vector, with probabilities among options."""
    rows = table[table["task"] == "choice"]
    check_names(rows["series"], SERIES, "series")
    place = rows["series"].map(SERIES.index)
    rows = rows.assign(place=place).sort_values(["info", "order", "place", "unit"], kind="stable")
    chances = choices.among_options(rows, options)
    truth = np.array([options.index(target) for target in rows["target"]], dtype=np.int64)
    labels = rows[["info", "order", "layer", "unit", "series", "target"]]
    clean, concepts = (truth == len(options) - 1), chances[:, :-1]
    concept_index = np.where(clean, 0, truth)  # of clean rows, whose values are NaN, any
    return labels.assign(
        right=choices.right(chances, truth),
        right_among=np.where(clean, np.nan, choices.right(concepts, concept_index)),
        p_among=np.where(clean, np.nan, concepts[np.arange(len(concept_index)), concept_index] / concepts.sum(axis=1)),
        **{option: chances[:, at] for at, option in enumerate(options)},
    )


def named(table: pd.DataFrame, concepts: Sequence[str]) -> pd.DataFrame:
    """Return each vector's shifts of the names' log-probabilities against clean: one row for each question."""
    rows = table[table["task"] == "naming"]
    check_names(rows["series"], SERIES, "series")
    keys = ["info", "question", "conversation", "series", "unit", "target"]
    log_p = rows.groupby([*keys, "name"], sort=False)["log_p"].sum(min_count=1).unstack("name")[list(concepts)]
    return _shifts(log_p.reset_index(), concepts)


def in_prose(table: pd.DataFrame, concepts: Sequence[str]) -> pd.DataFrame:
    """Return the same shifts in prose that is read under active steering: one row for each vector and text."""
    rows = table[table["task"] == PROSE].assign(info=INFOS[0], question=PROSE)
    return _shifts(rows.rename(columns={f"log_p_{concept}": concept for concept in concepts}), concepts)


def _shifts(log_p: pd.DataFrame, concepts: Sequence[str]) -> pd.DataFrame:
    """Return shifts against the clean row of the same conversation, from log-probabilities by concept."""
    clean = log_p[log_p["series"] == "clean"].set_index("conversation")[list(concepts)]
    moved = log_p[log_p["series"] != "clean"].reset_index(drop=True)
    shift = moved[list(concepts)].to_numpy() - clean.loc[moved["conversation"]].to_numpy()
    truth = np.array([list(concepts).index(target) for target in moved["target"]], dtype=np.int64)
    own_shift = shift[np.arange(len(truth)), truth]
    others = (shift.sum(axis=1) - own_shift) / (len(concepts) - 1)
    labels = moved[["info", "question", "conversation", "series", "unit", "target"]]
    return labels.assign(
        right=choices.right(shift, truth),
        own=own_shift - others,
        **{concept: shift[:, at] for at, concept in enumerate(concepts)},
    )
