"""How often each answer is given, against how often it is reported to be, as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analyses.finetuning.looks import caption, last_steps, recipes_of
from mechint.evals.subjects import BASE
from mechint.figures.panels import guide
from mechint.figures.style import BLUE, INK, VERMILION, finish

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from analyses.finetuning.options import Facts

_COLUMNS = 3
_LOOKS = {
    "choice": (VERMILION, "circle", "reported in choices between two"),
    "verbal": (BLUE, "square-open", "reported in lists"),
}


def reported(table: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return the probability of each answer to closed requests over what its report says of it; a panel a recipe."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    last = last_steps(table)
    points = reported_points(last)
    names = [*recipes_of(last), *([BASE] if (last["trained_by"] == BASE).any() else [])]
    lines = -(-len(names) // _COLUMNS)
    figure = make_subplots(
        rows=lines,
        cols=_COLUMNS,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.13 if lines > 1 else None,
        subplot_titles=[f"<b>{name}</b>{_distance(points, name)}" for name in names],
    )
    named: set[str] = set()
    for at, name in enumerate(names):
        cell = {"row": at // _COLUMNS + 1, "col": at % _COLUMNS + 1}
        figure.add_trace(guide((0.0, 1.0), (0.0, 1.0), 1.0, "dot", INK), **cell)
        for source, (color, symbol, label) in _LOOKS.items():
            chosen = points[(points["trained_by"] == name) & (points["source"] == source)]
            if chosen.empty:
                continue
            figure.add_trace(
                go.Scatter(
                    x=chosen["p"].to_numpy(float),
                    y=chosen["reported"].to_numpy(float),
                    mode="markers",
                    marker={"color": color, "symbol": symbol, "size": 6, "opacity": 0.6},
                    name=label,
                    legendgroup=label,
                    showlegend=label not in named,
                    customdata=(chosen["prompt"] + ": " + chosen["answer"]).to_numpy(str),
                    hovertemplate="%{customdata}: %{x:.2f}, reported %{y:.2f}<extra></extra>",
                ),
                **cell,
            )
            named.add(label)
    figure.update_xaxes(range=[-0.03, 1.03], nticks=6)
    figure.update_yaxes(range=[-0.03, 1.03], nticks=6)
    figure.update_xaxes(title_text="share of answers", row=lines)
    figure.update_yaxes(title_text="reported share", col=1)
    subtitle = (
        f"{caption(last, facts)}, all in one panel. A point: an answer to a request with options, how likely it is and "
        "how often the model says that it would give it. Dotted: reported as it is. r: correlation over answers, "
        "in choices. Lists that cannot be read have no point"
    )
    return finish(
        figure, "Are the answers that are reported as common the common ones?", subtitle, height=300 * lines + 60
    )


def reported_points(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each answer of a model itself and source of reports: `p`, what it does, and `reported`.

    Of lists it is the mean over those that could be read; an answer that a list does not name is reported with 0.
    """
    import pandas as pd

    of_self = table[(table["model"] == "self") & (table["kind"] == "closed") & table["parsed"].astype(bool)]
    keys = ["trained_by", "seed", "prompt", "answer"]
    actual = of_self[of_self["source"] == "actual"].set_index(keys)["p"]
    parts = []
    for source in _LOOKS:
        rows = of_self[of_self["source"] == source]
        lists = rows.groupby(["trained_by", "seed", "prompt"])["report"].nunique()
        places = actual.index.droplevel("answer")
        sums = rows.groupby(keys)["p"].sum().reindex(actual.index, fill_value=0.0)
        counts = lists.reindex(places).to_numpy(float)
        part = pd.DataFrame({"p": actual.to_numpy(float), "reported": sums.to_numpy(float) / counts}, actual.index)
        parts.append(part.reset_index().assign(source=source))
    return pd.concat(parts, ignore_index=True).dropna(subset="reported")


def _distance(points: pd.DataFrame, name: str) -> str:
    """Return how well reports in choices go with what is done, behind the name of a panel."""
    chosen = points[(points["trained_by"] == name) & (points["source"] == "choice")]
    if len(chosen) < 3 or np.ptp(chosen["p"]) == 0 or np.ptp(chosen["reported"]) == 0:
        return ""
    return f" (r = {np.corrcoef(chosen['p'], chosen['reported'])[0, 1]:.2f})"
