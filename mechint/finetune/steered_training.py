"""Vectors added to the first turns while a batch is passed in training, gradients and all.

The same additions as `prefill` makes, by hooks on the blocks themselves: training runs the plain model under PEFT, not
the bridge that everything else is read from. `verify` shows that the two agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mechint.base.errors import ReceiptError
from mechint.interventions.addition import Term

Output = Tensor | tuple[Tensor, ...]  # of a block


class _LayerHook:
    """Adds vectors to some rows of a block's output, at the first columns; the other rows stay what they are."""

    def __init__(self, terms: Sequence[Term], layer: int, width: int, like: Tensor) -> None:
        self.firings = 0
        self.rows: Int[Tensor, " term"] = torch.tensor([term.row for term in terms], device=like.device)
        positions: Bool[Tensor, "term pos"] = torch.stack([term.positions[:width] for term in terms])
        vectors: Float[Tensor, "term d_model"] = torch.stack([term.vectors[layer] for term in terms])
        # Nothing is added at the columns after the last position of any term.
        self.stop = int(positions.any(0).nonzero().max()) + 1 if positions.any() else 0
        spread = positions[:, : self.stop].to(like.device)[..., None] * vectors.to(like.device)[:, None, :]
        self.delta: Float[Tensor, "term pos d_model"] = spread

    def __call__(self, _module: nn.Module, _inputs: object, output: Output) -> Output:
        self.firings += 1
        stream = output if isinstance(output, Tensor) else output[0]
        changed = stream.clone()
        added = stream[self.rows, : self.stop] + self.delta.to(stream.dtype)
        changed[self.rows, : self.stop] = added
        return changed if isinstance(output, Tensor) else (changed, *output[1:])


@contextmanager
def steered(blocks: Sequence[nn.Module], terms: Sequence[Term], width: int) -> Iterator[None]:
    """Add terms to the output of their blocks at the first `width` columns, while the context is open.

    It has to stay open until gradients are computed: backward may pass blocks again. Raises ReceiptError unless each
    block was passed. A row has one term at a layer at most.
    """
    like = next(blocks[0].parameters())
    layers = sorted({layer for term in terms for layer in term.vectors})
    hooks = {
        layer: _LayerHook([term for term in terms if layer in term.vectors], layer, width, like) for layer in layers
    }
    handles = [blocks[layer].register_forward_hook(hook) for layer, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if unused := [layer for layer, hook in hooks.items() if not hook.firings]:
        raise ReceiptError(
            given=f"vectors for blocks {unused} in training, which were not passed",
            allowed="a model that calls each of its blocks",
            advice="report its architecture",
        )


@contextmanager
def recomputed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Let blocks keep their inputs alone, and be passed again when gradients are computed, while the context is open.

    That trades time for memory. transformers has it too, tied to a mode in which the model's own dropout is on.
    """
    forwards: list[Callable[..., Output]] = [block.forward for block in blocks]
    for block, forward in zip(blocks, forwards, strict=True):
        block.forward = partial(checkpoint, forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # what was set on the object; its class has the method still
