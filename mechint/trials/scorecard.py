"""Plans carried out: every contrast with its interval, its p corrected for the number of contrasts, and its verdict."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.trials.arms import MISSING, judged_trials, selected
from mechint.trials.contrasts import Difference, described, difference
from mechint.trials.plans import Contrast, Measured, check_names, holm, verdict

COLUMNS = (
    "judge",
    "name",
    "left",
    "right",
    "measure",
    "refusals",
    "cells_matched",
    "cells_dropped",
    "value",
    "low",
    "high",
    "p",
    "p_holm",
    "smallest_p",
    "n_concepts",
    "smallest_effect",
    "verdict",
    "reason",
    "note",
)


@checked
def contrast_table(
    trials: pd.DataFrame,
    outcomes: pd.DataFrame,
    plan: Sequence[Contrast],
    *,
    question: str = "introspection",
    alpha: float = 0.05,
    max_missing: float = MISSING,
) -> pd.DataFrame:
    """Return the contrasts of a plan as a table (`COLUMNS`), for each judge.

    [low, high] is the interval at 1 - alpha over concepts. Holm's correction is over the contrasts of a judge that can
    be tested at all: whether one can is decided by its design alone. Raises UsageError for an empty plan, repeated
    names and what `mechint.trials.contrasts.difference` refuses.
    """
    check_names(plan)
    if not plan:
        raise UsageError(given="a plan without contrasts", allowed="at least one contrast", advice="declare one")
    if not 0 < alpha < 1:
        raise UsageError(given=f"alpha {alpha}", allowed="0 < alpha < 1", advice="use 0.05")
    columns = {column for contrast in plan for group in contrast.groups for column in group}
    columns |= {column for contrast in plan for column in contrast.match}
    table = selected(trials, ("injected", "random"), question, sorted(columns))
    rows: list[dict[str, object]] = []
    for judge in dict.fromkeys(outcomes["judge"]):
        judged = judged_trials(table, outcomes, judge, max_missing=max_missing)
        rows += _rows(judge, [difference(contrast, judged) for contrast in plan], alpha)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(judge: str, differences: Sequence[Difference], alpha: float) -> list[dict[str, object]]:
    p_values = [measured.p_value() for measured in differences]
    testable = [place for place, measured in enumerate(differences) if measured.smallest_p <= alpha]
    corrected = dict(zip(testable, holm([p_values[place] for place in testable]), strict=True))
    return [
        _row(judge, measured, p_values[place], corrected.get(place, float("nan")), alpha)
        for place, measured in enumerate(differences)
    ]


def _row(judge: str, measured: Difference, p: float, p_holm: float, alpha: float) -> dict[str, object]:
    contrast = measured.contrast
    wide, narrow = measured.interval(1 - alpha), measured.interval(1 - 2 * alpha)
    bounds = (float(wide.low), float(wide.high)), (float(narrow.low), float(narrow.high))
    outcome, reason = verdict(contrast, Measured(measured.value, p_holm, measured.smallest_p, *bounds), alpha)
    return {
        "judge": judge,
        "name": contrast.name,
        "left": " + ".join(described(group) for group in contrast.left),
        "right": " + ".join(described(group) for group in contrast.right),
        "measure": contrast.measure,
        "refusals": contrast.refusals,
        "cells_matched": measured.cells_matched,
        "cells_dropped": measured.cells_dropped,
        "value": measured.value,
        "low": bounds[0][0],
        "high": bounds[0][1],
        "p": p,
        "p_holm": p_holm,
        "smallest_p": measured.smallest_p,
        "n_concepts": measured.n_concepts,
        "smallest_effect": contrast.smallest_effect,
        "verdict": outcome,
        "reason": reason,
        "note": measured.note,
    }
