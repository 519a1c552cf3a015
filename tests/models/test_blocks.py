"""Running a model block by block, with rows that part and pasts of different lengths, against whole passes."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import tiny
import torch
from torch import Tensor

import mechint as mi
from mechint.base.errors import ModelValidationError
from mechint.models.backends.past import Past, Piece
from mechint.models.backends.twin import TwinBlocks, TwinPass

BACKENDS = ("bridge", "hooked")
LENGTHS, NEW = (14, 9, 11), 6


def streams(model: mi.Model, tokens: Tensor) -> list[Tensor]:
    """`resid_post` of every layer in one pass over one row, through hooks."""
    by_layer: dict[int, Tensor] = {}

    def keep(layer: int):
        return lambda activation, /, *, hook: by_layer.update({layer: activation[0].clone()})

    model.forward(tokens[None], hooks=[(model.resid_post(layer), keep(layer)) for layer in range(model.n_layers)])
    return [by_layer[layer] for layer in range(model.n_layers)]


def filled(model: mi.Model, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Keys and values by block of one row, filled block by block."""
    prepared, rows = model.blocks.begin(tokens[None], torch.tensor([0])), torch.tensor([0])
    resid, sides = prepared.resid, []
    for layer in range(model.n_layers):
        out, cached = prepared.block(layer, resid, rows, None)
        _, alone = prepared.block(layer, resid, rows, None, keys_only=True)
        assert all(torch.equal(side, other) for side, other in zip(cached, alone, strict=True))
        assert prepared.block(layer, resid, rows, None, keys_only=True)[0] is None
        assert out is not None
        resid = out
        sides.append(cached)
    return sides


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_ragged_rows_equal_whole_passes(arch, backend, tiny_model):
    """Rows in another order, one twice, after pasts of three lengths, padded on the left."""
    model = tiny_model(arch, backend)
    tokens = torch.randint(3, 150, (3, max(LENGTHS) + NEW), generator=torch.Generator().manual_seed(1))
    expected = [streams(model, row[: length + NEW]) for row, length in zip(tokens, LENGTHS, strict=True)]
    pasts = [filled(model, row[:length]) for row, length in zip(tokens, LENGTHS, strict=True)]
    new = torch.stack([row[length : length + NEW] for row, length in zip(tokens, LENGTHS, strict=True)])
    prepared, rows = model.blocks.begin(new, torch.tensor(LENGTHS)), torch.tensor([2, 0, 1, 0])
    resid = prepared.resid[rows]
    for layer in range(model.n_layers):
        pieces, padding = [], []
        for at, row in enumerate(rows.tolist()):
            missing = max(LENGTHS) - LENGTHS[row]
            pieces.append(Piece(pasts[row][layer], [0], slice(at, at + 1), missing))
            padding.append((slice(at, at + 1), missing))
        out, _ = prepared.block(layer, resid, rows, Past(max(LENGTHS), pieces, padding))
        assert out is not None
        for stream, row in zip(out, rows.tolist(), strict=True):
            right = expected[row][layer][LENGTHS[row] :]
            assert (stream - right).abs().max() < 1e-5 * right.abs().max()
        resid = out


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_a_twin_has_no_weights_of_its_own(arch, tiny_model):
    model = tiny_model(arch)
    blocks = model.blocks
    assert isinstance(blocks, TwinBlocks)
    ours = {tensor.data_ptr() for tensor in (*blocks.model.parameters(), *blocks.model.buffers())}
    hf = model.backend.hf_model
    assert ours <= {tensor.data_ptr() for tensor in (*hf.parameters(), *hf.buffers())}
    fused = blocks.model.config._attn_implementation.startswith("sdpa")
    assert fused == (arch != "gemma2"), "its scores are capped, which the fused kernel would leave out"


def test_preparing_a_pass_leaves_the_model_as_it_was(model):
    before = model.blocks.model(torch.tensor([[5, 6, 7]])).logits
    model.blocks.begin(torch.tensor([[5, 6, 7]]), torch.tensor([0]))
    assert torch.equal(model.blocks.model(torch.tensor([[5, 6, 7]])).logits, before)
    assert not any("forward" in vars(block) for block in model.blocks.blocks)


def test_blocks_that_compute_something_else_are_noticed_on_load(tiny_checkpoint, monkeypatch):
    """A kernel that leaves something out, as the fused one leaves out a cap of attention scores."""
    from mechint.models.backends import twin

    real = twin.TwinPass.block

    def other(self, layer, resid, rows, past, *, keys_only=False):
        out, cached = real(self, layer, resid, rows, past, keys_only=keys_only)
        return (None if out is None else out * (1.0 if past is None else 1.01)), cached

    monkeypatch.setattr(twin.TwinPass, "block", other)
    with pytest.raises(ModelValidationError, match="block by block"):
        mi.load(tiny_checkpoint("gpt2"))


def test_a_block_is_given_everything_on_its_own_device(tiny_model):
    """As where a model is spread over several; one without memory stands for a second one here."""
    model = tiny_model("qwen2")
    prepared = model.blocks.begin(torch.tensor([[3, 4, 5]]), torch.tensor([2]))
    assert isinstance(prepared, TwinPass)
    elsewhere = copy.deepcopy(prepared.blocks[0]).to("meta")
    moved = dataclasses.replace(prepared, blocks=[elsewhere])
    before = model.blocks.begin(torch.tensor([[1, 2]]), torch.tensor([0]))
    _, cached = before.block(0, before.resid, torch.tensor([0]), None)
    past = Past(2, [Piece(cached, [0], slice(1), start=0)])
    out, cached = moved.block(0, prepared.resid, torch.tensor([0]), past)
    assert out is not None
    assert {tensor.device.type for tensor in (out, *cached)} == {"meta"}


def test_a_past_is_joined_from_pieces_in_their_places():
    cached = [tuple(torch.randn(2, 1, n, 3) for _ in "kv") for n in (2, 1)]
    new = (torch.randn(3, 1, 2, 3), torch.randn(3, 1, 2, 3))
    pieces = [
        Piece(cached[0], [1, 0], slice(0, 2), 0),
        Piece(cached[1], [0, 0], slice(0, 2), 2),
        Piece(cached[1], [1], slice(2, 3), 2),
    ]
    past = Past(3, pieces, [(slice(0, 2), 0), (slice(2, 3), 2)])
    for side, whole in enumerate(past.joined(new)):
        (long, short), added = (piece[side] for piece in cached), new[side]
        assert torch.equal(whole[0], torch.cat([long[1], short[0], added[0]], dim=1))
        assert torch.equal(whole[1], torch.cat([long[0], short[0], added[1]], dim=1))
        assert torch.equal(whole[2], torch.cat([torch.zeros(1, 2, 3), short[1], added[2]], dim=1))
