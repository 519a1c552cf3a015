"""The learning rate of a step, as a share of the highest."""

from __future__ import annotations

import math

from mechint.finetune.budget import Budget


def rate(budget: Budget, step: int) -> float:
    """Return the learning rate of a step (from 0) as a share of the budget's: up to it in the warm-up, then down.

    It falls to none along a line or a cosine over the steps that are left of those that the schedule is made for, or
    stays. A training that stops before them stops at the rate of its last step.
    """
    if step < budget.warm_up:
        return (step + 1) / budget.warm_up
    passed = (step - budget.warm_up) / max(1, budget.scheduled - budget.warm_up)
    return {"linear": 1 - passed, "cosine": 0.5 * (1 + math.cos(math.pi * passed)), "constant": 1.0}[budget.schedule]
