"""One pass through all blocks of a model, one after another, with the stream changed between them as a caller likes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.models.backends.past import KeyValues, Past
from mechint.models.device_memory import is_out_of_memory, out_of_memory
from mechint.models.model import Model

# Takes a layer and its `resid_post`; returns what goes on to the next block.
Change = Callable[[int, Tensor], Tensor]


def run_blocks(
    model: Model,
    tokens: Int[Tensor, "row pos"],
    lengths: Int[Tensor, " row"],
    change: Change,
    past_of: Callable[[int], Past | None] = lambda _layer: None,
    n_rows: int | None = None,
) -> tuple[list[KeyValues], Float[Tensor, "out pos d_model"]]:
    """Return each block's keys and values of `tokens`, and the last block's `resid_post`, both as `change` leaves them.

    Each row has `lengths` positions before its tokens; `past_of` gives the caches of a layer. A single row of tokens
    may be run as `n_rows` rows, which part where `change` changes them. Raises MemoryLimitError.
    """
    n_out = len(tokens) if n_rows is None else n_rows
    rows = torch.arange(len(tokens)) if len(tokens) == n_out else torch.zeros(n_out, dtype=torch.long)
    new: list[KeyValues] = []
    try:
        with torch.no_grad():
            prepared = model.blocks.begin(tokens, lengths)
            resid = prepared.resid.expand(n_out, *prepared.resid.shape[1:])
            for layer in range(model.n_layers):
                out, cached = prepared.block(layer, resid, rows, past_of(layer))
                assert out is not None  # only a pass for keys alone has none
                resid = change(layer, out)
                new.append(cached)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(n_out) from error
    return new, resid
