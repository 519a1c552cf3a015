"""A gallery in a given time: the step at which each analysis is run, what all took, and the rule behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from analyses.gallery.cuts import Cuts, words
from analyses.kit import facts
from analyses.kit.record import as_json
from mechint.base.errors import UsageError
from mechint.base.files import read_json, write_atomically
from mechint.engine.forecast import format_duration

FILE = "budget.json"
# Seconds of analyses as fast as expected that stand beside the measured ones, so that a short one decides nothing.
_PRIOR_SECONDS = 120.0
RULE = (
    "The analysis that is expected to take longest goes one step down, again and again, until all together fit in what "
    "is left of the time; after each, those that have not begun are expected to be as slow as those that are done, and "
    "are cut again where they no longer fit. A step takes vectors, "
    "questions or places of a grid from all conditions of an analysis alike: concepts and random vectors (to 6 and 6, "
    "5 and 4, 4 and 3), control questions of every group (to 2 at the fewest), then strengths, windows, orders, "
    "samples and sweeps, in three rounds."
)


@dataclass(frozen=True)
class Rung:
    """An analysis after some steps: what is cut of it, and how many seconds it is expected to take."""

    cuts: Cuts
    expected_seconds: float


@dataclass(frozen=True)
class Entry:
    """An analysis of a plan: its rungs, the widest first, which of them it is run at, and what it took so far."""

    rungs: tuple[Rung, ...]
    rung: int = 0
    took_seconds: float = 0.0
    finished: bool = False

    @property
    def cuts(self) -> Cuts:
        """What is cut of it."""
        return self.rungs[self.rung].cuts

    @property
    def remaining(self) -> float:
        """The seconds that it is expected to take from now on."""
        return 0.0 if self.finished else max(0.0, self.rungs[self.rung].expected_seconds - self.took_seconds)

    @property
    def may_be_cut(self) -> bool:
        """Whether it has not begun and has a rung below; what an interrupted one has done is of its own rung."""
        return not self.finished and self.took_seconds == 0 and self.rung + 1 < len(self.rungs)


@dataclass(frozen=True)
class Plan:
    """All analyses of a gallery in the order in which they are run, and the time for them (None: as it comes).

    `key` is that of the run whose plan it is (see `Unfinished`), `planning_seconds` what it took to make the plan.
    """

    key: str
    budget_seconds: float | None
    planning_seconds: float
    analyses: Mapping[str, Entry]
    rule: str = field(default=RULE)

    @classmethod
    def read(cls, out: Path, key: str) -> Plan | None:
        """Return the plan that a run with this key has left in a folder; None where there is none."""
        with suppress(UsageError, ValueError):
            plan = facts.read(cls, read_json(out / FILE))
            return plan if plan.key == key else None
        return None

    @property
    def expected_seconds(self) -> float:
        """What is expected of the whole gallery: the time that went, and what remains."""
        return self.spent_seconds + self.slowness * sum(entry.remaining for entry in self.analyses.values())

    @property
    def slowness(self) -> float:
        """How many times as long as expected the finished analyses took, 1 at least: other work may have come."""
        done = [entry for entry in self.analyses.values() if entry.finished]
        took = sum(entry.took_seconds for entry in done)
        expected = sum(entry.rungs[entry.rung].expected_seconds for entry in done)
        return max(1.0, (_PRIOR_SECONDS + took) / (_PRIOR_SECONDS + expected))

    @property
    def spent_seconds(self) -> float:
        """The time that went: the plan's own, and that of analyses."""
        return self.planning_seconds + sum(entry.took_seconds for entry in self.analyses.values())

    @property
    def fits(self) -> bool:
        """Whether the gallery is expected to be done in time."""
        return self.budget_seconds is None or self.expected_seconds <= self.budget_seconds

    def fitted(self) -> Plan:
        """Return the plan with what has not begun cut until all fits, or as far as it can be cut."""
        plan = self
        while not plan.fits:
            open_entries = {name: entry for name, entry in plan.analyses.items() if entry.may_be_cut}
            if not open_entries:
                break
            longest = max(open_entries, key=lambda name: open_entries[name].remaining)
            plan = plan._with(longest, replace(plan.analyses[longest], rung=plan.analyses[longest].rung + 1))
        return plan

    def checked(self) -> Plan:
        """Return the plan; raises UsageError where all that can be cut is cut and it still does not fit."""
        if not self.fits:
            assert self.budget_seconds is not None
            raise UsageError(
                given=f"--budget of {format_duration(self.budget_seconds)}: the gallery needs about "
                f"{format_duration(self.expected_seconds)} at least",
                allowed="as much as all analyses take with the fewest vectors, questions and places",
                advice="give it more, or run single analyses",
            )
        return self

    def after(self, name: str, seconds: float, *, finished: bool) -> Plan:
        """Return the plan after an analysis has run for so long; what has not begun is cut again if need be."""
        entry = self.analyses[name]
        ran = replace(entry, took_seconds=round(entry.took_seconds + seconds, 1), finished=finished)
        return self._with(name, ran).fitted()

    def write(self, out: Path) -> None:
        """Write the plan as `budget.json`."""
        write_atomically(out / FILE, json.dumps(as_json(self), indent=1) + "\n")

    def table(self) -> str:
        """Return a line for each analysis, with what is expected uncut and cut, and a line for all."""
        lines = [_line(name, entry) for name, entry in self.analyses.items()]
        uncut = sum(entry.rungs[0].expected_seconds for entry in self.analyses.values())
        budget = "" if self.budget_seconds is None else f" of {format_duration(self.budget_seconds)}"
        total = f"{'all':18}{format_duration(uncut):>12}{format_duration(self.expected_seconds):>12}{budget}"
        return "\n".join([f"{'':18}{'uncut':>12}{'planned':>12}", *lines, total, ""])

    def note(self) -> str:
        """Return what a reader of the gallery should know: the time, what was cut, and the rule."""
        if self.budget_seconds is None:
            return ""
        whole = [name for name, entry in self.analyses.items() if entry.rung == 0]
        cut = [f"{name} ({words(entry.cuts)})" for name, entry in self.analyses.items() if entry.rung]
        return (
            f"This gallery was made with --budget, in {format_duration(self.spent_seconds)} of "
            f"{format_duration(self.budget_seconds)}. Cut: {'; '.join(cut) or 'nothing'}. "
            f"Not cut: {', '.join(whole) or 'nothing'}. {self.rule}"
        )

    @property
    def rungs(self) -> dict[str, int]:
        """Which of its rungs each analysis is run at."""
        return {name: entry.rung for name, entry in self.analyses.items()}

    def _with(self, name: str, entry: Entry) -> Plan:
        return replace(self, analyses={**self.analyses, name: entry})


def note_in(out: Path) -> str:
    """Return what the plan in a folder says of its gallery; "" where there is none."""
    with suppress(UsageError, ValueError):
        return facts.read(Plan, read_json(out / FILE)).note()
    return ""


def _line(name: str, entry: Entry) -> str:
    uncut = format_duration(entry.rungs[0].expected_seconds)
    planned = format_duration(entry.rungs[entry.rung].expected_seconds)
    return f"{name:18}{uncut:>12}{planned:>12}  {words(entry.cuts)}"
