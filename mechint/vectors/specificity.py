"""Are concept vectors specific? Their cosines with each other, and whether each makes its own name likelier.

Vectors of different concepts may be nearly one direction ("a topic"): then they steer alike, and what holds for one of
them holds for all. Two measures tell: cosines, which need no model, and the names that become likelier under steering.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint import stats
from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.vectors.concept_vectors import ConceptVector

__all__ = ["Cosines", "Specificity", "cosines", "name_rises", "specificity"]


@dataclass(frozen=True, eq=False)
class Cosines:
    """Cosines of each pair of vectors at each layer; NaN where a vector is zero."""

    names: tuple[str, ...]
    layers: tuple[int, ...]
    values: Float[np.ndarray, "layer vector same_vector"]

    @property
    def matrix(self) -> Float[np.ndarray, "vector same_vector"]:
        """The mean over layers, without those at which a vector of the pair is zero; NaN where no layer is left."""
        numbers = np.isfinite(self.values)
        counts = numbers.sum(0)
        sums = np.where(numbers, self.values, 0.0).sum(0)
        return np.asarray(np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0))

    @property
    def mean(self) -> float:
        """The mean over pairs: 1 for one direction, 0 for unrelated ones, -1/(K-1) for K that add up to zero."""
        return float(self._pairs(self.matrix).mean())

    @property
    def mean_size(self) -> float:
        """The mean over pairs and layers of the cosine's absolute value: how far vectors resemble, either sign."""
        return float(self._pairs(np.abs(self.values)).mean())

    @property
    def mean_by_layer(self) -> dict[int, float]:
        """The mean over pairs at each layer."""
        return dict(zip(self.layers, self._pairs(self.values).mean(-1).tolist(), strict=True))

    def _pairs(self, values: np.ndarray) -> np.ndarray:
        rows, columns = np.triu_indices(len(self.names), 1)
        return values[..., rows, columns]


@checked
def cosines(vectors: Mapping[str, ConceptVector], layers: Sequence[int]) -> Cosines:
    """Return the cosines of vectors, by name, at some layers.

    Vectors against each other (`extract` against "others" without a fixed list) have a mean near -1/(K-1) by how they
    are made. Raises UsageError for fewer than two vectors or no layers, LayerRangeError for layers that a vector lacks.
    """
    if len(vectors) < 2 or not layers:
        raise UsageError(
            f"{len(vectors)} vectors at {len(layers)} layers", "two or more, one or more", "give more of them"
        )
    chosen = [vector.at(layers) for vector in vectors.values()]
    values = [_cosines(np.stack([vector.vectors[layer].double().numpy() for vector in chosen])) for layer in layers]
    return Cosines(tuple(vectors), tuple(layers), np.stack(values))


@dataclass(frozen=True, eq=False)
class Specificity:
    """How specific steering is, over concepts.

    `own_minus_others` is by how much a concept's own name rises more than the names of the others, the mean over these
    (nats; 0 if vectors steer alike). `own_first` is the share of concepts whose own name rises most, of which chance
    is `chance`, 1 in the number of concepts. `by_concept` has both for each: columns `own_minus_others`, `own_first`.
    """

    own_minus_others: stats.Interval
    own_first: stats.Interval
    chance: float
    by_concept: pd.DataFrame


@checked
def name_rises(losses: pd.DataFrame, interventions: Mapping[str, str], clean: str = "clean") -> pd.DataFrame:
    """Return by how much the names (columns) of concepts rise under the injection of each (rows), in nats.

    `losses` is a table of `mi.text_loss(..., words=...)` with the concepts' names as words; `interventions` names the
    intervention of each concept, and `clean` the one that injects nothing. Values are means over texts of the
    log-probability of the name's first token, less those of the clean texts. Raises UsageError for missing columns and
    interventions.
    """
    columns = [f"log_p_{concept}" for concept in interventions]
    if missing := [column for column in ["intervention", *columns] if column not in losses]:
        raise UsageError(f"a table without {', '.join(missing)}", "log_p of each concept", "name them in words=")
    present = set(losses["intervention"])
    if missing := [name for name in [clean, *interventions.values()] if name not in present]:
        raise UsageError(f"a table without interventions {missing}", "a row of each", "read the texts under them too")
    means = pd.DataFrame({column: stats.strict_means(losses, ["intervention"], column) for column in columns})
    rises = means.loc[list(interventions.values())] - means.loc[clean]
    return rises.set_axis(list(interventions), axis="index").set_axis(list(interventions), axis="columns")


@checked
def specificity(rises: pd.DataFrame, *, level: float = 0.95) -> Specificity:
    """Return how specific steering is, from `name_rises`: a row for each concept, a column for each of their names.

    Names that rise alike share the first place, so that without an effect the share is that of chance. Names that begin
    with the same token always do. Intervals are over concepts; that of the share is the exact one of a rate. Raises
    UsageError for fewer than two concepts, and for a table whose rows and columns are not the same names.
    """
    concepts = list(rises.index)
    if len(concepts) < 2 or sorted(rises.columns) != sorted(set(concepts)):
        raise UsageError(
            given=f"rows {concepts} and columns {list(rises.columns)}",
            allowed="two concepts or more, each once as a row and as a column",
            advice="pass what name_rises returns",
        )
    values = rises[concepts].to_numpy(dtype=np.float64)
    n = len(concepts)
    own_rise = values.diagonal()
    others = (values.sum(1) - own_rise) / (n - 1)
    highest = values == values.max(1, keepdims=True)
    first = np.where(np.isfinite(values).all(1), highest.diagonal() / np.maximum(highest.sum(1), 1), np.nan)
    return Specificity(
        stats.mean_interval(own_rise - others, level=level),
        _share(first, level),
        1 / n,
        pd.DataFrame({"own_minus_others": own_rise - others, "own_first": first}, index=rises.index),
    )


def _share(first: Float[np.ndarray, " concept"], level: float) -> stats.Interval:
    """Return the exact interval of how many are first; where some share the first place, that of a mean."""
    if np.isin(first, (0, 1)).all():
        return stats.binomial_interval(int(first.sum()), len(first), level=level)
    return stats.mean_interval(first, level=level, within=stats.PROBABILITY)


def _cosines(stacked: Float[np.ndarray, "vector d_model"]) -> Float[np.ndarray, "vector same_vector"]:
    norms = np.linalg.norm(stacked, axis=1, keepdims=True)
    unit = np.divide(stacked, norms, out=np.full_like(stacked, np.nan), where=norms > 0)
    return np.asarray(unit @ unit.T)
