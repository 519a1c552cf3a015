"""The readout at the answer position, as a tidy table: one row for each conversation and intervention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mechint.base.progress import Progress
from mechint.base.signatures import Count, checked
from mechint.chat.conversations import Conversation
from mechint.chat.tokens import Answers
from mechint.engine.job import Request
from mechint.engine.shards import Shard
from mechint.interventions.specifications import Intervention
from mechint.models.model import Model
from mechint.readouts.tables import tables


@checked
def score(
    model: Model,
    conversations: Conversation | Sequence[Conversation],
    interventions: Intervention | Sequence[Intervention],
    *,
    answers: Answers | None = None,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row per (conversation, intervention), read at the last position of the conversation.

    Columns: `conversation`, `intervention`; `p_yes`, `p_no`, `logit_yes`, `logit_no`, `logit_diff` (natural units),
    `yes_no_mass`, `entropy` (nats, over the whole vocabulary); `p_yes_shift`, `p_no_shift`, `logit_diff_shift` against
    the clean cell of the same conversation, which is computed where it was not asked for. An option list gives
    `p_<option>` and `logit_<option>` instead. Answers are the conversation's own unless `answers` is given; columns
    without an answer are NaN. `table.attrs["receipts"]` holds the receipt of every prefill, `attrs["renderings"]`
    the marked text of each conversation, as `mi.render` prints it, and, of injections, `attrs["unit"]` the
    model's typical residual norms by layer, in which relative strengths are given.

    `store` is a directory that keeps finished cells: a call that was interrupted goes on there, and a cell that was
    computed from the same inputs is not computed again. With `shard`, only that part of the cells is computed and the
    table has the cells that the store has by then.

    `max_memory` ("4GB", or bytes) is the most that the process may hold while the table is computed, the weights among
    it: resident memory on a CPU, of a GPU what torch has taken. By default a quarter of what is free at the start may
    be taken besides what is there, less if other programs leave less while it goes on. A block is given at most
    `batch_tokens` tokens (chosen from that memory) and `batch_size` rows at once. With `offload`, caches that later
    passes need wait in the computer's memory, not the device's. `progress=True` writes what is expected and shows a bar
    with the time left; a function is told after each pass how many cells it has finished and how many tokens it has
    passed.

    Raises what `render`, `prefill` and `tokens.single_token` raise, before the first pass where it can be known then.
    """
    requests = [Request(conversations, interventions, answers)]
    (table,) = tables(
        model,
        requests,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        offload=offload,
        max_memory=max_memory,
        progress=progress,
        store=store,
        shard=shard,
    )
    return table
