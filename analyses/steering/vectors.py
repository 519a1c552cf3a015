"""What vectors are like: norms, what the dose comes to, which others they resemble, which words they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from analyses.kit import record as run
from analyses.kit.study import Setup

if TYPE_CHECKING:
    from mechint.base.files import JSON
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

    @classmethod
    def of(cls, record: JSON) -> Sanity:
        """Return what a record says."""
        fields = record if isinstance(record, dict) else {}
        listed, rows = fields["vectors"], fields["cosines"]
        vectors = (
            tuple(_vector(entry) for entry in listed if isinstance(entry, dict)) if isinstance(listed, list) else ()
        )
        cosines = tuple(
            tuple(float(str(value)) for value in row)
            for row in (rows if isinstance(rows, list) else [])
            if isinstance(row, list)
        )
        return cls(vectors, cosines)


def sanity(setup: Setup) -> JSON:
    """Return for the record what the vectors of a run are like."""
    every = {**setup.concepts, **setup.randoms}
    last = setup.dose.layers[-1]
    vectors = tuple(
        Vector(
            name, "injected" if name in setup.concepts else "random",
            {layer: _rounded(norm) for layer, norm in vector.norms.items()},
            tokens(setup.model, vector, last), tokens(setup.model, -vector, last),
        )
        for name, vector in every.items()
    )  # fmt: skip
    measured = Sanity(
        vectors, tuple(tuple(map(_rounded, row)) for row in cosines(list(every.values()), setup.dose.layers))
    )
    return run.as_json(asdict(measured))


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


def _vector(record: Mapping[str, JSON]) -> Vector:
    norms, promoted, suppressed = (record[name] for name in ("norms", "promoted", "suppressed"))
    by_layer = {int(layer): float(str(norm)) for layer, norm in norms.items()} if isinstance(norms, dict) else {}
    words = [tuple(map(str, side)) if isinstance(side, list) else () for side in (promoted, suppressed)]
    return Vector(str(record["name"]), str(record["series"]), by_layer, *words)


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
