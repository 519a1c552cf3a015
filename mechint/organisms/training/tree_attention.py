"""Attention over a trunk and its branches: a branch sees the trunk and itself, never another branch.

As one masked square most of it would be masked, and computing that took three quarters of a training step. Here the
trunk attends to itself, and each branch, as a row of its own, to the trunk and to itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "tree"
# Sizes are rounded up to multiples of this: each new shape of a product costs its kernel a preparation, on a CPU about
# as much as the product itself.
STEP = 16
# Branches up to this length share one padded tensor and longer ones another, so that few long ones do not pad all.
SHORT = 48
_NEVER = -1e9


@dataclass(frozen=True)
class Tree:
    """Where the branches of a batch lie: `branch` is 0 on the trunk, which comes first, and -1 at padding.

    Each of `groups` holds, for branches of like length, the positions of their tokens (0 beyond their end); `back` says
    which of the rows computed (trunk, then groups) each position takes. `pairs` asks, by block, for the log attention
    of (sample, head, query, key).
    """

    branch: Int[Tensor, "batch pos"]
    groups: tuple[Int[Tensor, "batch _ _"], ...]
    back: Int[Tensor, "batch pos"]
    pairs: Mapping[int, Int[Tensor, "pair 4"]] = field(default_factory=dict)

    @classmethod
    def of(cls, branch: Int[Tensor, "batch pos"]) -> Tree:
        """Return the tree of a batch, given the branch of every position."""
        rows: list[list[Tensor]] = [_runs(row) for row in branch]
        trunk = _trunk(branch)
        back = torch.zeros_like(branch)
        index = torch.arange(branch.shape[1]).expand_as(branch)
        back[branch == 0] = index[branch == 0]
        groups, start = [], trunk
        for long in (False, True):
            chosen = [[run for run in runs if (len(run) > SHORT) is long] for runs in rows]
            if any(chosen):
                count = rounded(max(map(len, chosen)), 2)
                width = rounded(max(len(run) for runs in chosen for run in runs))
                group = torch.zeros(len(rows), count, width, dtype=torch.long)
                for sample, runs in enumerate(chosen):
                    for number, run in enumerate(runs):
                        group[sample, number, : len(run)] = run
                        back[sample, run] = start + number * width + torch.arange(len(run))
                groups.append(group)
                start += count * width
        return cls(branch, tuple(groups), back)

    def to(self, device: torch.device) -> Tree:
        """Return the tree on another device."""
        groups = tuple(group.to(device) for group in self.groups)
        pairs = {block: pair.to(device) for block, pair in self.pairs.items()}
        return Tree(self.branch.to(device), groups, self.back.to(device), pairs)


def rounded(size: int, step: int = STEP) -> int:
    """Return the next multiple of `step`."""
    return -(-size // step) * step


def _trunk(branch: Int[Tensor, "batch pos"]) -> int:
    """Return the number of positions that are computed as trunk: the longest trunk's, rounded up."""
    return min(rounded(int((branch == 0).sum(1).max())), branch.shape[1])


def _runs(branch: Int[Tensor, " pos"]) -> list[Tensor]:
    """Return the positions of each branch of a sample."""
    return [torch.nonzero(branch == number)[:, 0] for number in range(1, int(branch.max()) + 1)]


def tree_attention(
    module: nn.Module,
    query: Float[Tensor, "batch head pos d_head"],
    key: Float[Tensor, "batch kv_head pos d_head"],
    value: Float[Tensor, "batch kv_head pos d_head"],
    attention_mask: Tree | Tensor | None,
    scaling: float = 1.0,
    **kwargs: object,
) -> tuple[Float[Tensor, "batch pos head d_head"], Float[Tensor, " pair"] | None]:
    """Return the output of attention and the log attention of the pairs that the tree asks for in this block.

    Without a tree this is transformers' fused attention.
    """
    tree = attention_mask
    if not isinstance(tree, Tree):
        output: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, tree, scaling=scaling, **kwargs)
        return output
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    with torch.autocast(kind, enabled=False):  # it would take every softmax to float32, which doubles the time
        return _attended(tree, (query * scaling).to(dtype), key.to(dtype), value.to(dtype), int(module.layer_idx))  # type: ignore[arg-type]


def _attended(
    tree: Tree,
    query: Float[Tensor, "batch head pos d_head"],
    key: Float[Tensor, "batch kv_head pos d_head"],
    value: Float[Tensor, "batch kv_head pos d_head"],
    block: int,
) -> tuple[Float[Tensor, "batch pos head d_head"], Float[Tensor, " pair"]]:
    repeats = query.shape[1] // key.shape[1]
    key = key.repeat_interleave(repeats, dim=1)
    value = value.repeat_interleave(repeats, dim=1)
    lengths = (tree.branch == 0).sum(1)
    trunk = _trunk(tree.branch)
    outside = torch.arange(trunk, device=query.device) >= lengths[:, None]
    trunk_keys, trunk_values = key[:, :, :trunk], value[:, :, :trunk]
    weights = (query[:, :, :trunk] @ trunk_keys.transpose(-1, -2) + _later(trunk, query)).softmax(-1)
    parts = [(weights @ trunk_values).transpose(1, 2)]
    beyond = _NEVER * outside[:, None, None].to(query.dtype)
    for group in tree.groups:
        parts.append(_branches(group, query, key, value, (trunk_keys, trunk_values, beyond)))
    rows = torch.cat(parts, dim=1)
    pairs = tree.pairs.get(block)
    log_attention = query.new_zeros(0) if pairs is None else _log_attention(pairs, tree.branch, query, key)
    return _picked(rows, tree.back), log_attention


def _branches(
    group: Int[Tensor, "batch branch token"],
    query: Float[Tensor, "batch head pos d_head"],
    key: Float[Tensor, "batch head pos d_head"],
    value: Float[Tensor, "batch head pos d_head"],
    trunk: tuple[Tensor, Tensor, Tensor],
) -> Float[Tensor, "batch row head d_head"]:
    """Return attention's output at tokens of branches, which see the trunk (keys, values, mask) and their own."""
    trunk_keys, trunk_values, beyond = trunk
    n_samples, count, width = group.shape
    n_heads, n_trunk = query.shape[1], trunk_keys.shape[2]
    flat = group.reshape(n_samples, -1)
    picked_query = _picked(query.transpose(1, 2), flat).transpose(1, 2)
    picked_key = _picked(key.transpose(1, 2), flat).transpose(1, 2)
    picked_value = _picked(value.transpose(1, 2), flat).transpose(1, 2)
    by_branch = (n_samples, n_heads, count, width, -1)
    queries = picked_query.reshape(by_branch)
    keys = picked_key.reshape(by_branch)
    values = picked_value.reshape(by_branch)
    far = (picked_query @ trunk_keys.transpose(-1, -2) + beyond).view(n_samples, n_heads, count, width, n_trunk)
    near = queries @ keys.transpose(-1, -2) + _later(width, query)
    weights = torch.cat([far, near], dim=-1).softmax(-1)
    read = weights[..., :n_trunk].reshape(n_samples, n_heads, count * width, n_trunk) @ trunk_values
    read = read + (weights[..., n_trunk:] @ values).reshape(read.shape)
    return read.transpose(1, 2)


def _later(width: int, like: Tensor) -> Float[Tensor, "{width} {width}"]:
    """Return the causal mask, which is added to attention scores."""
    return torch.full((width, width), _NEVER, dtype=like.dtype, device=like.device).triu(1)


def _picked(rows: Float[Tensor, "batch row head d_head"], index: Int[Tensor, "batch pos"]) -> Tensor:
    """Return some rows of each sample; as whole rows of one matrix, whose gradient is cheap."""
    n_samples, n_rows, n_heads, d_head = rows.shape
    flat = index + n_rows * torch.arange(n_samples, device=index.device)[:, None]
    chosen = rows.reshape(n_samples * n_rows, n_heads * d_head).index_select(0, flat.reshape(-1))
    return chosen.view(n_samples, index.shape[1], n_heads, d_head)


def _log_attention(
    pairs: Int[Tensor, "pair 4"],
    branch: Int[Tensor, "batch pos"],
    query: Float[Tensor, "batch head pos d_head"],
    key: Float[Tensor, "batch head pos d_head"],
) -> Float[Tensor, " pair"]:
    sample, head, query_pos, key_pos = pairs.T
    scores = (key[sample, head] @ query[sample, head, query_pos][:, :, None])[:, :, 0].float()
    there = branch[sample]
    same_branch = there == there.gather(1, query_pos[:, None])
    visible = ((there == 0) | same_branch) & (torch.arange(there.shape[1], device=there.device) <= query_pos[:, None])
    return scores.masked_fill(~visible, _NEVER).log_softmax(-1).gather(1, key_pos[:, None])[:, 0]


def register() -> str:
    """Make this attention known to transformers, and return the name under which models ask for it."""
    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME
