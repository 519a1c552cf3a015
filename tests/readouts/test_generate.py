"""Replies equal a naive loop without a cache, alone and in any batch, and nothing stays steered."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import reference
import torch
from conftest import Load, conversation, vector
from torch import nn

import mechint as mi
from mechint.base.errors import ConversationError, HookError, ReceiptError, UsageError
from mechint.chat.conversations import Message
from mechint.chat.render import render
from mechint.interventions.specifications import CLEAN, Injection, Swap
from mechint.models.readout import Readout
from mechint.readouts.decode import Sampling, choose, end_tokens

BACKENDS = ("bridge", "hooked")
NEW = 8
Plain = Callable[..., nn.Module]


def chats() -> list[mi.Conversation]:
    """Two conversations of different lengths; the longer has messages between the marked ones that are not marked."""
    gap = [Message("user", "hm?"), Message("assistant", "yes")]
    first, *rest = conversation().messages
    held = (first, *rest[:2], *gap, Message("user", "The sea.", add_injection=True), *rest[2:])
    return [mi.Conversation("gap", held), conversation("short")]


def naive(
    plain: nn.Module, model: mi.Model, item: mi.Conversation, steer: Injection | None, *, mode: str
) -> tuple[list[int], float]:
    """Greedy tokens and their log-probability, all of the text run again for each token, without a cache."""
    rendered = render(model.tokenizer, item)
    tokens, total = list(rendered.tokens), 0.0
    marked = rendered.marked().nonzero()[:, 0].tolist()
    for _ in range(NEW):
        reply = range(rendered.prefix_length, len(tokens)) if mode == "onward" else ()
        layers = steer.layers if steer else ()
        additions = [
            reference.Addition(layer, steer.vector.vectors[layer] * steer.strength, [*marked, *reply])
            for layer in layers
        ]
        log_probs = reference.logits(plain, tokens, additions).log_softmax(-1)
        tokens.append(int(log_probs.argmax()))
        total += float(log_probs.max())
        if tokens[-1] in end_tokens(model):
            break
    return tokens[len(rendered.tokens) :], total


@pytest.mark.parametrize("mode", ["prefill", "onward"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("arch", ["qwen2", "llama", "gemma2", "gemma3", "gpt2", "gpt_neox"])
def test_greedy_replies_equal_a_loop_without_a_cache(
    arch: str, backend: str, mode: str, tiny_model: Load, plain_hf: Plain
):
    """Conversations of different lengths share a batch; the last block is steered too."""
    model, plain = tiny_model(arch, backend), plain_hf(arch)
    steer = Injection(vector(model), layers=[1, 3], strength=1.5, name="v")
    table = mi.generate(model, chats(), [CLEAN, steer], max_new_tokens=NEW, steer=mode)
    assert len(table) == 4
    for item, (name, injection) in itertools.product(chats(), [("clean", None), ("v", steer)]):
        row = table[(table["conversation"] == item.label) & (table["intervention"] == name)].iloc[0]
        tokens, log_prob = naive(plain, model, item, injection, mode=mode)
        stopped = tokens[-1] in end_tokens(model)
        context = list(render(model.tokenizer, item).tokens)
        whole = model.tokenizer.decode([*context, *(tokens[:-1] if stopped else tokens)])
        assert row["text"] == whole.removeprefix(model.tokenizer.decode(context))
        assert (row["n_tokens"], row["stopped"]) == (len(tokens), "end" if stopped else "length")
        assert row["log_prob"] == pytest.approx(log_prob, abs=1e-3)


def test_steering_the_reply_changes_it(model: mi.Model):
    """The equality above is not between three replies that are the same."""
    steer = Injection(vector(model), layers=[1, 3], strength=1.5, name="v")
    off = mi.generate(model, conversation(), [CLEAN, steer], max_new_tokens=NEW, steer="prefill")["text"].tolist()
    on = mi.generate(model, conversation(), [CLEAN, steer], max_new_tokens=NEW, steer="onward")["text"].tolist()
    assert off[0] == on[0]
    assert len({*off, *on}) == 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["prefill", "onward"])
def test_samples_do_not_depend_on_batch_or_order(backend: str, mode: str, tiny_model: Load):
    model, other = tiny_model("qwen2", backend), tiny_model("qwen2", backend, seed=1)
    steer = Injection(vector(model), layers=[1, 2], relative_strength=0.4, name="v")
    interventions = [CLEAN, steer, Swap(other, "other")]
    options = {"temperature": 1.0, "n": 2, "max_new_tokens": NEW, "steer": mode}
    whole = mi.generate(model, chats(), interventions, **options)
    turned = mi.generate(model, chats()[::-1], interventions[::-1], batch_size=5, **options)
    alone = mi.generate(model, chats()[1], steer, batch_size=1, **options)
    key = ["conversation", "intervention", "sample"]
    whole_rows = whole.set_index(key).sort_index()
    two = turned.set_index(key).sort_index()
    three = alone.set_index(key).sort_index()
    assert len(whole_rows) == 12
    assert whole_rows["text"].nunique() > 9
    three_of_whole = whole_rows.loc[three.index]
    for left, right in ((whole_rows, two), (three_of_whole, three)):
        assert left["text"].tolist() == right["text"].tolist()
        assert left["n_tokens"].tolist() == right["n_tokens"].tolist()
        assert left["log_prob"].tolist() == pytest.approx(right["log_prob"].tolist(), abs=1e-3)
    receipts = [sorted(map(repr, (_rounded(r) for r in t.attrs["receipts"]))) for t in (whole, turned)]
    assert receipts[0] == receipts[1]


def _rounded(receipt: dict[str, object]) -> dict[str, object]:
    layers = [{name: round(value, 3) for name, value in layer.items()} for layer in receipt["layers"]]
    return {**receipt, "layers": layers}


def test_samples_are_repeated_with_their_seed_only(model: mi.Model):
    texts = [
        mi.generate(model, conversation(), CLEAN, temperature=1.0, n=4, max_new_tokens=NEW, seed=seed)["text"].tolist()
        for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1]
    assert not set(texts[0]) & set(texts[2])
    other = mi.generate(model, conversation("other label"), CLEAN, temperature=1.0, n=4, max_new_tokens=NEW)
    renamed = other["text"].tolist()
    assert not set(renamed) & set(texts[0])


def test_a_low_temperature_is_greedy(model: mi.Model):
    greedy = mi.generate(model, conversation(), CLEAN, temperature=0.0, max_new_tokens=NEW)
    cold = mi.generate(model, conversation(), CLEAN, temperature=1e-4, max_new_tokens=NEW)
    assert greedy["text"].tolist() == cold["text"].tolist()
    assert greedy["log_prob"].tolist() == pytest.approx(cold["log_prob"].tolist())


def test_draws_follow_the_probabilities():
    logits = torch.tensor([0.5, -torch.inf, 1.5, 0.0]).log_softmax(-1)
    n = 4000
    drawn = choose(logits.expand(n, 4), [2.0] * n, [Sampling(seed=1).generator("draw", i) for i in range(n)])
    expected = (logits / 2.0).softmax(-1)
    shares = torch.bincount(drawn, minlength=4) / n
    assert shares[1] == 0
    torch.testing.assert_close(shares, expected, atol=0.03, rtol=0.0)


@pytest.mark.parametrize("mode", ["prefill", "onward"])
def test_identities(mode: str, model: mi.Model):
    """Zero strength, a vector with its negative, and a swap with the model itself say what clean says."""
    v = vector(model)
    zero = Injection(v, layers=[1, 2], strength=0.0, name="zero")
    none = (Injection(v, layers=[1], strength=2.0) + Injection(-v, layers=[1], strength=2.0)).renamed("none")
    interventions = [CLEAN, zero, none, Swap(model, "self")]
    table = mi.generate(model, chats(), interventions, max_new_tokens=NEW, steer=mode)
    for _, rows in table.groupby("conversation"):
        assert rows["text"].nunique() == 1
        assert rows["log_prob"].max() - rows["log_prob"].min() < 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["prefill", "onward"])
def test_a_swap_fills_the_cache_and_speaks_only_if_it_goes_on(
    backend: str, mode: str, tiny_model: Load, plain_hf: Plain
):
    from transformers import DynamicCache

    model, other = tiny_model("qwen2", backend), tiny_model("qwen2", backend, seed=1)
    reply = mi.generate(model, conversation(), Swap(other, "s"), max_new_tokens=NEW, steer=mode).iloc[0]
    rendered = render(model.tokenizer, conversation())
    cache = DynamicCache()
    fills, speaks = plain_hf("qwen2", seed=1), plain_hf("qwen2", seed=1 if mode == "onward" else 0)
    fills(rendered.token_tensor()[:, : rendered.prefix_length], past_key_values=cache)
    tokens, new = [], rendered.token_tensor()[:, rendered.prefix_length :]
    while len(tokens) < NEW and not (tokens and tokens[-1] in end_tokens(model)):
        new = speaks(new, past_key_values=cache).logits[:, -1].argmax(-1)[:, None]
        tokens.append(int(new))
    spoken = tokens[:-1] if tokens[-1] in end_tokens(model) else tokens
    context = list(rendered.tokens)
    decode = model.tokenizer.decode
    assert reply["text"] == decode([*context, *spoken]).removeprefix(decode(context))
    assert reply["n_tokens"] == len(tokens)


def test_relative_strength_keeps_the_amounts_of_the_prefill(model: mi.Model):
    steer = Injection(vector(model) * 3.0, layers=[1, 2], relative_strength=0.4, name="v")
    scaled = vector(model).rescaled({layer: 0.4 * norm for layer, norm in enumerate(model.residual_norms)})
    same = Injection(scaled, layers=[1, 2], strength=1.0, name="same")
    table = mi.generate(model, conversation(), [steer, same], max_new_tokens=NEW, steer="onward")
    plain, other = table.itertuples()
    assert plain.text == other.text
    assert plain.log_prob == pytest.approx(other.log_prob, abs=1e-3)


def test_receipts_of_prefills_and_replies(model: mi.Model):
    steer = Injection(vector(model), layers=[0, 2], strength=2.0, name="v")
    interventions = [CLEAN, steer, Swap(model, "s")]
    options = {"temperature": 1.0, "n": 2, "max_new_tokens": 5}
    quiet = mi.generate(model, conversation(), interventions, **options).attrs["receipts"]
    assert [receipt["kind"] for receipt in quiet] == ["clean", "injected", "swapped"]
    table = mi.generate(model, conversation(), interventions, steer="onward", **options)
    receipts = table.attrs["receipts"]
    kinds = ["clean", "injected", "injected reply", "injected reply", "swapped", "swapped reply", "swapped reply"]
    assert [receipt["kind"] for receipt in receipts] == kinds
    assert [receipt["row"] for receipt in receipts] == [0, 0, 0, 1, 0, 0, 1]
    prompt = len(render(model.tokenizer, conversation()).tokens)
    assert (receipts[1]["n_pos"], receipts[1]["positions"]) == (prompt, [f"0:{prompt}"])
    for receipt, n_tokens in zip(receipts[2:4], table["n_tokens"][2:4], strict=True):
        read = prompt + n_tokens - 1
        assert (receipt["n_pos"], receipt["positions"]) == (read, [f"{prompt}:{read}"])
        assert [layer["layer"] for layer in receipt["layers"]] == [0, 2]
        for layer in receipt["layers"]:
            assert (layer["firings"], layer["positions"]) == (1, n_tokens - 1)
            assert layer["vector_norm"] == pytest.approx(2.0 * steer.vector.norms[layer["layer"]], rel=1e-4)
            assert layer["ratio"] == pytest.approx(layer["vector_norm"] / layer["residual_norm"])
    zero = Injection(vector(model), layers=[0], strength=0.0, name="zero")
    (_, of_reply) = mi.generate(model, conversation(), zero, max_new_tokens=3, steer="onward").attrs["receipts"]
    touched = of_reply["layers"]
    assert [layer["positions"] for layer in touched] == [0]


def scripted(monkeypatch: pytest.MonkeyPatch, script: Sequence[int], d_vocab: int) -> None:
    """Let every readout name the next of some tokens, whatever was read."""
    tokens = iter(script)

    def logits(_: Readout, resid: torch.Tensor) -> torch.Tensor:
        token = next(tokens)
        return torch.nn.functional.one_hot(torch.full((len(resid),), token), d_vocab) * 50.0

    monkeypatch.setattr(Readout, "logits", logits)


def test_a_reply_ends_with_an_end_token(model: mi.Model, monkeypatch: pytest.MonkeyPatch):
    """The end token counts, and is not part of the text; the same at the last place that is allowed."""
    yes, end = model.tokenizer.encode(" yes")[0], model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    for limit in (3, 9):
        scripted(monkeypatch, [yes, yes, end, yes], model.backend.d_vocab)
        (row,) = mi.generate(model, conversation(), CLEAN, max_new_tokens=limit).itertuples()
        assert (row.text, row.n_tokens, row.stopped) == (" yes yes", 3, "end")
        assert row.log_prob == pytest.approx(0.0, abs=1e-3)
    scripted(monkeypatch, [yes, yes], model.backend.d_vocab)
    (row,) = mi.generate(model, conversation(), CLEAN, max_new_tokens=2).itertuples()
    assert (row.text, row.n_tokens, row.stopped) == (" yes yes", 2, "length")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("arch", "closing"),
    [("qwen2", "<|im_end|>"), ("llama", "<|eot_id|>"), ("gemma2", "<end_of_turn>"), ("mistral", "</s>")],
)
def test_end_tokens_are_the_templates_too(arch: str, closing: str, backend: str, tiny_model: Load):
    model = tiny_model(arch, backend)
    ends = set(model.tokenizer.convert_ids_to_tokens(sorted(end_tokens(model))))
    assert ends == {"</s>", closing}


def test_end_tokens_of_the_generation_config_count(model: mi.Model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model.backend.hf_model.generation_config, "eos_token_id", [7, 9])
    assert {7, 9} <= end_tokens(model)


def test_a_template_without_a_closing_token_adds_none(model: mi.Model, monkeypatch: pytest.MonkeyPatch):
    plain = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
    monkeypatch.setattr(model.tokenizer, "chat_template", plain)
    assert end_tokens(model) == {model.tokenizer.eos_token_id}


def test_no_marked_message_is_plain_generation(model: mi.Model, plain_hf: Plain):
    item = mi.Conversation("plain", (Message("user", "Tell me about bread."),))
    (row,) = mi.generate(model, item, CLEAN, max_new_tokens=NEW).itertuples()
    tokens, log_prob = naive(plain_hf("qwen2"), model, item, None, mode="prefill")
    assert row.n_tokens == len(tokens)
    assert row.log_prob == pytest.approx(log_prob, abs=1e-3)


def test_progress_counts_replies(model: mi.Model):
    calls: list[tuple[int, int]] = []
    table = mi.generate(
        model, chats(), CLEAN, max_new_tokens=3, batch_size=1, progress=lambda *counts: calls.append(counts)
    )
    assert [count for count, _ in calls] == [1, 1]
    assert sum(tokens for _, tokens in calls) == table["n_tokens"].sum()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exception_leaves_no_hook(backend: str, tiny_model: Load):
    model = tiny_model("qwen2", backend)
    steer = Injection(vector(model), layers=[1], strength=1.0, name="v")
    clean = mi.generate(model, conversation(), CLEAN, max_new_tokens=3)["log_prob"].tolist()
    calls = itertools.count()

    def fail(_module: nn.Module, _args: object, _out: object) -> None:
        if next(calls) == 2:  # the prompt and one token are read, the next is not
            raise ZeroDivisionError

    blocks = model.blocks.blocks if backend == "bridge" else model.backend.handle.blocks
    handle = blocks[-1].register_forward_hook(fail)
    with pytest.raises(ZeroDivisionError):
        mi.generate(model, conversation(), steer, steer="onward")
    handle.remove()
    assert model.backend.live_hooks() == []
    mi.generate(model, conversation(), steer, max_new_tokens=3, steer="onward")
    assert model.backend.live_hooks() == []
    assert mi.generate(model, conversation(), CLEAN, max_new_tokens=3)["log_prob"].tolist() == clean


def test_a_block_that_runs_twice_is_refused(model: mi.Model, monkeypatch: pytest.MonkeyPatch):
    """Every pass of active steering counts its firings."""
    from mechint.interventions.steered_reading import ActiveSteering, SteeredRow, _RowHook

    once = _RowHook.__call__
    monkeypatch.setattr(_RowHook, "__call__", lambda self, a, *, hook: once(self, once(self, a, hook=hook), hook=hook))
    steering = ActiveSteering([SteeredRow({1: torch.ones(model.d_model)})])
    with pytest.raises(ReceiptError, match="2 firings"):
        steering.read(model, torch.tensor([[3, 4]]))
    with pytest.raises(ReceiptError, match="shaped"):
        ActiveSteering([SteeredRow({1: torch.ones(model.d_model)})]).read(model, torch.tensor([[3, 4], [5, 6]]))


def test_foreign_hooks_are_refused(model: mi.Model):
    model.backend.handle.add_hook("blocks.1.hook_resid_post", lambda activation, hook: activation)
    try:
        with pytest.raises(HookError):
            mi.generate(model, conversation(), CLEAN)
    finally:
        model.backend.handle.reset_hooks()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": 1.0, "n": 0}, "n=0"),
        ({"n": 2}, "all the same"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_impossible_numbers_are_refused(options: dict[str, float], says: str, model: mi.Model):
    with pytest.raises(UsageError, match=says):
        mi.generate(model, conversation(), CLEAN, **options)


def test_bad_conversations_and_interventions_are_refused(model: mi.Model):
    steer = Injection(vector(model), layers=[1], strength=1.0, name="v")
    with pytest.raises(UsageError, match="labels that occur more than once"):
        mi.generate(model, [conversation(), conversation()], CLEAN)
    with pytest.raises(UsageError, match="names that occur more than once"):
        mi.generate(model, conversation(), [steer, steer])
    with pytest.raises(UsageError, match="no conversation labels"):
        mi.generate(model, [], CLEAN)
    with pytest.raises(UsageError, match="no intervention names"):
        mi.generate(model, conversation(), [])
    unmarked = mi.Conversation("plain", (Message("user", "Tell me about bread."),))
    with pytest.raises(ConversationError, match="add_injection"):
        mi.generate(model, unmarked, steer)


def test_a_narrowed_injection_cannot_go_on(model: mi.Model):
    narrow = Injection(vector(model), layers=[1], strength=1.0, segments=[0], name="v")
    assert len(mi.generate(model, conversation(), narrow, max_new_tokens=2)) == 1
    with pytest.raises(UsageError, match="narrowed to segments"):
        mi.generate(model, conversation(), narrow, steer="onward")


def test_a_stored_fill_says_what_the_swap_says(model: mi.Model, tiny_model: Load, tmp_path: Path):
    from mechint.interventions.fill import fill

    other = tiny_model("qwen2", seed=1)
    filled = fill(other, conversation(), tmp_path / "fill")
    swapped, read = mi.generate(model, conversation(), [Swap(other, "s"), filled], max_new_tokens=NEW).itertuples()
    assert (read.text, read.n_tokens) == (swapped.text, swapped.n_tokens)
    assert read.log_prob == pytest.approx(swapped.log_prob, abs=1e-4)
    with pytest.raises(UsageError, match="filled before"):
        mi.generate(model, conversation(), filled, steer="onward")
    with pytest.raises(UsageError, match="filled before"):
        mi.text_loss(model, "The sea is a cat.", filled)


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_positions_than_the_model_has_are_refused(backend: str, tiny_model: Load):
    with pytest.raises(UsageError, match="at most 512"):
        mi.generate(tiny_model("gpt2", backend), conversation(), CLEAN, max_new_tokens=500)
