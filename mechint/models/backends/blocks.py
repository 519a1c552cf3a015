"""Running a model block by block, so that rows can part between two blocks and only new rows cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.models.backends.past import KeyValues, Past
from mechint.models.backends.windows import Windows


@runtime_checkable
class BlockPass(Protocol):
    """One pass over some rows of tokens, at any block: `resid` is the residual stream before the first."""

    resid: Float[Tensor, "row pos d_model"]

    def block(
        self,
        layer: int,
        resid: Float[Tensor, "out pos d_model"],
        rows: Int[Tensor, " out"],
        past: Past | None,
        *,
        keys_only: bool = False,
    ) -> tuple[Float[Tensor, "out pos d_model"] | None, KeyValues]:
        """Return `resid_post` of a block (None if `keys_only`), and the keys and values of the new positions.

        `rows` says to which row of the pass's tokens each row of `resid` belongs, `past` holds the keys and values
        that these rows have before this pass.
        """
        ...


@runtime_checkable
class Blocks(Protocol):
    """A model that can be run block by block."""

    @property
    def windows(self) -> Windows:
        """How far attention of each block looks back."""
        ...

    @property
    def packs(self) -> bool:
        """Whether several continuations of one past can be run as one row, with `packed`."""
        ...

    @property
    def shares_prompts(self) -> bool:
        """Whether rows that go on from one prompt may share its keys and values (`Past.shared`)."""
        ...

    def begin(self, tokens: Int[Tensor, "row pos"], past: Int[Tensor, " row"]) -> BlockPass:
        """Prepare a pass over `tokens`, each row after `past` positions of its own.

        Pasts that are shorter than the longest are padded on the left, tokens on the right.
        """
        ...

    def packed(self, continuations: Sequence[Sequence[int]], past: int) -> BlockPass:
        """Prepare a pass over one row of tokens: several continuations of one past, that do not see each other.

        The past is then joined once for all of them, and none is padded.
        """
        ...


class KeysFound(Exception):  # noqa: N818 - a signal, not an error
    """Raised to end a block as soon as its keys and values are computed, where nothing else is wanted."""


_T = TypeVar("_T")


def moved(value: _T, device: torch.device) -> _T:
    """Return tensors, alone or in tuples, on a device; anything else as it is."""
    if isinstance(value, Tensor):
        return cast("_T", value.to(device))
    if isinstance(value, tuple):
        return cast("_T", tuple(moved(item, device) for item in value))
    return value


def attended(tokens: Int[Tensor, "row pos"], past: Int[Tensor, " row"]) -> Bool[Tensor, "row total"] | None:
    """Return which positions may be attended to, left-padded pasts being masked; None if all of them."""
    longest = int(past.max())
    if bool((past == longest).all()):
        return None
    visible = torch.arange(longest)[None, :] >= (longest - past)[:, None]
    return torch.cat([visible, torch.ones_like(tokens, dtype=torch.bool, device=visible.device)], dim=1)


def packed_positions(lengths: Sequence[int], past: int) -> Int[Tensor, "1 pos"]:
    """Return the positions of continuations of these lengths that stand one after another in a row."""
    return torch.cat([torch.arange(past, past + length) for length in lengths])[None]


def packed_mask(lengths: Sequence[int], past: int, dtype: torch.dtype) -> Float[Tensor, "1 1 pos all_pos"]:
    """Return what attention adds to its scores so that each continuation sees the past and itself, up to a position."""
    mask = torch.full((sum(lengths), past + sum(lengths)), torch.finfo(dtype).min, dtype=dtype)
    mask[:, :past] = 0
    start = 0
    for length in lengths:
        itself = mask[start : start + length, past + start : past + start + length]
        itself.copy_(itself.triu(1))
        start += length
    return mask[None, None]


def tracked(resid: Tensor, past: Past | None) -> bool:
    """Return whether a block has to record its operations, because its inputs require gradients."""
    inputs = [resid, *(side for piece in (past.pieces if past else ()) for side in piece.cached)]
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)


def taken(value: object, rows: Int[Tensor, " out"], count: int) -> object:
    """Return tensors that a pass prepared for `count` rows, at the rows given; a single row is left to broadcast."""
    if isinstance(value, tuple):
        return tuple(taken(item, rows, count) for item in value)
    if count > 1 and isinstance(value, Tensor) and value.ndim > 1 and len(value) == count:
        return value.index_select(0, rows.to(value.device))
    return value
