"""How many rows of one pass fit into memory, for passes over whole models: replies, losses of texts, fills."""

from __future__ import annotations

import torch

from mechint.base.errors import MemoryLimitError
from mechint.base.sizes import format_bytes
from mechint.models.memory import Memory
from mechint.models.model import Model

# Residual-sized tensors that a block needs for each token, MLP included; caches that are there at once when one grows.
_COPIES, _GROWING = 40, 2
# Attention keeps scores and patterns of each pair of positions and head; of heads it is known that they are about so
# wide, or wider, in models whose memory matters.
_SCORE_BYTES, _HEAD = 12, 64


def fitting_rows(
    model: Model, max_memory: int | str | None, n_pos: int, n_rows: int, subject: str, *, n_logits: int = 1
) -> int:
    """Return how many of `n_rows` rows of `n_pos` tokens a pass is given at once, unembedding `n_logits` of each.

    `max_memory` is what it is for `mi.score`. Raises MemoryLimitError, naming `subject`, if it is given and allows no
    row; without it one row is always tried.
    """
    limit, row = Memory.of(model, max_memory).limit, row_bytes(model, n_pos, n_logits)
    if row > limit and max_memory is not None:
        raise no_room(f"{subject}: a row of {n_pos} tokens", row, limit)
    return max(1, min(n_rows, limit // row))


def no_room(subject: str, needed: int, limit: int) -> MemoryLimitError:
    """Return the error for a single row that needs more bytes than a limit leaves."""
    return MemoryLimitError(
        given=f"{subject} takes about {format_bytes(needed)}, {format_bytes(limit)} are left",
        allowed="a limit that a single row fits into",
        advice="allow more (max_memory=, --max-memory), shorten what is read, or load the model in bfloat16",
    )


def row_bytes(model: Model, n_pos: int, n_logits: int = 1) -> int:
    """Return about how many bytes a row of `n_pos` tokens takes: its cache, one block's work, and its logits."""
    size, d_model = model.backend.dtype.itemsize, model.d_model
    cache = _GROWING * n_pos * sum(model.cache_widths) * size
    block = _COPIES * n_pos * d_model * size + max(1, d_model // _HEAD) * n_pos**2 * _SCORE_BYTES
    return cache + block + n_logits * 2 * model.backend.d_vocab * torch.float32.itemsize
