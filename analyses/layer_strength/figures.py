"""The layer-strength table as figures: the grid, curves at the dose's layers, and all ranges. Needs no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.kit import plain_text, shifts
from analyses.kit.option_types import format_layers
from analyses.layer_strength.measures import Places, grid, ranges
from mechint import figures as draw
from mechint.figures import HeatPanel, Panel, Scale
from mechint.figures.heatmaps import SEQUENTIAL, WARNING, frame, hatch
from mechint.figures.panels import SHADE
from mechint.figures.style import INK, METRICS, MINUS, SERIES
from mechint.figures.words import bounded, signed
from mechint.stats.bands import BANDS, Marks
from mechint.stats.intervals import Interval

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.kit.dose import Dose
    from mechint.base.files import JSON

_PANELS = {
    "detection": ("Introspection questions", "shift"),
    "no": ("Control questions, answer no", "shift"),
    "net": (f"Introspection {MINUS} control", "shift"),
    "random": ("Random vectors, introspection", "shift"),
    "p_yes": ("P(yes), introspection questions", "p"),
    "text": ("Perplexity of text / clean", "text"),
}
_CURVES = {  # panel and series
    "detection": ("shift", "injected"),
    "no": ("shift", "no"),
    "yes": ("shift", "yes"),
    "random": ("shift", "random"),
    "text": ("text", "injected"),
    "random_text": ("text", "random"),
}
_STRETCH = 3.0  # times the largest shift where text is coherent, at which colours end
_AXIS = 52  # pixels of an axis above a panel
_WORST = 100.0  # times the clean perplexity, beyond which colours say no more


@dataclass(frozen=True)
class Setting:
    """What subtitles say of a run, its dose, the unit of the grid's strengths, and what marks a place."""

    caption: str
    dose: Dose
    relative: bool
    marks: Marks = BANDS

    @property
    def unit(self) -> str:
        """What the strengths of the grid are."""
        return "|added| / median |residual|" if self.relative else "strength (factor on the vectors)"

    @property
    def dose_in_unit(self) -> float | None:
        """The dose's strength, if it is of the same kind as those of the grid."""
        return self.dose.relative_strength if self.relative else self.dose.strength


def figures(table: pd.DataFrame, setting: Setting) -> dict[str, go.Figure]:
    """Return the figures by file name."""
    places = grid(table, setting.marks)
    caption = f"{setting.caption}; {shifts.counts(table)}"
    drawn = {
        "layer_strength_grid": _heatmaps(
            places,
            f"{caption}. {_note(places, setting.marks)}",
            title=_finding(places, lambda row, column: f"layers {row}, strength {column}"),
            labels=("injected layers", setting.unit),
        ),
        "layer_strength_curves": curves(table, places, setting, caption),
    }
    if (table["sweep"] == "range").any():
        every = ranges(table, setting.marks)
        title = _finding(every, lambda first, last: f"layers {first} to {last}" if first != last else f"layer {first}")
        subtitle = f"{caption}; all ranges, {setting.dose}. {_note(every, setting.marks)}"
        labels = ("first injected layer", "last injected layer")
        drawn["layer_strength_ranges"] = _heatmaps(every, subtitle, title=title, labels=labels)
    return drawn


def verdict(table: pd.DataFrame, setting: Setting) -> dict[str, JSON]:
    """Return for grid and ranges where detection exceeds control most while text is coherent; None where nowhere."""
    sweeps = {"grid": grid}
    if (table["sweep"] == "range").any():
        sweeps["ranges"] = ranges
    verdicts: dict[str, JSON] = {"clean_perplexity": plain_text.clean_perplexities(table)}
    for name, measured in sweeps.items():
        verdicts[name] = _best(measured(table, setting.marks))
    return verdicts


def _best(places: Places) -> dict[str, JSON] | None:
    """Return the best place with its measures and their intervals, if there is one."""
    best = places.best()
    if best is None:
        return None
    verdict: dict[str, JSON] = {"row": places.rows[best[0]], "column": places.columns[best[1]]}
    for measure, of in places.measures.items():
        for end, bound in (("", of.mean), ("_low", of.low), ("_high", of.high)):
            if np.isfinite(bound[best]):
                verdict[f"{measure}{end}"] = round(float(bound[best]), 4)
    return verdict


def _heatmaps(places: Places, subtitle: str, *, title: str, labels: tuple[str, str]) -> go.Figure:
    measures = places.measures
    panels = [
        HeatPanel(heading, places.marked.get(name, measures[name]), scale, mark="bold" if scale == "shift" else "")
        for name, (heading, scale) in _PANELS.items()
        if name in measures
    ]
    figure = draw.heatmap(
        panels,
        _scales(places),
        rows=places.rows,
        columns=places.columns,
        row_label=labels[0],
        column_label=labels[1],
        title=title,
        subtitle=subtitle,
        upward=True,
        digits=None,
    )
    hatch(figure, places.lost)
    best = places.best()
    if best is not None:
        frame(figure, *best)
    return figure


def _scales(places: Places) -> dict[str, Scale]:
    """Return the scales of colour; that of shifts is not stretched for places where text is lost, but by some."""
    names = [name for name, (_, scale) in _PANELS.items() if scale == "shift" and name in places.measures]
    sizes = np.abs([places.measures[name].mean for name in names])
    limit = float(np.nanmax(sizes))
    if not places.lost.all():
        limit = min(limit, _STRETCH * float(np.nanmax(np.where(places.lost, np.nan, sizes))))
    limit = max(limit, 1e-3)
    return {
        "shift": Scale(f"shift of<br>{METRICS['logit_diff']}", -limit, limit),
        "p": Scale("P(yes)", 0.0, 1.0, SEQUENTIAL),
        "text": Scale("perplexity<br>/ clean", 1.0, _WORST, WARNING, log=True),
    }


def _note(places: Places, marks: Marks) -> str:
    text = (
        "Means over concepts (random: over vectors); bold, or a sign where there is no room for numbers: places "
        f"whose {marks.caption}. Hatched: text is {plain_text.COHERENT:g} times as perplexing as clean, or more "
        f"(colours of shifts may be at the scale's end there). {plain_text.CAPTION}."
    )
    if places.best() is None:
        return text
    cells = int(np.isfinite(places.measures["net"].mean).sum())
    return f"{text} Framed: the largest difference without hatching, of {cells} places."


def _finding(places: Places, where: Callable[[str, str], str]) -> str:
    best, measures = places.best(), places.measures
    if "net" not in measures:
        return "Shift of the introspection answer by layer and strength (no control questions were asked)"
    if best is None:
        return "Nowhere does detection exceed control while text is still coherent"
    place = where(places.rows[best[0]], places.columns[best[1]])
    text = f"While text is coherent, detection exceeds control most at {place}: by {_interval(measures['net'], best)}"
    if "random" in measures:
        text += f" (random vectors shift detection by {signed(measures['random'].mean[best])} there)"
    return text


def curves(table: pd.DataFrame, places: Places, setting: Setting, caption: str) -> go.Figure:
    """Return shifts and perplexity against strength at the dose's layers."""
    layers = format_layers(setting.dose.layers)
    row = places.rows.index(layers)
    strengths = [float(column) for column in places.columns]
    parts = [
        _curve(places, name, panel, series, row) for name, (panel, series) in _CURVES.items() if name in places.measures
    ]
    points = pd.concat(parts, ignore_index=True)
    points = points[points["strength"] > 0]
    lost = [strength for strength, gone in zip(strengths, places.lost[row], strict=True) if gone]
    panels = [
        Panel("shift", "How far do answers move?", f"shift of {METRICS['logit_diff']}", height=380),
        Panel("text", "Is text still likely?", "perplexity / clean", "log", [plain_text.COHERENT], height=220),
    ]
    figure = draw.curves(
        points,
        panels,
        {name: SERIES[name] for name in ("injected", "random", "no", "yes")},
        x="strength",
        x_label=setting.unit,
        log_x=True,
        columns=1,
        title=_curves_finding(places, row),
        subtitle=f"{caption}. Injected at layers {layers} in the marked turns only. Bands: 95% intervals over "
        f"concepts (random: over vectors). Shaded: text is {plain_text.COHERENT:g} times as perplexing as clean, or "
        f"more. {plain_text.CAPTION}. Dashed: the dose.",
    )
    strengths = points["strength"]
    if setting.dose_in_unit is not None and strengths.min() <= setting.dose_in_unit <= strengths.max():
        figure.add_vline(setting.dose_in_unit, line={"color": INK, "width": 1.5, "dash": "dash"}, layer="below")
    if lost:
        figure.add_vrect(x0=min(lost), x1=2 * strengths.max(), **SHADE)
    return figure if setting.relative else _with_measured(figure, table, layers)


def _curve(places: Places, name: str, panel: str, series: str, row: int) -> pd.DataFrame:
    of = places.measures[name]
    values = {bound: getattr(of, bound)[row] for bound in ("mean", "low", "high")}
    return pd.DataFrame(
        {"panel": panel, "series": series, "strength": list(map(float, places.columns)), "n": of.n, **values}
    )


def _with_measured(figure: go.Figure, table: pd.DataFrame, layers: str) -> go.Figure:
    """Say at an axis above the first panel what each strength comes to, as receipts have it."""
    rows = table[(table["sweep"] == "grid") & (table["injected_layers"] == layers) & (table["series"] == "injected")]
    ratios = rows.groupby(rows["strength"].astype(float))["added_ratio"].mean()
    below = figure.layout.xaxis
    above = {
        "type": "log",
        "range": below.range,
        "tickvals": below.tickvals,
        "ticktext": [f"{ratios[strength]:.2g}" for strength in below.tickvals],
        "title": {
            "text": "|added| / model's median residual norm, as measured (mean over layers and concepts)",
            "standoff": 4,
        },
        "overlaying": "x",
        "side": "top",
        "anchor": "y",
        "showgrid": False,
    }
    figure.update_layout(xaxis99=above)
    # An axis is drawn only where something is plotted against it.
    figure.add_scatter(x=below.tickvals[:1], y=[None], xaxis="x99", yaxis="y", showlegend=False, hoverinfo="skip")
    figure.layout.annotations[0].update(yshift=_AXIS)
    return figure.update_layout(margin_t=figure.layout.margin.t + _AXIS, height=figure.layout.height + _AXIS)


def _curves_finding(places: Places, row: int) -> str:
    """Say how far detection gets from control before text is lost."""
    net = places.measures.get("net")
    coherent = np.flatnonzero(~places.lost[row])
    if net is None or not len(coherent):
        return "Shift of answers by strength" + ("" if len(coherent) else "; text is coherent at none")
    at = int(coherent[net.mean[row][coherent].argmax()])
    return (
        f"At layers {places.rows[row]} text is coherent up to strength {places.columns[int(coherent.max())]}; until "
        f"there detection {MINUS} control reaches {_interval(net, (row, at))}, at {places.columns[at]}"
    )


def _interval(of: Interval, at: tuple[int, int]) -> str:
    return bounded(of.mean[at], of.low[at], of.high[at])
