"""What a table will cost before it is run: tokens, passes and memory, from its plan alone."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch

from mechint import html
from mechint.chat import Conversation
from mechint.engine import all_known, chunks, depth_of, make_budget
from mechint.interventions import Filled, Intervention
from mechint.job import Job, Options, Request
from mechint.model import Model
from mechint.passes import Budget
from mechint.plan import Cell, Plan, Step, make_plans
from mechint.render import Rendered
from mechint.shards import Shard
from mechint.signatures import Count, checked

# Of an attention mask for each pair of positions: as it is, and as the kernel adds it.
_MASK_BYTES = 5


@dataclass(frozen=True)
class Explanation:
    """What a table costs. `known` cells are in the store already; passes for them alone are not counted.

    `alone_tokens` are passed if every cell is run by itself, `distinct_tokens` differ in what precedes them or was done
    to them, `passed_tokens` are those that the engine passes, padding included. Positions that a `Filled` provides are
    none of these: nothing is computed there. `blocks` is the work in units of (token x block), `alone_blocks` what it
    is if every cell is run by itself. `cache_bytes` is the most that KV caches take at any time, `pass_bytes` what the
    largest pass takes besides: residuals and the caches it reads from.
    """

    cells: int
    known: int
    alone_tokens: int
    distinct_tokens: int
    passed_tokens: int
    alone_blocks: int
    blocks: int
    passes: int
    cache_bytes: int
    pass_bytes: int

    @property
    def saved(self) -> float:
        """Share of the blocks' work that is saved against running every cell by itself."""
        return 1 - self.blocks / self.alone_blocks

    def __str__(self) -> str:
        return (
            f"{self.cells:,} cells{f' ({self.known:,} in the store)' if self.known else ''}, "
            f"{self.alone_tokens:,} tokens if each is run by itself\n"
            f"{self.distinct_tokens:,} distinct tokens ({self.alone_tokens / self.distinct_tokens:.1f}x fewer), "
            f"{self.passed_tokens:,} passed in {self.passes:,} passes\n"
            f"{self.saved:.1%} of the blocks' work saved\n"
            f"peak memory {_bytes(self.cache_bytes)} of caches and {_bytes(self.pass_bytes)} for the largest pass"
        )

    def _repr_html_(self) -> str:
        return html.table(
            {
                "cells": f"{self.cells:,}",
                "tokens, each cell by itself": f"{self.alone_tokens:,}",
                "distinct tokens": f"{self.distinct_tokens:,}",
                "tokens passed": f"{self.passed_tokens:,}",
                "passes": f"{self.passes:,}",
                "work saved": f"{self.saved:.1%}",
                "peak of caches": _bytes(self.cache_bytes),
                "largest pass": _bytes(self.pass_bytes),
            }
        )


@checked
def explain(
    model: Model,
    conversations: Conversation | Sequence[Conversation] | Sequence[Request],
    interventions: Intervention | Sequence[Intervention] = (),
    *,
    layers: Sequence[int] | None = None,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> Explanation:
    """Return what `score` (or, with `layers`, `logit_lens`) will cost with these arguments; nothing is run.

    Requests, as `tables` takes them, may stand in place of conversations and interventions. What a `store` has needs no
    pass. Raises what `score` raises for input that it refuses.
    """
    job = Job.of(model, _requests(conversations, interventions, layers))
    return cost_of(job, Options(batch_size, batch_tokens, store=store, shard=shard, offload=offload))


def cost_of(job: Job, options: Options) -> Explanation:
    """Return what a job will cost, but for passes all of whose cells its store has."""
    cells, known = job.wanted(options.shard), frozenset(job.known(options.store)[0])
    budget = make_budget(job.model, options.batch_size, options.batch_tokens, offload=options.offload)
    depth = depth_of(job.interventions, job.all_layers)
    plans = make_plans(job.rendered, job.interventions, cells, depth)
    finest = make_plans(job.rendered, job.interventions, cells, depth, min_shared=1)
    memory = [_Memory(job.model, budget, known) for _ in plans]
    for plan, of_it in zip(plans, memory, strict=True):
        of_it.visit(plan.roots)
    alone = sum(_alone(job.rendered[c], job.interventions[i]) for c, i in cells)
    return Explanation(
        cells=len(cells),
        known=sum(cell in known for cell in cells),
        alone_tokens=alone,
        distinct_tokens=sum(_distinct(plan) for plan in finest),
        passed_tokens=sum(one.passed for one in memory),
        alone_blocks=alone * job.model.n_layers,
        blocks=sum(one.blocks for one in memory),
        passes=sum(one.passes for one in memory),
        cache_bytes=max((one.peak for one in memory), default=0),
        pass_bytes=max((one.largest for one in memory), default=0),
    )


def _alone(rendered: Rendered, intervention: Intervention) -> int:
    """Return how many tokens are passed for a cell by itself: what was filled is all that comes before the read."""
    return len(rendered.tokens) - (rendered.prefix_length if isinstance(intervention, Filled) else 0)


def _requests(
    given: Conversation | Sequence[Conversation] | Sequence[Request],
    interventions: Intervention | Sequence[Intervention],
    layers: Sequence[int] | None,
) -> list[Request]:
    several = [] if isinstance(given, Conversation) else [item for item in given if isinstance(item, Request)]
    if several:
        return several
    asked = [item for item in ([given] if isinstance(given, Conversation) else given) if isinstance(item, Conversation)]
    return [Request(asked, interventions, layers=layers)]


class _Memory:
    """Goes through a plan as the engine does, counting instead of computing."""

    def __init__(self, model: Model, budget: Budget, known: Set[Cell]) -> None:
        self.budget, self.known = budget, known
        size = model.backend.dtype.itemsize
        self._cached = [size * width for width in model.cache_widths]
        self._resid = size * model.d_model
        self._float32 = torch.float32.itemsize * model.d_model
        self._mlp = size * model.backend.d_mlp
        self.live = self.peak = self.largest = self.passed = self.blocks = self.passes = 0

    def visit(self, steps: Sequence[Step]) -> None:
        """Count the passes of some steps and of all below them."""
        for chunk in chunks(steps, self.budget):
            if all_known(chunk, self.known):
                continue
            rows = [sum(counts) for counts in zip(*(step.rows.counts for step in chunk), strict=True)]
            computed = [sum(counts) for counts in zip(*(step.computed for step in chunk), strict=True)]
            n_pos = max(step.n_tokens for step in chunk)
            self.passes += any(computed)
            self.passed += n_pos * max(computed)
            self.blocks += n_pos * sum(computed[:-1])
            children = [child for step in chunk for child in step.children]
            stored = sum(n_pos * r * b for r, b in zip(rows, self._cached, strict=False)) if children else 0
            self.live += stored
            self.peak = max(self.peak, self.live)
            self.largest = max(self.largest, self._pass(chunk, rows, max(computed), n_pos))
            self.visit(children)
            self.live -= stored

    def _pass(self, chunk: Sequence[Step], rows: Sequence[int], computed: int, n_pos: int) -> int:
        """Bytes that a pass needs at most, besides the caches that are kept.

        A block needs the stream of all rows before and after it (twice while its batches are joined), the new keys and
        values likewise, and for the rows that are computed at once its MLP, or its attention with the past it reads.
        Then rows part: the stream before and after, those rows to which something is added, and that in float32.
        """
        past = max(step.node.start for step in chunk)
        at_once = min(computed, self.budget.rows(n_pos, past))
        resid, new = (max(rows) * n_pos * each for each in (self._resid, max(self._cached)))
        mlp = at_once * n_pos * (2 * self._resid + 3 * self._mlp)
        mask = at_once * n_pos * (past + n_pos) * _MASK_BYTES
        attention = at_once * (4 * n_pos * self._resid + (2 * past + n_pos) * max(self._cached)) + mask
        joined = 1 if at_once == max(rows) else 2
        block = (1 + joined) * resid + joined * new + max(mlp, attention)
        added = max(rows) * n_pos * self._float32
        return max(block, 3 * resid + (2 if self._resid == self._float32 else 3) * added + new)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _distinct(plan: Plan) -> int:
    return sum(step.n_tokens * max(step.computed) for step in plan.steps())
