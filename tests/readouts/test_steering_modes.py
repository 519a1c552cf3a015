"""Where steering acts: each mode equals plain Hugging Face with a hook and no cache, and receipts say the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import reference
import torch
from conftest import Load, conversation, vector
from torch import nn

import mechint as mi
from mechint.base.errors import ConversationError, ReceiptError, UsageError
from mechint.chat.conversations import Message
from mechint.chat.render import render
from mechint.engine import explain_replies
from mechint.interventions.reply_steering import ReplySteering
from mechint.interventions.specifications import CLEAN, Injection, Swap
from mechint.readouts.decode import end_tokens

NEW = 5
MODES: tuple[object, ...] = ("prefill", "reply", "onward", "everything", mi.From("do you detect"))
Plain = Callable[..., nn.Module]
YES_NO = mi.Answers(" yes", " no")


def chat() -> mi.Conversation:
    """A marked turn, one between that is not marked, and a question."""
    first, setup, reply, *rest = conversation().messages
    return mi.Conversation("c", (first, setup, Message("user", "The sea."), reply, *rest))


def positions(model: mi.Model, mode: object, n_read: int) -> list[int]:
    """The positions that a mode steers, of a prompt and the tokens of a reply that were read, written out by hand."""
    rendered = render(model.tokenizer, chat())
    prompt, marked = len(rendered.tokens), rendered.marked().nonzero()[:, 0].tolist()
    if mode == "prefill":
        return marked
    reply = list(range(prompt, n_read))
    if mode == "reply":
        return reply
    if mode == "onward":
        return [*marked, *range(rendered.prefix_length, n_read)]
    if mode == "everything":
        return list(range(n_read))
    start = len(model.tokenizer(rendered.text.partition("do you detect")[0], add_special_tokens=False)["input_ids"])
    return list(range(start, n_read))


def naive(plain: nn.Module, model: mi.Model, mode: object, steer: Injection) -> tuple[list[int], list[torch.Tensor]]:
    """Greedy tokens and the logits that each was chosen from: all of the text is read again for each of them."""
    tokens, prompt, logits = list(render(model.tokenizer, chat()).tokens), len(render(model, chat()).tokens), []
    while len(tokens) < prompt + NEW and tokens[-1] not in end_tokens(model):
        steered = positions(model, mode, len(tokens))
        added = [reference.Addition(n, steer.vector.vectors[n] * steer.strength, steered) for n in steer.layers]
        logits.append(reference.logits(plain, tokens, added))
        tokens.append(int(logits[-1].argmax()))
    return tokens[prompt:], logits


@pytest.fixture
def chosen_from(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The logits that replies choose their tokens from, call by call."""
    from mechint.readouts import sampler

    real, seen = sampler.say, []
    monkeypatch.setattr(sampler, "say", lambda r, logits, ends: (seen.append(logits.clone()), real(r, logits, ends)))
    return seen


@pytest.mark.parametrize(
    ("arch", "backend"),
    [("qwen2", "bridge"), ("gemma3", "bridge"), ("gpt2", "bridge"), ("gpt_neox", "bridge"), ("llama", "hooked")],
)
def test_every_mode_equals_hooks_without_a_cache(
    arch: str,
    backend: str,
    tiny_model: Load,
    plain_hf: Plain,
    chosen_from: list[torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
):
    """Also where rows share the cache of their prompt, which is done as soon as it is worth it."""
    monkeypatch.setattr(explain_replies, "_WORTH_SHARING", 1)
    model, plain = tiny_model(arch, backend), plain_hf(arch)
    steer = Injection(vector(model), layers=[1, 3], strength=1.5, name="v")
    said = []
    for mode in MODES:
        chosen_from.clear()
        (row,) = mi.generate(model, chat(), steer, max_new_tokens=NEW, steer=mode).itertuples()
        tokens, logits = naive(plain, model, mode, steer)
        assert row.n_tokens == len(tokens)
        for ours, theirs in zip(chosen_from, logits, strict=True):
            torch.testing.assert_close(ours[0], theirs, atol=1e-4, rtol=1e-4)
        said.append(tuple(tokens))
    assert len(set(said)) > 2, "the modes differ"


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_zero_strength_is_clean(mode: object, model: mi.Model):
    v = vector(model)
    none = (Injection(v, layers=[1], strength=2.0) + Injection(-v, layers=[1], strength=2.0)).renamed("none")
    zero = Injection(v, layers=[1, 2], strength=0.0, name="zero")
    table = mi.generate(model, chat(), [CLEAN, zero, none, Swap(model, "self")], max_new_tokens=NEW, steer=mode)
    assert table["text"].nunique() == 1
    assert table["log_prob"].max() - table["log_prob"].min() < 1e-4
    live = Injection(v, layers=[1, 2], strength=8.0, name="v")
    steered = mi.generate(model, chat(), live, max_new_tokens=NEW, steer=mode)
    assert abs(steered["log_prob"][0] - table["log_prob"][0]) > 1e-3


def test_the_first_token_of_a_steered_reply_is_chosen_from_clean_logits_to_the_bit(
    model: mi.Model, chosen_from: list[torch.Tensor]
):
    """Also in a call of its own, beside other vectors, and in whatever mode the clean row is asked for."""
    steers = [Injection(vector(model), layers=[n], strength=9.0, name=f"v{n}") for n in range(4)]
    options = {"max_new_tokens": 4, "answers": YES_NO}
    table = mi.generate(model, chat(), steers, steer="reply", **options)
    steered, begins = [chosen_from[at][0] for at in range(4)], table["first_logit_diff"].tolist()
    for mode in ("prefill", "reply", "everything"):
        chosen_from.clear()
        clean = mi.generate(model, chat(), [CLEAN, steers[0]], steer=mode, **options)
        assert all(torch.equal(chosen_from[0][0], logits) for logits in steered)
        assert begins == [clean["first_logit_diff"][0]] * 4
        assert (clean["first_logit_diff"][1] == begins[0]) == (mode == "reply")
    assert table["log_prob"].nunique() == 4, "and then they part"


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_receipts_count_the_positions_that_were_steered(mode: object, model: mi.Model):
    steer = Injection(vector(model), layers=[0, 2], strength=2.0, name="v")
    table = mi.generate(model, chat(), [CLEAN, steer], max_new_tokens=5, steer=mode, temperature=1.0, n=2)
    receipts, prompt = table.attrs["receipts"], len(render(model, chat()).tokens)
    steered = [receipt for receipt in receipts if receipt["intervention"] == "v"]
    of_replies = [receipt for receipt in steered if receipt["kind"] == "injected reply"]
    assert len(of_replies) == (0 if mode == "prefill" else 2)
    assert [receipt["kind"] for receipt in receipts if receipt["intervention"] == "clean"] == ["clean"]
    for receipt in of_replies:
        n_tokens = table[(table["intervention"] == "v") & (table["sample"] == receipt["row"])]["n_tokens"].item()
        assert [layer["positions"] for layer in receipt["layers"]] == [n_tokens - 1] * 2
        assert [layer["firings"] for layer in receipt["layers"]] == [1, 1]
        assert receipt["positions"] == [f"{prompt}:{prompt + n_tokens - 1}"]
        for layer in receipt["layers"]:
            assert layer["vector_norm"] == pytest.approx(2.0 * steer.vector.norms[layer["layer"]], rel=1e-4)
    of_prompt = [receipt for receipt in steered if receipt["kind"] == "injected"]
    expected = [position for position in positions(model, mode, prompt) if position < prompt]
    assert [layer["positions"] for r in of_prompt for layer in r["layers"]] == [len(expected)] * 2 * len(of_prompt)
    assert len(of_prompt) == (0 if mode == "reply" else 1)


def test_a_row_that_is_not_to_be_steered_is_refused(model: mi.Model, monkeypatch: pytest.MonkeyPatch):
    """A vector in the place of another row; one that is missing; and a layer that did not run each time."""
    steering = ReplySteering([1], 2, 4, model.d_model)
    steering.admit({1: torch.ones(model.d_model)})
    steering.admit({})
    steps, stream = torch.tensor([0, 0]), torch.randn(2, 1, model.d_model)
    assert torch.equal(steering.add(1, stream, steps)[1], stream[1])
    steering._vectors[1] = steering._vectors[1].flip(0)
    with pytest.raises(ReceiptError, match="1 rows were added to"):
        steering.add(1, stream, steps)
    steering._vectors[1][:] = 0
    with pytest.raises(ReceiptError, match="0 rows were added to"):
        steering.add(1, stream, steps)
    ones = {1: torch.ones(model.d_model)}
    for added, says in ((ones, "1 of the 2 tokens"), ({}, "another reply"), ({1: ones[1] * 2}, "another reply")):
        with pytest.raises(ReceiptError, match=says):
            steering.changes(0, added, 10, 2)
    with pytest.raises(ReceiptError, match="shaped"):
        steering.add(1, stream[:1], steps[:1])
    remove = ReplySteering.remove
    monkeypatch.setattr(ReplySteering, "remove", lambda steering, row: remove(steering, 0))
    steers = [Injection(vector(model), layers=[n], strength=1.0, name=f"v{n}") for n in range(3)]
    with pytest.raises(ReceiptError, match="another reply"):
        mi.generate(model, chat(), [CLEAN, *steers], steer="reply", max_new_tokens=3)


def test_a_swap_speaks_from_where_it_begins(tiny_model: Load, plain_hf: Plain):
    """The other model reads the positions that it is to act on, and says the reply; the first token may be clean."""
    from transformers import DynamicCache

    model, other = tiny_model("qwen2"), tiny_model("qwen2", seed=1)
    base, finetuned = plain_hf("qwen2"), plain_hf("qwen2", seed=1)
    rendered = render(model.tokenizer, chat())
    prompt = len(rendered.tokens)
    for mode in MODES[1:]:
        table = mi.generate(model, chat(), Swap(other, "s"), max_new_tokens=NEW, steer=mode, n=1)
        theirs = positions(model, mode, prompt + NEW)
        cache, tokens, logits = DynamicCache(), list(rendered.tokens), None
        for at in range(prompt + NEW - 1):
            reads = finetuned if at in theirs else base
            logits = reads(torch.tensor([[tokens[at]]]), past_key_values=cache).logits[0, -1]
            if at >= prompt - 1:
                tokens.append(int(logits.argmax()))
                if tokens[-1] in end_tokens(model):
                    break
        decoded = model.tokenizer.decode(tokens if tokens[-1] not in end_tokens(model) else tokens[:-1])
        assert table["text"][0] == decoded.removeprefix(model.tokenizer.decode(list(rendered.tokens))), mode
    said = mi.generate(model, chat(), Swap(other, "s"), max_new_tokens=3, steer="reply").attrs["receipts"]
    assert [receipt["kind"] for receipt in said] == ["clean", "swapped reply"]


def test_unmarked_prompts_are_steered_where_marks_do_not_matter(model: mi.Model):
    plain = mi.Conversation("plain", (Message("user", "Tell me about bread."),))
    steer = Injection(vector(model), layers=[1], strength=4.0, name="v")
    modes = ("reply", "everything", mi.From("bread"))
    assert len({mi.generate(model, plain, steer, steer=mode)["log_prob"][0] for mode in modes}) == 3
    for mode in ("prefill", "onward"):
        with pytest.raises(ConversationError, match="add_injection"):
            mi.generate(model, plain, steer, steer=mode)


def test_where_a_text_begins(model: mi.Model):
    rendered = render(model, chat())
    tokens = [model.tokenizer.decode([token]) for token in rendered.tokens]
    from mechint.chat.spans import beginning_of

    for text in ("The sea", "sea.", "assistant\nThe answer", "<|im_start|>system"):
        start = beginning_of(model.tokenizer, rendered, text)
        assert "".join(tokens[start:]).lstrip().startswith(text)
        assert len("".join(tokens[:start]).rstrip()) <= rendered.text.index(text)
    first = beginning_of(model.tokenizer, rendered, "<|im_start|>", occurrence=0)
    assert (first, beginning_of(model.tokenizer, rendered, "<|im_start|>", occurrence=1) > 0) == (0, True)


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        (mi.From("no such text"), "0 places"),
        (mi.From(""), "0 places"),
        (mi.From("<|im_start|>"), "occurrence="),
        (mi.From("The sea", occurrence=1), "occurrence 1 of"),
        ("all", "'prefill' or 'reply' or 'everything' or 'onward', or a From"),
    ],
)
def test_a_place_that_is_not_there_is_refused(mode: object, says: str, model: mi.Model):
    with pytest.raises(UsageError, match=says):
        mi.generate(model, chat(), CLEAN, steer=mode)


@pytest.mark.parametrize("mode", MODES[1:], ids=str)
def test_what_cannot_act_there_is_refused(mode: object, model: mi.Model):
    narrow = Injection(vector(model), layers=[1], strength=1.0, segments=[0], name="v")
    with pytest.raises(UsageError, match="narrowed to segments"):
        mi.generate(model, chat(), narrow, steer=mode)


def test_a_reply_of_one_token_cannot_be_steered(model: mi.Model):
    steer = Injection(vector(model), layers=[1], strength=1.0, name="v")
    with pytest.raises(UsageError, match="drawn from clean logits"):
        mi.generate(model, chat(), steer, steer="reply", max_new_tokens=1)
    assert len(mi.generate(model, chat(), CLEAN, steer="reply", max_new_tokens=1)) == 1


@pytest.mark.parametrize(("flag", "mode"), [(True, "onward"), (False, "prefill")])
def test_the_old_option_works_and_warns(flag: bool, mode: str, model: mi.Model):
    steer = Injection(vector(model), layers=[1], strength=4.0, name="v")
    with pytest.warns(DeprecationWarning, match=f"steer='{mode}'"):
        old = mi.generate(model, chat(), steer, max_new_tokens=NEW, steer_reply=flag)
    new = mi.generate(model, chat(), steer, max_new_tokens=NEW, steer=mode)
    assert old["text"].tolist() == new["text"].tolist()
    assert old["steer"].tolist() == [mode]
    with pytest.raises(UsageError, match="one of the two"):
        mi.generate(model, chat(), steer, steer="reply", steer_reply=flag)


def test_nothing_in_the_house_uses_the_old_option():
    from pathlib import Path

    root: Sequence[Path] = [Path(__file__).parents[2] / name for name in ("mechint", "analyses", "benchmarks")]
    used = [path for folder in root for path in folder.rglob("*.py") if "steer_reply=" in path.read_text("utf-8")]
    assert [path.name for path in used] == ["generate.py"]  # its messages
