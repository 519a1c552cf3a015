"""Running a table of (conversation x intervention): prefill, remove, read the stream at the answer position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.cache import KVCache
from mechint.capture import residuals
from mechint.errors import UsageError
from mechint.interventions import Intervention
from mechint.model import Model
from mechint.plan import DEFAULT_BATCH_SIZE, batches, group_by_prefix
from mechint.prefill import Prefilled, Receipt, check_fits, check_readable, clean_norms, prefill
from mechint.render import Rendered

Cell = tuple[int, int]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class CellBatch:
    """Residuals at the answer position of some cells (conversation index, intervention index)."""

    cells: tuple[Cell, ...]
    resid: Float[Tensor, "layer cell d_model"]
    receipts: tuple[Receipt, ...]


def run(
    model: Model,
    rendered: Sequence[Rendered],
    interventions: Sequence[Intervention],
    layers: Sequence[int],
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Iterator[CellBatch]:
    """Yield every cell once; `progress` is told how many cells each batch has finished.

    All input is checked before the first pass. Raises what `prefill` raises, and UsageError for names or labels that
    occur twice.
    """
    size = DEFAULT_BATCH_SIZE if batch_size is None else batch_size
    if size < 1:
        raise UsageError(f"batch size {size}", "1 or more", "choose a positive number of rows")
    _check_table(model, rendered, interventions)
    for group in group_by_prefix(rendered):
        first = rendered[group.conversations[0]]
        norms = clean_norms(model, first, interventions)
        for batch in batches(group, len(interventions), size):
            filled = prefill(model, first, [interventions[i] for i in batch.interventions], norms)
            receipts = filled.receipts
            for read in batch.reads:
                cells = tuple((c, i) for i in batch.interventions for c in read)
                resid = read_from(model, filled, [rendered[c] for c in read], layers)
                yield CellBatch(cells, resid, receipts)
                receipts = ()
                if progress is not None:
                    progress(len(cells))


def read_from(
    model: Model, filled: Prefilled, conversations: Sequence[Rendered], layers: Sequence[int]
) -> Float[Tensor, "layer cell d_model"]:
    """Read each conversation from each row of a filled cache, nothing steered: cells run over rows, then conversations.

    The continuations differ in length and are padded on the right, which causal attention never sees.
    """
    n_pos = filled.rendered.prefix_length
    rests = [torch.tensor(item.tokens[n_pos:]) for item in conversations]
    tokens = torch.nn.utils.rnn.pad_sequence(rests, batch_first=True)
    at = torch.tensor([len(rest) - 1 for rest in rests])
    n_rows = len(filled.receipts)
    cache = KVCache()
    if n_pos:
        cache = filled.cache
        if len(rests) > 1:
            cache = cache.select(torch.arange(n_rows).repeat_interleave(len(rests)))
    return residuals(model, tokens.repeat(n_rows, 1), at.repeat(n_rows), layers, cache)


def _check_table(model: Model, rendered: Sequence[Rendered], interventions: Sequence[Intervention]) -> None:
    _check_unique("conversation labels", [item.label for item in rendered])
    _check_unique("intervention names", [item.name for item in interventions])
    for intervention in interventions:
        check_fits(model, intervention)
    for item in rendered:
        check_readable(item, interventions)


def _check_unique(what: str, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UsageError(
            given=f"{what} that occur more than once: {repeated[:5]}",
            allowed="each once, since rows of the table are told apart by them",
            advice="rename one (name=...), or leave it out",
        )
