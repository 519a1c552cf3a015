"""The detection table as figures: shifts by info document, by concept, by wording, and beside published values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.kit import shifts
from mechint import figures as draw
from mechint import stats
from mechint.figures import HeatPanel, Panel, Scale, published
from mechint.figures.names import only
from mechint.figures.style import CONTROL_GROUPS, METRICS, MINUS, PUBLISHED, SERIES
from mechint.figures.words import signed
from mechint.stats import intervals
from mechint.stats.bands import BANDS, Marks
from mechint.stats.intervals import PROBABILITY

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Description and info document of each row of the main figure, as the published tables have them.
ROWS: Mapping[str, tuple[str, str]] = {
    "no document": ("injection", "none"),
    "info document": ("injection", "introspection"),
    "info document, inaccurate location": ("inaccurate-location", "introspection"),
    "lorem ipsum": ("injection", "lorem-ipsum"),
    "poem": ("injection", "poetic"),
}
_PUBLISHED_INFO = {"inaccurate-location": "info document, inaccurate location"}
_LOOKS = {
    "clean": SERIES["clean"],
    "injected": SERIES["injected"],
    "random": SERIES["random"],
    "no": SERIES["no"],
    "published": PUBLISHED,
}
_SHIFT = Scale(f"shift of<br>{METRICS['logit_diff']}")

# Conversations of one's own that a reader can go through one by one; of more, the extreme ones are shown.
MOST_ROWS = 40
_MOST_COLUMNS = 8
_MEAN_OF = "mean of all"


def figures(table: pd.DataFrame, answer: str, subject: str, marks: Marks = BANDS) -> dict[str, go.Figure]:
    """Return the figures by file name; those that need a prompt set's wordings only where the table has them."""
    rows, note = _readable(_labelled(table, answer))
    counts = f"{shifts.counts(table)}{note}"
    drawn = {"detection_conditions": conditions(rows, f"{subject}. {counts}")}
    drawn["detection_concepts"] = concepts(rows, f"{subject}. {counts}")
    if (table["description"] != "").any():
        drawn["detection_wordings"] = wordings(table, f"{subject}. {counts}", marks)
        drawn["detection_published"] = beside_published(rows, subject)
    return drawn


def _labelled(table: pd.DataFrame, answer: str) -> pd.DataFrame:
    """Return the rows of the main figure with their label in `row`; conversations of one's own have theirs."""
    names = {pair: label for label, pair in ROWS.items()}
    worded = table["description"] != ""
    unworded = table[~worded]
    unworded = unworded.assign(
        row=unworded["conversation"].where(unworded["kind"] == "introspection", "control questions")
    )
    named = table[worded & (table["format"] == answer)]
    labels = [names.get(pair, "") for pair in zip(named["description"], named["info"], strict=True)]
    named = named.assign(row=labels)
    order = {label: at for at, label in enumerate(ROWS)}
    return pd.concat(
        [named[named["row"] != ""].sort_values("row", key=lambda row: row.map(order), kind="stable"), unworded]
    )


def _readable(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return rows that one figure has room for, and the sentence that says which were left out.

    Of too many conversations a row of their mean stands first, then those with the largest and the smallest shifts.
    """
    moved = rows[(rows["kind"] == "introspection") & (rows["series"] == "injected")]
    order = moved.groupby("row", sort=False)["logit_diff_shift"].mean().sort_values(ascending=False).index
    if len(order) <= MOST_ROWS:
        return rows, ""
    each = MOST_ROWS // 2
    extreme = rows[rows["row"].isin([*order[:each], *order[-each:]])]
    extreme = extreme.sort_values("row", key=lambda row: row.map(order.get_loc), kind="stable")
    every = rows[rows["kind"] == "introspection"].assign(row=f"{_MEAN_OF} {len(order):,} conversations")
    note = (
        f". Of {len(order):,} conversations only the {each} with the largest and the {each} with the smallest shift "
        "have a row: they were chosen for it, so their own intervals prove nothing"
    )
    return pd.concat([every, extreme, rows[rows["kind"] == "control"]]), note


def conditions(rows: pd.DataFrame, caption: str) -> go.Figure:
    """Return shifts of logit_diff, and P(yes) clean and injected, by info document."""
    values = shifts.by_unit(rows, ["row"], {"shift": "logit_diff_shift", "p": "p_yes"})
    values = only(values, _LOOKS, CONTROL_GROUPS)
    values = values[~((values["panel"] == "p") & values["series"].isin(["no", "random"]))]
    values = values[~((values["panel"] == "shift") & (values["series"] == "clean"))]
    summary = stats.group_means(values, ["panel", "row", "series"], "value", unit="unit", within={"p": PROBABILITY})
    panels = [
        Panel("shift", "Shift against clean", f"shift of {METRICS['logit_diff']}, natural units"),
        Panel(
            "p", "From clean to injected", "P(yes), axis in log-odds", scale="log-odds", arrows=("clean", "injected")
        ),
    ]
    subtitle = (
        f"{caption}. Large: mean over vectors with its 95% interval; small: single vectors. Control questions "
        "are asked under the same injections. Published: the mean of its vectors, and their range."
    )
    return draw.dots(
        pd.concat([summary, _published_rows(set(rows["row"]))]),
        values,
        panels,
        _LOOKS,
        title=_finding(summary),
        subtitle=subtitle,
    )


def _published_rows(labels: set[str]) -> pd.DataFrame:
    """Return the published probabilities with an injected concept, for rows that the figure has."""
    rows = published.load("kv_fill_injection")
    rows = rows[rows["experiment"].isin([1, 2, 4])]
    rows = rows.assign(row=rows["info"].map(_document))
    means = rows[rows["row"].isin(labels)].groupby("row")["p_yes_injected"]
    ranges = pd.DataFrame({"mean": means.mean(), "low": means.min(), "high": means.max()}).reset_index()
    return ranges.assign(panel="p", series="published")


def _finding(summary: pd.DataFrame) -> str:
    shift = summary[summary["panel"] == "shift"].set_index(["row", "series"])
    injected = [key for key in shift.index if key[1] == "injected"]
    # The largest of hundreds is large by chance alone: where there are so many, their mean speaks for all.
    overall = [key for key in injected if key[0].startswith(_MEAN_OF)]
    moved = [key for key in overall or injected if shift.loc[key, "low"] > 0]
    best = max(overall or injected, key=lambda key: shift.loc[key, "mean"])
    where = f", {best[0]}" if overall else f" most with: {best[0]}"
    text = f"An injected concept shifts logit(yes) {MINUS} logit(no){where} ({signed(shift.loc[best, 'mean'])})"
    if (best[0], "random") in shift.index:
        text += f"; random vectors {signed(shift.loc[(best[0], 'random'), 'mean'])}"
    if (best[0], "no") in shift.index:
        text += f", control questions {signed(shift.loc[(best[0], 'no'), 'mean'])}"
    return text if moved else "No info document makes an injected concept shift yes over no"


def concepts(rows: pd.DataFrame, caption: str) -> go.Figure:
    """Return the shift of logit_diff of every vector by info document, strongest concept first."""
    introspection = rows[rows["kind"] == "introspection"]
    labels = list(dict.fromkeys(introspection["row"]))
    wide = stats.unit_means(introspection, ["series", "unit"], "logit_diff_shift", "row")[labels]
    parts = {"Concepts": wide.loc["injected"], "Random vectors of equal norm": wide.loc[wide.index.isin(["random"], 0)]}
    order = wide.loc["injected"].mean(axis=1).sort_values(ascending=False).index
    ordered = wide.loc["injected"].loc[order]
    names = (
        [*ordered.index, "random vectors (mean)"] if len(parts["Random vectors of equal norm"]) else [*ordered.index]
    )
    cells = [ordered.to_numpy()]
    if len(names) > len(ordered):
        cells.append(parts["Random vectors of equal norm"].mean().to_numpy()[None])
    values = np.concatenate(cells)
    vectors, first_message = (names, "injected"), (labels, "the first message begins with")
    # Names of many columns would lie over each other; rows have room.
    turned = len(labels) > max(len(names), _MOST_COLUMNS)
    down, across = (first_message, vectors) if turned else (vectors, first_message)
    values = values.T if turned else values
    none = np.full_like(values, np.nan)
    return draw.heatmap(
        [HeatPanel("Introspection question", intervals.Interval(values, none, none, 1))],
        _SHIFT,
        rows=down[0],
        columns=across[0],
        row_label=down[1],
        column_label=across[1],
        title="Which concepts are detected? Shift of the answer for every injected vector",
        subtitle=caption,
    )


def wordings(table: pd.DataFrame, caption: str, marks: Marks) -> go.Figure:
    """Return the shift by description (rows) and info document with format (columns), and less random vectors."""
    worded = table[table["description"] != ""].assign(column=lambda rows: rows["info"] + "<br>" + rows["format"])
    introspection = worded[worded["kind"] == "introspection"]
    rows = list(dict.fromkeys(introspection["description"]))
    columns = list(dict.fromkeys(introspection["column"]))
    cubes = {
        kind: _cube(introspection[introspection["series"] == kind], rows, columns) for kind in ("injected", "random")
    }
    panels = [HeatPanel("Concepts", marks.mean(cubes["injected"]))]
    if cubes["random"].shape[-1]:
        panels.append(HeatPanel("Random vectors", marks.mean(cubes["random"])))
        minus = marks.difference(cubes["injected"], cubes["random"])
        panels.append(HeatPanel(f"Concepts {MINUS} random vectors", minus))
    return draw.heatmap(
        panels,
        _SHIFT,
        rows=rows,
        columns=columns,
        row_label="description",
        column_label="info document and answer format",
        per_line=1,
        title="Does the effect hold for other descriptions of the injection and other answer formats?",
        subtitle=f"{caption}. Dots mark cells whose {marks.caption}.",
    )


def _cube(rows: pd.DataFrame, descriptions: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    if rows.empty:
        return np.empty((len(descriptions), len(columns), 0))
    wide = stats.unit_means(rows, ["description", "column"], "logit_diff_shift", "unit")
    wide = wide.reindex(pd.MultiIndex.from_product([descriptions, columns]))
    return np.asarray(wide, dtype=float).reshape(len(descriptions), len(columns), -1)


def beside_published(rows: pd.DataFrame, subject: str) -> go.Figure:
    """Return a table in the form of the published ones: probabilities of both answers, clean and injected."""
    concept = rows[rows["series"] == "injected"]
    own_lines = [_our_line(label, concept[concept["row"] == label], rows) for label in dict.fromkeys(concept["row"])]
    published_lines = [_published_line(line) for line in published.load("kv_fill_injection").to_dict("records")]
    headings = ["what", "info document", "vector", "P(yes)", "P(no)"]
    return draw.text_table(
        headings,
        [*own_lines, *published_lines],
        title="Probabilities of both answers, clean and injected, beside published values",
        subtitle=f"Ours: {subject}; means over concepts. Published: Qwen2.5-Coder-32B-Instruct, one vector a line.",
    )


def _document(info: str) -> str:
    names = {name: label for label, (_, name) in list(ROWS.items())[::-1]} | _PUBLISHED_INFO
    return names.get(info, info)


def _our_line(label: str, rows: pd.DataFrame, everything: pd.DataFrame) -> list[str]:
    introspection = everything[(everything["row"] == label) & (everything["kind"] == "introspection")]
    injected, clean = rows[rows["kind"] == "introspection"], introspection[introspection["series"] == "clean"]
    pairs = (shifts.percent_shift(clean[name].mean(), injected[name].mean()) for name in ("p_yes", "p_no"))
    return ["ours", label, f"{injected['unit'].nunique()} concepts", *pairs]


def _published_line(line: Mapping[str, object]) -> list[str]:
    pairs = (
        shifts.percent_shift(*(float(str(line[f"{name}_{suffix}"])) for suffix in ("clean", "injected", "shift")))
        for name in ("p_yes", "p_no")
    )
    return [f"published, experiment {line['experiment']}", _document(str(line["info"])), str(line["vector"]), *pairs]
