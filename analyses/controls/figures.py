"""The controls table as figures: shifts by group with outliers, the two-by-two table, and bias against noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.kit import shifts
from mechint import figures as draw
from mechint import stats
from mechint.figures import Panel
from mechint.figures.names import check_names
from mechint.figures.style import CONTROL_GROUPS, METRICS, MINUS, SERIES
from mechint.figures.words import bounded, signed
from mechint.stats import intervals
from mechint.stats.intervals import PROBABILITY

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ROW_LABELS = {"introspection": "introspection question", **{group: SERIES[group].label for group in CONTROL_GROUPS}}
_LOOKS = {name: SERIES[name] for name in ("clean", "injected", "random")}
_NO, _YES = ("no", "confusing-no"), ("yes",)
# A question is named if it lies this many times the usual distance from its group's median, and this share of the
# panel's width.
_OUTLYING, _VISIBLE = 3.0, 0.08
_SHOWN_LETTERS = 46


def figures(table: pd.DataFrame, subject: str) -> dict[str, go.Figure]:
    """Return the figures by file name."""
    rows = _prepared(table)
    caption = f"{subject}. {shifts.counts(table)}"
    drawn = {"controls_groups": groups(rows, caption), "controls_score": score(rows, caption)}
    if {"no", "yes"} <= set(rows["row"]):
        drawn["controls_bias_or_noise"] = bias_or_noise(rows, verdict(table), caption)
    return drawn


def _prepared(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the group as `row` (`introspection` too) and the change of entropy against the clean cell."""
    check_names(table["series"], _LOOKS, "series")
    clean = table[table["series"] == "clean"].set_index("conversation")["entropy"]
    row = table["group"].where(table["kind"] == "control", "introspection")
    present = [name for name in _ROW_LABELS if (row == name).any()]
    return table.assign(
        row=pd.Categorical(row, present, ordered=True),
        entropy_shift=table["entropy"] - table["conversation"].map(clean),
    ).sort_values("row", kind="stable")


def groups(rows: pd.DataFrame, caption: str) -> go.Figure:
    """Return shifts of logit_diff and of entropy by group; small dots are questions, and outliers are named."""
    moved = rows[rows["series"] != "clean"]
    panels = [
        Panel("logit_diff_shift", "Which way do answers move?", f"shift of {METRICS['logit_diff']}, natural units"),
        Panel("entropy_shift", "Do they become less certain?", "shift of the next token's entropy, nats"),
    ]
    summary = _summary(moved, [panel.key for panel in panels])
    by_question = pd.concat([_questions(moved, panel.key, summary) for panel in panels], ignore_index=True)
    return draw.dots(
        _spelled(summary),
        _spelled(by_question),
        panels,
        _LOOKS,
        title=_groups_finding(summary),
        subtitle=f"{caption}. Large: mean over vectors with its 95% interval; small: single questions, named "
        "where they lie far outside of their group.",
    )


def _summary(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    parts = [
        stats.group_means(rows.astype({"row": str}), ["row", "series"], column, unit="unit").assign(panel=column)
        for column in columns
    ]
    return pd.concat(parts, ignore_index=True)


def _questions(rows: pd.DataFrame, column: str, summary: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of every question over vectors and formats, named where it is an outlier of its group."""
    values = stats.strict_means(rows.astype({"row": str}), ["row", "series", "question"], column).reset_index(
        name="value"
    )
    values = values[values["row"] != "introspection"].rename(columns={"question": "unit"}).assign(panel=column)
    intervals = summary.loc[summary["panel"] == column, ["low", "high"]]
    extent = pd.concat([values["value"], intervals["low"], intervals["high"]])
    room = float(extent.max() - extent.min())
    concepts = values[values["series"] == "injected"]
    named = concepts[concepts.groupby("row", sort=False)["value"].transform(_outlying, visible=_VISIBLE * room)]
    return values.assign(label=named["unit"].str.slice(0, _SHOWN_LETTERS)).fillna({"label": ""})


def _outlying(values: pd.Series, visible: float) -> pd.Series:
    """Return which value lies furthest outside of a group, if it lies far."""
    distance = (values - values.median()).abs()
    far = (distance > _OUTLYING * distance.median()) & (distance > visible)
    return far & (distance == distance.max())


def _spelled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(row=frame["row"].map(_ROW_LABELS))


def _groups_finding(summary: pd.DataFrame) -> str:
    """Say how far answers move, with intervals: a shift that may be none shows by them."""
    is_shift = (summary["panel"] == "logit_diff_shift") & (summary["series"] == "injected")
    shift = summary[is_shift].set_index("row")[["mean", "low", "high"]]
    controls = shift.drop("introspection", errors="ignore")
    furthest = controls["mean"].abs().idxmax()
    most = f"{bounded(*controls.loc[furthest])} at most ({_ROW_LABELS[furthest]})"
    if "introspection" not in shift.index:
        return f"Control questions move by {most}"
    return (
        f"An injected concept moves the introspection answer by {bounded(*shift.loc['introspection'])}, "
        f"control answers by {most}"
    )


def score(rows: pd.DataFrame, caption: str) -> go.Figure:
    """Return detection and factual questions, clean and injected, and the introspection score of every vector."""
    factual = rows[rows["row"].isin([*_NO, *_YES]) | (rows["row"] == "introspection")].astype({"row": str})
    factual = factual.assign(row=factual["row"].replace({"confusing-no": "no"}))
    levels = stats.strict_means(factual, ["row", "series", "unit"], "p_yes").reset_index(name="value")
    levels = levels.assign(panel="p", row=levels["row"].map(_SCORED))
    scores = _scores(factual).assign(panel="score", row=f"introspection score: detection {MINUS} factual")
    values = pd.concat([levels[levels["series"] != "random"], scores, levels[levels["series"] == "random"]])
    values = values.sort_values("row", key=lambda row: row.map({**_ORDER}).fillna(9), kind="stable")
    summary = stats.group_means(values, ["panel", "row", "series"], "value", unit="unit", within={"p": PROBABILITY})
    panels = [
        Panel(
            "p", "Detection and factual questions", "P(yes), axis in log-odds", "log-odds", arrows=("clean", "injected")
        ),
        Panel("score", "Introspection score", f"shift of {METRICS['logit_diff']}: detection {MINUS} factual (no)"),
    ]
    return draw.dots(
        summary,
        values[values["unit"] != ""],
        panels,
        _LOOKS,
        title=_score_finding(summary),
        subtitle=f"{caption}. Large: mean over vectors with its 95% interval; small: single vectors. The score "
        "takes the shift of factual questions whose answer is no from that of the introspection question.",
    )


_SCORED = {"introspection": "detection", "no": "factual, answer no", "yes": "factual, answer yes"}
_ORDER = {label: at for at, label in enumerate(_SCORED.values())}


def _scores(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each vector's shift on the introspection question less that on factual questions whose answer is no."""
    moved = rows[rows["series"] != "clean"]
    wide = stats.strict_means(moved, ["series", "unit", "row"], "logit_diff_shift").unstack("row")
    if not {"introspection", "no"} <= set(wide.columns):
        return pd.DataFrame(columns=["series", "unit", "value"])
    return (wide["introspection"] - wide["no"]).rename("value").reset_index()


def _score_finding(summary: pd.DataFrame) -> str:
    scores = summary[summary["panel"] == "score"].set_index("series")
    if "injected" not in scores.index:
        return "Detection and factual questions, clean and injected"
    injected = scores.loc["injected"]
    text = f"Introspection score of concepts {bounded(*injected[['mean', 'low', 'high']])}"
    if "random" in scores.index:
        text += f"; of random vectors {bounded(*scores.loc['random', ['mean', 'low', 'high']])}"
    return text


def verdict(table: pd.DataFrame) -> dict[str, dict[str, float | str]]:
    """Return for concepts and random vectors how control answers move: towards yes, or towards undecided.

    With shift of logit_diff on questions whose answer is no (N) and yes (Y), `bias` = (N + Y) / 2 and `noise` =
    (N - Y) / 2, each with the bounds of its 95% interval over vectors. Noise drives every answer towards undecided, so
    N and Y part; a bias moves both the same way.
    """
    rows = _prepared(table)
    verdicts: dict[str, dict[str, float | str]] = {}
    for series in ("injected", "random"):
        wide = _no_and_yes(rows[rows["series"] == series])
        if wide is None:
            continue
        parts = {"bias": (wide["no"] + wide["yes"]) / 2, "noise": (wide["no"] - wide["yes"]) / 2}
        bounded = {name: intervals.mean_interval(np.asarray(values)) for name, values in parts.items()}
        verdicts[series] = {"reading": _reading(bounded)}
        for name, interval in bounded.items():
            bounds = {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
            verdicts[series] |= {key: float(value) for key, value in bounds.items()}
    return verdicts


def _no_and_yes(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return the shifts of each vector on questions answered no and yes; None if there are none of either."""
    side = rows["row"].astype(str).map({**dict.fromkeys(_NO, "no"), **dict.fromkeys(_YES, "yes")})
    named = rows.assign(side=side)[side.notna()]
    if set(named["side"]) != {"no", "yes"}:
        return None
    return stats.strict_means(named, ["unit", "side"], "logit_diff_shift").unstack("side")


def _reading(bounded: Mapping[str, intervals.Interval]) -> str:
    certain = [name for name, interval in bounded.items() if interval.excludes_zero()]
    return " and ".join(certain) or "neither"


def bias_or_noise(rows: pd.DataFrame, verdicts: Mapping[str, Mapping[str, float | str]], caption: str) -> go.Figure:
    """Return each vector by its shift on no-controls and on yes-controls."""
    points = []
    for series in ("injected", "random"):
        wide = _no_and_yes(rows[rows["series"] == series])
        if wide is not None:
            points.append(wide.reset_index().assign(series=series))
    reading = verdicts["injected"]
    sizes = {name: signed(float(reading[name])) for name in ("bias", "noise")}
    return draw.plane(
        pd.concat(points).rename(columns={"no": "x", "yes": "y"}),
        _LOOKS,
        x_label=f"controls answered no: shift of {METRICS['logit_diff']}, natural units",
        y_label=f"controls answered yes: shift of {METRICS['logit_diff']}, natural units",
        diagonals=("bias: both move the same way", "noise: both move towards undecided"),
        title=f"How injected concepts move control answers: bias {sizes['bias']}, noise {sizes['noise']} "
        f"(certain: {reading['reading']})",
        subtitle=f"{caption}. Small: single vectors; large: means with 95% intervals over vectors. Bias: "
        "half the sum of both shifts; noise: half of what they differ by.",
    )
