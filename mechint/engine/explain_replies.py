"""The cost of replies before they are sampled: prompts that are filled, tokens, and memory, from their rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mechint.base import html
from mechint.base.sizes import format_bytes
from mechint.engine.replies import ReplyPlan, ReplyRequest
from mechint.models.memory import Memory
from mechint.models.model import Model
from mechint.models.row_memory import no_room, row_bytes

# Replies that are said at once, where nothing else is said.
AT_ONCE = 64
# Positions that caches have beyond the longest row: so many steps are taken until all rows are moved back.
SLACK = 32


# Bytes of attention for each head and position that a token looks at; heads are about so wide, or wider.
_SCORE_BYTES, _HEAD = 12, 64
# Prompts are filled together up to this share of the memory.
_OF_LIMIT = 1 / 4
# Rows for each prompt from which on sharing its cache is of use: attention then goes from prompt to prompt.
_WORTH_SHARING = 4


@dataclass(frozen=True)
class ReplyMemory:
    """How many replies are said at once, how many prompts are filled at once, and the bytes that all of it takes.

    Each row has a cache of `n_pos` positions, without its prompt where prompts are `shared`.
    """

    rows: int
    fills: int
    n_pos: int
    n_prompt: int
    shared: bool
    cache_bytes: int
    peak_bytes: int

    @classmethod
    def of(cls, plan: ReplyPlan, batch_size: int | None, max_memory: int | str | None) -> ReplyMemory:
        """Return what a plan is given. Raises MemoryLimitError if `max_memory` has no room for a single reply."""
        model, prompts = plan.model, plan.prompts
        most = min(AT_ONCE if batch_size is None else batch_size, len(plan.rows))
        n_prompt = max(len(prompt.tokens) for _, prompt in prompts)
        many = len(plan.rows) >= _WORTH_SHARING * len(prompts)
        shared = many and all(reader.blocks.shares_prompts for reader, _ in prompts)
        n_reply = max(row.request.max_new_tokens for row in plan.rows)
        n_pos = (n_reply if shared else plan.longest) + SLACK
        token = sum(model.cache_widths) * model.backend.dtype.itemsize
        one_fill, one_prompt = row_bytes(model, n_prompt), token * n_prompt
        # Rows hold the prompts that they share: all there are, or where these are many, one each at most.
        few = 2 * len(prompts) <= most
        held = one_prompt if shared and not few else 0
        heads = max(1, model.d_model // _HEAD)
        one_row = token * n_pos + held + row_bytes(model, 1) + heads * (n_prompt + n_pos) * _SCORE_BYTES
        limit = Memory.of(model, max_memory).limit
        if one_fill + one_row > limit and max_memory is not None:
            raise no_room(f"replies: a row of {plan.longest} tokens", one_fill + one_row, limit)
        fills = max(1, min(most, len(prompts), int(_OF_LIMIT * limit) // one_fill))
        kept = one_prompt * max(0, len(prompts) - fills) if shared and few else 0
        rows = max(1, min(most, (limit - fills * one_fill - kept) // one_row))
        caches = rows * (token * n_pos + held) + fills * one_prompt + kept
        peak = rows * one_row + fills * one_fill + kept
        return cls(rows, fills, n_pos, n_prompt, shared, caches, peak)


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
