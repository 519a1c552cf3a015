"""Components in rows: what is attributed to each, what its ablation does, its activation, and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mechint.base.signatures import checked
from mechint.figures.dots import dots
from mechint.figures.panels import Panel
from mechint.figures.style import INK, MINUS, SERIES, Series
from mechint.figures.verdicts import UNTESTED, VERDICTS, check_components

_LONGEST = 34  # characters of a component's name
_VERDICTS_WIDTH = 150  # pixels beside the panels
_ATTRIBUTION = Series("attribution under concepts", INK, "solid", "circle")
_LOOKS: Mapping[str, Series] = {
    "random": SERIES["random"],
    "attribution": _ATTRIBUTION,
    "clean": SERIES["clean"],
    "injected": SERIES["injected"],
    **{f"measured {name}": style for name, style in VERDICTS.items()},
}
_WIDTHS = {"attribution": 0.37, "measured": 0.37, "activation": 0.26}


@checked
def feature_bars(
    components: pd.DataFrame,
    *,
    title: str,
    subtitle: str,
    units: pd.DataFrame | None = None,
    links: Mapping[str, str] | None = None,
    measured: str = "Measured: set back to clean",
    activation: str = "feature activation",
) -> go.Figure:
    """Return the figure of a table with a row for each component: `component, kind, attribution`, and where known
    `random` (attribution under random vectors) and `measured`, with bounds (`attribution_low`, ...; NaN: none), all in
    logits, `clean, injected, verdict`.

    Rows whose `kind` is not feature (the SAE's error, the cached prefix, all the rest) stand below, shaded. `units`
    (`component, panel, unit, value`, with panels attribution and measured) are drawn small; `links` make names links.
    Raises UsageError for a table without rows, and for verdicts that are none.
    """
    check_components(components, ("component", "kind", "attribution"))
    other = components["kind"] != "feature"
    table = pd.concat([components[~other], components[other]]).assign(row=lambda rows: _names(rows["component"]))
    effects = [_effects(table, name) for name in ("attribution", "random", "measured")]
    summary = pd.concat([*effects, _activations(table)])
    panels = [
        panel
        for panel in (
            Panel("attribution", "Attributed", "part of the shift, logits", arrows=("random", "attribution")),
            Panel("measured", measured, "loss of the shift, logits"),
            Panel("activation", "Activation", activation, arrows=("clean", "injected")),
        )
        if (summary["panel"] == panel.key).any()
    ]
    figure = dots(
        summary,
        _small(table, units),
        panels,
        _LOOKS,
        title=title,
        subtitle=subtitle,
        widths=[_WIDTHS[panel.key] / sum(_WIDTHS[other.key] for other in panels) for panel in panels],
        packed=True,
        legend_lines=2,
    )
    if {"attribution", "measured"} <= {panel.key for panel in panels}:
        figure.update_xaxes(matches="x", row=1, col=2)
    _tell_apart(figure, table)
    _write_verdicts(figure, table)
    _link(figure, table, links or {})
    return figure


def _names(components: pd.Series) -> list[str]:
    """Return names that fit, each once."""
    short = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in components.astype(str)]
    return [f"{name} ({short[:at].count(name) + 1})" if name in short[:at] else name for at, name in enumerate(short)]


def _effects(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows that have a value, for the panel where it is drawn; measured ones are series by their verdict."""
    if name not in table:
        return pd.DataFrame()
    rows = table[table[name].notna()]
    bounds = {side: rows.get(f"{name}_{side}", np.nan) for side in ("low", "high")}
    panel, series = ("measured", "measured " + _verdicts(rows)) if name == "measured" else ("attribution", name)
    return pd.DataFrame({"panel": panel, "row": rows["row"], "series": series, "mean": rows[name], **bounds})


def _verdicts(table: pd.DataFrame) -> pd.Series:
    return table["verdict"] if "verdict" in table else pd.Series(UNTESTED, index=table.index)


def _activations(table: pd.DataFrame) -> pd.DataFrame:
    frames = [
        pd.DataFrame({"panel": "activation", "row": rows["row"], "series": name, "mean": rows[name]})
        for name in ("clean", "injected")
        if name in table and len(rows := table[table[name].notna()])
    ]
    return pd.concat(frames).assign(low=np.nan, high=np.nan) if frames else pd.DataFrame()


def _small(table: pd.DataFrame, units: pd.DataFrame | None) -> pd.DataFrame:
    if units is None or units.empty:
        return pd.DataFrame(columns=["panel", "row", "series", "unit", "value"])
    by_component = table.assign(verdict=_verdicts(table)).set_index("component")
    unit_rows = units[units["component"].isin(by_component.index)]
    verdicts = by_component["verdict"].loc[unit_rows["component"]].to_numpy()
    series = np.where(unit_rows["panel"] == "attribution", "attribution", "measured " + verdicts.astype(object))
    return unit_rows.assign(row=by_component["row"].loc[unit_rows["component"]].to_numpy(), series=series)


def _tell_apart(figure: go.Figure, table: pd.DataFrame) -> None:
    """Shade the rows that are no features and draw a line above them."""
    if below := int((table["kind"] != "feature").sum()):
        figure.add_hrect(-0.5, below - 0.5, fillcolor="#999999", opacity=0.16, line_width=0, layer="below")
        figure.add_hline(below - 0.5, line={"color": INK, "width": 1.5})


def _write_verdicts(figure: go.Figure, table: pd.DataFrame) -> None:
    if "verdict" not in table:
        return
    common = {"xref": "paper", "x": 1.012, "xanchor": "left", "showarrow": False, "align": "left"}
    for at, row in enumerate(table.to_dict("records")):
        color = VERDICTS[row["verdict"]].color
        figure.add_annotation(
            text=_verdict_text(row), y=len(table) - 1 - at, yref="y", font={"size": 12, "color": color}, **common
        )
    figure.add_annotation(text="<b>Verdict</b>", yref="paper", y=1, yanchor="bottom", font={"size": 16}, **common)
    figure.update_layout(margin={"r": _VERDICTS_WIDTH})


def _verdict_text(row: Mapping[str, object]) -> str:
    """Return the verdict in words, and below it what was measured."""
    numbers = [float(str(row.get(f"measured{side}", np.nan))) for side in ("", "_low", "_high")]
    # Adding 0.0 turns -0.0 into 0.0.
    texts = [f"{round(number, 2) + 0.0:.2f}".replace("-", MINUS) for number in numbers if not np.isnan(number)]
    measured = "" if not texts else f"{texts[0]} [{', '.join(texts[1:])}]" if len(texts) == 3 else texts[0]
    verdict = "" if row["verdict"] == UNTESTED else f"<b>{row['verdict']}</b>"
    return "<br>".join(filter(None, (verdict, measured)))


def _link(figure: go.Figure, table: pd.DataFrame, links: Mapping[str, str]) -> None:
    texts = [
        f'<a href="{links[component]}">{row}</a>' if component in links else row
        for component, row in zip(table["component"], table["row"], strict=True)
    ]
    figure.update_yaxes(ticktext=texts)
