"""The yes/no shifts of "Small models can introspect, too", and over them a user's own where they measure the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analyses.published.overlay import CONTROL, Overlay
from analyses.published.points import COLUMNS, NO_INTERVAL, Picture, citation, source
from mechint import figures as draw
from mechint import stats
from mechint.figures import Panel, published
from mechint.figures.style import METRICS, MINUS, PURPLE, SERIES, Series
from mechint.stats.intervals import PROBABILITY

CONDITIONS = {
    "none": "no document",
    "introspection": "info document",
    "inaccurate-location": "info document, inaccurate location",
    "lorem-ipsum": "lorem ipsum",
    CONTROL: "control questions, answer no",
}
LOOKS = {
    "published_clean": Series("published: clean", PURPLE, "dot", "circle-open"),
    "published": Series("published: injected", PURPLE, "solid", "star-open"),
    "clean": Series("yours: clean", SERIES["clean"].color, "dot", "circle-open"),
    "injected": Series("yours: concepts injected", SERIES["injected"].color, "solid", "circle"),
    "random": Series("yours: random vectors of equal norm", SERIES["random"].color, "dash", "square"),
    "other": Series("yours: another injection or cache", SERIES["yes"].color, "solid", "triangle-up"),
}
_DRAWN = ("clean", "injected", "random")
_ARROWS = ("published_clean", "published", "clean", "injected")
_HALF_DIGIT = 0.5e-5  # probabilities are printed in percent with three digits


def pictures(overlays: Sequence[Overlay]) -> dict[str, Picture]:
    """Return the figures by file name."""
    return {"published_yes_no_shifts": yes_no_shifts(overlays), "published_yes_no_table": yes_no_table()}


def yes_no_shifts(overlays: Sequence[Overlay]) -> Picture:
    """Return P(yes) clean and injected, and the shift in logits, of every published line and of overlays below it."""
    table = published.load("kv_fill_injection")
    units = pd.concat([_own_units(overlay) for overlay in overlays]) if overlays else _no_units()
    overlaid = _own_values(units)
    values = pd.concat([_published_values(table), overlaid], ignore_index=True)
    values = values.sort_values("row", key=_by_condition, kind="stable", ignore_index=True)
    panels = [
        Panel("p", "From clean to injected", "P(yes), axis in log-odds", scale="log-odds", arrows=_ARROWS),
        Panel("shift", "Shift against clean", f"shift of {METRICS['logit_diff']}, natural units"),
    ]
    small = units[~units["series"].isin(["clean", "other"])]
    figure = draw.dots(
        values,
        small,
        panels,
        LOOKS,
        title=_finding(table),
        subtitle=_subtitle(overlays),
        packed=True,
        legend_lines=2 if overlays else 1,
        widths=[0.58, 0.42],
    )
    figure.update_xaxes(tickangle=0, tickfont={"size": 11})
    return Picture(figure, values[COLUMNS], source(table))


def _published_values(table: pd.DataFrame) -> pd.DataFrame:
    rows = (
        table["info"].map(CONDITIONS) + ": " + table["vector"] + " (experiment " + table["experiment"].astype(str) + ")"
    )
    common = {"row": rows, "low": np.nan, "high": np.nan}
    bounds = {"low": _shift(table, -_HALF_DIGIT), "high": _shift(table, _HALF_DIGIT)}
    parts = [
        {**common, "panel": "p", "series": "published_clean", "mean": table["p_yes_clean"]},
        {**common, "panel": "p", "series": "published", "mean": table["p_yes_injected"]},
        {**common, "panel": "shift", "series": "published", "mean": _shift(table, 0.0), **bounds},
    ]
    return pd.concat([pd.DataFrame(columns, columns=COLUMNS) for columns in parts])


def _shift(table: pd.DataFrame, slack: float) -> pd.Series:
    """Return the shift of log P(yes) - log P(no), with P(yes) moved apart by what its printed digits leave open."""
    yes = np.log(table["p_yes_injected"] + slack) - np.log(table["p_yes_clean"] - slack)
    return yes - np.log(table["p_no_injected"]) + np.log(table["p_no_clean"])


def _own_units(overlay: Overlay) -> pd.DataFrame:
    """Return the mean of every vector over its conversations: panel, row, series, unit, value."""
    rows = overlay.rows
    series = rows["series"].where(rows["series"].isin(_DRAWN), "other")
    document = rows["_document"].map(lambda info: f", {CONDITIONS[info]}" if info else "")
    name = (": " + rows["unit"]).where(series == "other", "")
    row = rows["_condition"].map(CONDITIONS) + document + "<br>yours, " + overlay.label + name
    rows = rows.assign(series=series, row=row)
    parts = [
        stats.strict_means(rows, ["row", "series", "unit"], column).reset_index(name="value").assign(panel=panel)
        for panel, column in (("p", "p_yes"), ("shift", "logit_diff_shift"))
    ]
    means = pd.concat(parts, ignore_index=True)
    return means[~((means["panel"] == "shift") & (means["series"] == "clean"))]


def _no_units() -> pd.DataFrame:
    return pd.DataFrame(columns=["row", "series", "unit", "value", "panel"])


def _own_values(units: pd.DataFrame) -> pd.DataFrame:
    if units.empty:
        return pd.DataFrame(columns=COLUMNS)
    return stats.group_means(units, ["panel", "row", "series"], "value", unit="unit", within={"p": PROBABILITY})[
        COLUMNS
    ]


def _by_condition(rows: pd.Series) -> pd.Series:
    """Sort rows by what is asked; within one, published lines come first, as they are before the sort."""
    order = {label: at for at, label in enumerate(CONDITIONS.values())}
    return rows.map(lambda row: order[max((label for label in order if row.startswith(label)), key=len)])


def _finding(table: pd.DataFrame) -> str:
    lines = table[(table["vector"] == "cat") & table["info"].isin(["none", "introspection"])].set_index("info")
    yes = []
    for info in ("none", "introspection"):
        clean, injected, shift = lines.loc[info, ["p_yes_clean", "p_yes_injected", "p_yes_shift"]]
        yes.append(_change(clean, injected, shift))
    return (
        f"{citation('kv_fill_injection')}: with “cat” injected P(yes) moves {yes[0]}; with the info document {yes[1]}"
    )


def _subtitle(overlays: Sequence[Overlay]) -> str:
    caption = (
        f"Published: Qwen2.5-Coder-32B-Instruct, one vector a line. {NO_INTERVAL}; bars of published shifts are only "
        f"what the printed digits leave open. Published shifts in logits are of ln P(yes) {MINUS} ln P(no) of those "
        "digits; control questions: means over questions."
    )
    yours = [f"{overlay.label} ({_count(overlay)})" for overlay in overlays]
    if not yours:
        return caption
    return (
        f"{caption} Yours: {'; '.join(yours)}. Large: mean over vectors with its 95% interval; small: single vectors."
    )


def _count(overlay: Overlay) -> str:
    units = overlay.rows.groupby("series", sort=False)["unit"].nunique()
    return ", ".join(f"{name}: {count}" for name, count in units.items() if name != "clean")


def yes_no_table() -> Picture:
    """Return the published table as text: both probabilities and their shifts as published."""
    table = published.load("kv_fill_injection")
    lines = []
    for row in table.to_dict("records"):
        changes = [
            _change(row[f"{name}_clean"], row[f"{name}_injected"], row[f"{name}_shift"], row[f"{name}_shift_std"])
            for name in ("p_yes", "p_no")
        ]
        lines.append([str(row["experiment"]), str(row["vector"]), CONDITIONS[str(row["info"])], *changes])
    figure = draw.text_table(
        ["experiment", "injected", "the first message begins with", "P(yes)", "P(no)"],
        lines,
        title=f"{citation('kv_fill_injection')}: probabilities of both answers, clean and injected",
        subtitle="Qwen2.5-Coder-32B-Instruct. Shifts are as published; some differ from those of the printed "
        f"probabilities, which are rounded (bfloat16 has no number between 99.609% and 100%). {NO_INTERVAL}.",
    )
    rows, parts = [" ".join(line[:3]) for line in lines], []
    for answer in ("yes", "no"):
        for series in ("clean", "injected", "shift"):
            mean = table[f"p_{answer}_{series}"]
            parts.append(pd.DataFrame({"panel": f"P({answer})", "row": rows, "series": series, "mean": mean}))
    return Picture(figure, pd.concat(parts).reindex(columns=COLUMNS), source(table))


def _change(clean: float, injected: float, shift: float, spread: float = np.nan) -> str:
    deviation = f", std {spread:.3%}" if np.isfinite(spread) else ""
    return f"{clean:.3%} → {injected:.3%} ({shift:+.3%}{deviation})".replace("-", MINUS)
