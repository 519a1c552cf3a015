"""What each layer's attention and MLP write into logit_diff, as bars with intervals, and what that sums to on the way.

Without colour, attention is plain and MLPs are hatched; the sign is the direction of a bar.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.curves import curve
from mechint.figures.panels import shade_layers
from mechint.figures.style import BLUE, INK, ORANGE, VERMILION, Series, finish, layer_ticks
from mechint.figures.units import with_units

_WIDTH = 0.38  # of a bar, in layers
_HEIGHTS = (300, 150)
_LEAST = 2e-3  # of the highest bar; what is lower everywhere gets no place of its own
_NAMED_HEADS = 6
_HEADS = "one head, the strongest with their number"
_PALE = "#A9CFE6"  # attention behind its heads
_SUM = Series("sum up to a layer", VERMILION, "solid", "circle", 2.5)


@dataclass(frozen=True)
class _Look:
    """One kind of component: its place beside the layer's number, its colour and its hatching."""

    label: str
    offset: float
    color: str
    pattern: str


_LOOKS = {
    "embed": _Look("embedding", 0.0, "#FFFFFF", "."),
    "attn": _Look("attention", -_WIDTH / 2, BLUE, ""),
    "mlp": _Look("MLP", _WIDTH / 2, ORANGE, "/"),
    "scale": _Look("scale of the final norm", -_WIDTH / 2, "#777777", "x"),
    "rest": _Look("biases and the rest", _WIDTH / 2, "#FFFFFF", "-"),
}
_AFTER = ("scale", "rest")


@checked
def waterfall(
    bars: pd.DataFrame,
    cumulative: pd.DataFrame,
    *,
    title: str,
    subtitle: str,
    label: str,
    heads: pd.DataFrame | None = None,
    injected_layers: Iterable[int] = (),
) -> go.Figure:
    """Return the figure of `layer, kind, mean, low, high` (bars) above `layer, mean, low, high` (sums up to a layer).

    `kind` is embed (layer -1), attn, mlp, scale or rest (the last two at the layer after the last block); kinds that
    are next to nothing everywhere are left out. NaN bounds draw no whisker. `heads` (`layer, index, mean`) are marked
    over the bar of their attention, the strongest with their number. `label` says what is divided among components.
    """
    floor = _LEAST * bars["mean"].abs().max()
    kinds = [kind for kind in _LOOKS if (bars.loc[bars["kind"] == kind, "mean"].abs() >= floor).any()]
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        row_heights=list(_HEIGHTS),
        vertical_spacing=0.09,
        subplot_titles=["<b>each component</b>", "<b>sum up to each layer</b>"],
    )
    for kind in kinds:
        pale = heads is not None and kind == "attn"
        figure.add_trace(_bars(bars[bars["kind"] == kind], _LOOKS[kind], pale=pale), row=1, col=1)
    if heads is not None:
        figure.add_trace(_heads(heads), row=1, col=1)
    drawn_bars = bars[bars["kind"].isin(kinds)]
    inside = cumulative["layer"].between(drawn_bars["layer"].min(), drawn_bars["layer"].max())
    for trace in curve(cumulative[inside], "layer", _SUM):
        figure.add_trace(trace.update(showlegend=False), row=2, col=1)
    _axes(figure, drawn_bars, label, injected_layers)
    return finish(figure, title, with_units(subtitle, [bars, cumulative]), height=sum(_HEIGHTS) + 60, bottom=100)


def _bars(rows: pd.DataFrame, look: _Look, *, pale: bool) -> go.Bar:
    rows = rows.sort_values("layer", kind="stable")
    up, down = rows["high"] - rows["mean"], rows["mean"] - rows["low"]
    return go.Bar(
        x=rows["layer"] + look.offset,
        y=rows["mean"],
        width=_WIDTH,
        name=look.label,
        legendgroup=look.label,
        showlegend=True,
        customdata=rows[["low", "high"]],
        marker={
            "color": _PALE if pale else look.color,
            "line": {"color": INK, "width": 1},
            "pattern": {"shape": look.pattern, "fgcolor": INK, "size": 6, "fillmode": "overlay", "solidity": 0.25},
        },
        error_y={"type": "data", "array": up, "arrayminus": down, "color": INK, "thickness": 1.3, "width": 3},
        text=[_name(layer) for layer in rows["layer"]],
        textposition="none",
        hovertemplate=f"{look.label}, %{{text}}: %{{y:+.3f}} [%{{customdata[0]:+.3f}}, %{{customdata[1]:+.3f}}]"
        "<extra></extra>",
    )


def _heads(heads: pd.DataFrame) -> go.Scatter:
    """One mark for each head, spread over the bar of its layer's attention; the strongest are drawn last."""
    heads = heads.sort_values("mean", key=abs, kind="stable")
    spread = _WIDTH * 0.8 * ((heads["index"] + 0.5) / (heads["index"].max() + 1) - 0.5)
    named = [at >= len(heads) - _NAMED_HEADS for at in range(len(heads))]
    return go.Scatter(
        x=heads["layer"] - _WIDTH / 2 + spread,
        y=heads["mean"],
        mode="markers+text",
        name=_HEADS,
        legendgroup=_HEADS,
        showlegend=True,
        text=[str(head) if big else "" for head, big in zip(heads["index"], named, strict=True)],
        textfont={"size": 10},
        textposition="middle center",
        customdata=heads[["layer", "index"]],
        marker={
            "symbol": "circle",
            "size": [16 if big else 6 for big in named],
            "color": "white",
            "opacity": 1,
            "line": {"color": INK, "width": 1.2},
        },
        hovertemplate="layer %{customdata[0]}, head %{customdata[1]}: %{y:+.3f}<extra></extra>",
    )


def _name(layer: int) -> str:
    return "embed" if layer < 0 else f"layer {layer}"


def _axes(figure: go.Figure, bars: pd.DataFrame, label: str, injected: Iterable[int]) -> None:
    layers = sorted(set(bars["layer"]))
    figure.update_xaxes(range=[layers[0] - 0.6, layers[-1] + 0.6], showgrid=False, **layer_ticks(layers, room=34))
    if bars["kind"].isin(_AFTER).any():  # the last tick is always that of the last layer
        figure.update_xaxes(ticktext=[*figure.layout.xaxis.ticktext[:-1], "after"])
    figure.update_xaxes(title_text="layer", row=2, col=1)
    figure.update_yaxes(title_text=label, row=1, col=1)
    figure.update_yaxes(title_text="sum", row=2, col=1)
    figure.update_layout(barmode="overlay")
    for row in (1, 2):
        figure.add_hline(0, line={"color": INK, "width": 1}, row=row, col=1)
    shade_layers(figure, injected)
