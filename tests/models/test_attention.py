"""Attention after a past on CPUs: the same numbers with and without a mask, and none where none is needed."""

from __future__ import annotations

import pytest
import tiny
import torch
from conftest import Load
from transformers.masking_utils import causal_mask_function, sdpa_mask

from mechint.models.backends.attention import after_past_mask, grouped_attention, mask_if_needed
from mechint.models.backends.twin import TwinBlocks, TwinPass

SIZES = {"q_length": 5, "kv_length": 8, "q_offset": 3, "kv_offset": 0, "batch_size": 1}
CAUSAL = {"mask_function": causal_mask_function, "attention_mask": None, "allow_is_causal_skip": True}


def states(n_new: int, n_past: int, heads: int, groups: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(n_new)
    shapes = ((2, heads, n_new, 8), (2, groups, n_past + n_new, 8), (2, groups, n_past + n_new, 8))
    return tuple([torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes])


def expected(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Attention by its formula."""
    repeats, n_past = query.shape[1] // key.shape[1], key.shape[2] - query.shape[2]
    scores = scaling * query @ key.repeat_interleave(repeats, 1).mT
    hidden = torch.arange(key.shape[2])[None] > n_past + torch.arange(query.shape[2])[:, None]
    return (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ value.repeat_interleave(repeats, 1)).transpose(1, 2)


class Attention(torch.nn.Module):
    """What transformers asks of a module."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups, self.is_causal = groups, True


@pytest.mark.parametrize(("n_new", "n_past"), [(5, 0), (5, 1), (9, 8), (8, 8), (3, 20), (1, 6), (70, 3)])
@pytest.mark.parametrize(("heads", "groups"), [(6, 2), (4, 4), (3, 1)])
def test_without_a_mask_new_positions_see_all_before_them(n_new: int, n_past: int, heads: int, groups: int) -> None:
    query, key, value = states(n_new, n_past, heads, groups)
    module = Attention(heads // groups)
    right = expected(query, key, value, 0.3)
    out, _ = grouped_attention(module, query, key, value, None, scaling=0.3)
    assert torch.allclose(out, right, atol=1e-5)
    masked, _ = grouped_attention(module, query, key, value, after_past_mask(n_new, n_past, key.device), scaling=0.3)
    assert torch.allclose(masked, right, atol=1e-5)
    gradients = [torch.autograd.grad(result.square().sum(), (query, key, value)) for result in (out, right)]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_no_mask_is_made_where_nothing_is_hidden_but_what_comes_later() -> None:
    assert mask_if_needed(**SIZES, **CAUSAL) is None
    assert sdpa_mask(**SIZES, **CAUSAL) is not None, "transformers makes one"


@pytest.mark.parametrize(
    "other",
    [
        {"attention_mask": torch.tensor([[False, *[True] * 7]])},
        {"mask_function": lambda batch, head, q, kv: (kv <= q) & (kv > q - 2)},
        {"allow_is_causal_skip": False},
        {"kv_length": 9},
    ],
    ids=["padded", "window", "wanted", "longer"],
)
def test_any_other_mask_is_that_of_transformers(other: dict[str, object]) -> None:
    named = SIZES | CAUSAL | other
    assert torch.equal(mask_if_needed(**named), sdpa_mask(**named))


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_blocks_after_equal_pasts_have_no_mask_but_those_with_windows(arch: str, tiny_model: Load) -> None:
    blocks = tiny_model(arch).blocks
    assert isinstance(blocks, TwinBlocks)
    tokens = torch.tensor([[3, 4, 5], [6, 7, 8]])
    masks = masked_calls(blocks.begin(tokens, torch.tensor([4, 4])))
    if arch == "gemma2":  # the kernel is not used: it caps its scores
        assert all(masks)
    else:
        assert masks == [size is not None for size in blocks.windows.sizes]
    assert all(masked_calls(blocks.begin(tokens, torch.tensor([4, 2]))))


def masked_calls(prepared: TwinPass) -> list[bool]:
    """Whether each block is called with a mask."""
    calls = [(*args, *kwargs.values()) for args, kwargs in prepared.calls]
    return [any(isinstance(value, torch.Tensor) and value.ndim == 4 for value in call) for call in calls]
