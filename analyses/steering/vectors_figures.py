"""What steering vectors are like, as figures: their cosines, and a sanity table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.kit.naming import name_pattern
from analyses.steering import REPLY
from mechint import figures as draw
from mechint.figures import HeatPanel, Scale, TextCell
from mechint.figures.words import signed
from mechint.stats.intervals import Interval

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.kit.dose import Dose
    from analyses.steering.vectors import Sanity


def cosines(sanity: Sanity, caption: str) -> go.Figure:
    """Return the cosines of all pairs of vectors, those alike beside each other."""
    values = np.array(sanity.cosines)
    series = np.array([vector.series for vector in sanity.vectors])
    order = [*_alike(values, np.flatnonzero(series == "injected")), *np.flatnonzero(series == "random")]
    names = [sanity.vectors[at].name for at in order]
    ordered = values[np.ix_(order, order)]
    none = np.full_like(ordered, np.nan)
    panel = HeatPanel("Cosine of two vectors, mean over the dose's layers", Interval(ordered, none, none, len(names)))
    return draw.heatmap(
        [panel],
        Scale("cosine"),
        rows=names,
        columns=[name.replace("-", "<br>") for name in names],
        title=_cosines_finding(sanity, series),
        subtitle=f"{caption}. Concepts in order of similarity (average linkage), then random vectors.",
    )


def _alike(values: np.ndarray, members: np.ndarray) -> list[int]:
    """Return members in the order of a hierarchical clustering."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    if len(members) < 3:
        return [int(at) for at in members]
    distance = np.clip(1 - values[np.ix_(members, members)], 0, None)
    np.fill_diagonal(distance, 0)
    flat = squareform((distance + distance.T) / 2, checks=False)
    tree = optimal_leaf_ordering(linkage(flat, "average"), flat)
    return [int(members[at]) for at in leaves_list(tree)]


def _cosines_finding(sanity: Sanity, series: np.ndarray) -> str:
    values = np.array(sanity.cosines)
    concept = series == "injected"
    if concept.sum() < 2:
        return "How alike are the vectors?"
    off = values[np.ix_(concept, concept)].copy()
    np.fill_diagonal(off, np.nan)
    names = [vector.name for vector in sanity.vectors if vector.series == "injected"]
    row, column = np.unravel_index(int(np.nanargmax(off)), off.shape)
    return (
        f"Concept vectors have a mean cosine of {signed(float(np.nanmean(off)))}; the most alike are {names[row]} and "
        f"{names[column]} ({signed(off[row, column])})"
    )


def vectors(sanity: Sanity, dose: Dose, table: pd.DataFrame, caption: str) -> go.Figure:
    """Return the sanity table: norms, what the dose comes to, the most similar vector, and the words it stands for."""
    steered = table[(table["kind"] == REPLY) & (table["strength"].astype(float) > 0)]
    amounts = sorted(set(steered["strength"]), key=float)
    at = min(amounts, key=lambda amount: abs(float(amount) - dose.amount))
    ratios = steered[steered["strength"] == at].groupby("unit")["added_ratio"].mean()
    rows = [_vector_line(number, sanity, dose, ratios) for number in range(len(sanity.vectors))]
    right = sum(
        any(_begins(vector.name, token) for token in vector.promoted)
        for vector in sanity.vectors
        if vector.series == "injected"
    )
    concepts = sum(vector.series == "injected" for vector in sanity.vectors)
    headings = [
        "vector",
        "|v|, first to last layer (median)",
        f"|added| / median |residual| at strength {at}",
        "most similar (cosine)",
        "tokens it promotes",
        "tokens it suppresses",
    ]
    return draw.text_table(
        headings,
        rows,
        widths=[0.7, 1.1, 0.8, 0.9, 2.2, 2.2],
        title=f"Do vectors stand for their concepts? {right} of {concepts} promote the name itself",
        subtitle=f"{caption}. Tokens: logit lens of the vector (final norm and unembedding) at layer "
        f"{dose.layers[-1]}, the likeliest first; suppressed: those of the opposite vector. |added|: as measured, mean "
        "over layers, by the model's median residual norm.",
        rules=[concepts] if concepts < len(sanity.vectors) else [],
    )


def _vector_line(number: int, sanity: Sanity, dose: Dose, ratios: pd.Series) -> list[TextCell]:
    vector = sanity.vectors[number]
    norms = list(vector.norms.values())
    sides = [", ".join(_token(token) for token in side) for side in (vector.promoted, vector.suppressed)]
    ratio = ratios.get(vector.name, np.nan)
    return [
        TextCell(vector.name, ".+"),
        TextCell(f"{norms[0]:.3g} to {norms[-1]:.3g} ({np.median(norms):.3g})"),
        TextCell("" if np.isnan(ratio) else f"{ratio:.2g}"),
        TextCell(_most_similar(number, sanity)),
        *(TextCell(side, name_pattern(vector.name)) for side in sides),
    ]


def _most_similar(number: int, sanity: Sanity) -> str:
    row = sanity.cosines[number]
    others = [(value, at) for at, value in enumerate(row) if at != number and np.isfinite(value)]
    if not others:
        return ""
    value, at = max(others)
    return f"{sanity.vectors[at].name} ({signed(value)})"


def _token(token: str) -> str:
    return token.strip() or repr(token)


def _begins(name: str, token: str) -> bool:
    """Whether a token is a name, or a beginning of it long enough to tell."""
    text = token.strip().lower()
    stem = name.lower().removesuffix("s")
    return bool(text) and (text.removesuffix("s") == stem or (len(text) >= 3 and stem.startswith(text)))
