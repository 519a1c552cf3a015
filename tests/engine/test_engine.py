"""The engine against the naive recomputation for any table, and tables that are interrupted, stored and divided."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import pytest
import reference
import torch
from conftest import conversation, vector
from forks import forked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mechint as mi
from mechint.base.errors import StaleArtefactError, UsageError
from mechint.chat.render import render
from mechint.engine import job, passes
from mechint.engine.shards import Shard
from mechint.engine.store import CellStore
from mechint.interventions.specifications import CLEAN, Injection, Intervention, Swap
from mechint.models.weights import Weights

SETUPS = ("Tell me about cats.", "Tell me about bread.", "Tell me about cats and the sea.")
QUESTIONS = ("yes or no?", "do you detect an injected thought?", "Yes or no, is there a thought about the sea?")


def chat_of(setup: int, question: int, marks: tuple[bool, bool], label: str) -> mi.Conversation:
    chat = conversation(label, QUESTIONS[question], setup=SETUPS[setup])
    first, *rest = chat.messages
    changed = [replace(message, add_injection=mark) for message, mark in zip(rest, marks, strict=False)]
    return replace(chat, messages=(first, *changed, *rest[2:]))


CONVERSATIONS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from([(True, True), (False, True), (True, False)])),
    min_size=1,
    max_size=4,
)
STEERS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(1, 4), st.floats(0.1, 3), st.booleans(), st.booleans()),
    min_size=1,
    max_size=4,
)


def steer_of(model: mi.Model, number: int, seed: int, first: int, count: int, strength: float, *kind: bool):
    """An injection in some layers, relative or absolute, into all marked positions or some of the last ones."""
    relative, narrow = kind
    amount = {"relative_strength": strength} if relative else {"strength": strength}
    layers = range(first, min(model.n_layers, first + count))
    segments = [1] if narrow else None
    return Injection(vector(model, seed), layers=layers, name=str(number), segments=segments, **amount)


def naive(model: mi.Model, hf: torch.nn.Module, chat: mi.Conversation, steer: Injection) -> tuple[float, float]:
    """The logit difference and P(yes) of a cell without cache, batch or TransformerLens."""
    rendered = render(model.tokenizer, chat)
    marked = rendered.marked().nonzero()[:, 0].tolist()
    span = rendered.segments[1]
    positions = [p for p in marked if steer.segments is None or span.start <= p < span.stop]
    added = []
    for layer in steer.layers:
        row = steer.vector.vectors[layer]
        scale = steer.strength
        if scale is None:
            scale = steer.relative_strength * model.residual_norms[layer] / row.norm().item()
        added.append(reference.Addition(layer, row * scale, positions))
    logits = reference.logits(hf, rendered.tokens, added)
    yes = model.tokenizer(" yes", add_special_tokens=False)["input_ids"][0]
    no = model.tokenizer(" no", add_special_tokens=False)["input_ids"][0]
    return (logits[yes] - logits[no]).item(), logits.softmax(-1)[yes].item()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chats=CONVERSATIONS,
    choices=STEERS,
    batch_tokens=st.none() | st.integers(1, 120),
    batch_size=st.none() | st.integers(1, 5),
    backend=st.sampled_from(["bridge", "hooked"]),
    offload=st.booleans(),
)
def test_any_table_equals_the_naive_recomputation(
    chats, choices, batch_tokens, batch_size, backend, offload, tiny_model, plain_hf
):
    model, hf = tiny_model("qwen2", backend), plain_hf("qwen2")
    conversations = [chat_of(*chat, label=str(n)) for n, chat in enumerate(chats)]
    steers = [steer_of(model, number, *choice) for number, choice in enumerate(choices)]
    for steer in steers:
        if steer.segments is not None:  # only where the second segment is marked
            conversations = [c for c in conversations if c.messages[2].add_injection]
    if not conversations:
        return
    limits = {"batch_tokens": batch_tokens, "batch_size": batch_size, "offload": offload}
    table = mi.score(model, conversations, steers, **limits)
    for chat in conversations:
        for steer in steers:
            cell = table[(table.conversation == chat.label) & (table.intervention == steer.name)]
            logit_diff, p_yes = naive(model, hf, chat, steer)
            assert cell.logit_diff.item() == pytest.approx(logit_diff, abs=2e-4), (chat.label, steer)
            assert cell.p_yes.item() == pytest.approx(p_yes, abs=1e-5), (chat.label, steer)


def chats_and_steers(model: mi.Model) -> tuple[list[mi.Conversation], list[Intervention]]:
    conversations = [chat_of(s, q, (True, True), f"{s}{q}") for s in range(3) for q in range(3)]
    steers = [Injection(vector(model, i), layers=[i % 3], strength=2.0, name=f"s{i}") for i in range(4)]
    return conversations, [CLEAN, *steers]


def table_of(model: mi.Model, **options: object) -> pd.DataFrame:
    return mi.score(model, *chats_and_steers(model), batch_tokens=150, **options)


# Stores.


def test_a_stored_table_is_not_computed_again(model, tmp_path, monkeypatch):
    first = table_of(model, store=tmp_path)
    calls: list[tuple[int, int]] = []
    again = table_of(model, store=tmp_path, progress=lambda *done: calls.append(done))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert calls == []
    assert first.attrs["receipts"] == again.attrs["receipts"]
    assert len(first.attrs["receipts"]) == 3 * 5


def test_the_store_goes_by_content_not_by_names(model, tiny_model, tmp_path):
    chat, steer = conversation("a"), Injection(vector(model), strength=1.0, name="x")
    mi.score(model, chat, steer, store=tmp_path)
    files = len(CellStore(tmp_path).files())
    renamed = mi.score(model, replace(chat, label="b"), steer.renamed("y"), store=tmp_path)
    assert len(CellStore(tmp_path).files()) == files
    assert renamed.conversation.tolist() == ["b"]
    others = (
        (model, conversation("a", "yes or no?"), steer),
        (model, chat, Injection(vector(model), strength=1.5, name="x")),
        (model, chat, Injection(vector(model, 1), strength=1.0, name="x")),
        (tiny_model("qwen2", seed=1), chat, steer),
        (tiny_model("qwen2", "hooked"), chat, steer),
    )
    for number, cell in enumerate(others, start=1):
        mi.score(*cell, store=tmp_path)
        assert len(CellStore(tmp_path).files()) > files, number
        files = len(CellStore(tmp_path).files())


def test_other_answers_and_layers_are_other_readouts(model, tmp_path):
    chat, steer = conversation(), Injection(vector(model), strength=1.0, name="x")
    output = mi.score(model, chat, steer, store=tmp_path)
    options = mi.score(model, chat, steer, store=tmp_path, answers=mi.Answers.options(["0", "1"]))
    assert "p_0" in options
    assert "p_yes" not in options
    lens = mi.logit_lens(model, chat, steer, store=tmp_path)
    assert lens.p_yes.iloc[-1] == pytest.approx(output.p_yes[0], abs=1e-6)
    again = mi.logit_lens(model, chat, steer, store=tmp_path)
    pd.testing.assert_frame_equal(lens, again, check_exact=True)
    assert "p_0" not in again


def test_an_interrupted_table_ends_as_if_it_had_not_been(model, tmp_path):
    whole = table_of(model)

    class StopError(Exception):
        pass

    for after in range(1, 30):
        calls: list[int] = []

        def stop(cells: int, tokens: int, calls: list[int] = calls, after: int = after) -> None:
            calls.append(cells)
            if len(calls) == after:
                raise StopError

        try:
            table_of(model, store=tmp_path / "one", progress=stop)
        except StopError:
            continue
        break
    table = table_of(model, store=tmp_path / "one")
    pd.testing.assert_frame_equal(table, whole, check_exact=True)
    assert table.attrs["receipts"] == whole.attrs["receipts"]


def slow_table(passes: Connection, model: mi.Model, store: Path) -> None:
    """Send the number of cells that each pass finishes, and wait a while after it."""
    table_of(model, store=store, progress=lambda cells, _: (passes.send(cells), time.sleep(0.2)))


def test_killed_at_any_moment_at_most_the_batch_in_flight_is_lost(tiny_model, tmp_path):
    """A process that is killed -9 in the middle, and the table that the next one ends with."""
    model, store = tiny_model("qwen2"), tmp_path / "store"
    process, passes = forked(slow_table, model, store)
    finished = 0
    while finished < 2:  # passes that have finished cells
        finished += passes.recv() > 0
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kept = len(CellStore(store).load()[0])
    assert 0 < kept < 45
    assert not [name for name in os.listdir(store) if not name.startswith("cells-") and name != "memory.json"]
    done: list[int] = []
    table = table_of(model, store=store, progress=lambda cells, _: done.append(cells))
    assert sum(done) == 45 - kept
    pd.testing.assert_frame_equal(table, table_of(model), check_exact=True)


def test_many_small_files_become_one(tmp_path):
    store = CellStore(tmp_path)
    for number in range(70):
        store.add({str(number): {3: {"p_yes": number / 7}}}, [{"conversation": "a", "intervention": "b"}])
    before = store.load()
    store.compact()
    assert len(store.files()) == 1
    assert store.load()[0] == before[0]
    assert store.load()[1] == [{"conversation": "a", "intervention": "b"}]


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "cells-x.parquet").write_bytes(b"nothing")
    with pytest.raises(StaleArtefactError, match="cells-x"):
        CellStore(tmp_path).load()


# Shards.


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 20))
def test_shards_divide_the_cells(count, model):
    rendered = [render(model.tokenizer, chat_of(s, q, (True, True), "")) for s in range(2) for q in range(2)]
    cells = [(c, i) for c in range(4) for i in range(3)]
    parts = [Shard(index, count).of(cells, rendered) for index in range(count)]
    assert sorted(cell for shard in parts for cell in shard) == cells
    assert max(map(len, parts)) - min(map(len, parts)) <= 2  # two conversations share each prefix


def test_shards_make_the_whole_table(model, tmp_path):
    whole = table_of(model)
    for index in range(3):
        shard = table_of(model, store=tmp_path / str(index), shard=Shard(index, 3))
        assert 0 < len(shard) < len(whole)
    merged = CellStore(tmp_path / "all")
    assert merged.merge(CellStore(tmp_path / str(index)) for index in range(3)) == len(whole)
    calls: list[object] = []
    table = table_of(model, store=tmp_path / "all", progress=lambda *done: calls.append(done))
    assert calls == []
    pd.testing.assert_frame_equal(table, whole, atol=1e-5, rtol=0)
    assert merged.merge([CellStore(tmp_path / "0")]) == 0


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "a/b", "1/0", "1/2/3", ""])
def test_bad_shards(text):
    with pytest.raises(UsageError, match="i/n"):
        Shard.parse(text)
    assert Shard.parse(" 0/4") == Shard(0, 4)


def test_swaps_are_shared_and_stored_by_the_other_models_identity(tiny_model, tmp_path):
    model, other = tiny_model("qwen2"), tiny_model("qwen2", seed=1)
    first = mi.score(model, conversation(), Swap(other, name="x"), store=tmp_path)
    assert mi.score(model, conversation(), Swap(other, name="y"), store=tmp_path).p_yes[0] == first.p_yes[0]
    itself = mi.score(model, conversation(), Swap(model, name="y"), store=tmp_path)
    assert itself.p_yes[0] != first.p_yes[0]


def test_requests_that_share_first_turns_share_their_caches(model):
    steers = [CLEAN, Injection(vector(model), strength=1.0, name="x")]
    chats = [chat_of(0, q, (True, True), str(q)) for q in range(3)]
    requests = [
        mi.Request(chats[:2], steers),
        mi.Request(chats[2], steers[1], mi.Answers.options(["0", "1"])),
        mi.Request(chats[0], steers, layers=[-1, 1, 3]),
    ]
    alone = [
        mi.score(model, chats[:2], steers),
        mi.score(model, chats[2], steers[1], answers=mi.Answers.options(["0", "1"])),
        mi.logit_lens(model, chats[0], steers, layers=[-1, 1, 3]).replace({"layer": {"embed": -1}}),
    ]
    for together, by_itself in zip(mi.tables(model, requests), alone, strict=True):
        pd.testing.assert_frame_equal(together, by_itself, atol=1e-5, rtol=0, check_dtype=False)
    passed: list[int] = []
    mi.tables(model, requests, progress=lambda _, tokens: passed.append(tokens))
    separately: list[int] = []
    for request in requests:
        mi.tables(model, [request], progress=lambda _, tokens: separately.append(tokens))
    assert sum(passed) < 0.7 * sum(separately)
    cost = mi.explain(model, requests)
    assert cost.distinct_tokens <= cost.passed_tokens == sum(passed)
    assert cost.passes == len(passed)


def test_every_request_gets_the_receipts_of_its_interventions(model):
    """Also of those that other requests with the same first turns have not asked for."""
    chats = [chat_of(0, q, (True, True), str(q)) for q in range(2)]
    steers = [Injection(vector(model, n), strength=1.0, name=str(n)) for n in range(2)]
    tables = mi.tables(model, [mi.Request(chats, [CLEAN, steers[0]]), mi.Request(chats[1], steers[1])])
    names = [sorted(receipt["intervention"] for receipt in table.attrs["receipts"]) for table in tables]
    assert names == [["0", "clean"], ["1"]], "the clean prefill is told of once"


def test_offloaded_caches_leave_the_device_and_come_back(model, monkeypatch):
    """On a CPU nothing moves, so that what is asked to move is looked at."""
    asked_for: list[torch.device] = []

    def spy(value, device):
        asked_for.append(device)
        return real(value, device)

    real = passes.moved
    monkeypatch.setattr(passes, "moved", spy)
    tables = [table_of(model, offload=offload) for offload in (False, True)]
    pd.testing.assert_frame_equal(*tables)
    kept_layers = len(asked_for)
    assert kept_layers >= model.n_layers - 1
    assert set(asked_for) == {torch.device("cpu")}
    table_of(model)
    assert len(asked_for) == kept_layers, "without offload nothing is moved"


def test_explain_leaves_out_what_a_store_has(model, tmp_path):
    chats = [chat_of(s, 0, (True, True), str(s)) for s in range(3)]
    steer = Injection(vector(model), strength=1.0, name="x")
    whole = mi.explain(model, chats, steer, store=tmp_path)
    mi.score(model, chats[:2], steer, store=tmp_path)
    rest = mi.explain(model, chats, steer, store=tmp_path)
    passed: list[int] = []
    mi.score(model, chats, steer, store=tmp_path, batch_tokens=30, progress=lambda _, tokens: passed.append(tokens))
    assert (whole.known, rest.known, rest.cells) == (0, 4, 6)
    assert "4 in the store" in str(rest)
    done = mi.explain(model, chats, steer, store=tmp_path)
    assert (done.known, done.passed_tokens, done.passes) == (6, 0, 0)
    assert 0 < rest.passed_tokens <= whole.passed_tokens


def test_a_job_computes_equal_cells_once(model):
    planned = job.Job.of(model, [mi.Request([conversation("a"), conversation("b")], [CLEAN])])
    assert planned.cells == [(0, 0), (1, 0)]
    assert len(set(planned.keys.values())) == 1


def test_a_store_keeps_the_receipts_of_equal_names_apart(model, tiny_model, tmp_path):
    """Another dose, another conversation and another model under the same names, all in one store."""
    other, chat = tiny_model("qwen2", seed=1), chat_of(0, 0, (True, True), "chat")
    longer = chat_of(1, 0, (True, True), "chat")
    steers = [Injection(vector(model), strength=strength, name="steer") for strength in (1.0, 2.0)]
    runs = [(model, chat, steers[0]), (model, chat, steers[1]), (model, longer, steers[0]), (other, chat, steers[0])]
    alone = [mi.score(whose, read, steer).attrs["receipts"] for whose, read, steer in runs]
    assert len({json.dumps(receipts) for receipts in alone}) == len(runs)
    for _ in range(2):  # computed, then from the store
        for (whose, read, steer), receipts in zip(runs, alone, strict=True):
            assert mi.score(whose, read, steer, store=tmp_path).attrs["receipts"] == receipts


def test_without_a_store_no_weight_is_hashed(model, monkeypatch):
    """Of a large model that takes minutes, and a table that is kept nowhere needs no key."""

    def refuse(_: Weights) -> str:
        raise AssertionError("hashed")

    steer = Injection(vector(model), strength=1.0, name="steer")
    with monkeypatch.context() as patch:
        patch.setattr(Weights, "hash", refuse)
        assert len(mi.score(model, chat_of(0, 0, (True, True), "chat"), steer).attrs["receipts"]) == 2
        with pytest.raises(AssertionError, match="hashed"):
            mi.score(model, chat_of(0, 0, (True, True), "chat"), steer, store="never-written")
