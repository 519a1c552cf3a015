"""Draws for many examples at once: uniform ones, and those that are counted so that shares are exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from mechint.base.files import sha256

Flags = Bool[np.ndarray, " example"]
Places = Int[np.ndarray, " example"]


def generator(seed: int, factor: str, split: int, block: int) -> np.random.Generator:
    """Return the generator of a factor's draws; those of other factors, splits and blocks are independent of it."""
    return np.random.default_rng([seed, int(sha256(factor.encode())[:12], 16), split, block])


def uniform(sizes: Places, stream: np.random.Generator) -> Places:
    """Return a place below each size, all of them equally likely."""
    places: Places = np.floor(stream.random(len(sizes)) * sizes).astype(np.int64)
    return places


def subsets(size: int, number: int, count: int, stream: np.random.Generator) -> Int[np.ndarray, "example number"]:
    """Return for each of `count` examples so many different places below `size`, in any order."""
    if not number:
        return np.zeros((count, 0), dtype=np.int64)
    return np.argsort(stream.random((count, size)), axis=1)[:, :number]


def counted(share: float, strata: Sequence[Flags], stream: np.random.Generator) -> Flags:
    """Return flags that are up in just a share of each stratum, rounded, and anywhere in it."""
    flags = np.zeros(len(strata[0]), dtype=bool)
    for rows in _members(strata):
        flags[stream.permutation(rows)[: round(share * len(rows))]] = True
    return flags


def even(count: int, strata: Sequence[Flags], stream: np.random.Generator) -> Places:
    """Return a place below `count` for each example, in each stratum as often as any other but for one.

    Neighbouring places (a pair of answers in both directions) stay together where a stratum is no multiple.
    """
    places = np.zeros(len(strata[0]), dtype=np.int64)
    for rows in _members(strata):
        start = 2 * int(stream.integers(0, count))
        places[stream.permutation(rows)] = (start + np.arange(len(rows))) % count
    return places


def _members(strata: Sequence[Flags]) -> list[Int[np.ndarray, " _"]]:
    """Return the examples of each combination of flags that occurs."""
    cells = np.sum([flags.astype(np.int64) << bit for bit, flags in enumerate(strata)], axis=0)
    return [np.flatnonzero(cells == cell) for cell in np.unique(cells)]
