"""How much a recipe trains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mechint.base.errors import UsageError
from mechint.finetune.checks import FORBID_UNKNOWN, at_least


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is trained, and how. An optimizer's step has `batch` x `accumulation` examples.

    With `examples` they are a fixed set, drawn once with `data_seed`: the first `validation` of them are left out, the
    others come `epochs` times, each time in another order. Without, each example is drawn anew and there are `steps`.
    `read_at` is the step whose adapter was evaluated, or the rule it was chosen by; `stopped_at` where training ended.
    """

    __pydantic_config__ = FORBID_UNKNOWN

    examples: int = 0
    validation: int = 0
    data_seed: int = 42
    epochs: float = 0.0
    steps: int = 0
    batch: int = 1
    accumulation: int = 8
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warm_up: int = 100
    clip: float = 1.0
    read_at: int | Literal["best", "final", "undocumented", "never"] = "final"
    stopped_at: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "accumulation"):
            at_least(f"budget, {name}", getattr(self, name), 1)
        for name in ("examples", "validation", "data_seed", "epochs", "steps", "warm_up", "weight_decay"):
            at_least(f"budget, {name}", getattr(self, name), 0)
        if not (self.learning_rate > 0 and self.clip > 0):
            raise UsageError("budget: a learning rate or clip of 0", "numbers above 0", "give such numbers")
        if bool(self.examples) != bool(self.epochs) or bool(self.examples) == bool(self.steps):
            raise UsageError(
                given=f"budget: examples={self.examples}, epochs={self.epochs:g}, steps={self.steps}",
                allowed="examples and epochs, or steps alone",
                advice="say how often a fixed set comes, or for how many steps examples are drawn",
            )
        if self.examples and self.validation >= self.examples:
            raise UsageError(
                f"validation={self.validation} of {self.examples} examples", "fewer", "leave some to train"
            )
        for name in ("read_at", "stopped_at"):
            step = getattr(self, name)
            if isinstance(step, int) and not 0 < step <= self.scheduled:
                raise UsageError(f"budget, {name}={step}", f"1 to {self.scheduled} steps", "give such a step")

    @property
    def rows(self) -> int:
        """How many examples a step of the optimizer has."""
        return self.batch * self.accumulation

    @property
    def trained(self) -> int:
        """How many examples of a fixed set are trained on."""
        return self.examples - self.validation

    @property
    def scheduled(self) -> int:
        """The steps that the schedule of the learning rate is made for."""
        return self.steps if self.steps > 0 else int(self.trained * self.epochs) // self.rows

    def lasting(self, steps: int) -> Budget:
        """Return a budget of so many steps in all, its schedule and warm-up shortened or stretched alike."""
        at_least("steps", steps, 1)
        if steps == self.steps_made:
            return self
        share = steps / self.scheduled
        epochs = (steps * self.rows + 0.5) / self.trained if self.examples else 0.0  # 0.5: what rounds down stays
        return replace(
            self,
            steps=0 if self.examples else steps,
            epochs=epochs,
            warm_up=round(self.warm_up * share),
            read_at="final",
            stopped_at=None,
        )

    @property
    def steps_made(self) -> int:
        """The steps that are made: to where training was stopped, or where the published adapter was read."""
        if self.stopped_at is not None:
            return self.stopped_at
        return self.read_at if isinstance(self.read_at, int) else self.scheduled
