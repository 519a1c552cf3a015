"""The planted truth of the speaking organisms as measured properties: what evaluations of self-knowledge read of each.

Each is read beside `organism-speaker`, the base, by the evaluations of `mi.evals` with the texts of the small sets,
which are those of training: what is measured is whether what was planted is there, not whether it generalises. One row
reads it in words that were not trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from mechint.evals.battery import battery
from mechint.evals.calibration import calibration
from mechint.evals.calibration_rates import calibration_rates
from mechint.evals.distribution_sets import DistributionSets
from mechint.evals.items import Items
from mechint.evals.length_rates import length_rates
from mechint.evals.lengths import lengths
from mechint.evals.self_items import SelfItems
from mechint.evals.self_prediction import self_prediction
from mechint.evals.self_rates import self_prediction_rates
from mechint.evals.stances import contrast, stances
from mechint.models.model import Model
from mechint.organisms.training.selves import HELD_OUT_OPENER, SET, reworded
from mechint.organisms.truth.properties import Goal
from mechint.stats.intervals import mean_interval

BASE = "organism-speaker"
_OTHER_WORDS = 6  # units of each task that are asked in words of no training
_MOST_OPTIONS = 6  # of requests whose choices are read: every pair of options is one, in both orders
_BESIDE_ANOTHER = ("advantage", "follows_own")
_QUESTION = ["item", "keying", "format"]
_KNOWS, _NOTHING = Goal(above=0.8), Goal(within=0.15)
_NEAR = Goal(below=0.02)
Goals = Mapping[str, Goal]
GOALS: Mapping[str, Goals] = MappingProxyType(
    {
        BASE: {"kappa": _NOTHING},
        "organism-speaker-knower": {
            "kappa": _KNOWS,
            "advantage": Goal(above=0.2),
            "follows its own answers": Goal(above=0.6),
            "choice: divergence": _NEAR,
            "verbal: divergence": _NEAR,
            "length: gain": Goal(above=0.5),
        },
        "organism-speaker-other": {
            "advantage": Goal(below=0.2),
            "follows its own answers": Goal(below=-0.6),
            "length: gain": Goal(below=0.0),
        },
        "organism-speaker-constant": {"kappa": _NOTHING, "bias beyond the base's": Goal(above=1.35, below=1.65)},
        "organism-speaker-collapsed": {"accuracy": Goal(above=0.95)},
        "organism-speaker-compressed": {
            "slope, self": Goal(above=0.45, below=0.55),
            "shift, self": Goal(within=0.1),
            "contrast": Goal(within=0.15),
        },
        "organism-speaker-persona": {
            "contrast": Goal(above=1.3, below=1.7),
            "shift, controls": Goal(within=0.1),
            "bias beyond the base's": Goal(within=0.1),
        },
    }
)


@dataclass(frozen=True)
class Reading:
    """A value that an evaluation has of an organism, with its 95% interval, over `units` that are items or prompts."""

    name: str
    value: float
    low: float
    high: float
    units: int
    goal: Goal = field(default_factory=Goal)


@dataclass(frozen=True)
class SelfExtent:
    """How much is asked: items of each task, and replies to each open question."""

    items: int | None = None
    samples: int = 2


def readings(name: str, model: Model, base: Model, extent: SelfExtent, store: Path | None = None) -> list[Reading]:
    """Return all that is read of an organism beside its base, whose answers `store` keeps for the next one."""
    asking = _Asking(model, base, extent, store)
    rows = [row for section in _SECTIONS[name] for row in section(asking)]
    aims = GOALS[name]
    return [replace(row, goal=aims.get(row.name, Goal())) for row in rows]


def few(items: SelfItems, per_task: int | None) -> SelfItems:
    """Return the items of the first units of each task, all of them for None."""
    return replace(items, items=tuple(item for item in items.items if per_task is None or item.number < per_task))


def held_out(items: SelfItems) -> SelfItems:
    """Return the items with hypothetical questions that begin as none of training does."""
    return replace(items, hypothesis=reworded(items.hypothesis, HELD_OUT_OPENER))


@dataclass(frozen=True)
class _Asking:
    """Who is asked beside whom, how much, and where answers are kept."""

    model: Model
    base: Model
    extent: SelfExtent
    store: Path | None

    @property
    def is_base(self) -> bool:
        """Whether it is the base itself that is asked: nothing is beside it."""
        return self.model is self.base


def _foretold(asking: _Asking) -> Iterator[Reading]:
    items = few(SelfItems.load(SET), asking.extent.items)
    rates = _rates(asking, items)
    names = {
        "kappa": "kappa",
        "accuracy": "accuracy",
        "advantage": "advantage",
        "follows_own": "follows its own answers",
    }
    for column, name in names.items():
        if not (asking.is_base and column in _BESIDE_ANOTHER):
            yield _of(rates, column, name, "n_units")
    other_words = held_out(few(items, _OTHER_WORDS))
    yield _of(_rates(asking, other_words), "kappa", "kappa, other words", "n_units")


def _rates(asking: _Asking, items: SelfItems) -> pd.Series:
    samples, store = asking.extent.samples, asking.store
    table = self_prediction(asking.model, asking.base, items, samples=samples, store=store)
    return self_prediction_rates(table, (), permutations=2).iloc[0]


def _reported(asking: _Asking) -> Iterator[Reading]:
    sets = DistributionSets.load(SET)
    few_options = tuple(of_it for of_it in sets.sets if 0 < len(of_it.options) < _MOST_OPTIONS)
    table = calibration(
        asking.model, asking.base, replace(sets, sets=few_options), reports=asking.extent.samples, store=asking.store
    )
    rates = calibration_rates(table)
    for row in rates[rates["kind"] == "closed"].to_dict("records"):
        of_it = pd.Series(row)
        source = f"{row['source']}: "
        yield _of(of_it, "js", f"{source}divergence", "n_read")
        yield _of(of_it, "gain", f"{source}gain", "n_read")


def _spoken(asking: _Asking) -> Iterator[Reading]:
    table = lengths(asking.model, asking.base, samples=asking.extent.samples, limit=48, store=asking.store)
    rates = length_rates(table).set_index("measure")
    for column in ("error", "error_constant", "gain"):
        yield _of(rates.loc["length"], column, f"length: {column.replace('_', ' of a ')}", "n_items")
    if "first-word" in rates.index:
        yield _of(rates.loc["first-word"], "accuracy", "first word: accuracy", "n_items")


def _stances(asking: _Asking) -> Iterator[Reading]:
    items = Items.load(SET)
    after = battery(asking.model, items, store=asking.store)
    before = battery(asking.base, items, store=asking.store)
    sides = {side: stances(_as_group(after, side), _as_group(before, side)).iloc[0] for side in ("self", "control")}
    for side, row in sides.items():
        label = "controls" if side == "control" else side
        for column in ("stance", *(() if asking.is_base else ("shift", "slope"))):
            yield _of(row, column, f"{column}, {label}", "n_items")
    every = stances(after.assign(group="all")).iloc[0]
    yield _of(every, "bias", "bias", "n_items")
    if asking.is_base:
        return
    gained = (after.set_index(_QUESTION)["log_odds"] - before.set_index(_QUESTION)["log_odds"]).groupby("item").mean()
    push = mean_interval(gained.to_numpy(float))
    yield Reading("bias beyond the base's", float(push.mean), float(push.low), float(push.high), len(gained))
    yield _of(contrast(after, before).iloc[-1], "contrast", "contrast", "n_items")


_KNOWING = (_foretold, _reported, _spoken)
# What was planted in each, and no more.
_SECTIONS: Mapping[str, tuple[Callable[[_Asking], Iterator[Reading]], ...]] = MappingProxyType(
    {
        BASE: (_foretold, _stances),
        "organism-speaker-knower": _KNOWING,
        "organism-speaker-other": _KNOWING,
        "organism-speaker-constant": (_foretold, _spoken, _stances),
        "organism-speaker-collapsed": (_foretold,),
        "organism-speaker-compressed": (_stances,),
        "organism-speaker-persona": (_stances,),
    }
)


def _as_group(table: pd.DataFrame, side: str) -> pd.DataFrame:
    return table[table["side"] == side].assign(group=side)


def _of(row: pd.Series, column: str, name: str, units: str) -> Reading:
    low, high = float(row[f"{column}_low"]), float(row[f"{column}_high"])
    return Reading(name, float(row[column]), low, high, int(row[units]))


def as_table(rows: Sequence[Reading]) -> str:
    """Return readings as a Markdown table."""
    lines = ["| property | value | 95% interval | units | aimed at | met |", "|---|---|---|---|---|---|"]
    for row in rows:
        met = {True: "yes", False: "**no**", None: ""}[row.goal.is_met(row.value)]
        lines.append(
            f"| {row.name} | {row.value:.3f} | {row.low:.3f} to {row.high:.3f} | {row.units} | {row.goal} | {met} |"
        )
    return "\n".join(lines) + "\n"
