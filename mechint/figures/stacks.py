"""Shares that sum to one as stacked bars, a row for each group; without colour, hatchings tell them apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from mechint.base.signatures import checked
from mechint.figures.names import check_names
from mechint.figures.style import INK, finish
from mechint.figures.words import percent

_ROW = 27  # pixels
_ROOM = 0.05  # of the axis, that a text inside a bar needs
_GAP = 0.5  # rows between two groups


@dataclass(frozen=True)
class Hatch:
    """How a part of the bars looks: its colour, its hatching, and the colour of the number in it."""

    label: str
    color: str
    pattern: str = ""
    ink: str = INK


@checked
def stacks(
    shares: pd.DataFrame,
    parts: Mapping[str, Hatch],
    *,
    title: str,
    subtitle: str,
    label: str,
    counted: str,
    legend_lines: int = 1,
) -> go.Figure:
    """Return the figure of `group, row, part, share`, and `n` which is written behind each row.

    Groups and rows come in the order of the table, from the top, parts in that of `parts`, from the left. `label` is
    that of the axis, `counted` what `n` counts. A share of less than 5% has its number for the pointer only.
    """
    check_names(shares["part"], parts, "part")
    rows = shares[["group", "row", "n"]].drop_duplicates(["group", "row"]).reset_index(drop=True)
    new_groups = (rows["group"] != rows["group"].shift()).cumsum() - 1
    places = -(rows.index.to_numpy() + _GAP * new_groups.to_numpy())
    at = {(group, row): place for group, row, place in zip(rows["group"], rows["row"], places, strict=True)}
    figure = go.Figure([_bar(shares[shares["part"] == name], at, look) for name, look in parts.items()])
    at_edge = {"xref": "x domain", "showarrow": False, "font": {"size": 12}}
    for (_, row), place in at.items():
        figure.add_annotation(x=0, xshift=-6, y=place, text=row, xanchor="right", **at_edge)
    for count, place in zip(rows["n"], places, strict=True):
        figure.add_annotation(x=1, xshift=6, y=place, text=f"{count:,}", xanchor="left", **at_edge)
    for group, of_group in rows.groupby("group", sort=False):
        middle = float(places[of_group.index].mean())
        text = {"text": f"<b>{group}</b>", "showarrow": False, "align": "left"}
        figure.add_annotation(x=0, xref="x domain", xshift=-245, y=middle, xanchor="left", **text)
    figure.add_annotation(x=1, xshift=6, y=0.8, text=counted, xanchor="left", **at_edge)
    height = round(90 + _ROW * (1 - float(places.min())))
    done = finish(figure, title, subtitle, height=height, bottom=70 + 22 * legend_lines, right=70)
    done.update_layout(barmode="stack", bargap=0.0, legend={"traceorder": "normal"}, margin={"l": 260})
    done.update_xaxes(title_text=label, range=[0, 1], tickformat=".0%")
    done.update_yaxes(showticklabels=False, ticks="", showgrid=False, range=[float(places.min()) - 0.6, 1.2])
    return done


def _bar(rows: pd.DataFrame, at: Mapping[tuple[str, str], float], look: Hatch) -> go.Bar:
    return go.Bar(
        x=rows["share"],
        y=[at[key] for key in zip(rows["group"], rows["row"], strict=True)],
        orientation="h",
        width=0.82,
        name=look.label,
        marker={
            "color": look.color,
            "line": {"color": INK, "width": 1},
            "pattern": {"shape": look.pattern, "fgcolor": INK, "size": 6, "fillmode": "overlay", "solidity": 0.25},
        },
        # On a hatching a number cannot be read.
        text=["" if share < _ROOM or look.pattern else percent(share) for share in rows["share"]],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"size": 11, "color": look.ink},
        customdata=rows[["row", "share"]],
        hovertemplate=f"%{{customdata[0]}}, {look.label}: %{{customdata[1]:.1%}}<extra></extra>",
    )
