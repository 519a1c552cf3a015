"""Making the plan of a gallery: what each analysis is expected to take, uncut and after each step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from analyses import WITHOUT_MODEL
from analyses.gallery.budget import Entry, Plan, Rung
from analyses.gallery.costs import Costs
from analyses.gallery.cuts import Cuts, Scope, steps
from analyses.kit.options import Common
from mechint.base.progress import tracked

Arguments = Callable[[Cuts], list[str]]


class Estimate(Protocol):
    """What says how long analyses take, as `Costs` does."""

    def seconds(self, name: str, argv: list[str]) -> float:
        """Return the seconds of an analysis with the options of a command line."""

    def scope(self, name: str, argv: list[str]) -> Scope:
        """Return what the steps of an analysis depend on."""


def planned(config: Common, seconds: int | None, key: str, analyses: Mapping[str, Arguments]) -> Plan:
    """Return the plan of analyses, each with the command line that has some cuts; the model is loaded and timed.

    It is cut until it fits, or as far as it can be.
    """
    begun = time.monotonic()
    costs = Costs(config)
    entries = {
        name: Entry(_rungs(costs, config, name, analyses[name]))
        for name in tracked(list(analyses), "plan", "analysis", shown=True)
    }
    budget = None if seconds is None else float(seconds)
    return Plan(key, budget, round(time.monotonic() - begun, 1), entries).fitted()


def _rungs(costs: Estimate, config: Common, name: str, arguments: Arguments) -> tuple[Rung, ...]:
    """Return the uncut analysis, and it after each step that is expected to make it shorter."""

    def rung(cuts: Cuts) -> Rung:
        return Rung(cuts, round(costs.seconds(name, arguments(cuts)), 1))

    rungs = [rung({})]
    for step in [] if name in WITHOUT_MODEL else steps(name, config, costs.scope(name, arguments({}))):
        lower = rung({**rungs[-1].cuts, **step})
        if lower.expected_seconds < rungs[-1].expected_seconds:
            rungs.append(lower)
    return tuple(rungs)
