"""The calibration figure: for every reading the shifts of detection and controls, their difference, and the verdict."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.style import BLUE, GREEN, INK, MINUS, ORANGE, SKY, VERMILION, finish, rgba
from mechint.figures.units import with_units

_PANELS = {"injected": "Concept vectors, or another model's cache", "random": "Random vectors of equal norm"}
_ROW, _OFFSETS = 46, {"detection": 0.24, "control": 0.0, "net": -0.24}
_SERIES = {
    "detection": ("detection: introspection questions", SKY, "circle-open", 1.5, 8),
    "control": ("control: questions on facts", ORANGE, "triangle-up-open", 1.5, 8),
    "net": (f"detection {MINUS} control", INK, "diamond", 3.0, 10),
}
_COLORS = {"reports": VERMILION, "bias": BLUE, "null": GREEN, "undecided": "#777777"}
_WORDS = {"reports": "reports it", "bias": "bias, no report", "null": "nothing", "undecided": "undecided"}


@checked
def calibration(verdicts: pd.DataFrame, *, margin: float, title: str) -> go.Figure:
    """Return the figure of a frame with `label`, `series`, `verdict`, and the three shifts with their bounds.

    `series` is injected, random or swapped; shifts are of logit_diff, natural units.
    """
    labels = list(dict.fromkeys(verdicts["label"]))
    place = {label: len(labels) - 1 - number for number, label in enumerate(labels)}
    figure = make_subplots(
        rows=1,
        cols=2,
        shared_yaxes=True,
        shared_xaxes="all",
        horizontal_spacing=0.18,
        column_widths=[0.55, 0.45],
        subplot_titles=[f"<b>{panel}</b>" for panel in _PANELS.values()],
    )
    for column, panel in enumerate(_PANELS, start=1):
        rows = verdicts[(verdicts["series"] == "random") == (panel == "random")]
        for name in _SERIES:
            figure.add_trace(_points(rows, name, place, legend=column == 1), row=1, col=column)
        figure.add_vrect(-margin, margin, row=1, col=column, fillcolor=rgba(GREEN, 0.14), line_width=0, layer="below")
        figure.add_vline(0, row=1, col=column, line={"color": INK, "width": 1, "dash": "dot"})
        for row in rows.to_dict("records"):
            _write_verdict(figure, row, place[row["label"]], column)
        figure.update_xaxes(title=f"shift of logit(yes) {MINUS} logit(no), natural units", row=1, col=column)
    figure.update_yaxes(tickvals=list(place.values()), ticktext=list(place), range=[-0.6, len(labels) - 0.4])
    figure.update_yaxes(showgrid=True, ticks="")
    over = pd.DataFrame({"n": verdicts[["vectors", "questions", "controls"]].min(axis=1), "low": verdicts["net_low"]})
    caption = with_units(_subtitle(verdicts, margin), [over])
    done = finish(figure, title, caption, height=_ROW * len(labels), bottom=120)
    done.update_layout(margin={"l": 20, "r": 130})
    done.update_yaxes(automargin=True)
    return done


def _points(rows: pd.DataFrame, name: str, place: dict[str, int], *, legend: bool) -> go.Scatter:
    label, color, symbol, width, size = _SERIES[name]
    return go.Scatter(
        x=rows[name],
        y=[place[row] + _OFFSETS[name] for row in rows["label"]],
        mode="markers",
        name=label,
        legendgroup=name,
        showlegend=legend,
        marker={"color": color, "symbol": symbol, "size": size, "line": {"width": 2, "color": color}},
        error_x={
            "type": "data",
            "symmetric": False,
            "color": color,
            "thickness": width,
            "width": 4,
            "array": rows[f"{name}_high"] - rows[name],
            "arrayminus": rows[name] - rows[f"{name}_low"],
        },
        customdata=rows[[f"{name}_low", f"{name}_high"]].to_numpy(),
        hovertemplate=label + " %{x:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}]<extra></extra>",
    )


def _write_verdict(figure: go.Figure, row: dict[str, object], y: int, column: int) -> None:
    verdict, numbers = str(row["verdict"]), [f"{row[name]:.2f}" for name in ("net", "net_low", "net_high")]
    text = f"<b>{_WORDS[verdict]}</b><br>{numbers[0]} [{numbers[1]}, {numbers[2]}]".replace("-", MINUS)
    figure.add_annotation(
        text=text,
        font={"color": _COLORS[verdict], "size": 12},
        showarrow=False,
        align="left",
        x=1.01,
        xref="x domain" if column == 1 else "x2 domain",
        xanchor="left",
        y=y,
        yref="y" if column == 1 else "y2",
    )


def _subtitle(verdicts: pd.DataFrame, margin: float) -> str:
    most = verdicts.iloc[0]
    return (
        f"Points: means over vectors and questions ({most['vectors']} vectors, {most['questions']} introspection and "
        f"{most['controls']} control questions, held out from training), 95% intervals over both. "
        f"Shaded: shifts below {margin:g}, which do not count. Verdicts: reports it: detection {MINUS} control is "
        "above the shaded band; bias: detection and control move alike; nothing: neither moves; undecided: the "
        "interval crosses the band's edge."
    )
