"""One curve with the band of its interval, as every figure of curves over a number draws it."""

import pandas as pd
import plotly.graph_objects as go

from mechint.figures.style import Series, rgba


def curve(rows: pd.DataFrame, x: str, style: Series, *, legend: bool, marked: bool = True) -> list[go.Scatter]:
    """Return band and line of `mean, low, high` over column `x`; no band where bounds are NaN, nothing without rows."""
    if rows.empty:
        return []
    rows = rows.sort_values(x, kind="stable")
    line = go.Scatter(
        x=rows[x], y=rows["mean"], mode="lines+markers" if marked else "lines", name=style.label,
        legendgroup=style.label, showlegend=legend, marker={"symbol": style.symbol, "size": 8, "color": style.color},
        line={"color": style.color, "dash": style.dash, "width": style.width},
        customdata=rows[["low", "high"]].to_numpy(),
        hovertemplate=f"{style.label}, %{{x:g}}: %{{y:.3f}} [%{{customdata[0]:.3f}}, %{{customdata[1]:.3f}}]"
        "<extra></extra>",
    )  # fmt: skip
    bounded = rows[rows["low"].notna()]
    if bounded.empty:
        return [line]
    band = go.Scatter(
        x=[*bounded[x], *bounded[x][::-1]], y=[*bounded["high"], *bounded["low"][::-1]], fill="toself",
        fillcolor=rgba(style.color, 0.16), line={"width": 0}, mode="lines", legendgroup=style.label,
        showlegend=False, hoverinfo="skip",
    )  # fmt: skip
    return [band, line]
