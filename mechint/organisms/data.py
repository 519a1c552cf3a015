"""Batches of samples: which kinds, from a seed, as padded tensors with a tree attention mask."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor

from mechint.organisms.detection import CLEAR, detection_sample
from mechint.organisms.facts import facts_sample
from mechint.organisms.samples import Encoded, InjectionSpec, Sample, encode
from mechint.organisms.talk import talk_sample

MAKERS: dict[str, Callable[[random.Random], Sample]] = {
    "talk": talk_sample,
    "facts": facts_sample,
    "detection": detection_sample,
    "clear detection": partial(detection_sample, shares=CLEAR),
}
Mix = tuple[tuple[str, float], ...]
PHASE_MIX: tuple[Mix, ...] = (
    (("talk", 0.45), ("facts", 0.55)),
    (("talk", 0.2), ("facts", 0.15), ("detection", 0.65)),
    (("talk", 0.2), ("facts", 0.15), ("clear detection", 0.65)),
)


@dataclass(frozen=True)
class Batch:
    """Padded tensors of some samples; `trunk` marks the positions that an injection acts on."""

    ids: Int[Tensor, "batch pos"]
    positions: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch 1 pos pos"]
    trunk: Bool[Tensor, "batch pos"]
    weights: Float[Tensor, "batch pos"]
    alternatives: Int[Tensor, "batch pos"]
    probability: Float[Tensor, "batch pos"]
    injections: tuple[InjectionSpec | None, ...]
    count: int


def draw_samples(seed: int, step: int, phase: int, count: int) -> list[Sample]:
    """Return the samples of one training step; the same seed, step and phase always give the same."""
    rng = random.Random(f"{seed}/{phase}/{step}")
    names, shares = zip(*PHASE_MIX[phase], strict=True)
    return [MAKERS[name](rng) for name in rng.choices(names, shares, k=count)]


def draw_batches(
    seed: int, step: int, phase: int, count: int, tokenizer: Tokenizer, *, buckets: int = 3
) -> list[Batch]:
    """Return one step's samples as batches of similar length."""
    encoded = sorted((encode(s, tokenizer) for s in draw_samples(seed, step, phase, count)), key=lambda e: len(e.ids))
    size = -(-count // buckets)
    return [collate(encoded[i : i + size]) for i in range(0, count, size)]


def corpus(seed: int, count: int) -> list[str]:
    """Return text of the first two phases to train the tokenizer on."""
    pieces = []
    for phase in (0, 1):
        for sample in draw_samples(seed, -1, phase, count):
            parts = [sample.trunk, *sample.branches]
            pieces += [piece.text for part in parts for piece in part]
    return pieces


def _padded(rows: Sequence[Sequence[float | int]], width: int, value: float | int, dtype: torch.dtype) -> Tensor:
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=dtype)


def collate(samples: Sequence[Encoded]) -> Batch:
    """Return right-padded tensors; a token sees earlier tokens of the trunk and of its own branch."""
    width = max(len(sample.ids) for sample in samples)
    branch = _padded([s.branch for s in samples], width, -1, torch.long)
    same = branch[:, :, None] == branch[:, None, :]
    on_trunk = branch[:, None, :] == 0
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    return Batch(
        ids=_padded([s.ids for s in samples], width, 0, torch.long),
        positions=_padded([s.positions for s in samples], width, 0, torch.long),
        mask=((same | on_trunk) & causal)[:, None],
        trunk=branch == 0,
        weights=_padded([s.weights for s in samples], width, 0.0, torch.float32),
        alternatives=_padded([s.alternatives for s in samples], width, -1, torch.long),
        probability=_padded([s.probability for s in samples], width, 1.0, torch.float32),
        injections=tuple(s.injection for s in samples),
        count=sum(len(s.ids) for s in samples),
    )
