"""Drawing the tables of attribution: what features, components or parts of a cache carry, checked or judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mechint import figures, stats
from mechint.attribution import components
from mechint.attribution.features import faithfulness
from mechint.attribution.kv import DIRECTIONS
from mechint.base.errors import UsageError
from mechint.figures.style import BLUE, GREEN, METRICS, MINUS, VERMILION, Series
from mechint.figures.verdicts import UNTESTED, VERDICTS, check_components
from mechint.figures.words import bounded, plain
from mechint.stats import bands, intervals

if TYPE_CHECKING:
    import plotly.graph_objects as go

_MOST = 12  # features that get a row
N_NAMED = 8  # points that have their name
EFFECT = "measured: part of the shift, logits"
_COMPONENTS = {"embed", "head", "attn", "mlp", "bias", "scale", "rest"}
# By whether the table is of `late_loss`, which alone has the scale of the final norm.
_LAYER_TITLES = {
    False: f"Which layers write the shift of logit(yes) {MINUS} logit(no)?",
    True: "What do later layers do to the shift that the lens shows?",
}
_SETS = {
    "top": Series("features with the largest attributions", VERMILION, "solid", "diamond", 3.0),
    "mass-matched": Series("random sets of equal size and activation mass", BLUE, "dash", "square"),
    "random": Series("random sets of equal size", GREEN, "dot", "triangle-up-open"),
}
_TESTS = {
    "necessity": ("Necessity: features set back to clean", "that goes"),
    "sufficiency": ("Sufficiency: features set to injected", "that comes"),
}
_ALL = ("both", -1)  # keys and values, all heads
_DIRECTIONS = {"insert": "inserted into clean", "remove": "removed from injected"}


def attributions(table: pd.DataFrame, title: str) -> go.Figure:
    """Return bars of features, or of components by layer, by what the table has; means over its interventions."""
    if set(table["kind"]) <= _COMPONENTS:
        return _by_layer(table, title)
    cells = ["conversation", "intervention"]
    rows, left_out = _rows(table, cells)
    return figures.feature_bars(
        rows,
        title=title or f"What carries the shift of logit(yes) {MINUS} logit(no)?",
        subtitle=f"{_over(table)} {left_out}".strip(),
    )


def checked(table: pd.DataFrame, title: str) -> go.Figure:
    """Return attributed against measured effects of a table of `mi.sae.faithfulness`."""
    correlation = faithfulness.rank_correlation(table)
    title = title or "Does setting a feature do what was attributed to it?"
    return attributed_measured(table, correlation, title, _over(table))


def attributed_measured(
    features: pd.DataFrame, correlation: intervals.Interval | None, title: str, subtitle: str
) -> go.Figure:
    """Return the figure of `component, attribution, measured, verdict` (bounds: `attribution_low`, ...), in logits.

    The rank correlation is written below the title, the features farthest from the diagonal are named. Raises
    UsageError without rows.
    """
    points = by_verdict(features, "attribution")
    far = (points["x"] - points["y"]).abs() + 0.2 * points["y"].abs()
    both = int(points[["x", "y"]].notna().all(axis=1).sum())
    return figures.scatter(
        points,
        VERDICTS,
        x_label="attributed, logits",
        y_label=EFFECT,
        diagonal="attributed = measured",
        named=list(points.loc[far.nlargest(N_NAMED).index, "unit"]),
        title=title,
        subtitle=f"{subtitle} {_correlation_text(correlation, both)}".strip(),
    )


def by_verdict(features: pd.DataFrame, x: str) -> pd.DataFrame:
    """Return components as points of `scatter`: a column against `measured`, with the verdict as series."""
    check_components(features, ("component", x, "measured"))
    verdicts = features.get("verdict", UNTESTED)
    sides = ("", "_low", "_high")
    columns = {f"{x}{side}": f"x{side}" for side in sides} | {f"measured{side}": f"y{side}" for side in sides}
    return features.assign(series=verdicts).rename(columns={"component": "unit", **columns})


def _correlation_text(correlation: intervals.Interval | None, n: int) -> str:
    if correlation is None or np.isnan(correlation.mean):
        return f"Too little varies over {n} features for a rank correlation."
    text = bounded(float(correlation.mean), float(correlation.low), float(correlation.high), plain)
    return f"Rank correlation of attributed and measured: {text} over {n} features."


def judged(table: pd.DataFrame, title: str) -> go.Figure:
    """Return the measured effects behind the verdicts of a table of `mi.sae.verdict`."""
    names = {"lost": "measured", "lost_low": "measured_low", "lost_high": "measured_high"}
    kept = [*names.values(), "component", "kind", "verdict", "clean", "injected"]
    effects = table.rename(columns=names)
    return figures.feature_bars(
        effects[[name for name in kept if name in effects]].assign(attribution=np.nan),
        title=title or "Which of these features are causes?",
        subtitle="What of the shift is lost when a feature alone is set back to clean.",
    )


def together(table: pd.DataFrame, title: str, subtitle: str = "") -> go.Figure:
    """Return necessity and sufficiency of more and more features, of a table of `mi.sae.curves`.

    Shares of the shift where it is there, else logits. Raises UsageError for a table without sets of features.
    """
    rows = table[table["k"] >= 1] if len(table) else table  # none changes nothing, and has no place on the axis
    tests = [test for test in _TESTS if len(rows) and (rows["test"] == test).any()]
    if not tests:
        advice = "see whether any feature is active"
        raise UsageError("no curves", "rows of necessity or sufficiency with k from 1", advice)
    shares = not rows["fraction"].isna().all()
    value = "fraction" if shares else "effect"
    names = {"test": "panel", "kind": "series", value: "mean", f"{value}_low": "low", f"{value}_high": "high"}
    unit, references = ("share", (0.0, 1.0)) if shares else ("logits", (0.0,))
    panels = [
        figures.Panel(test, heading, f"{unit} of the shift {direction}", references=references, height=320)
        for test, (heading, direction) in _TESTS.items()
        if test in tests
    ]
    figure = figures.curves(
        rows.rename(columns=names),
        panels,
        _SETS,
        x="k",
        x_label="number of features",
        log_x=True,
        title=title or "How many features does it take?",
        subtitle=subtitle or f"Means over {int(table['n'].max())} concepts with 95% intervals.",
    )
    return figure.update_yaxes(tickformat=".0%") if shares else figure


def cache(table: pd.DataFrame, title: str) -> go.Figure:
    """Return what windows of the cache carry, layers by positions, of a table of `mi.kv.attribute`."""
    whole = (table["level"] == "window") & (table["side"] == _ALL[0]) & (table["head"] == _ALL[1])
    windows = table[whole]
    if windows["conversation"].nunique() != 1 or set(windows["direction"]) != set(DIRECTIONS):
        raise UsageError(
            given=f"{len(windows)} windows of {windows['conversation'].nunique()} conversations",
            allowed="the windows of one conversation, inserted and removed: positions of others are other tokens",
            advice="draw one conversation at a time",
        )
    spans = sorted(set(zip(windows["pos_start"], windows["pos_stop"], strict=True)))
    panels = [
        figures.TilePanel(_DIRECTIONS[direction], [_lattice(windows[windows["direction"] == direction], len(spans))])
        for direction in DIRECTIONS
    ]
    return figures.tiles(
        panels,
        [figures.Line(f"positions {start} to {stop - 1}") for start, stop in spans],
        [str(layer) for layer in range(int(windows["layer_stop"].max()))],
        column_label="layer of the cache",
        label=f"part of the shift of<br>{METRICS['logit_diff']}",
        title=title or "Which part of the cache carries the shift?",
        subtitle=f"{_over(windows)} + and {MINUS}: tiles whose {bands.BANDS.caption}.",
    )


def _unit_means(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    return stats.group_means(rows.assign(unit=_units(rows)), keys, "attribution", unit="unit")


def _by_layer(table: pd.DataFrame, title: str) -> go.Figure:
    starts = table.groupby(["conversation", "intervention"])["layer"].min()
    if starts.nunique() > 1:
        raise UsageError(
            given=f"components from layers {', '.join(map(str, sorted(set(starts))))} on",
            allowed="one first layer for all interventions: else a mean is over others at each layer",
            advice="give late_loss one layer= for all",
        )
    bars = _unit_means(components.by_layer(table), ["layer", "kind"])
    sums = _unit_means(components.cumulative(table), ["layer"])
    heads = table[table["kind"] == "head"].groupby(["layer", "index"])["attribution"].mean()
    return figures.waterfall(
        bars,
        sums,
        heads=heads.rename("mean").reset_index() if len(heads) else None,
        label="part of the shift, logits",
        title=title or _LAYER_TITLES["scale" in set(table["kind"])],
        subtitle=_over(table),
    )


def _rows(table: pd.DataFrame, cells: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Return the largest features with intervals, all others as one row, then what is no feature."""
    if table["attribution"].isna().any():
        raise UsageError("an attribution that is NaN", "numbers", "see which intervention it is from")
    kinds = table.drop_duplicates("component").set_index("component")["kind"]
    # A feature that is silent under an intervention carries nothing there.
    wide = table.pivot_table(index=list(cells), columns="component", values="attribution", aggfunc="sum", sort=False)
    wide = wide.fillna(0.0)
    listed = kinds == ("feature" if (kinds == "feature").any() else kinds.iloc[0])
    features = wide[kinds.index[listed]]
    order = features.mean().abs().sort_values(ascending=False, kind="stable").index
    largest, others = features[order[:_MOST]], features[order[_MOST:]]
    rest = wide[kinds.index[~listed]]
    if others.shape[1]:
        rest = pd.concat([others.sum(axis=1).rename(f"{others.shape[1]} others"), rest], axis=1)
    values = pd.concat([largest, rest], axis=1)
    interval = intervals.mean_interval(_of_units(values).to_numpy(np.float64).T)
    # Neither is it active there in either run; what has no activation at all stays without.
    acts = table.groupby("component")[["clean", "injected"]].sum(min_count=1).reindex(values.columns) / len(wide)
    rows = pd.DataFrame(
        {
            "component": values.columns,
            "kind": ["feature"] * largest.shape[1] + ["other"] * rest.shape[1],
            "attribution": interval.mean,
            "attribution_low": interval.low,
            "attribution_high": interval.high,
            "clean": acts["clean"].to_numpy(),
            "injected": acts["injected"].to_numpy(),
        }
    )
    return rows, f"The {largest.shape[1]} largest of {features.shape[1]}." if others.shape[1] else ""


def _of_units(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each unit: the interventions if there are several, else the conversations."""
    several = values.index.get_level_values("intervention").nunique() > 1
    return values.groupby(level="intervention" if several else "conversation", sort=False).mean()


def _units(table: pd.DataFrame) -> pd.Series:
    return table["intervention"] if table["intervention"].nunique() > 1 else table["conversation"]


def _lattice(rows: pd.DataFrame, n_lines: int) -> figures.Lattice:
    wide = stats.unit_means(rows.assign(unit=_units(rows)), ["pos_start", "layer_start"], "effect", "unit").sort_index()
    layers = sorted(set(rows["layer_start"]))
    cube = wide.to_numpy(dtype=np.float64).reshape(n_lines, len(layers), -1)
    return figures.Lattice([*layers, int(rows["layer_stop"].max())], range(n_lines + 1), bands.mean_bands(cube))


def _over(table: pd.DataFrame) -> str:
    """Return what the means are over."""
    for name in ("intervention", "conversation"):
        if (count := table[name].nunique()) > 1:
            return f"Means over {count} {name}s with 95% intervals."
    return f"Intervention {table['intervention'].iloc[0]}, conversation {table['conversation'].iloc[0]}."
