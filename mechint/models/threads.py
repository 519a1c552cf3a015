"""How many threads a model on a CPU runs fastest with, measured: no rule knows what else the machine is doing.

Beside other programs two threads that wait for each other can be many times slower than one; alone they are nearly
twice as fast. So a short pass is timed with 1, 2, 4, ... threads by turns.

A small model, as are those that come with mechint, always has one thread. More would win a tenth at best, and threads
decide in which order numbers are added: what such a model computes must not depend on what else the machine does.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from mechint.base.files import JSON

if TYPE_CHECKING:
    from mechint.models.model import Model

# Rounds of the measurement, the first of which only warms up; and the seconds that all may take.
_ROUNDS, _LIMIT = 6, 0.6
# A pass: its tokens and blocks at most, and the seconds that it should take, since shorter ones are lost in what
# machines waver. Of a large model fewer tokens, of about so many operations in a block.
_TOKENS, _BLOCKS, _SECONDS, _OPERATIONS = 256, 32, 0.03, 4e9
# One that takes longer than this is ended after a block, and its time is worked out from those that were run.
_LONG = 0.15
# A model whose blocks do fewer operations than this for a token is small.
_SMALL = 1e6
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class ThreadChoice:
    """How many threads a model is run with, of how many that there are, and why.

    `seconds` are the medians that were measured for each number of threads; empty where nothing had to be.
    """

    threads: int
    available: int
    reason: str
    seconds: Mapping[int, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many times longer a pass takes with all threads that are available; None if that was not measured."""
        if self.available not in self.seconds:
            return None
        return self.seconds[self.available] / self.seconds[self.threads]

    def to_dict(self) -> dict[str, JSON]:
        """Return what a record says of it."""
        measured: dict[str, JSON] = {str(count): round(seconds, 5) for count, seconds in self.seconds.items()}
        ratio = None if self.ratio is None else round(self.ratio, 3)
        return {
            "threads": self.threads,
            "available": self.available,
            "reason": self.reason,
            "seconds": measured,
            "all_threads_take": ratio,
        }


def choose_threads(model: Model) -> ThreadChoice:
    """Return how many threads to run a model with, measured in less than a second where there is a choice.

    Who has set `OMP_NUM_THREADS`, `MKL_NUM_THREADS` or torch's threads has chosen, except that a small model has one.
    Torch is left as it was.
    """
    available = torch.get_num_threads()
    if model.device.type != "cpu":
        return ThreadChoice(available, available, f"the model is on {model.device.type}")
    if is_small(model):
        return ThreadChoice(1, available, "the model is small")
    if available == 1 or (reason := _set_by_user(available)) is not None:
        return ThreadChoice(available, available, "one is available" if available == 1 else str(reason))
    begin = time.perf_counter()
    seconds = fastest(_timed_pass(model), thread_counts(available), _LIMIT - (time.perf_counter() - begin))
    if len(seconds) < 2:
        return ThreadChoice(available, available, "a pass takes too long to be measured")
    return ThreadChoice(min(seconds, key=lambda count: seconds[count]), available, "measured", seconds)


def is_small(model: Model) -> bool:
    """Whether a model gains so little by more threads than one that it always has one."""
    return _operations(model) < _SMALL


def thread_counts(available: int) -> list[int]:
    """Return 1, 2, 4, ... and all that are available."""
    counts = {1 << power for power in range(available.bit_length())}
    return sorted({count for count in counts if count < available} | {available})


def fastest(run: Callable[[int], float], counts: Sequence[int], limit: float) -> dict[int, float]:
    """Return the median of the seconds that `run` says it took with each number of threads.

    All numbers have their turn in each round, so that what else the machine does falls on all. The first round warms up
    and does not count, unless it is the only one. There is no round more where it might end after `limit` seconds;
    numbers that are not reached in the first are left out.
    """
    taken: dict[int, list[float]] = {count: [] for count in counts}
    clock = time.perf_counter
    begin, longest = clock(), 0.0
    for _ in range(_ROUNDS):
        begin_of_round = clock()
        if begin_of_round - begin + longest > limit:
            break
        for count, seconds in taken.items():
            if clock() - begin <= limit:
                seconds.append(run(count))
        longest = max(longest, clock() - begin_of_round)
    return {count: statistics.median(seconds[1:] or seconds) for count, seconds in taken.items() if seconds}


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Run with some number of threads, and then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _set_by_user(available: int) -> str | None:
    """Return who has chosen the number of threads; None if it is what torch takes by itself."""
    for name in _VARIABLES:
        if os.environ.get(name):
            return f"{name} is set"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Torch takes a thread for each core; where cores run two threads each, that is half of what the system counts.
    return None if available in (cores, (cores + 1) // 2, os.cpu_count()) else "set in torch"


def _operations(model: Model) -> int:
    """Return about how many operations a block does for a token."""
    return 2 * model.d_model * (4 * model.d_model + 3 * model.backend.d_mlp)


def _timed_pass(model: Model) -> Callable[[int], float]:
    """Return a function that runs a few blocks over a few tokens with some number of threads, and says how long."""
    n_pos = model.backend.context.n_pos
    n_tokens = max(1, min(_TOKENS, int(_OPERATIONS / _operations(model)), _TOKENS if n_pos is None else n_pos))
    tokens = torch.arange(n_tokens)[None] % model.backend.d_vocab
    prepared = model.blocks.begin(tokens, torch.zeros(1, dtype=torch.long))
    row, n_blocks = torch.zeros(1, dtype=torch.long), 1

    def run(count: int) -> float:
        nonlocal n_blocks
        with using_threads(count):
            begin = time.perf_counter()
            for layer in range(n_blocks):
                prepared.block(layer % model.n_layers, prepared.resid, row, None)
                if (taken := time.perf_counter() - begin) > _LONG:
                    break
            return taken * n_blocks / (layer + 1)

    # One block warms up, another says how many make a pass.
    run(1)
    n_blocks = max(1, min(_BLOCKS, int(_SECONDS / max(run(1), 1e-6))))
    return run
