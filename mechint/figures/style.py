"""The one template: colours that colour-blind readers can tell apart, dashes and markers that survive printing."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"  # Okabe & Ito (2008)
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
BROWN, VIOLET = "#7A3E00", "#5D3A9B"  # darker than all of these but black, so apart from them in grey too
INK, GRID = "#222222", "#E3E3E3"
DIVERGING = [[0.0, BLUE], [0.5, "#FFFFFF"], [1.0, VERMILION]]
WIDTH = 1120
FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"
_CHARACTERS = {18: 112, 13: 165}  # that fit into WIDTH at a font size


@dataclass(frozen=True)
class Series:
    """How one curve looks in every figure; `label` is what the legend says."""

    label: str
    color: str
    dash: str
    symbol: str
    width: float = 2.0


SERIES = {
    "clean": Series("clean", INK, "dot", "circle-open"),
    "injected": Series("concept injected", VERMILION, "solid", "circle", 3.0),
    "random": Series("random vector of equal norm injected", BLUE, "dash", "square"),
    "no": Series("control, answer no", GREEN, "dashdot", "triangle-up"),
    "confusing-no": Series("control, answer no but confusing", SKY, "longdash", "diamond"),
    "yes": Series("control, answer yes", ORANGE, "longdashdot", "triangle-down"),
    "ambiguous": Series("control, ambiguous", PURPLE, "dash", "x"),
    "swapped": Series("cache filled by the finetuned model", BROWN, "longdash", "hexagon", 3.0),
    "contrast": Series("contrast vector injected", VIOLET, "solid", "star-diamond", 3.0),
}
PUBLISHED = Series("published value (Qwen2.5-Coder-32B-Instruct)", PURPLE, "dot", "star-open")
CONTROL_GROUPS = ("no", "confusing-no", "yes", "ambiguous")
MINUS = "\N{MINUS SIGN}"
METRICS = {
    "p_yes": "P(yes)",
    "p_no": "P(no)",
    "logit_diff": f"logit(yes) {MINUS} logit(no)",
    "yes_no_mass": "P(yes) + P(no)",
    "entropy": "entropy, nats",
}


def template() -> go.layout.Template:
    """White background, readable sizes, thin grid, axes drawn outside of the data."""
    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "showline": True,
        "linecolor": INK,
        "ticks": "outside",
        "tickcolor": INK,
        "exponentformat": "e",
        "title": {"standoff": 8},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": INK},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"font": {"family": FONT}},
            "hovermode": "closest",
            "legend": {"font": {"size": 13}, "bgcolor": "rgba(255,255,255,0.9)"},
        }
    )


def finish(
    figure: go.Figure, title: str, subtitle: str, *, height: int, bottom: int = 60, right: int = 30
) -> go.Figure:
    """Apply the template and write title and subtitle, wrapped, into a top margin that is as high as they need."""
    head, sub = _wrap(title, 18), _wrap(subtitle, 13)
    extra = 23 * head.count("<br>")  # Plotly anchors the last line of a title, not the first
    top = 66 + extra + 18 * (sub.count("<br>") + 1)
    below = {"orientation": "h", "x": 0, "xanchor": "left", "yanchor": "top", "y": -62 / (height - 22)}
    figure.update_layout(
        template=template(),
        legend=below,
        width=WIDTH,
        height=height + top + bottom,
        margin={"l": 75, "r": right, "t": top + 22, "b": bottom},
        title={
            "text": f"<b>{head}</b>",
            "subtitle": {"text": sub, "font": {"size": 13, "color": "#555555"}},
            "font": {"size": 18},
            "x": 0.012,
            "xanchor": "left",
            "y": 1.0,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 16 + extra},
        },
    )
    return figure


def _wrap(text: str, size: int) -> str:
    return "<br>".join(textwrap.wrap(text, _CHARACTERS[size]))


def rgba(color: str, alpha: float) -> str:
    """`#RRGGBB` with transparency, as Plotly wants it for filled bands."""
    parts = [str(int(color[start : start + 2], 16)) for start in (1, 3, 5)]
    return f"rgba({','.join(parts)},{alpha})"


def layer_position(layer: object) -> int:
    """Place of a lens row on the axis: `embed` is -1, block l is l."""
    return -1 if str(layer) == "embed" else int(str(layer))


def layer_ticks(positions: Sequence[int], room: int = 17) -> dict[str, object]:
    """Axis ticks for lens rows, those of `spread`."""
    values = spread(min(positions), max(positions), room)
    return {"tickvals": values, "ticktext": ["embed" if value < 0 else str(value) for value in values], "tickangle": 0}


def spread(first: int, last: int, room: int = 17) -> list[int]:
    """Return positions for ticks: all of them, or every 2nd, 4th, ... with the first and last always there."""
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128) if (last - first) / step <= room)
    start = step if first < 0 and step > 1 else 0  # no 0 on top of `embed`
    values = [value for value in range(start, last + 1, step) if last - value > step / 2 or value == last]
    return sorted({*values, last} | ({first} if first < 0 else set()))
