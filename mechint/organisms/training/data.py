"""Batches of samples: which kinds, from a seed, as padded tensors with a tree attention mask."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor

from mechint.organisms.training.recipes import STAGES, Mix
from mechint.organisms.training.samples import Encoded, InjectionSpec, Sample, encode
from mechint.organisms.training.tree_attention import Tree, rounded


@dataclass(frozen=True)
class Batch:
    """Padded tensors of some samples.

    `steered` says which of a sample's `injections` acts on a position (-1: none), `real` marks all that is no padding.
    A row of `links` is (sample, head, query, key), see `Encoded`.
    """

    ids: Int[Tensor, "batch pos"]
    positions: Int[Tensor, "batch pos"]
    tree: Tree
    steered: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]
    weights: Float[Tensor, "batch pos"]
    alternatives: Int[Tensor, "batch pos"]
    probability: Float[Tensor, "batch pos"]
    links: Int[Tensor, "link 4"]
    injections: tuple[tuple[InjectionSpec | None, ...], ...]
    count: int


def draw_samples(seed: str, step: int, mix: Mix, count: int) -> list[Sample]:
    """Return the samples of one training step; the same seed, step and mix always give the same."""
    rng = random.Random(f"{seed}/{step}")
    makers, shares = zip(*mix, strict=True)
    return [maker(rng) for maker in rng.choices(makers, shares, k=count)]


def draw_batches(seed: str, step: int, mix: Mix, count: int, tokenizer: Tokenizer, *, buckets: int = 6) -> list[Batch]:
    """Return one step's samples as batches of similar length."""
    encoded = sorted((encode(s, tokenizer) for s in draw_samples(seed, step, mix, count)), key=lambda e: len(e.ids))
    size = -(-count // buckets)
    return [collate(encoded[i : i + size]) for i in range(0, count, size)]


def corpus(seed: int, count: int) -> list[str]:
    """Return text of the talk and of the reports to train the tokenizer on."""
    pieces = []
    for stage in ("foundation", "truthful"):
        for sample in draw_samples(f"{seed}/{stage}", -1, STAGES[stage].phases[-1].mix, count):
            segments = [sample.trunk, *sample.branches]
            pieces += [piece.text for segment in segments for piece in segment]
    return pieces


def _padded(rows: Sequence[Sequence[float | int]], width: int, value: float | int, dtype: torch.dtype) -> Tensor:
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=dtype)


def collate(samples: Sequence[Encoded]) -> Batch:
    """Return right-padded tensors; a token sees earlier tokens of the trunk and of its own branch."""
    width = rounded(max(len(sample.ids) for sample in samples))
    branch = _padded([s.branch for s in samples], width, -1, torch.long)
    return Batch(
        ids=_padded([s.ids for s in samples], width, 0, torch.long),
        positions=_padded([s.positions for s in samples], width, 0, torch.long),
        tree=Tree.of(branch),
        steered=_padded([s.steered for s in samples], width, -1, torch.long),
        real=branch >= 0,
        weights=_padded([s.weights for s in samples], width, 0.0, torch.float32),
        alternatives=_padded([s.alternatives for s in samples], width, -1, torch.long),
        probability=_padded([s.probability for s in samples], width, 1.0, torch.float32),
        links=torch.tensor(
            [(row, *link) for row, s in enumerate(samples) for link in s.links], dtype=torch.long
        ).reshape(-1, 4),
        injections=tuple(s.injections for s in samples),
        count=sum(len(s.ids) for s in samples),
    )
