"""Continuations of one past in one row: the same numbers as each by itself, less work, and only where it is exact."""

from __future__ import annotations

import pandas as pd
import pytest
import tiny
import torch
from conftest import Load, vector

import mechint as mi
from mechint.engine import packing
from mechint.engine.footprint import Footprint
from mechint.engine.passes import Budget
from mechint.models.backends.blocks import packed_mask, packed_positions
from mechint.models.backends.past import Past, Piece
from mechint.models.backends.twin import TwinBlocks, packs_exactly

QUESTIONS = ("Is it a cat?", "Do you see any birds there?", "Is it?", "Is water wet?", "Can you hear the rain?", "Say.")


def chats() -> list[mi.Conversation]:
    """Questions after the same first turns, and one after others."""
    first = (mi.Message("user", "Think of the sea.", add_injection=True), mi.Message("assistant", "Yes."))
    begun = mi.Message("assistant", "I say", continue_msg=True)
    questions = [
        mi.Conversation(f"q{number}", (*first, mi.Message("user", question), begun), yes_token=" yes", no_token=" no")
        for number, question in enumerate(QUESTIONS)
    ]
    other = mi.Conversation("alone", (first[0], mi.Message("user", "Well?"), begun), yes_token=" yes", no_token=" no")
    return [*questions, other]


def steers(model: mi.Model) -> list[mi.Injection]:
    return [mi.Injection(vector(model, seed), strength=2.0, name=f"v{seed}") for seed in range(3)]


def table(model: mi.Model, **options: int) -> pd.DataFrame:
    return mi.score(model, chats(), [mi.CLEAN, *steers(model)], **options)


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Tables without packs, until it is undone."""
    monkeypatch.setattr(packing, "_LONGEST", 0)
    return monkeypatch


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
@pytest.mark.parametrize("tokens", [None, 64])
def test_packed_questions_have_the_numbers_of_each_by_itself(
    arch: str, tokens: int | None, tiny_model: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_WORTH", 1)
    model = tiny_model(arch)
    options = {} if tokens is None else {"batch_tokens": tokens}
    packed = table(model, **options)
    monkeypatch.setattr(packing, "_LONGEST", 0)
    pd.testing.assert_frame_equal(packed, table(model, **options), atol=2e-5, rtol=1e-5)
    assert packed.p_yes_shift.abs().max() > 0


def test_packed_questions_are_less_work(model: mi.Model, unpacked: pytest.MonkeyPatch) -> None:
    before = mi.explain(model, chats(), [mi.CLEAN, *steers(model)])
    unpacked.undo()
    unpacked.setattr(packing, "_WORTH", 1)
    after = mi.explain(model, chats(), [mi.CLEAN, *steers(model)])
    assert after.distinct_blocks == before.distinct_blocks
    assert after.blocks < before.blocks
    passed: list[int] = []
    mi.score(model, chats(), [mi.CLEAN, *steers(model)], progress=lambda _, tokens: passed.append(tokens))
    assert sum(passed) == after.passed_tokens


@pytest.mark.parametrize("arch", tiny.ARCHITECTURES)
def test_a_pack_is_its_continuations(arch: str, tiny_model: Load) -> None:
    """Through every block, wherever the model says that it can be packed; and where windows are short, it does not."""
    blocks = tiny_model(arch).blocks
    assert isinstance(blocks, TwinBlocks)
    if not blocks.packs:
        assert blocks.windows.is_limited or not packs_exactly(blocks)
        return
    first, continuations, row = [3, 9, 4, 7, 11], [[6, 7], [8, 3, 9], [5]], torch.tensor([0])
    before, together = blocks.begin(torch.tensor([first]), torch.tensor([0])), blocks.packed(continuations, len(first))
    alone = [blocks.begin(torch.tensor([tokens]), torch.tensor([len(first)])) for tokens in continuations]
    stream, packed, each = before.resid, together.resid, [prepared.resid for prepared in alone]
    for layer in range(len(blocks.blocks)):
        stream, cached = before.block(layer, stream, row, None)
        past = Past(len(first), [Piece(cached, [0], slice(1), 0)])
        packed, _ = together.block(layer, packed, row, past)
        each = [prepared.block(layer, resid, row, past)[0] for prepared, resid in zip(alone, each, strict=True)]
        assert torch.allclose(packed, torch.cat(each, dim=1), atol=1e-5, rtol=1e-4)


def test_models_with_windows_are_not_packed(tiny_model: Load) -> None:
    packs = {arch: tiny_model(arch).blocks.packs for arch in tiny.ARCHITECTURES}
    limited = {arch for arch in tiny.ARCHITECTURES if tiny_model(arch).blocks.windows.is_limited}
    assert not any(packs[arch] for arch in limited)
    assert packs["llama"]
    assert packs["qwen2"]


def test_a_model_that_does_not_take_the_mask_is_not_packed(tiny_model: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it makes the mask itself: continuations would see each other."""
    from mechint.models.backends import twin

    blocks = tiny_model("llama").blocks
    assert packs_exactly(blocks)
    monkeypatch.setattr(twin, "packed_mask", lambda lengths, past, dtype: packed_mask([sum(lengths)], past, dtype))
    assert not packs_exactly(blocks)


def test_a_model_that_counts_positions_itself_is_not_packed(tiny_model: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    from mechint.models.backends import twin

    blocks = tiny_model("gpt2").blocks
    assert packs_exactly(blocks)
    monkeypatch.setattr(twin, "packed_positions", lambda lengths, past: packed_positions([sum(lengths)], past))
    assert not packs_exactly(blocks)


def test_the_mask_lets_each_see_the_past_and_itself() -> None:
    seen = packed_mask([2, 1], 1, torch.float32)[0, 0] == 0
    assert seen.tolist() == [[True, True, False, False], [True, True, True, False], [True, False, False, True]]
    assert packed_positions([2, 1], 5).tolist() == [[5, 6, 5]]


def test_other_backends_are_not_packed(tiny_model: Load) -> None:
    model = tiny_model("gpt2", "hooked")
    assert not model.blocks.packs
    assert not Footprint(model, Budget(64), 1).packs
