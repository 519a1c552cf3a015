"""The cost of a table before it is run: tokens, passes and memory, from its plan alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from mechint.base import html
from mechint.base.signatures import Count, checked
from mechint.base.sizes import format_bytes
from mechint.chat.conversations import Conversation
from mechint.chat.render import Rendered
from mechint.engine.division import Division, Visit
from mechint.engine.engine import depth_of, make_budget
from mechint.engine.explain_replies import ReplyExplanation, cost_of_replies
from mechint.engine.footprint import Footprint
from mechint.engine.job import Job, Options, Request
from mechint.engine.plan import Plan, make_plans
from mechint.engine.replies import ReplyRequest
from mechint.engine.shards import Shard
from mechint.interventions.specifications import Intervention
from mechint.models.model import Model


@dataclass(frozen=True)
class Explanation:
    """The cost of a table. `known` cells are in the store already; passes for them alone are not counted.

    `alone_tokens` are passed if every cell is run by itself, `distinct_tokens` differ in what precedes them or was done
    to them, `passed_tokens` are those that the engine passes, padding included. Positions that a `Filled` provides are
    none of these: nothing is computed there. `blocks` is the work in units of (token x block), padding included;
    `distinct_blocks` is that of distinct tokens without padding, and `alone_blocks` what it is if every cell is run by
    itself; `work` is `blocks` with the readouts, in the same units. `peak_bytes` is the most that is taken at any time
    besides what was there before: KV caches, of which there are at most `cache_bytes`, and what a pass takes besides,
    at most `pass_bytes`.
    """

    cells: int
    known: int
    alone_tokens: int
    distinct_tokens: int
    passed_tokens: int
    alone_blocks: int
    distinct_blocks: int
    blocks: int
    work: int
    passes: int
    cache_bytes: int
    pass_bytes: int
    peak_bytes: int

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
            f"peak memory {format_bytes(self.peak_bytes)}: caches of up to {format_bytes(self.cache_bytes)}, "
            f"{format_bytes(self.pass_bytes)} for the largest pass"
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
                "peak memory": format_bytes(self.peak_bytes),
                "of it caches": format_bytes(self.cache_bytes),
                "largest pass": format_bytes(self.pass_bytes),
            }
        )


@overload
def explain(
    model: Model,
    conversations: ReplyRequest | Sequence[ReplyRequest],
    *,
    batch_size: Count | None = None,
    max_memory: int | str | None = None,
) -> ReplyExplanation: ...
@overload
def explain(
    model: Model,
    conversations: Conversation | Sequence[Conversation] | Sequence[Request],
    interventions: Intervention | Sequence[Intervention] = (),
    *,
    layers: Sequence[int] | None = None,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> Explanation: ...
@checked
def explain(
    model: Model,
    conversations: Conversation | Sequence[Conversation] | Sequence[Request] | ReplyRequest | Sequence[ReplyRequest],
    interventions: Intervention | Sequence[Intervention] = (),
    *,
    layers: Sequence[int] | None = None,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> Explanation | ReplyExplanation:
    """Return the cost of `score` (or, with `layers`, `logit_lens`) with these arguments; nothing is run.

    Requests, as `tables` takes them, may stand in place of conversations and interventions. What a `store` has needs no
    pass. Of `mi.ReplyRequest`s it is the cost of `mi.replies` (and `mi.generate`): prefills, tokens and memory, for
    which only `batch_size` and `max_memory` count. Raises what `score` and `replies` raise for input that they refuse.
    """
    listed: list[Conversation | Request | ReplyRequest] = []
    if isinstance(conversations, Conversation | ReplyRequest):
        listed.append(conversations)
    else:
        listed.extend(conversations)
    replies = [item for item in listed if isinstance(item, ReplyRequest)]
    if replies:
        return cost_of_replies(model, replies, batch_size, max_memory)
    job = Job.of(model, _requests(listed, interventions, layers))
    options = Options(batch_size, batch_tokens, None, store, shard, offload, max_memory)
    return cost_of(job, options)


def cost_of(job: Job, options: Options) -> Explanation:
    """Return the cost of a job; passes all of whose cells its store has cost nothing."""
    cells = job.cells_of(options.shard)
    finished = frozenset(job.finished_in(options.store)[0])
    memory = options.memory(job.model)
    budget = make_budget(job.model, options.batch_size, options.batch_tokens, memory, offload=options.offload)
    division = Division(Footprint(job.model, budget, len(job.all_layers)), memory.planned, finished)
    depth = depth_of(job.interventions, job.all_layers)
    plans = make_plans(job.rendered, job.interventions, cells, depth)
    finest = make_plans(job.rendered, job.interventions, cells, depth, min_shared=1)
    visits = [visit for plan in plans for visit in division.visits(plan.roots) if visit.begins]
    costs = [_pass(division.footprint, visit) for visit in visits]
    read = [cell for visit in visits for step in visit.steps for cell in step.reads]
    alone = sum(_alone(job.rendered[c], job.interventions[i]) for c, i in cells)
    return Explanation(
        cells=len(cells),
        known=sum(cell in finished for cell in cells),
        alone_tokens=alone,
        distinct_tokens=sum(_distinct(plan) for plan in finest),
        passed_tokens=sum(cost.tokens for cost in costs),
        alone_blocks=alone * job.model.n_layers,
        distinct_blocks=sum(_distinct_blocks(plan) for plan in finest),
        blocks=(blocks := sum(cost.blocks for cost in costs)),
        work=blocks + job.reading_work(read),
        passes=sum(cost.tokens > 0 for cost in costs),
        cache_bytes=max((cost.kept for cost in costs), default=0),
        pass_bytes=max((cost.working for cost in costs), default=0),
        peak_bytes=max((cost.peak for cost in costs), default=0),
    )


def _alone(rendered: Rendered, intervention: Intervention) -> int:
    """Return how many tokens are passed for a cell by itself; those of a stored prefix are not."""
    is_stored = intervention.filler is not None and intervention.filler.model is None
    return len(rendered.tokens) - (rendered.prefix_length if is_stored else 0)


def _requests(
    listed: Sequence[Conversation | Request | ReplyRequest],
    interventions: Intervention | Sequence[Intervention],
    layers: Sequence[int] | None,
) -> list[Request]:
    requests = [item for item in listed if isinstance(item, Request)]
    if requests:
        return requests
    return [Request([item for item in listed if isinstance(item, Conversation)], interventions, layers=layers)]


@dataclass(frozen=True)
class _Pass:
    """The cost of a pass; `kept` are the bytes of all caches that stand at its end, `peak` the most that there are."""

    tokens: int
    blocks: int
    kept: int
    working: int
    peak: int


def _pass(footprint: Footprint, visit: Visit) -> _Pass:
    computed = visit.computed
    n_pos, before = visit.load.n_pos, visit.kept - footprint.kept(visit.load)
    peak = footprint.peak(visit.load)
    working = peak - footprint.kept(visit.load)
    return _Pass(n_pos * max(computed), n_pos * sum(computed[:-1]), visit.kept, working, before + peak)


def _distinct(plan: Plan) -> int:
    return sum(step.n_tokens * max(step.computed) for step in plan.steps())


def _distinct_blocks(plan: Plan) -> int:
    return sum(step.n_tokens * sum(step.computed[:-1]) for step in plan.steps())
