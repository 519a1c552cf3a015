"""From cases to what is said of features: means over concepts with intervals, curves, discrimination, verdicts."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from analyses.sae_attribution.cases import Plan
from mechint.attribution.features import discrimination, faithfulness
from mechint.attribution.features import verdict as causes
from mechint.attribution.features.dictionary import Quality
from mechint.base.errors import FeatureWarning
from mechint.stats import intervals

MEASURED = 40  # features whose effect is measured alone, half of them the largest attributions
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200)
FDR = 0.05
_PLACE = ["kind", "component", "layer", "index"]
_INTEGERS = ("layer", "index", "k", "draw", "positions")
_NAMES = {"error": "SAE error", "cache": "cached prefix, later layers", "other": "all other features"}


def split(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the parts of a table by name, each with its own columns."""
    tables = {}
    for name, rows_of_part in rows.groupby("part", sort=False):
        table = rows_of_part.drop(columns="part").dropna(axis=1, how="all").reset_index(drop=True)
        tables[str(name)] = table.astype({column: np.int64 for column in _INTEGERS if column in table})
    return tables


def quality(rows: pd.DataFrame) -> Quality:
    """Return how well the SAE rebuilds the stream: means over cases, positions of all of them."""
    means = rows[["explained", "error", "l0"]].mean()
    return Quality(float(means["explained"]), float(means["error"]), float(means["l0"]), int(rows["positions"].sum()))


def plan(attribution: pd.DataFrame, chosen: Sequence[int] | None, top: int, seed: int) -> Plan:
    """Return what is tested: the features given, or the largest attributions; orders leave the own concept out.

    Besides, the effects of the largest attributions and of as many others, drawn at random, are measured.
    """
    wide = by_unit(attribution[(attribution["kind"] == "feature") & (attribution["series"] == "injected")])
    order = _order(wide)
    half = MEASURED // 2
    others = np.random.default_rng(seed).permutation(order[half:])[:half].tolist()
    candidates = list(chosen) if chosen is not None else order[:top]
    measured = list(dict.fromkeys([*candidates, *order[:half], *others]))
    alone = len(wide.columns) < 2
    orders = {name: _order(wide if alone else wide.drop(columns=name)) for name in wide.columns}
    counts = [count for count in COUNTS if count <= len(order)] or [len(order)]
    return Plan(candidates, measured, orders, counts)


def _order(wide: pd.DataFrame) -> list[int]:
    means = wide.mean(axis=1).abs().sort_values(ascending=False, kind="stable")
    return [int(index) for index in means.index.get_level_values("index")]


def by_unit(rows: pd.DataFrame, value: str = "attribution") -> pd.DataFrame:
    """Return components x vectors, a vector's conversations averaged.

    A feature that has no row in a case is active in neither of its runs: there it carries nothing.
    """
    keys = [rows[name] for name in _PLACE]
    cells = rows.pivot_table(value, keys, ["unit", "conversation"], aggfunc="sum", sort=False, fill_value=0.0)
    return cells.T.groupby(level="unit", sort=False).mean().T


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """All parts of a run and what they come to."""

    parts: Mapping[str, pd.DataFrame]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Measured:
        """Take the rows of a run apart."""
        return cls(split(rows))

    @cached_property
    def concepts(self) -> pd.DataFrame:
        """Attributions under concepts."""
        table = self.parts["attribution"]
        return table[table["series"] == "injected"]

    @cached_property
    def randoms(self) -> pd.DataFrame:
        """Attributions under random vectors; may be empty."""
        table = self.parts["attribution"]
        return table[table["series"] == "random"]

    @cached_property
    def shift(self) -> intervals.Interval:
        """Shift of logit_diff under concepts."""
        return self._over_cases("logit_diff_shift", self.concepts)

    @cached_property
    def random_shift(self) -> intervals.Interval | None:
        """Shift of logit_diff under random vectors."""
        return self._over_cases("logit_diff_shift", self.randoms) if len(self.randoms) else None

    @cached_property
    def total(self) -> intervals.Interval:
        """What attributions sum to under concepts."""
        return self._over_cases("total", self.concepts)

    @cached_property
    def judged(self) -> tuple[pd.DataFrame, list[str]]:
        """Verdicts by candidate, and what is to be said of them; without a second concept there are none."""
        table = self.parts["trials"].assign(concept=lambda rows: rows["unit"])
        if table["concept"].nunique() < 2:
            return pd.DataFrame(columns=["component", "verdict"]), ["One concept: no intervals and no verdicts."]
        table["features"] = [(index,) for index in table["index"]]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FeatureWarning)
            verdicts = causes.judge(table)
        return verdicts.drop(columns="features"), [str(warning.message) for warning in caught]

    @property
    def nothing(self) -> bool:
        """Whether the verdict on every feature is that there is no effect to explain."""
        verdicts = self.judged[0]["verdict"]
        return bool(len(verdicts) and (verdicts == "no effect to explain").all())

    @cached_property
    def components(self) -> pd.DataFrame:
        """One row for each candidate, all other features, the SAE's error, and the caches above; over concepts."""
        candidates = list(dict.fromkeys(self.parts["trials"]["index"]))
        table = self._summed(self.concepts, candidates, "attribution")
        if len(self.randoms):
            table = table.join(self._summed(self.randoms, candidates, "random"))
        table = table.join(self._intervals(self._effects("removed"), "measured")).reset_index()
        acts = self.concepts.groupby("index")[["clean_at_answer", "injected_at_answer"]].sum()
        cases = self.concepts.groupby(["unit", "conversation"]).ngroups
        for run in ("clean", "injected"):  # what is not listed in a case is zero there
            table[run] = table["index"].map(acts[f"{run}_at_answer"] / cases).where(table["kind"] == "feature")
            table[run] = table[run].fillna(0.0).where(table["kind"] == "feature")
        verdicts, _ = self.judged
        extra = [name for name in ("verdict", "d", "d_q", "lost_fraction", "q_lost") if name in verdicts]
        table = table.merge(verdicts[["component", *extra]], on="component", how="left")
        largest = table["attribution"].abs().where(table["kind"] == "feature", -1.0)
        order = largest.sort_values(ascending=False, kind="stable").index
        return table.assign(verdict=table["verdict"].fillna("")).loc[order].reset_index(drop=True)

    @cached_property
    def units(self) -> pd.DataFrame:
        """Attributed and measured, by component and concept: `component, panel, unit, value`."""
        candidates = list(dict.fromkeys(self.parts["trials"]["index"]))
        frames = {"attribution": self._grouped(self.concepts, candidates), "measured": self._effects("removed")}
        by_name = {panel: frame.droplevel(["kind", "layer", "index"]) for panel, frame in frames.items()}
        stacked = [
            frame.rename_axis(columns="unit").stack().rename("value").reset_index().assign(panel=panel)
            for panel, frame in by_name.items()
        ]
        return pd.concat(stacked, ignore_index=True)

    @cached_property
    def single(self) -> pd.DataFrame:
        """Attributed and measured effect (mean of both directions) of single features, with their verdicts, and d."""
        wide = by_unit(self.concepts[self.concepts["kind"] == "feature"])
        measured = (self._effects("removed") + self._effects("added")) / 2
        measured = measured[measured.index.get_level_values("kind") == "feature"]
        attributed = wide.reindex(index=measured.index, columns=measured.columns).fillna(0.0)
        table = self._intervals(attributed, "attribution").join(self._intervals(measured, "measured")).reset_index()
        verdicts = self.judged[0][["component", "verdict"]]
        table = table.merge(verdicts, on="component", how="left")
        tests = self.discrimination[self.discrimination["sets"] == "injected, clean"]
        table = (
            table.merge(tests[["index", "d", "q"]], on="index", how="left") if len(tests) else table.assign(d=np.nan)
        )
        return table.assign(verdict=table["verdict"].fillna(""))

    @cached_property
    def correlation(self) -> intervals.Interval:
        """Rank correlation of attributed and measured, within cases, over concepts."""
        effects = self.parts["single"].assign(measured=lambda rows: (rows["removed"] + rows["added"]) / 2)
        keys = ["conversation", "intervention", "component"]
        table = effects[effects["kind"] == "feature"].merge(self.concepts[[*keys, "attribution"]], on=keys, how="left")
        return faithfulness.rank_correlation(table.fillna({"attribution": 0.0}))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Necessity and sufficiency by number of features."""
        return causes.curves(self.parts["sets"].assign(concept=lambda rows: rows["unit"]))

    @cached_property
    def discrimination(self) -> pd.DataFrame:
        """How well features tell injected from clean runs and, where both are there, detected from missed ones.

        `sets` says which; activations are means over the read positions.
        """
        rows = self.parts["readouts"]
        rows = rows[(rows["readout"] == "read_mean") & (rows["series"] == "injected")]
        detected = rows["logit_diff"] > 0
        both = {"injected, clean": (_acts(rows), _acts(rows, "clean"))}
        if 0 < detected.sum() < len(rows):
            both["detected, missed"] = (_acts(rows[detected]), _acts(rows[~detected]))
        tables = []
        for name, (first, second) in both.items():
            if min(len(first), len(second)) < 2:
                continue
            columns = sorted({*first.columns, *second.columns})
            sides = [side.reindex(columns=columns, fill_value=0.0) for side in (first, second)]
            tables.append(discrimination.discriminate(*sides, paired=name == "injected, clean").assign(sets=name))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["sets", "index", "d", "q"])

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return what is written: attributions by case as `table`, and all else beside it."""
        summaries = {"features": self.components, "curves": self.curves, "verdicts": self.judged[0]}
        raw = {name: table for name, table in self.parts.items() if name not in ("attribution", "quality")}
        return {"table": self.parts["attribution"], **raw, **summaries, "discrimination": self.discrimination}

    def verdict(self) -> dict[str, object]:
        """Return what `run.json` says: the shift and its parts, verdicts by name, how faithful attribution is."""
        verdicts, notes = self.judged
        named = {
            verdict: verdicts.loc[verdicts["verdict"] == verdict, "component"].to_list()
            for verdict in dict.fromkeys(verdicts["verdict"])
        }
        outside = self.components[self.components["kind"] != "feature"]
        return {
            "logit_diff_shift": rounded_interval(self.shift),
            "attributed": rounded_interval(self.total),
            "parts": {
                str(name): _rounded(attribution)
                for name, attribution in zip(outside["component"], outside["attribution"], strict=True)
            },
            "random_vectors": None if self.random_shift is None else rounded_interval(self.random_shift),
            "verdicts": named,
            "notes": notes,
            "rank_correlation": rounded_interval(self.correlation),
        }

    def _over_cases(self, name: str, rows: pd.DataFrame) -> intervals.Interval:
        cases = rows.drop_duplicates(["unit", "conversation"])
        return intervals.mean_interval(cases.groupby("unit", sort=False)[name].mean().to_numpy())

    def _grouped(self, rows: pd.DataFrame, candidates: Sequence[int]) -> pd.DataFrame:
        """Sum all features but candidates, and the caches of all layers."""
        named = rows.assign(
            kind=rows["kind"].mask((rows["kind"] == "feature") & ~rows["index"].isin(candidates), "other")
        )
        outside = named["kind"] != "feature"
        named["component"] = named["component"].mask(outside, named["kind"].map(_NAMES))
        named["index"] = named["index"].mask(outside, -1)
        return by_unit(named.assign(layer=self.concepts["layer"].min()))

    def _summed(self, rows: pd.DataFrame, candidates: Sequence[int], name: str) -> pd.DataFrame:
        return self._intervals(self._grouped(rows, candidates), name)

    def _effects(self, value: str) -> pd.DataFrame:
        rows = self.parts["single"]
        outside = rows["kind"] != "feature"
        named = rows.assign(component=rows["component"].mask(outside, rows["kind"].map(_NAMES)))
        return by_unit(named, value)

    def _intervals(self, wide: pd.DataFrame, name: str) -> pd.DataFrame:
        interval = intervals.mean_interval(wide.to_numpy(dtype=np.float64))
        columns = {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        return pd.DataFrame(columns, index=wide.index)


def rounded_interval(interval: intervals.Interval) -> dict[str, float | int | None]:
    """Return an interval for a record."""
    low, high = _rounded(interval.low), _rounded(interval.high)
    return {"mean": _rounded(interval.mean), "low": low, "high": high, "n": interval.n}


def _rounded(value: np.ndarray | float) -> float | None:
    return None if np.isnan(value) else float(f"{float(value):.4g}")


def _acts(rows: pd.DataFrame, value: str = "acts") -> pd.DataFrame:
    """Return activations as vectors x features, a vector's conversations averaged; what is not listed is zero."""
    cells = rows.pivot_table(value, ["unit", "conversation"], "index", fill_value=0.0, sort=False)
    return cells.groupby(level="unit", sort=False).mean()
