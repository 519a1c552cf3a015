"""How long a table will take and how much memory, said before its first pass: from its plan, and a short pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mechint.base.sizes import format_bytes
from mechint.engine.engine import make_budget
from mechint.engine.explain import Explanation
from mechint.engine.job import Job, Options
from mechint.models.memory import in_use
from mechint.models.model import Model

# Tokens of a row and blocks that are timed, but for those that come after so many seconds.
_TOKENS, _BLOCKS, _LONG = 256, 8, 1.0
# A table of less work than this many times what is timed is done before its time would be of use.
_WORTH = 20


@dataclass(frozen=True)
class Forecast:
    """The expected time and memory of some tables; `seconds` is None where they are too small for it to matter."""

    cells: int
    known: int
    distinct_tokens: int
    seconds: float | None
    peak_bytes: int
    used_bytes: int

    def __str__(self) -> str:
        stored = f" ({self.known:,} in the store)" if self.known else ""
        lasting = "" if self.seconds is None else f"about {format_duration(self.seconds)}, "
        return (
            f"{self.cells:,} cells{stored}, {self.distinct_tokens:,} distinct tokens, {lasting}"
            f"{format_bytes(self.peak_bytes)} of memory beside the {format_bytes(self.used_bytes)} in use"
        )


def forecast(jobs: Sequence[Job], costs: Sequence[Explanation], options: Options, *, workers: int = 1) -> Forecast:
    """Return the forecast of jobs of these costs that are run one after another, each by some workers."""
    times = [_seconds(job, cost.work, options) for job, cost in zip(jobs, costs, strict=True)]
    timed = [seconds for seconds in times if seconds is not None]
    return Forecast(
        cells=sum(cost.cells for cost in costs),
        known=sum(cost.known for cost in costs),
        distinct_tokens=sum(cost.distinct_tokens for cost in costs),
        seconds=sum(timed) / workers if timed else None,
        peak_bytes=max((cost.peak_bytes for cost in costs), default=0),
        used_bytes=max((in_use(job.model.device) for job in jobs), default=0),
    )


def format_duration(seconds: float) -> str:
    """Return a time as people say it: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60} min"


def pace(model: Model, tokens: Sequence[int], options: Options) -> float:
    """Return the seconds of a (token x block), measured: rows of some tokens are run through a few blocks."""
    row = tokens[:_TOKENS]
    n_rows = _rows_at_once(model, row, options)
    prepared = model.blocks.begin(torch.tensor([row]), torch.tensor([0]))
    resid, rows = prepared.resid.expand(n_rows, -1, -1), torch.zeros(n_rows, dtype=torch.long)
    spent: list[float] = []
    for layer in range(min(_BLOCKS, model.n_layers)):
        begin = time.perf_counter()
        out, _ = prepared.block(layer, resid, rows, None)
        assert out is not None  # a block gives none only if it is asked for keys alone
        resid = out
        _finish(model.device)
        spent.append(time.perf_counter() - begin)
        if sum(spent) > _LONG:
            break
    # The first are slow: it is when memory is asked for and kernels are loaded.
    return statistics.median(spent[len(spent) // 2 :]) / (n_rows * len(row))


def _seconds(job: Job, work: int, options: Options) -> float | None:
    """Return how long so much work takes, by the pace of the job's longest conversation."""
    tokens = max((item.tokens for item in job.rendered), key=len)
    row = tokens[:_TOKENS]
    if work < _WORTH * _BLOCKS * len(row) * _rows_at_once(job.model, row, options):
        return None
    return pace(job.model, tokens, options) * work


def _rows_at_once(model: Model, row: Sequence[int], options: Options) -> int:
    return make_budget(model, options.batch_size, options.batch_tokens, options.memory(model)).rows(len(row), 0)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
