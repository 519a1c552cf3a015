"""The cost of replies before they are sampled: prompts that are filled, tokens, and memory, from their rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mechint.base import html
from mechint.base.sizes import format_bytes
from mechint.engine.replies import ReplyPlan, ReplyRequest
from mechint.models.model import Model
from mechint.models.row_memory import fitting_rows, row_bytes

# Replies that are said at once, where nothing else is said.
AT_ONCE = 64
# Positions that caches have beyond the longest row: so many steps are taken until all rows are moved back.
SLACK = 32


@dataclass(frozen=True)
class ReplyMemory:
    """How many replies are said at once, and the caches that they take.

    Each has a cache of `n_pos` positions, and as many prompts of at most `n_prompt` are kept filled for those to come.
    """

    rows: int
    n_pos: int
    n_prompt: int
    prompts: int
    cache_bytes: int
    peak_bytes: int

    @classmethod
    def of(cls, plan: ReplyPlan, batch_size: int | None, max_memory: int | str | None) -> ReplyMemory:
        """Return what a plan is given. Raises MemoryLimitError if `max_memory` has no room for a single reply."""
        model, n_pos = plan.model, plan.longest + SLACK
        most = min(AT_ONCE if batch_size is None else batch_size, len(plan.rows))
        rows = fitting_rows(model, max_memory, n_pos, most, "replies")
        n_prompt = max(len(row.prompt.tokens) for row in plan.rows)
        prompts = min(rows, len(plan.prompts))
        token = sum(model.cache_widths) * model.backend.dtype.itemsize
        caches = token * (rows * n_pos + prompts * n_prompt)
        return cls(rows, n_pos, n_prompt, prompts, caches, max(caches, rows * row_bytes(model, n_pos)))


@dataclass(frozen=True)
class ReplyExplanation:
    """The cost of replies. `replies` are said, at most `at_once` together, after `prefills` filled prompts.

    `prompt_tokens` are passed for these, and `reply_tokens` at most for the replies, whose last tokens are not read.
    `alone_tokens` are passed at most if every reply is said by itself. `peak_bytes` is the most that is taken besides
    what was there before; caches are at most `cache_bytes` of it.
    """

    replies: int
    prefills: int
    at_once: int
    prompt_tokens: int
    reply_tokens: int
    alone_tokens: int
    cache_bytes: int
    peak_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.replies:,} replies, up to {self.at_once:,} at once, after {self.prefills:,} prefills\n"
            f"{self.prompt_tokens:,} tokens of prompts, up to {self.reply_tokens:,} of replies "
            f"(each by itself: up to {self.alone_tokens:,})\n"
            f"peak memory {format_bytes(self.peak_bytes)}: caches of up to {format_bytes(self.cache_bytes)}"
        )

    def _repr_html_(self) -> str:
        return html.table(
            {
                "replies": f"{self.replies:,}",
                "prefills": f"{self.prefills:,}",
                "at once": f"{self.at_once:,}",
                "tokens of prompts": f"{self.prompt_tokens:,}",
                "tokens of replies, at most": f"{self.reply_tokens:,}",
                "tokens, each reply by itself": f"{self.alone_tokens:,}",
                "peak memory": format_bytes(self.peak_bytes),
                "of it caches": format_bytes(self.cache_bytes),
            }
        )


def cost_of_replies(
    model: Model, requests: Sequence[ReplyRequest], batch_size: int | None, max_memory: int | str | None
) -> ReplyExplanation:
    """Return the cost of `mi.replies` with these arguments; nothing is run. Raises what that raises for bad input."""
    plan = ReplyPlan.of(model, requests)
    memory, prompts = ReplyMemory.of(plan, batch_size, max_memory), plan.prompts
    reply_tokens = sum(row.request.max_new_tokens - 1 for row in plan.rows)
    return ReplyExplanation(
        replies=len(plan.rows),
        prefills=len(prompts),
        at_once=memory.rows,
        prompt_tokens=sum(len(prompt.tokens) for _, prompt in prompts),
        reply_tokens=reply_tokens,
        alone_tokens=sum(len(row.prompt.tokens) for row in plan.rows) + reply_tokens,
        cache_bytes=memory.cache_bytes,
        peak_bytes=memory.peak_bytes,
    )
