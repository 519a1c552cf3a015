"""Attention of rows that share prompts: each prompt's keys are there once, and all of its rows look at them together.

Rows that go on from one prompt would each need a copy of its cache, and a pass that reads one token of each would read
all of these. Here a softmax over the prompt and one over the row's own positions are joined by their sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.models.backends.past import KeyValues, Past, Piece, SharedPrompts

if TYPE_CHECKING:
    from mechint.models.backends.blocks import Blocks

# A difference that is not of rounding, of the largest number of a stream, in whatever dtype.
_DIFFERENT = 0.05


@dataclass(frozen=True)
class Prompt:
    """The keys and values of a prompt in one block, and the rows that go on from it."""

    cached: KeyValues
    rows: Int[Tensor, " row"]


@dataclass
class PromptAttention(SharedPrompts):
    """Attention of one token of each row to its prompt and to its own later positions, where these are `visible`."""

    prompts: Sequence[Prompt]
    visible: Bool[Tensor, "row own"]
    calls: int = field(default=0)

    def attend(
        self,
        query: Float[Tensor, "row heads 1 d_head"],
        keys: Float[Tensor, "row kv_heads own d_head"],
        values: Float[Tensor, "row kv_heads own d_value"],
        scaling: float | None,
    ) -> Float[Tensor, "row 1 heads d_value"]:
        """Return the output of attention by rows and heads."""
        self.calls += 1
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        n_rows, n_groups, _, _ = keys.shape
        grouped = query.reshape(n_rows, n_groups, -1, query.shape[-1]) * scale
        hidden = ~self.visible.to(query.device)[:, None, None]
        own, own_sums = _softmax(grouped @ keys.transpose(-1, -2), values, hidden)
        shared, sums = torch.empty_like(own), torch.empty_like(own_sums)
        for prompt in self.prompts:
            rows, (cached_keys, cached_values) = prompt.rows.to(query.device), prompt.cached
            asking = grouped[rows].transpose(0, 1)
            scores = asking.flatten(1, 2) @ cached_keys[0].transpose(-1, -2)
            out, out_sums = _softmax(scores, cached_values[0])
            shared[rows] = out.view(*asking.shape[:3], -1).transpose(0, 1)
            sums[rows] = out_sums.view(*asking.shape[:3], 1).transpose(0, 1)
        share = torch.sigmoid(sums - own_sums)
        joined = own + share * (shared - own)
        return joined.flatten(1, 2)[:, None].to(query.dtype)


def _softmax(scores: Tensor, values: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return values weighted by the softmax of scores, and the log of the sum of their exponentials, in float32."""
    scores = scores.float()
    if hidden is not None:
        scores = scores.masked_fill_(hidden, -torch.inf)
    highest = scores.amax(-1, keepdim=True)
    weights = scores.sub_(highest).exp_()
    total = weights.sum(-1, keepdim=True)
    out = (weights.to(values.dtype) @ values).float() / total
    return out, highest + total.log()


def shares_prompts(blocks: Blocks, n_layers: int) -> bool:
    """Whether blocks give one result for rows that share a prompt and for rows with copies of it; tried on each block.

    A block that does not let its attention know of the prompt does not.
    """
    prompt, following = torch.tensor([[1, 2, 3]]), torch.tensor([[4], [5]])
    both, row = torch.tensor([0, 1]), torch.tensor([0])
    with torch.no_grad():
        filled = blocks.begin(prompt, torch.tensor([0]))
        prepared = blocks.begin(following, torch.tensor([3, 3]))
        before, resid = filled.resid, prepared.resid
        for layer in range(n_layers):
            out, cached = filled.block(layer, before, row, None)
            copies = Past(3, [Piece(cached, [0, 0], slice(0, 2), 0)])
            expected, _ = prepared.block(layer, resid, both, copies)
            attention = PromptAttention([Prompt(cached, both)], torch.ones(2, 1, dtype=torch.bool))
            try:
                shared, _ = prepared.block(layer, resid, both, Past(0, (), shared=attention))
            except TypeError:  # a block that takes no more arguments than it names
                return False
            if out is None or expected is None or shared is None or attention.calls != 1:
                return False
            limit = _DIFFERENT * float(expected.abs().max())
            if float((shared.float() - expected.float()).abs().max()) > limit:
                return False
            before, resid = out, expected
    return True
