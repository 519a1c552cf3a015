"""The calibration table as verdicts and as one figure. Needs no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mechint import figures as draw
from mechint.stats import intervals

if TYPE_CHECKING:
    import plotly.graph_objects as go

_KEYS = ["model", "document", "filled_by", "series"]
VALUE = "logit_diff_shift"
REPORTS, BIAS, NULL, UNDECIDED = "reports", "bias", "null", "undecided"


def verdicts(table: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Return, by reading and kind of vector, the shifts of logit_diff with 95% intervals, and the verdict.

    Columns `detection`, `control`, `net` (their difference) with `_low` and `_high`; bounds are for other vectors
    and questions alike, for a swap for other questions. `verdict` is of `judge`.
    """
    rows = []
    for keys, cells in table[table["series"] != "clean"].groupby(_KEYS, sort=False):
        detection = _grid(cells[cells["kind"] == "introspection"])
        control = _grid(cells[cells["kind"] == "control"])
        shifts = {
            "detection": _interval(detection, None),
            "control": _interval(control, None),
            "net": _interval(detection, control),
        }
        row: dict[str, object] = dict(zip(_KEYS, keys, strict=True))
        for name, interval in shifts.items():
            row |= {
                name: float(interval.mean),
                f"{name}_low": float(interval.low),
                f"{name}_high": float(interval.high),
            }
        row |= {"vectors": len(detection), "questions": detection.shape[1], "controls": control.shape[1]}
        rows.append(row | {"verdict": judge(shifts["detection"], shifts["net"], margin)})
    return pd.DataFrame(rows)


def _grid(cells: pd.DataFrame) -> np.ndarray:
    return np.asarray(cells.pivot(index="intervention", columns="conversation", values=VALUE), dtype=float)


def _interval(values: np.ndarray, minus: np.ndarray | None) -> intervals.Interval:
    """Interval over vectors and questions; with one vector (a swap), over questions alone."""
    if len(values) > 1:
        return intervals.crossed_interval(values, minus)
    if minus is None:
        return intervals.mean_interval(values[0])
    return intervals.difference_interval(values[0], minus[0])


def judge(detection: intervals.Interval, net: intervals.Interval, margin: float) -> str:
    """Return what the instrument reads: `reports`, `bias`, `null`, or `undecided`.

    `reports`: detection minus control lies above the margin with its whole interval. `null`: both it and the detection
    shift itself lie inside the margin; `bias`: only the difference does, since control questions move alike.
    """
    if net.low > margin:
        return REPORTS
    if not _inside(net, margin):
        return UNDECIDED
    return NULL if _inside(detection, margin) else BIAS


def _inside(interval: intervals.Interval, margin: float) -> bool:
    return bool(interval.low > -margin and interval.high < margin)


def figures(readings: pd.DataFrame, margin: float) -> dict[str, go.Figure]:
    """Return the figures by file name."""
    labels = [_label(row) for row in readings.to_dict("records")]
    return {"calibration": draw.calibration(readings.assign(label=labels), margin=margin, title=_title(readings))}


def _label(row: dict[str, object]) -> str:
    if row["filled_by"]:
        return f"{row['model']}, cache filled by {row['filled_by']}"
    return f"{row['model']}" + (", no document" if row["document"] == "none" else "")


def _title(readings: pd.DataFrame) -> str:
    concept = readings[readings["series"] == "injected"].set_index(["model", "document"])["verdict"]
    planted = {("organism", "introspection"): REPORTS, ("organism-blind", "introspection"): NULL}
    planted[("organism-yes-biased", "introspection")] = BIAS
    if all(concept.get(key) == verdict for key, verdict in planted.items()):
        return "The instrument reads a report where one is planted, and zero where zero is planted"
    return "Does the instrument read a report where one is planted, and zero where zero is planted?"
