"""What vectors are like: norms, what the dose comes to, which others they resemble, which words they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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


def sanity(subject: Subject) -> Sanity:
    """Return what the vectors of a run are like."""
    every = {**subject.concepts, **subject.randoms}
    vectors = [
        _vector(subject, name, "injected" if name in subject.concepts else "random", vector)
        for name, vector in every.items()
    ]
    rows = cosines(list(every.values()), subject.dose.layers)
    return Sanity(tuple(vectors), tuple(tuple(_rounded(cosine) for cosine in row) for row in rows))


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


def cosines(vectors: list[ConceptVector], layers: tuple[int, ...]) -> np.ndarray:
    """Return the cosine of each pair, the mean over layers at which neither is zero; NaN where there is none."""
    sums, counts = np.zeros((len(vectors),) * 2), np.zeros((len(vectors),) * 2)
    for layer in layers:
        stacked = np.stack([vector.vectors[layer].numpy() for vector in vectors]).astype(np.float64)
        norms = np.linalg.norm(stacked, axis=1, keepdims=True)
        unit = np.divide(stacked, norms, out=np.zeros_like(stacked), where=norms > 0)
        sums, counts = sums + unit @ unit.T, counts + (norms > 0) @ (norms > 0).T
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
