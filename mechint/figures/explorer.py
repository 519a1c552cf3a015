"""An explorer for notebooks: sliders for layer window and strength over a grid that was computed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import pandas as pd

from mechint import figures, stats
from mechint.base.errors import PrerequisiteError, UsageError
from mechint.base.progress import Progress
from mechint.chat.conversations import Conversation
from mechint.figures.markup import drawable_figure, literal
from mechint.figures.plot import WIDTH
from mechint.figures.style import METRICS, SERIES
from mechint.interventions.specifications import CLEAN, Injection
from mechint.models.model import Model
from mechint.readouts.lens import logit_lens
from mechint.vectors.concept_vectors import ConceptVector

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from ipywidgets import VBox

_COLUMNS = ("concept", "kind", "first", "last", "strength", "layer", "conversation")


def sweep(
    model: Model,
    conversations: Conversation | Sequence[Conversation],
    vectors: Mapping[str, ConceptVector],
    windows: Sequence[range],
    relative_strengths: Sequence[float],
    *,
    controls: Mapping[str, ConceptVector] | None = None,
    progress: Progress | bool | None = None,
) -> pd.DataFrame:
    """Return the logit lens of every (vector, window of layers, strength relative to the residual), and of clean.

    The table is that of `mi.logit_lens`, with the columns `concept` (the vector's name), `kind` (concept; random for
    `controls`; clean), `first` and `last` (the window's layers) and `strength`. All cells are one job, so windows share
    what they have in common. `progress=True` shows a bar. Raises UsageError for no vectors, windows or strengths.
    """
    named = {**vectors, **(controls or {})}
    if not (vectors and windows and relative_strengths) or any(not window for window in windows):
        raise UsageError("no vectors, no windows, an empty window or no strengths", "one or more of each", "give them")
    cells = {
        f"{name} {window[0]}:{window[-1] + 1} x{strength:g}": (name, window[0], window[-1], strength)
        for name, window, strength in product(named, windows, relative_strengths)
    }
    injections = [
        Injection(named[name], range(first, last + 1), relative_strength=strength, name=label)
        for label, (name, first, last, strength) in cells.items()
    ]
    table = logit_lens(model, conversations, [CLEAN, *injections], progress=progress)
    settings = [cells.get(label, ("clean", -1, -1, 0.0)) for label in table["intervention"]]
    columns = dict(zip(("concept", "first", "last", "strength"), zip(*settings, strict=True), strict=True))
    kinds = ["clean" if name == "clean" else "concept" if name in vectors else "random" for name, *_ in settings]
    return table.assign(**columns, kind=kinds)


def draw(grid: pd.DataFrame, window: tuple[int, int], strength: float, metric: str = "logit_diff") -> go.Figure:
    """Return the lens at one window (its first and last layer) and strength of a grid that `sweep` has made.

    Bands are 95% intervals over vectors; all cells of a grid are drawn on one scale. Raises UsageError for
    what the grid does not hold.
    """
    _check(grid, metric)
    clean = grid["kind"] == "clean"
    chosen = (grid["first"] == window[0]) & (grid["last"] == window[1]) & (grid["strength"] == strength)
    if not chosen.any():
        computed = sorted(set(zip(grid["first"], grid["last"], grid["strength"], strict=True)) - {(-1, -1, 0.0)})
        raise UsageError(f"window {window} at strength {strength}", f"{computed[:8]} ...", "choose one of the grid")
    names = {"clean": "clean", "concept": "injected", "random": "random"}
    # Concepts, labels and options are what their writers have called them, which may not be read as markup.
    rows = literal(grid[clean | chosen]).assign(panel="lens", series=grid["kind"].map(names))
    # Clean has no vectors: its interval, if it has any, is over conversations.
    unit = rows["concept"].where(rows["kind"] != "clean", rows["conversation"])
    column = literal(metric)
    within = stats.RANGES.get(metric)
    means = stats.group_means(rows.assign(unit=unit), ["panel", "series", "layer"], column, unit="unit", within=within)
    label, layers = METRICS.get(metric, column), f"{window[0]}:{window[1] + 1}"
    concepts = grid.loc[chosen & (grid["kind"] == "concept"), "concept"].nunique()
    figure = figures.curves(
        means,
        [figures.Panel("lens", "", label)],
        {name: SERIES[name] for name in ("clean", "injected", "random") if (rows["series"] == name).any()},
        title=f"Injected at layers {layers}, |added| = {strength:g} x the model's median residual norm",
        subtitle=f"Mean over {concepts} concepts; bands: 95% intervals over vectors, of clean over "
        "conversations. Shaded: injected layers.",
        injected_layers=range(window[0], window[1] + 1),
    )
    return drawable_figure(figure.update_yaxes(range=_ends(grid, metric)).update_layout(width=WIDTH))


def _ends(grid: pd.DataFrame, metric: str) -> list[float]:
    """Return where the axis begins and ends: the same for all cells, so that they can be compared by sliding."""
    means = grid.groupby(["concept", "first", "last", "strength", "layer"], sort=False)[metric].mean()
    low, high = float(means.min()), float(means.max())
    room = 0.05 * (high - low) or 0.05
    return [low - room, high + room]


def explore(grid: pd.DataFrame, metric: str = "logit_diff") -> VBox:
    """Return a widget with a slider for the window and one for the strength, over a grid that `sweep` has made.

    Raises UsageError for another table and PrerequisiteError without ipywidgets.
    """
    _check(grid, metric)
    try:
        import ipywidgets
        from IPython.display import display
    except ImportError as error:
        raise PrerequisiteError("no ipywidgets", "Jupyter", 'pip install "mechint[notebooks]"') from error

    injected = grid[grid["kind"] != "clean"]
    windows = sorted(set(zip(injected["first"], injected["last"], strict=True)))
    doses = sorted(set(injected["strength"]))
    layers = ipywidgets.SelectionSlider(
        options=[(f"{first}:{last + 1}", (first, last)) for first, last in windows],
        value=windows[len(windows) // 2],
        description="layers",
    )
    strengths = ipywidgets.SelectionSlider(
        options=[(f"{dose:g}", dose) for dose in doses], value=doses[len(doses) // 2], description="strength"
    )
    output = ipywidgets.Output()

    def update(_change: object = None) -> None:
        output.clear_output(wait=True)
        with output:
            display(draw(grid, layers.value, strengths.value, metric))  # type: ignore[no-untyped-call]

    for slider in (layers, strengths):
        slider.observe(update, names="value")
    update()
    return ipywidgets.VBox([layers, strengths, output])


def _check(grid: pd.DataFrame, metric: str) -> None:
    if missing := [name for name in (*_COLUMNS, metric) if name not in grid]:
        raise UsageError(
            given=f"a table without {', '.join(missing)}",
            allowed="what mi.explorer.sweep returns, and one of its columns as metric",
            advice="compute the grid with mi.explorer.sweep(model, conversations, vectors, windows, strengths)",
        )
