"""What figures of published values share: who has published, points with exact intervals, numbers beside the dots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mechint.figures import Panel, published
from mechint.figures.style import MINUS
from mechint.stats import intervals

if TYPE_CHECKING:
    import plotly.graph_objects as go

NO_INTERVAL = "No interval published"
COLUMNS = ["panel", "row", "series", "mean", "low", "high"]


_RATES = {  # panel and column by series
    "control": ("rates", "control_false_positive"),
    "injected": ("rates", "injection_pass"),
    "net": ("net", "net_detection"),
    "refusals": ("refusals", "refusal_rate"),
}


_MIXED = ", mixed files"


@dataclass(frozen=True)
class Picture:
    """A figure and the values in it: panel, row, series, mean, low, high; `source` says who has published them."""

    figure: go.Figure
    values: pd.DataFrame
    source: str


def citation(*names: str) -> str:
    """Return what a title says of the write-ups that some tables are from."""
    project = published.load("sources").set_index("source")["project"]
    sources = list(dict.fromkeys(source for name in names for source in published.load(name)["source"]))
    quoted = ", ".join(f"“{source}”" for source in sources)
    return f"Published in {quoted} ({', '.join(dict.fromkeys(project[sources]))})"


def points(
    table: pd.DataFrame, *, panel: str, row: str, series: str, value: str, trials: str | None = None
) -> pd.DataFrame:
    """Return points of one column for `dots`, all of one series; where `trials` has a number, with an exact interval.

    Rows without a value are left out.
    """
    rows = table[table[value].notna()]
    counts = rows[trials] if trials is not None else pd.Series(np.nan, rows.index)
    bounds = [exact(rate, n) for rate, n in zip(rows[value], counts, strict=True)]
    low, high = np.reshape(bounds, (-1, 2)).T
    columns = {"panel": panel, "row": rows[row], "series": series, "mean": rows[value], "low": low, "high": high}
    return pd.DataFrame(columns, columns=COLUMNS)


def points_by(table: pd.DataFrame, by: str, *, panel: str, row: str, value: str) -> pd.DataFrame:
    """Return points as `points` does, a series for each value of the column `by`."""
    groups = table.groupby(by, sort=False)
    parts = [points(rows, panel=panel, row=row, series=str(name), value=value) for name, rows in groups]
    return pd.concat(parts, ignore_index=True)


def exact(rate: float, trials: float) -> tuple[float, float]:
    """Return the exact 95% interval of a published rate over its trials; NaN where their number is."""
    if np.isnan(trials):
        return np.nan, np.nan
    interval = intervals.binomial_interval(round(rate * trials), round(trials))
    return float(interval.low), float(interval.high)


def labelled(values: pd.DataFrame, write: Callable[[float], str]) -> pd.DataFrame:
    """Return values as units of `dots`, each with its number on the side away from zero."""
    units = values.rename(columns={"mean": "value"}).assign(unit="published")
    text = [f"\u2003{write(value)}\u2003" for value in units["value"]]  # clear of the large dot on either side
    return units.assign(label=text, side=np.where(units["value"] < 0, "left", "right"))


def with_room(figure: go.Figure, values: pd.DataFrame, panels: Sequence[Panel], numbers: Sequence[str]) -> None:
    """Let every axis show zero, and leave room for whole dots and for the numbers beside them."""
    for column, panel in enumerate(panels, start=1):
        values_of_panel = values[values["panel"] == panel.key]
        low = min(0.0, values_of_panel[["mean", "low"]].min().min())
        high = max(0.0, values_of_panel[["mean", "high"]].max().max())
        room = 0.1 * len(panels) if panel.key in numbers else 0.05
        left = room if low else 0.05
        right = room if high else 0.05
        figure.update_xaxes(range=[low - left * (high - low), high + right * (high - low)], row=1, col=column)


def with_digits(value: float) -> str:
    """Return a share with the digits it was published with, but no zeros after the point: 41.1%, 79%."""
    return f"{100 * value:.3g}%".replace("-", MINUS)


def source(*tables: pd.DataFrame) -> str:
    """Return the write-ups that some tables are from."""
    return "; ".join(dict.fromkeys(str(name) for table in tables for name in table["source"]))


def in_points(value: float) -> str:
    """Return how large a difference of shares is, without its sign: 21.1 points."""
    return f"{100 * abs(value):.1f} points"


def signed_percent(value: float) -> str:
    """Return a difference of shares as the write-ups have it, with its sign: +41.1%."""
    return f"{value:+.1%}".replace("-", MINUS)


def rates(table: pd.DataFrame, trials: Mapping[str, str]) -> pd.DataFrame:
    """Return both rates, net detection and refusals, a row for each line of a table.

    `trials` names the columns with the number of trials of some series.
    """
    named = table.assign(row=row_names(table))
    parts = [
        points(named, panel=panel, row="row", series=series, value=value, trials=trials.get(series))
        for series, (panel, value) in _RATES.items()
    ]
    order = {name: at for at, name in enumerate(named["row"])}
    values = pd.concat(parts, ignore_index=True)
    return values.sort_values("row", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def row_names(table: pd.DataFrame) -> pd.Series:
    """Return each line's model, and whether refusals were excluded."""
    return table["model"].where(table["refusals"] == "included", table["model"] + ", refusals excluded")


def mixed(series: str) -> str:
    """Return the name of a series where some of the published files behind a value hold other trials than they say."""
    return f"{series}{_MIXED}"


def is_mixed(table: pd.DataFrame) -> pd.Series:
    """Return by line whether some of its files hold other trials; lines that are not of such files have no number."""
    return table["files_right"] < table["n_files"]


def files_words(table: pd.DataFrame) -> pd.Series:
    """Return by line how many of its files hold what they say, "" where all do."""
    words = [f"{right:g} of {n:g} files right" for right, n in zip(table["files_right"], table["n_files"], strict=True)]
    return pd.Series(words, table.index).where(is_mixed(table), "")


def scaling(table: pd.DataFrame) -> pd.DataFrame:
    """Return rates of models by size, those of one size in the order in which they were made."""
    order = {name: at for at, name in enumerate(dict.fromkeys(table["checkpoint"]))}
    ordered = table.assign(made=table["checkpoint"].map(order))
    return rates(ordered.sort_values(["parameters_billion", "made"]), {})


def refusals(table: pd.DataFrame) -> pd.DataFrame:
    """Return the share of refusals by strength, in both kinds of trial."""
    rows = table.assign(row=[f"strength {strength:g}" for strength in table["strength"]])
    return points_by(rows, "trials", panel="refusals", row="row", value="refusal_rate")


def concepts(table: pd.DataFrame) -> pd.DataFrame:
    """Return net detection by concept and model."""
    return points_by(table, "model", panel="net", row="concept", value="net_detection")


def gap(table: pd.DataFrame) -> pd.DataFrame:
    """Return the steps of the gap: from what to what, and the difference beside the one the write-up names."""
    rows = table.assign(row=[_step(row) for row in table.to_dict("records")], difference=differences(table))
    parts = [
        points(rows, panel="steps", row="row", series="from", value="from_net_detection"),
        points(rows, panel="steps", row="row", series="to", value="to_net_detection"),
        points(rows, panel="difference", row="row", series="difference", value="difference"),
        points(rows, panel="difference", row="row", series="named", value="published_difference"),
    ]
    return pd.concat(parts, ignore_index=True)


def differences(table: pd.DataFrame) -> pd.Series:
    """Return by how much net detection differs between the two ends of each step."""
    return table["to_net_detection"] - table["from_net_detection"]


def _step(row: Mapping[str, object]) -> str:
    return f"<b>{row['step']}</b><br>{_end(row, 'from')} →<br>{_end(row, 'to')}"


def _end(row: Mapping[str, object], end: str) -> str:
    without = ", no refusals" if row[f"{end}_refusals"] == "excluded" else ""
    return f"{row[f'{end}_model']}{without} ({signed_percent(float(str(row[f'{end}_net_detection'])))})"


def hedging(table: pd.DataFrame) -> pd.DataFrame:
    """Return how often passing injection trials hedge and claim, by model."""
    columns = ("hedges_per_trial", "strong_claims_per_trial")
    parts = [points(table, panel=name, row="model", series=name, value=name) for name in columns]
    return pd.concat(parts, ignore_index=True)


def new_concepts(table: pd.DataFrame) -> pd.DataFrame:
    """Return rates of the eight new concepts together, by model; without intervals where files are mixed."""
    values = rates(table, {"injected": "n_injected", "control": "n_control", "refusals": "n_trials"})
    words = dict(zip(row_names(table), files_words(table), strict=True))
    others = values["row"].map(words) != ""
    series = values["series"].where(~others, values["series"].map(mixed))
    row = values["row"].where(~others, values["row"] + "<br>" + values["row"].map(words))
    return values.assign(series=series, row=row).assign(**{name: values[name].mask(others) for name in ("low", "high")})


def categories(table: pd.DataFrame) -> pd.DataFrame:
    """Return net detection by category of concept, and how far 32B-Base is from 14B and 32B-Coder."""
    rows = table.assign(row=table["category"] + "<br>" + table["concepts"])
    wide = rows.pivot(index="row", columns="model", values="net_detection").loc[list(dict.fromkeys(rows["row"]))]
    gaps = wide.assign(behind=wide["32B-Base"] - wide["14B"], ahead=wide["32B-Coder"] - wide["32B-Base"]).reset_index()
    parts = [
        points_by(rows, "model", panel="net", row="row", value="net_detection"),
        points(gaps, panel="gaps", row="row", series="behind", value="behind"),
        points(gaps, panel="gaps", row="row", series="ahead", value="ahead"),
    ]
    return pd.concat(parts, ignore_index=True)


def prompts(table: pd.DataFrame) -> pd.DataFrame:
    """Return net detection by model, that of 14B from the other write-up under the one prompt it had, and refusals.

    Where files hold other trials, series are others and have no interval; rows say how many files are right.
    """
    words = files_words(table)
    lines = (table["model"] + ": " + words).where(words != "", "")
    notes = lines.groupby(table["prompt"]).agg(lambda of: "".join(f"<br>{line}" for line in of if line))
    rows = table.assign(
        row=table["prompt"] + " " + table["wording"] + table["prompt"].map(notes),
        series=table["model"].where(words == "", table["model"].map(mixed)),
    )
    standard = rows.loc[rows["prompt"] == "v2", "row"].iloc[0]
    scaling = published.load("scaling")
    net = pd.concat([rows, scaling[scaling["model"] == "14B"].assign(row=standard, series="14B")])
    base = rows[rows["model"] == "32B-Base"]
    parts = [points_by(net, "series", panel="net", row="row", value="net_detection")]
    for kind in ("injected", "control"):
        value, trials, name = f"refusal_rate_{kind}", f"n_{kind}", f"refused_{kind}"
        clean, other = base[~is_mixed(base)], base[is_mixed(base)]
        parts.append(points(clean, panel="refusals", row="row", series=name, value=value, trials=trials))
        parts.append(points(other, panel="refusals", row="row", series=mixed(name), value=value))
    order = {row: at for at, row in enumerate(dict.fromkeys(rows["row"]))}
    values = pd.concat(parts, ignore_index=True)
    return values.sort_values("row", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def judge(table: pd.DataFrame) -> pd.DataFrame:
    """Return sensitivity, specificity and accuracy of the published judge by set and version of labels, with kappa."""
    positive, negative, n = table["tp"] + table["fn"], table["fp"] + table["tn"], table["n"]
    agreed = table["tp"] + table["tn"]
    expected = ((table["tp"] + table["fp"]) * positive + (table["fn"] + table["tn"]) * negative) / n**2
    rows = table.assign(
        row=[f"{name}, {n} replies" for name, n in zip(table["labelled_set"], table["n"], strict=True)],
        sensitivity=table["tp"] / positive,
        specificity=table["tn"] / negative,
        kappa=(agreed / n - expected) / (1 - expected),
        positive=positive,
        negative=negative,
    )
    parts = []
    for panel, trials in (("sensitivity", "positive"), ("specificity", "negative"), ("kappa", None)):
        for labels, lines in rows.groupby("labels", sort=False):
            parts.append(points(lines, panel=panel, row="row", series=str(labels), value=panel, trials=trials))
    return pd.concat(parts, ignore_index=True)
