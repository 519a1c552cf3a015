"""A swap in two phases equals the swap; files are shared, kept, written whole, and refused when anything differs."""

from __future__ import annotations

import importlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import conversation, vector

import mechint as mi
from mechint.base.errors import CacheMismatchError, ConversationError, OutputError, StaleArtefactError, UsageError
from mechint.chat.render import render
from mechint.engine.stored_pass import StoredPass
from mechint.interventions.fill_files import StoredPrefix, stored_files
from mechint.interventions.prefill import prefill
from mechint.interventions.specifications import CLEAN, Filled, Injection, Swap

BACKENDS = ("bridge", "hooked")


def chats() -> list[mi.Conversation]:
    """Two conversations share their first turns, a third shares some tokens of them, a fourth has longer ones."""
    setup = "Tell me about cats. " * 4
    return [
        conversation("one", setup=setup),
        conversation("two", "is the sea a cat?", setup=setup),
        conversation("three", setup=setup, reply="I notice a thought about the sea"),
        conversation("four", setup=f"{setup} Tell me about bread.", reply="nothing at all"),
    ]


def assert_same(scored: pd.DataFrame, expected: pd.DataFrame, atol: float = 1e-5) -> None:
    pd.testing.assert_frame_equal(scored, expected, atol=atol, rtol=0)


@pytest.fixture
def other(tiny_model) -> mi.Model:
    return tiny_model("qwen2", seed=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ["qwen2", "gemma2", "gpt2"])
def test_two_phases_equal_the_swap(architecture, backend, tiny_model, tmp_path):
    model = tiny_model(architecture, backend, seed=0)
    finetuned = tiny_model(architecture, backend, seed=1)
    filled = mi.fill(finetuned, chats(), tmp_path)
    assert filled == Filled(tmp_path)
    expected = mi.score(model, chats(), [CLEAN, Swap(finetuned, name="x")])
    scored = mi.score(model, chats(), [CLEAN, Filled(tmp_path, name="x")])
    assert_same(scored, expected)
    assert (scored.logit_diff_shift[scored.intervention == "x"].abs() > 1e-2).all()
    assert scored.attrs["receipts"] == expected.attrs["receipts"]
    assert {r["kind"] for r in scored.attrs["receipts"]} == {"clean", "swapped"}


def test_lens_and_every_batch_agree_with_the_swap(model, other, tmp_path):
    mi.fill(other, chats(), tmp_path)
    swap, filled = Swap(other, name="x"), Filled(tmp_path, name="x")
    assert_same(mi.logit_lens(model, chats(), [CLEAN, filled]), mi.logit_lens(model, chats(), [CLEAN, swap]))
    expected = mi.score(model, chats(), swap)
    assert_same(mi.score(model, chats(), filled, batch_size=1), expected)
    assert_same(mi.score(model, chats(), filled, batch_tokens=30, offload=True), expected)
    for chat in chats():
        assert_same(mi.score(model, chat, filled), expected[expected.conversation == chat.label].reset_index(drop=True))


def test_together_with_swaps_injections_and_other_fills(model, other, tiny_model, tmp_path):
    third = tiny_model("qwen2", seed=2)
    steer = Injection(vector(model), strength=2.0, name="steer")
    fills = [mi.fill(m, chats(), tmp_path / str(n)) for n, m in enumerate((other, third))]
    named = [Filled(fill.directory, name=str(n)) for n, fill in enumerate(fills)]
    swap = Swap(third, name="swap")
    table = mi.score(model, chats(), [*named, steer, swap])
    for steering in (*named, steer, swap):
        steered = table[table.intervention == steering.name].reset_index(drop=True)
        assert_same(steered, mi.score(model, chats(), steering))
    both = table.set_index(["intervention", "conversation"]).logit_diff.unstack(0)
    assert (both["1"] - both["swap"]).abs().max() < 1e-5
    assert (both["0"] - both["1"]).abs().min() > 1e-2


def test_prefill_equals_that_of_the_swap(model, other, tmp_path):
    filled = mi.fill(other, chats(), tmp_path)
    for chat in chats():
        expected, stored = prefill(model, chat, [CLEAN, Swap(other, name="x")]), prefill(model, chat, [filled, CLEAN])
        for ours, right in zip(stored.cache.keys, expected.cache.keys, strict=True):
            torch.testing.assert_close(ours, right.flip(0), atol=1e-5, rtol=0)
        assert stored.receipts[0].positions == expected.receipts[1].positions
        assert [receipt.kind for receipt in stored.receipts] == ["swapped", "clean"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_filled_by_the_model_itself_is_clean(backend, tiny_model, tmp_path):
    model = tiny_model("llama", backend)
    table = mi.score(model, chats(), [CLEAN, mi.fill(model, chats(), tmp_path)])
    assert table.logit_diff_shift.abs().max() < 1e-5


@pytest.mark.parametrize(
    "amount", [{"strength": 3.0}, {"strength": 3.0, "segments": [0]}, {"relative_strength": 0.7, "segments": [0]}]
)
def test_filled_under_an_injection_is_that_injection(amount, model, tmp_path):
    steer = Injection(vector(model), layers=[1, 2], **amount, name="x")
    filled = mi.fill(model, chats(), tmp_path, steer)
    assert filled.name == f"filled({model.name}, x)"
    scored = mi.score(model, chats(), Filled(tmp_path, name="x"))
    assert_same(scored, mi.score(model, chats(), steer))
    assert scored.logit_diff_shift.abs().max() > 1e-2


def test_bfloat16(tiny_checkpoint, tmp_path):
    model = mi.load(tiny_checkpoint("qwen2", seed=0), dtype="bfloat16")
    finetuned = mi.load(tiny_checkpoint("qwen2", seed=1), dtype="bfloat16")
    scored = mi.score(model, chats(), mi.fill(finetuned, chats(), tmp_path))
    expected = mi.score(model, chats(), Swap(finetuned))
    assert (scored.logit_diff - expected.logit_diff).abs().max() < 0.2
    with pytest.raises(CacheMismatchError, match="bfloat16"):
        mi.score(mi.load(tiny_checkpoint("qwen2")), chats(), Filled(tmp_path))


def test_conversations_share_files_and_passes(model, other, tmp_path):
    calls: list[tuple[int, int]] = []
    mi.fill(other, chats(), tmp_path, progress=lambda count, tokens: calls.append((count, tokens)))
    lengths = [render(model.tokenizer, chat).prefix_length for chat in chats()]
    assert calls == [(2, lengths[0]), (1, lengths[2]), (1, lengths[3])]
    assert len(stored_files(tmp_path)) == 3
    read: list[int] = []

    class Counted(StoredPass):
        def block(self, layer, *args, **kwargs):
            read.append(layer)
            return super().block(layer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechint.engine.passes.StoredPass", Counted)
        mi.score(model, chats()[:2], Filled(tmp_path))
    assert read == [0, 1, 2, 3]  # one prefix for two conversations, each layer once


def test_what_is_there_is_not_filled_again(other, tmp_path, monkeypatch):
    filled: list[str] = []

    def counted(model, rendered, interventions):
        filled.append(rendered.label)
        return prefill(model, rendered, interventions)

    monkeypatch.setattr(importlib.import_module("mechint.interventions.fill"), "prefill", counted)
    mi.fill(other, chats()[:2], tmp_path)
    mi.fill(other, chats(), tmp_path)
    assert filled == ["one", "three", "four"]
    before = stored_files(tmp_path)[0].read_bytes()
    mi.fill(other, chats(), tmp_path)
    assert filled == ["one", "three", "four"]
    damaged = stored_files(tmp_path)[0]
    for content in (before[:100], before[:-4] + b"\0\1\2\3"):  # cut short, and changed
        damaged.write_bytes(content)
        mi.fill(other, chats(), tmp_path)
        assert len(damaged.read_bytes()) == len(before)
    assert len(filled) == 5


def test_interrupted_it_leaves_whole_files_only(model, other, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def dying(_tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise Killed

    mi.fill(other, chats()[0], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", dying)
        with pytest.raises(Killed):
            mi.fill(other, chats(), tmp_path)
    assert len(stored_files(tmp_path)) == 1
    assert_same(mi.score(model, chats()[0], Filled(tmp_path, name="x")), mi.score(model, chats()[0], Swap(other, "x")))
    (tmp_path / ".prefix-left-by-a-kill.safetensors").write_bytes(b"half")
    mi.fill(other, chats(), tmp_path)
    assert_same(mi.score(model, chats(), Filled(tmp_path, name="x")), mi.score(model, chats(), Swap(other, "x")))


def test_marks_must_begin_at_the_first_message_without_a_gap(model, other, tmp_path):
    messages = list(conversation().messages)
    late = replace(
        conversation("late"), messages=(messages[0], replace(messages[1], add_injection=False), *messages[2:])
    )
    gap = replace(late, label="gap", messages=(*messages[:2], replace(messages[2], add_injection=False), *messages[1:]))
    unmarked = replace(conversation("none"), messages=tuple(replace(m, add_injection=False) for m in messages))
    for chat, message in ((late, "mi.Swap"), (gap, "mi.Swap"), (unmarked, "no message is marked")):
        with pytest.raises(ConversationError, match=message):
            mi.fill(other, chat, tmp_path)
    assert stored_files(tmp_path) == []
    filled = mi.fill(other, conversation(), tmp_path)
    for chat in (late, gap, unmarked):
        with pytest.raises(ConversationError, match=chat.label):
            mi.score(model, chat, filled)


def test_a_conversation_without_a_file_is_refused_before_the_first_pass(model, other, tmp_path):
    filled = mi.fill(other, chats()[:3], tmp_path)
    with pytest.raises(ConversationError, match="'four'"):
        mi.score(model, chats(), filled, progress=lambda *_: pytest.fail("a pass was made"))
    longer = conversation("longer", setup="Tell me about cats. " * 4)
    marked = replace(longer, messages=tuple(replace(m, add_injection=i < 4) for i, m in enumerate(longer.messages)))
    with pytest.raises(ConversationError, match="'longer'"):
        mi.score(model, marked, filled)


def test_other_backends_shapes_and_vocabularies_are_refused(model, tiny_model, tiny_checkpoint, other, tmp_path):
    filled = mi.fill(other, chats(), tmp_path)
    deeper = mi.load(tiny_checkpoint("qwen2", n_layers=2))
    for reader, message in (
        (tiny_model("qwen2", "hooked"), "backend"),
        (deeper, "n_layers"),
        (tiny_model("gemma2"), "cach"),
    ):
        with pytest.raises(CacheMismatchError, match=message):
            mi.score(reader, chats(), filled)
    words = mi.load(tiny_checkpoint("qwen2"))
    words.tokenizer.add_tokens(["newword"])
    with pytest.raises(CacheMismatchError, match="vocabulary"):
        mi.score(words, chats(), filled)


def test_what_is_no_fill_is_refused(model, other, tiny_model, tmp_path):
    for directory in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UsageError, match="no fill"):
            Filled(directory)
    with pytest.raises(UsageError, match="no conversations"):
        mi.fill(other, [], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="directory"):
        mi.fill(other, chats(), tmp_path / "file")
    mi.fill(other, chats()[0], tmp_path)
    for filler, steer in ((model, CLEAN), (other, Injection(vector(model), strength=1.0))):
        with pytest.raises(StaleArtefactError, match="was filled by"):
            mi.fill(filler, chats(), tmp_path, steer)
    second = mi.fill(model, chats()[2:], tmp_path / "second")
    for path in stored_files(second.directory):
        path.rename(tmp_path / path.name)
    with pytest.raises(StaleArtefactError, match="of"):
        Filled(tmp_path)


def test_damaged_and_altered_files_are_refused(model, other, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    filled = mi.fill(other, chats(), tmp_path)
    path = filled.filler.for_conversation(render(model.tokenizer, chats()[0])).path
    whole, tensors = path.read_bytes(), load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()

    def refused(message: str, by_head: bool = True) -> None:
        with pytest.raises(StaleArtefactError, match=message):
            mi.score(model, chats(), filled)
        with pytest.raises(StaleArtefactError, match=message):
            prefill(model, chats()[0], [filled])
        if by_head:
            with pytest.raises(StaleArtefactError, match=message):
                Filled(tmp_path)
        path.write_bytes(whole)

    path.write_bytes(whole[: len(whole) // 2])
    refused(path.name)
    path.write_bytes(b"")
    refused(path.name)
    tensors["values.2"][0, 0, 3, 1] += 1e-6
    save_file(tensors, path, metadata=metadata)
    refused("values.2", by_head=False)
    whose = json.dumps(json.loads(metadata["filler"]) | {"model": model.identity})
    save_file(load_file(path), path, metadata=metadata | {"filler": whose})
    refused("metadata")
    save_file(load_file(path), path)
    refused("metadata")
    longer = filled.filler.for_conversation(render(model.tokenizer, chats()[3])).path
    path.write_bytes(longer.read_bytes())
    refused("renamed")
    path.unlink()
    with pytest.raises(ConversationError, match="'one'"):
        mi.score(model, chats(), filled)
    path.write_bytes(whole)
    assert_same(mi.score(model, chats(), replace(filled, name="x")), mi.score(model, chats(), Swap(other, "x")))


def test_another_fillers_file_is_refused_at_reading(model, other, tmp_path):
    filled = mi.fill(other, chats()[0], tmp_path / "a")
    again = mi.fill(model, chats()[0], tmp_path / "b")
    (path,), (new,) = stored_files(tmp_path / "a"), stored_files(tmp_path / "b")
    assert path.name == new.name
    path.write_bytes(new.read_bytes())
    with pytest.raises(StaleArtefactError, match="something else"):
        mi.score(model, chats()[0], filled)
    assert again.key != filled.key


def test_keys_and_the_store(model, other, tiny_model, tmp_path):
    steer = Injection(vector(model), strength=1.0, name="s")
    fills = [
        mi.fill(other, chats(), tmp_path / "a"),
        mi.fill(model, chats(), tmp_path / "b"),
        mi.fill(other, chats(), tmp_path / "c", steer),
    ]
    assert len({fill.key for fill in fills} | {Swap(other).key, CLEAN.key, steer.key}) == 6
    assert len({hash(fill) for fill in fills}) == 3
    copy = mi.fill(other, chats()[:1], tmp_path / "d")
    assert copy.key == fills[0].key
    first = mi.score(model, chats(), Filled(tmp_path / "a", name="x"), store=tmp_path / "store")
    silent = mi.score(
        model, chats()[0], replace(copy, name="y"), store=tmp_path / "store", progress=lambda *_: pytest.fail("a pass")
    )
    assert silent.p_yes[0] == first.p_yes[0]
    fresh = mi.score(model, chats()[0], replace(fills[1], name="y"), store=tmp_path / "store")
    assert fresh.p_yes[0] != first.p_yes[0]
    explained = mi.explain(model, chats(), [CLEAN, fills[0]])
    assert explained.cells == 8


def test_an_adapter_may_fill(model, tiny_checkpoint, tmp_path):
    import reference
    from peft import LoraConfig, get_peft_model

    base = reference.load(tiny_checkpoint("qwen2"))
    lora = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    lora.save_pretrained(tmp_path / "adapter")
    on_top = model.with_adapter(tmp_path / "adapter")
    filled = mi.fill(on_top, chats(), tmp_path / "fill")
    assert_same(mi.score(model, chats(), replace(filled, name="x")), mi.score(model, chats(), Swap(on_top, name="x")))


def test_stored_prefix_of_a_directory_that_is_gone(model, other, tmp_path):
    filled = mi.fill(other, chats()[0], tmp_path / "a")
    stored = filled.filler.for_conversation(render(model.tokenizer, chats()[0]))
    assert stored.is_whole()
    assert not StoredPrefix(tmp_path / "gone", stored.source, stored.prefix).is_whole()


def test_a_fill_is_sent_to_other_processes(model, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filled = mi.fill(other, chats()[0], "relative")
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(filled))
    assert again == filled
    assert_same(mi.score(model, chats()[0], again), mi.score(model, chats()[0], filled))
