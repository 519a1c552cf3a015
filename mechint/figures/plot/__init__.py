"""One call that draws any table of the toolkit: what its columns are decides how."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.figures.markup import drawable_figure, literal
from mechint.figures.plot import attribution, readouts

if TYPE_CHECKING:
    import plotly.graph_objects as go

WIDTH = 960  # pixels: what a notebook has room for beside its sidebar


@checked
def plot(table: pd.DataFrame, metric: str | None = None, *, by: str = "intervention", title: str = "") -> go.Figure:
    """Return a figure of any table of the toolkit; in notebooks it shows itself.

    Of `score`, `logit_lens`, `generate`, `text_loss` and `name_log_probs`: those with a layer become curves by layer,
    others rows of dots, option lists and names a grid of probabilities, texts a table. Attributions (of `mi.sae`,
    `mi.components`, `mi.kv`) and what checks them (faithfulness, curves, verdicts) become what `mi.figures` has for
    them; `metric` and `by` do not apply.

    `metric` is a column (`logit_diff` where there is one, else `p_yes` or `perplexity`).

    `by` is the column that tells curves or rows apart: each intervention, or a column of your own that groups them.
    Clean rows of a group always stand apart from the others. Points are means with 95% intervals: over
    interventions where a group has several, else over conversations. A numeric column `strength` becomes the axis if
    `by` is anything but the intervention. Layers at which the table's receipts all say that something was added are
    shaded.

    Raises UsageError for a table that is none of these, an unknown column, and for more groups than can be told apart.
    """
    if table.empty:
        raise UsageError("a table without rows", "one row or more", "see what was selected")
    for needed, draw_whole in _WHOLE:
        if needed <= set(table.columns):
            _check_whole(metric, by)
            return drawable_figure(draw_whole(literal(table), title)).update_layout(width=WIDTH)
    for needed, draw in _KINDS:
        if needed <= set(table.columns):
            _check_column(table, by)
            request = readouts.Request(literal(metric), literal(by), title)
            return drawable_figure(draw(literal(table), request)).update_layout(width=WIDTH)
    raise UsageError(
        given=f"a table with the columns {', '.join(map(str, table.columns))}",
        allowed="tables of mi.score, mi.logit_lens, mi.generate, mi.text_loss, mi.name_log_probs, and of attribution",
        advice="keep the columns that say what a row is, or draw it with one of mi.figures",
    )


def _check_column(table: pd.DataFrame, by: str) -> None:
    if by not in table:
        columns = ", ".join(map(str, table.columns))
        raise UsageError(f"by={by!r}", columns, "name a column; table.assign(...) adds one of your own")


def _check_whole(metric: str | None, by: str) -> None:
    if metric is not None or by != "intervention":
        raise UsageError(
            f"metric={metric!r}, by={by!r} for a table of attribution",
            "neither: it is drawn whole",
            "select rows of the table, or use one of mi.figures",
        )


# The columns that tell a kind of table, the most telling first; those of attribution are drawn as they are.
_WHOLE: tuple[tuple[set[str], Callable[[pd.DataFrame, str], go.Figure]], ...] = (
    ({"component", "attribution", "measured", "chosen"}, attribution.checked),
    ({"component", "kind", "attribution"}, attribution.attributions),
    ({"component", "kind", "lost", "verdict"}, attribution.judged),
    ({"test", "k", "kind", "fraction", "n"}, attribution.together),
    ({"level", "layer_start", "pos_start", "direction", "effect"}, attribution.cache),
)
_KINDS: tuple[tuple[set[str], Callable[[pd.DataFrame, readouts.Request], go.Figure]], ...] = (
    ({"conversation", "intervention", "text"}, readouts.texts),
    ({"conversation", "intervention", "name", "log_p"}, readouts.names),
    ({"conversation", "intervention", "layer"}, readouts.curves),
    ({"conversation", "intervention", "logit_diff"}, readouts.rows),
    ({"text", "intervention", "loss"}, readouts.losses),
    ({"conversation", "intervention", "entropy"}, readouts.options),
)
