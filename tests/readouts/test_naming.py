"""Free naming against the naive recomputation: names of several tokens, at the output and at every layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
import reference
import torch
from conftest import conversation, vector

import mechint as mi
from mechint.base.errors import TokenizationError, UsageError
from mechint.chat.render import render
from mechint.engine.explain import explain
from mechint.interventions.specifications import CLEAN, Injection, Swap
from mechint.readouts.naming import name_probabilities, naming_requests

# One token, one that begins with it, several tokens, and a character that is itself cut into tokens.
NAMES = (" cats", " catsuit", " sea", " dust", " 🐈")
CASES = [(arch, backend) for arch in ("qwen2", "llama", "gemma2", "gpt2") for backend in ("bridge", "hooked")]


def conversations() -> list[mi.Conversation]:
    return [conversation(), conversation("other", "which thought is it?", prefix="I notice"), conversation("open")]


def steered(model: mi.Model, strength: float = 1.5) -> Injection:
    return Injection(vector(model), layers=range(1, 3), strength=strength, name="steer")


def added(model: mi.Model, chat: mi.Conversation, steer: Injection) -> list[reference.Addition]:
    positions = render(model.tokenizer, chat).marked().nonzero()[:, 0].tolist()
    return [reference.Addition(layer, vector(model).vectors[layer] * 1.5, positions) for layer in steer.layers]


def naive(
    model: mi.Model, hf: torch.nn.Module, chat: mi.Conversation, name: str, additions: Sequence[reference.Addition]
) -> list[float]:
    """The log-probability of a name at `embed` and every layer: the whole text anew for each of its tokens."""
    text = render(model.tokenizer, chat)
    whole = model.tokenizer(text.text + name, add_special_tokens=False)["input_ids"]
    total = torch.zeros(model.n_layers + 1, dtype=torch.float64)
    for position in range(len(text.tokens), len(whole)):
        logits = torch.stack(reference.lens(hf, whole[:position], additions)).double()
        total += logits.log_softmax(-1)[:, whole[position]]
    return total.tolist()


def only_row(table: pd.DataFrame, **where: str | int) -> pd.Series:
    rows = table.loc[np.logical_and.reduce([table[key] == value for key, value in where.items()])]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.mark.parametrize(("arch", "backend"), CASES)
def test_names_equal_the_naive_recomputation(arch, backend, tiny_model, plain_hf):
    model, hf = tiny_model(arch, backend), plain_hf(arch)
    steer = steered(model)
    layers = range(-1, model.n_layers)
    lens = mi.name_log_probs(model, conversations(), NAMES, [CLEAN, steer], layers=layers)
    output = mi.name_log_probs(model, conversations(), NAMES, [CLEAN, steer])
    assert len(output) == 3 * 2 * len(NAMES)
    assert list(output.columns) == ["conversation", "intervention", "name", "log_p", "n_tokens"]
    chat = conversations()[1]
    for name in (" sea", " catsuit", " 🐈"):
        for intervention, additions in (("clean", []), ("steer", added(model, chat, steer))):
            expected = naive(model, hf, chat, name, additions)
            where = {"conversation": chat.label, "intervention": intervention, "name": name}
            rows = lens[(lens[list(where)] == list(where.values())).all(axis=1)]
            assert rows.layer.tolist() == list(layers)
            assert rows.log_p.tolist() == pytest.approx(expected, abs=1e-4)
            assert only_row(output, **where).log_p == pytest.approx(expected[-1], abs=1e-4)
    steers = output.pivot_table(index=["conversation", "name"], columns="intervention", values="log_p")
    assert (steers.clean - steers.steer).abs().min() > 1e-4  # it does something to each


def test_a_name_of_one_token_is_an_option(model):
    table = mi.name_log_probs(model, conversations(), [" cats", " sea"], [CLEAN, steered(model)])
    options = mi.score(model, conversations(), [CLEAN, steered(model)], answers=mi.Answers.options([" cats", " sea"]))
    for name in (" cats", " sea"):
        expected = np.log(options[f"p_{name}"])
        assert table[table.name == name].log_p.tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    assert (table.n_tokens == 1).all()


def test_beginnings_are_shared(model):
    naming = naming_requests(model, conversations(), NAMES, [CLEAN, steered(model)])
    tokens = naming.tokens["c"]
    assert tokens[" catsuit"][:1] == tokens[" cats"]
    beginnings = {ids[:n] for ids in tokens.values() for n in range(len(ids))}
    assert sorted(tuple(request.after) for request in naming.requests) == sorted(beginnings)
    alone = explain(model, [conversation()], [CLEAN, steered(model)])
    together = explain(model, naming_requests(model, [conversation()], NAMES, [CLEAN, steered(model)]).requests)
    assert together.distinct_tokens - alone.distinct_tokens <= 2 * sum(map(len, tokens.values()))


def test_names_are_tokenized_in_their_context(tiny_model, plain_hf):
    """After a line break the space of " cats" is a token of its own: other tokens, and so other requests."""
    model = tiny_model("llama")
    chats = [conversation("line", prefix="The answer is:\n"), conversation("space", prefix="The answer is")]
    naming = naming_requests(model, chats, {"name": " cats"}, CLEAN)
    assert len(naming.tokens["line"]["name"]) > len(naming.tokens["space"]["name"]) == 1
    table = naming.log_probs(mi.tables(model, naming.requests))
    assert table.name.tolist() == ["name", "name"]
    for item, log_p in zip(chats, table.log_p, strict=True):
        assert log_p == pytest.approx(naive(model, plain_hf("llama"), item, " cats", [])[-1], abs=1e-4)
    unanswered = mi.Conversation("b", conversation().messages[:4])
    bare = naming_requests(model, unanswered, ["cats"], CLEAN)
    assert bare.tokens["b"]["cats"] == tuple(model.tokenizer("cats", add_special_tokens=False)["input_ids"])


def test_identities(model):
    zero = Injection(vector(model), strength=0.0, name="zero")
    table = mi.name_log_probs(model, conversations(), NAMES, [CLEAN, zero, Swap(model, name="self")])
    by = {name: rows.log_p.to_numpy() for name, rows in table.groupby("intervention")}
    assert (by["zero"] == by["clean"]).all()
    assert by["self"] == pytest.approx(by["clean"], abs=1e-5)


def test_order_and_batches_change_nothing(model):
    steers = [CLEAN, steered(model)]
    table = mi.name_log_probs(model, conversations(), NAMES, steers)
    for name in NAMES:
        alone = mi.name_log_probs(model, conversations()[::-1], [name], steers[::-1], batch_size=1)
        merged = table[table.name == name].merge(alone, on=["conversation", "intervention", "name"])
        assert len(merged) == 6
        assert merged.log_p_x.tolist() == pytest.approx(merged.log_p_y.tolist(), abs=1e-5)
    assert table.name.tolist() == list(NAMES) * 6
    assert table.conversation.unique().tolist() == ["c", "other", "open"]


def test_finished_cells_are_kept(model, tmp_path):
    steers = [CLEAN, steered(model)]
    passes: list[int] = []
    expected = mi.name_log_probs(model, conversations(), NAMES, steers, store=tmp_path)
    again = mi.name_log_probs(
        model, conversations(), NAMES, steers, store=tmp_path, progress=lambda cells, _: passes.append(cells)
    )
    assert not passes
    pd.testing.assert_frame_equal(again, expected)
    assert {receipt["kind"] for receipt in again.attrs["receipts"]} == {"clean", "injected"}


def test_tables_may_come_as_one_among_other_rows(model):
    naming = naming_requests(model, conversations(), NAMES, [CLEAN, steered(model)])
    requests = [*naming.requests, mi.Request(conversations(), [CLEAN, Injection(vector(model), strength=1.0)])]
    read = mi.tables(model, requests)
    expected = naming.log_probs(read[:-1])
    mixed = pd.concat([rows.assign(kind="x") for rows in read[::-1]])
    log_p = naming.log_probs(mixed)
    keys = ["conversation", "intervention", "name"]
    pd.testing.assert_frame_equal(
        log_p.sort_values(keys, ignore_index=True), expected.sort_values(keys, ignore_index=True)
    )
    partly = naming.log_probs(pd.concat([rows.iloc[1:] for rows in read[:-1][:1]] + read[1:-1]))
    missing = partly[partly.log_p.isna()]
    assert len(missing) == len(NAMES)  # no part of a name is taken for the whole
    assert set(missing.conversation + missing.intervention) == {"cclean"}
    with pytest.raises(UsageError, match="all of them"):
        naming.log_probs(read[1:2])


@pytest.mark.parametrize("names", [[], " cats", [" cats", " cats"], [""], {"a": " cats", "b": " cats"}, {}])
def test_names_that_cannot_be_used(names: Sequence[str] | Mapping[str, str], model):
    with pytest.raises(UsageError, match=r"each once, none empty|names: a mapping, or a list of texts"):
        mi.name_log_probs(model, conversation(), names, CLEAN)


def test_names_that_merge_with_the_text_are_refused_before_any_pass(model, monkeypatch):
    monkeypatch.setattr(model.backend, "forward", None)
    with pytest.raises(TokenizationError, match="begin with the space"):
        mi.name_log_probs(model, conversation(prefix="The ca"), ["ts"], CLEAN)


@pytest.mark.parametrize("chats", [[], [conversation("a"), conversation("a", prefix="I notice")]])
def test_conversations_that_cannot_be_used(chats, model):
    with pytest.raises(UsageError, match="its own label"):
        mi.name_log_probs(model, chats, NAMES, CLEAN)


def test_probabilities_among_names(model):
    steers, layers = [CLEAN, steered(model)], [1, 3]
    table = mi.name_log_probs(model, conversations(), NAMES, steers, layers=layers)
    among_names = name_probabilities(table)
    sums = among_names.groupby(["conversation", "intervention", "layer"]).p.sum()
    assert len(sums) == 12
    assert sums.tolist() == pytest.approx([1.0] * 12)
    first = table.iloc[: len(NAMES)].log_p
    assert among_names.p[: len(NAMES)].tolist() == pytest.approx((np.exp(first) / np.exp(first).sum()).tolist())
    shifted = name_probabilities(table, baseline="clean")
    assert shifted[shifted.intervention == "clean"].p.tolist() == pytest.approx([1 / len(NAMES)] * 30)
    steer = shifted[shifted.intervention == "steer"]
    clean = shifted[shifted.intervention == "clean"]
    assert steer.log_p_shift.to_numpy() == pytest.approx(steer.log_p.to_numpy() - clean.log_p.to_numpy())
    more = table.assign(log_p=table.log_p + table.name.map(dict(zip(NAMES, range(5), strict=True))))
    assert name_probabilities(more, baseline="clean").p.tolist() == pytest.approx(shifted.p.tolist())  # frequent names
    assert name_probabilities(more).p.tolist() != pytest.approx(among_names.p.tolist())


def test_probabilities_of_what_is_missing_or_extreme():
    table = pd.DataFrame(
        {
            "conversation": "c",
            "intervention": ["a", "a", "b", "b"],
            "name": ["x", "y"] * 2,
            "log_p": [-2e3, -2e3 - 1, 0, 1],
        }
    )
    assert name_probabilities(table).p[0] == pytest.approx(1 / (1 + math.exp(-1)))
    unknown = table.assign(log_p=[-1.0, math.nan, 0, 1])
    assert name_probabilities(unknown).p[:2].isna().all()  # missing is never counted as zero
    assert name_probabilities(unknown).p[2:].notna().all()
    with pytest.raises(UsageError, match="a, b"):
        name_probabilities(table, baseline="clean")
