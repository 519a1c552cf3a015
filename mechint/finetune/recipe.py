"""How an adapter is trained: its size, and the steps of its training."""

from __future__ import annotations

from dataclasses import dataclass

from mechint.base.signatures import Count, Seed, checked
from mechint.finetune.axes import Lora
from mechint.finetune.budget import Budget


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

    @property
    def lora(self) -> Lora:
        """The adapter, of all linear layers and without dropout."""
        return Lora(rank=self.rank, alpha=self.alpha, dropout=0.0, projections=())

    @property
    def budget(self) -> Budget:
        """How much is trained, and how."""
        return Budget(
            steps=self.steps,
            batch=self.batch,
            accumulation=1,
            learning_rate=self.learning_rate,
            weight_decay=0.0,
            schedule="cosine",
            warm_up=self.warm_up,
            clip=self.clip,
        )
