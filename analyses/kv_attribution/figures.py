"""The cache attribution table as figures: over the text, by layer and side, by head, and windows taken together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.kv_attribution.cache_map import LEAST, PLACE, cache_map
from analyses.kv_attribution.facts import Text
from mechint import figures as draw
from mechint import stats
from mechint.figures import HeatPanel, Panel, Scale
from mechint.figures.style import GREEN, METRICS, ORANGE, PURPLE, SERIES, Series
from mechint.figures.words import bounded, percent, signed
from mechint.stats import intervals
from mechint.stats.bands import BANDS, Marks

if TYPE_CHECKING:
    import plotly.graph_objects as go

DIRECTIONS = {"insert": "Inserted into the clean cache", "remove": "Removed from the injected cache"}
_UNIT = f"part of the shift of {METRICS['logit_diff']}, logits"
_MOST_LAYERS = 12
_WHOLE = ("both", -1)  # keys and values, all heads
_LOOKS = {
    "injected": dataclasses.replace(SERIES["injected"], label="concept: keys and values"),
    "values": Series("concept: values alone", PURPLE, "solid", "diamond"),
    "keys": Series("concept: keys alone", ORANGE, "dash", "triangle-up"),
    "random": dataclasses.replace(SERIES["random"], label="random vector of equal norm: keys and values"),
    "control": Series("concept, control question: keys and values", GREEN, "dashdot", "triangle-down"),
}
_ORDERS = {
    "strongest": dataclasses.replace(SERIES["injected"], label="concepts, strongest window first"),
    "shuffled": Series("concepts, windows in random order", GREEN, "dashdot", "triangle-up"),
    "random": dataclasses.replace(SERIES["random"], label="random vectors of equal norm, strongest window first"),
}


# What curves show: logits, or shares of a shift that is there.
_COME_AND_GO = {
    False: ("logits that come", "logits that go"),
    True: ("share of the shift that comes", "share of the shift that goes"),
}


@dataclasses.dataclass(frozen=True)
class Shift:
    """The whole shift under concepts: mean over concepts with its interval, and that of control questions (or NaN)."""

    mean: float
    low: float
    high: float
    control: float

    @classmethod
    def of(cls, table: pd.DataFrame, conversation: str | None = None) -> Shift:
        """Return the shift of all introspection questions (or of one), and of the control questions, under concepts."""
        whole = table[(table["level"] == "cache") & (table["series"] == "injected")]
        if conversation is not None:
            whole = whole[(whole["conversation"] == conversation) | (whole["kind"] == "control")]
        means = stats.strict_means(whole, ["kind", "unit"], "shift")
        interval = intervals.mean_interval(means.loc["introspection"].to_numpy())
        control = means.loc["control"].mean() if "control" in means else np.nan
        return cls(float(interval.mean), float(interval.low), float(interval.high), float(control))

    @property
    def is_there(self) -> bool:
        """Whether there is anything to attribute: more than next to nothing, than chance, and than in controls."""
        controlled = np.isnan(self.control) or abs(self.mean) > 2 * abs(self.control)
        return bool(abs(self.mean) >= LEAST and not self.low <= 0 <= self.high and controlled)

    def words(self) -> str:
        """Return it as words."""
        return bounded(self.mean, self.low, self.high)

    def share(self, effect: float) -> str:
        """Return an effect as a percentage of it."""
        return percent(effect / self.mean)


def figures(table: pd.DataFrame, text: Text, caption: str, marks: Marks = BANDS) -> dict[str, go.Figure]:
    """Return the figures by file name; that of windows taken together only where caches differ anywhere."""
    shift, text_shift = Shift.of(table), Shift.of(table, text.conversation)
    kinds = table.groupby("series")["unit"].nunique()
    counts = f"{caption}. {kinds['injected']} concepts, {kinds.get('random', 0)} random vectors"
    subtitle = f"{counts}. Whole shift under concepts: {shift.words()} logits."
    text_subtitle = f"{counts}. Whole shift under concepts: {text_shift.words()} logits."
    drawn = {
        "kv_attribution_map": cache_map(table, text, _map_finding(table, text, text_shift), text_subtitle, marks),
        "kv_attribution_layers": by_layer(table, shift, subtitle),
        "kv_attribution_heads": by_head(table, shift, subtitle, marks),
    }
    if ((table["level"] == "curve") & (table["conversation"] == text.conversation)).any():
        drawn["kv_attribution_curve"] = together(table, text, text_shift, text_subtitle)
    return drawn


def verdict(table: pd.DataFrame, text: Text) -> dict[str, object]:
    """Return what the figures say of one conversation, as numbers: its shift, its strongest windows and layers."""
    shift = Shift.of(table, text.conversation)
    numbers: dict[str, object] = {"shift": dataclasses.asdict(shift), "anything_to_attribute": shift.is_there}
    for direction in DIRECTIONS:
        for level in ("window", "layer"):
            place, effect = _strongest(_means(table, text, level), direction)
            numbers[f"{level}_{direction}"] = {**dict(zip(PLACE, place, strict=True)), "effect": effect}
    return numbers


def _means(table: pd.DataFrame, text: Text, level: str) -> pd.Series:
    """Return mean effects over concepts in the conversation that is drawn, by direction and place."""
    measured = (table["conversation"] == text.conversation) & (table["level"] == level)
    whole = (table["side"] == _WHOLE[0]) & (table["head"] == _WHOLE[1]) & (table["series"] == "injected")
    return stats.strict_means(table[measured & whole], ["direction", *PLACE], "effect")


def _strongest(means: pd.Series, direction: str) -> tuple[tuple[int, ...], float]:
    effects = means.loc[direction]
    place = effects.abs().idxmax()
    return tuple(int(number) for number in place), float(effects.loc[place])


def _nothing(shift: Shift) -> str:
    control = "" if np.isnan(shift.control) else f", {signed(shift.control)} with control questions"
    return f"There is no shift of its own to attribute: {shift.words()} logits under concepts{control}"


def _map_finding(table: pd.DataFrame, text: Text, shift: Shift) -> str:
    if not shift.is_there:
        return _nothing(shift)
    means, parts = _means(table, text, "window"), []
    for direction, words in (("insert", "inserting one window gives"), ("remove", "removing one takes")):
        (first, last, start, stop), effect = _strongest(means, direction)
        where = f"layer {first}" if last - first == 1 else f"layers {first}:{last}"
        parts.append(f"{words} at most {shift.share(effect)} ({where}, “{text.piece(start, stop)}”)")
    return f"Of the shift of {shift.words()} logits, {'; '.join(parts)}"


def by_layer(table: pd.DataFrame, shift: Shift, caption: str) -> go.Figure:
    """Return what each layer of the cache carries: keys and values, each alone, beside random vectors and controls."""
    layers = table[(table["level"] == "layer") & (table["head"] == _WHOLE[1])]
    values = pd.concat([_series(layers, name) for name in _LOOKS], ignore_index=True)
    values = values[values["layer"].isin(_shown_layers(values))].sort_values("layer", kind="stable")
    values = values.assign(row="layer " + values["layer"].astype(str))
    summary = stats.group_means(values, ["panel", "row", "series"], "value", unit="unit")
    panels = [Panel(direction, title, _UNIT) for direction, title in DIRECTIONS.items()]
    figure = draw.dots(
        summary,
        values,
        panels,
        _LOOKS,
        title=_layers_finding(summary, shift),
        legend_lines=2,
        subtitle=f"{caption} One layer of the cache is replaced at all positions. Large: mean over vectors with its "
        "95% interval; small: single vectors. Layers that differ nowhere are left out.",
    )
    return figure.update_xaxes(matches="x", row=1, col=2)


def _series(layers: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return panel, layer, series, unit, value of one series: the mean over the conversations of each vector."""
    kind = "random" if name == "random" else "injected"
    side = name if name in ("keys", "values") else _WHOLE[0]
    kind_of_question = "control" if name == "control" else "introspection"
    rows = layers[(layers["series"] == kind) & (layers["side"] == side) & (layers["kind"] == kind_of_question)]
    means = stats.strict_means(rows, ["direction", "layer_start", "unit"], "effect").reset_index(name="value")
    names = {"direction": "panel", "layer_start": "layer"}
    return means.rename(columns=names).assign(series=name)


def _shown_layers(values: pd.DataFrame) -> list[int]:
    """Return the layers that carry anything, the strongest if there are many; the last one if none does."""
    sizes = values.assign(value=values["value"].abs()).groupby("layer")["value"].max()
    live = sizes[sizes > 0].nlargest(_MOST_LAYERS)
    return sorted(int(layer) for layer in (live if len(live) else sizes.tail(1)).index)


def _layers_finding(summary: pd.DataFrame, shift: Shift) -> str:
    if not shift.is_there:
        return _nothing(shift)
    means = summary.set_index(["series", "row", "panel"])["mean"]
    both = means.loc["injected"].unstack("panel")
    best = both.mean(axis=1).abs().idxmax()
    share = {
        name: [shift.share(means[name, best, direction]) for direction in DIRECTIONS]
        for name in ("injected", "values", "keys")
    }
    return (
        f"{best.capitalize()} of the cache carries most: {share['injected'][0]} of the shift when inserted, "
        f"{share['injected'][1]} when removed; its values alone {' and '.join(share['values'])}, its keys alone "
        f"{' and '.join(share['keys'])}"
    )


def by_head(table: pd.DataFrame, shift: Shift, caption: str, marks: Marks) -> go.Figure:
    """Return what keys and values of each head carry, replaced and by integrated gradients."""
    rows = table[(table["kind"] == "introspection") & (table["head"] >= 0) & (table["side"] != _WHOLE[0])]
    rows = rows.assign(layer=rows["layer_start"], column=rows["side"] + "<br>head " + rows["head"].astype(str))
    kept = _shown_layers(rows.assign(value=rows["effect"]))
    rows = rows[rows["layer"].isin(kept)]
    columns = list(dict.fromkeys(rows.sort_values(["side", "head"])["column"]))
    panels = []
    for kind, name in (("injected", "Concepts"), ("random", "Random vectors")):
        for direction, word in (("insert", "inserted"), ("remove", "removed"), ("gradient", "integrated gradients")):
            panel_rows = rows[(rows["series"] == kind) & (rows["direction"] == direction)]
            if len(panel_rows):
                panels.append(HeatPanel(f"{name}, {word}", marks.mean(_cube(panel_rows, kept, columns))))
    return draw.heatmap(
        panels,
        Scale("part of the<br>shift, logits"),
        rows=[f"layer {layer}" for layer in kept],
        columns=columns,
        column_label="keys or values of one key-value head",
        title=_heads_finding(panels, kept, columns, shift),
        subtitle=f"{caption} {_gradients_finding(table)} Dots mark cells whose {marks.caption}.",
    )


def _cube(
    rows: pd.DataFrame, layers: Sequence[int], columns: Sequence[str]
) -> Float[np.ndarray, "layers columns vectors"]:
    wide = stats.unit_means(rows, ["layer", "column"], "effect", "unit")
    wide = wide.reindex(pd.MultiIndex.from_product([layers, columns]))
    return np.asarray(wide, dtype=np.float64).reshape(len(layers), len(columns), -1)


def _heads_finding(panels: Sequence[HeatPanel], layers: Sequence[int], columns: Sequence[str], shift: Shift) -> str:
    if not shift.is_there:
        return _nothing(shift)
    heads = []
    for panel in panels[:2]:
        row, column = np.unravel_index(int(np.nanargmax(np.abs(panel.values.mean))), panel.values.mean.shape)
        side, head = columns[int(column)].split("<br>")
        effect = shift.share(float(panel.values.mean[row, column]))
        heads.append(f"the {side} of {head} in layer {layers[int(row)]} ({effect} of the shift)")
    return f"Strongest single head: when inserted, {heads[0]}; when removed, {heads[1]}"


def _gradients_finding(table: pd.DataFrame) -> str:
    """Say what gradients add up to, beside the shift that they are to explain."""
    rows = table[(table["level"] == "gradient") & (table["series"] == "injected")]
    means = rows.groupby(["conversation", "intervention"]).agg(total=("effect", "sum"), shift=("shift", "first")).mean()
    return (
        f"Integrated gradients add up to {signed(means['total'])} of {signed(means['shift'])} logits under concepts; "
        "effects of parts that are replaced need not add up."
    )


def together(table: pd.DataFrame, text: Text, shift: Shift, caption: str) -> go.Figure:
    """Return the share of the shift that windows carry together, one after the other."""
    rows = table[(table["level"] == "curve") & (table["conversation"] == text.conversation)]
    # All in units of one shift, since a vector that shifts next to nothing has no shares of it.
    rows = rows.assign(share=rows["effect"] / (shift.mean if shift.is_there else 1.0))
    concept = rows["series"] == "injected"
    rows = rows.assign(series=rows["windows"].where(concept, "random"))
    rows = rows[concept | (rows["windows"] == "strongest")]
    summary = stats.group_means(rows, ["direction", "series", "n_windows"], "share", unit="unit")
    curves = summary.rename(columns={"direction": "panel"})
    labels = _COME_AND_GO[shift.is_there]
    panels = [
        Panel(name, title, label, references=[float(shift.is_there)], height=280)
        for (name, title), label in zip(DIRECTIONS.items(), labels, strict=True)
    ]
    n_windows, n_cells = int(rows["of_windows"].max()), int(rows["n_cells"].max())
    shares = "Shares of the mean shift under concepts. " if shift.is_there else ""
    figure = draw.curves(
        curves,
        panels,
        _ORDERS,
        x="n_windows",
        x_label=f"windows replaced, of {n_windows} in which the caches differ",
        log_x=True,
        columns=1,
        legend_lines=2,
        title=_together_finding(curves, n_windows, shift),
        subtitle=f"{caption} {shares}Each vector has its own "
        "order: by the mean of what a window carries alone, inserted and removed. A window has "
        f"{n_cells / n_windows:.1f} cells (layer x position) on average. Bands: 95% intervals over vectors.",
    )
    return figure.update_yaxes(tickformat=".0%") if shift.is_there else figure


def _together_finding(curves: pd.DataFrame, n_windows: int, shift: Shift) -> str:
    if not shift.is_there:
        return _nothing(shift)
    strongest = [_half(curves, direction, "strongest") for direction in DIRECTIONS]
    shuffled = [_half(curves, direction, "shuffled") for direction in DIRECTIONS]
    return (
        f"Half of the shift comes with the {strongest[0]} strongest of {n_windows} windows inserted, and goes with the "
        f"{strongest[1]} strongest removed (in random order: {shuffled[0]}, {shuffled[1]})"
    )


def _half(curves: pd.DataFrame, direction: str, series: str) -> str:
    """Return how many windows it takes for half of the shift, among the numbers that were tried."""
    enough = curves[(curves["panel"] == direction) & (curves["series"] == series) & (curves["mean"] >= 0.5)]
    return str(int(enough["n_windows"].min())) if len(enough) else "more"
