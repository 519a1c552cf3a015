"""How an adapter is trained: its size, and the steps of its training."""

from __future__ import annotations

from dataclasses import dataclass

from mechint.base.signatures import Count, Seed, checked


@checked
@dataclass(frozen=True)
class LoraRecipe:
    """A LoRA of all projections inside the blocks, trained by AdamW, whose rate rises, then falls along a cosine.

    `checkpoint` is the number of steps after which all that it takes to go on is written.
    """

    rank: Count = 8
    alpha: Count = 16
    steps: Count = 40
    batch: Count = 8
    learning_rate: float = 1e-3
    warm_up: Count = 5
    clip: float = 1.0
    checkpoint: Count = 8
    seed: Seed = 0
