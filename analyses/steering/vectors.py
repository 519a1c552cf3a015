"""What vectors are like: norms, what the dose comes to, which others they resemble, which words they stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyses.kit.subject import Subject
    from mechint.models.model import Model
    from mechint.vectors.concept_vectors import ConceptVector

_TOKENS = 6


@dataclass(frozen=True)
class Vector:
    """One vector: its norm by layer, and the tokens that the logit lens of it, at the dose's last layer, ends with.

    `promoted` are the likeliest tokens, the first the most; `suppressed` those of the opposite vector.
    """

    name: str
    series: str
    norms: Mapping[int, float]
    promoted: tuple[str, ...]
    suppressed: tuple[str, ...]


@dataclass(frozen=True)
class Sanity:
    """All vectors, and the cosine of each pair, the mean over the dose's layers."""

    vectors: tuple[Vector, ...]
    cosines: tuple[tuple[float, ...], ...]

    def mean_cosine(self, count: int) -> float | None:
        """Return the mean over pairs of the first vectors; None where one of them is zero."""
        pairs = [row[column] for at, row in enumerate(self.cosines[:count]) for column in range(at + 1, count)]
        mean = sum(pairs) / len(pairs)
        return round(mean, 4) if math.isfinite(mean) else None


def sanity(subject: Subject) -> Sanity:
    """Return what the vectors of a run are like."""
    every = {**subject.concepts, **subject.randoms}
    vectors = [
        _vector(subject, name, "injected" if name in subject.concepts else "random", vector)
        for name, vector in every.items()
    ]
    return Sanity(tuple(vectors), _cosines(every, subject.dose.layers))


def _cosines(vectors: Mapping[str, ConceptVector], layers: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    from mechint.vectors.specificity import cosines

    if len(vectors) < 2:  # one is like itself
        return ((1.0,),)
    return tuple(tuple(_rounded(cosine) for cosine in row) for row in cosines(vectors, layers).matrix)


def _vector(subject: Subject, name: str, series: str, vector: ConceptVector) -> Vector:
    norms = {layer: _rounded(norm) for layer, norm in vector.norms.items()}
    last = subject.dose.layers[-1]
    return Vector(name, series, norms, tokens(subject.model, vector, last), tokens(subject.model, -vector, last))


def tokens(model: Model, vector: ConceptVector, layer: int) -> tuple[str, ...]:
    """Return the tokens that the logit lens of a vector makes likeliest, as text: its final norm and unembedding.

    None for a vector that is zero at the layer, which would make all tokens as likely.
    """
    if not vector.vectors[layer].any():
        return ()
    logits = model.readout.logits(vector.vectors[layer][None].to(model.device))[0]
    return tuple(str(model.tokenizer.decode([token])) for token in logits.topk(_TOKENS).indices.tolist())


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
