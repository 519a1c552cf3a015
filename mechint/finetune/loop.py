"""The loop of every training here: steps of AdamW that go on where an earlier run of the same training stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from mechint.base.progress import Progress, counted
from mechint.finetune import checkpoint
from mechint.finetune.budget import Budget
from mechint.finetune.lora import Trainee
from mechint.finetune.processes import SINGLE, Processes
from mechint.finetune.schedule import rate

Measures = Mapping[str, float]  # of a step; the number of "tokens" is among them


@dataclass(frozen=True)
class Loop:
    """A training: what is trained, by how much, and the file with all that it takes to go on.

    `key` says which training it is: a file of another is not used. It is written every `every` steps.
    """

    trainee: Trainee
    budget: Budget
    state: Path
    key: str
    every: int
    processes: Processes = SINGLE

    def run(
        self,
        backward: Callable[[int], Measures],
        after: Callable[[int, Measures], None],
        progress: Progress | bool | None,
        name: str,
        begin: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Make the steps that are left.

        `begin` is told how many are done; `backward` adds up the gradients of a step and returns what is measured;
        `after` is told of each step once it is made, from 1. Ctrl-C ends it after the step that is being made, whose
        state is written (KeyboardInterrupt); a second Ctrl-C at once.
        """
        weights, steps = self.trainee.weights, self.budget.steps_made
        optimizer = torch.optim.AdamW(
            weights.values(), lr=self.budget.learning_rate, weight_decay=self.budget.weight_decay
        )
        done = checkpoint.resume(self.state, self.key, weights, optimizer)
        begin(done)
        with counted(progress, name, steps - done, "step") as tell, torch.enable_grad(), interruptions() as pressed:
            for step in range(done, steps):
                measures = self._step(optimizer, backward, step)
                after(step + 1, measures)
                is_stopped = self.processes.any(pressed())
                if self.processes.is_first and (is_stopped or (step + 1) % self.every == 0):
                    checkpoint.save(self.state, self.key, step + 1, weights, optimizer)
                if tell is not None:
                    tell(1, int(measures["tokens"]))
                if is_stopped:
                    raise KeyboardInterrupt

    def _step(self, optimizer: torch.optim.AdamW, backward: Callable[[int], Measures], step: int) -> Measures:
        share = rate(self.budget, step)
        for group in optimizer.param_groups:
            group["lr"] = self.budget.learning_rate * share
        optimizer.zero_grad()
        measures = backward(step)
        weights = list(self.trainee.weights.values())
        self.processes.add([weight.grad for weight in weights if weight.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(weights, self.budget.clip)
        optimizer.step()
        return {**measures, "rate": self.budget.learning_rate * share, "norm": float(norm)}


@contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Yield what says whether Ctrl-C was pressed, once, while the context is open; a second time it interrupts.

    A step that is interrupted half-way has changed some of the weights. In other threads than the first, where no
    signal arrives, nothing is ever pressed.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield lambda: False
        return
    pressed: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
