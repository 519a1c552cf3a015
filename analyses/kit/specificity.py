"""Are the vectors of a run specific? What every figure that claims naming says of them beside its result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyses.kit.dose_proposal import Measured

if TYPE_CHECKING:
    import pandas as pd

    from mechint.vectors.concept_vectors import ConceptVector


@dataclass(frozen=True)
class VectorSpecificity:
    """Cosines of concept vectors with each other, and what they do to names in text that is read under steering.

    `mean_cosine` is None where it is not known. `own_first` counts the concepts whose own name rises most, of
    `n_concepts`; `own_minus_others` is by how much it rises more than the others' names (nats), with its interval over
    concepts.
    """

    mean_cosine: float | None
    own_first: float
    n_concepts: int
    own_minus_others: Measured

    @classmethod
    def of(cls, texts: pd.DataFrame, mean_cosine: float | None) -> VectorSpecificity:
        """Return it from rows of texts, clean and under each concept's vector, with `log_p_<name>` of every concept.

        Raises UsageError for fewer than two concepts.
        """
        from mechint.vectors import specificity

        injected = texts[texts["series"] == "injected"]
        names = dict(zip(injected["unit"], injected["intervention"], strict=True))
        measured = specificity.specificity(specificity.name_rises(texts, names))
        first = float(measured.by_concept["own_first"].sum())
        return cls(mean_cosine, round(first, 2), len(names), Measured.of(measured.own_minus_others))

    @property
    def is_specific(self) -> bool:
        """Whether own names rise more than the others'; of an interval, its lower end."""
        low = self.own_minus_others.low
        return (self.own_minus_others.mean if low is None else low) > 0

    @property
    def caption(self) -> str:
        """What figures say beside their result."""
        from mechint.figures.words import plain

        verdict = "vectors" if self.is_specific else "vectors NOT SPECIFIC"
        cosine = "" if self.mean_cosine is None else f"mean cosine {plain(self.mean_cosine)} with each other, "
        first = f"own name first for {self.own_first:g} of {self.n_concepts} in steered prose"
        return f"{verdict}: {cosine}{first}"


def mean_cosine(vectors: Mapping[str, ConceptVector], layers: Sequence[int]) -> float | None:
    """Return the mean cosine of vectors with each other at some layers; None of one, or where there is none."""
    from mechint.vectors.specificity import cosines

    if len(vectors) < 2:
        return None
    mean = cosines(vectors, layers).mean
    return round(mean, 4) if math.isfinite(mean) else None
