"""The loss of plain text equals plain Hugging Face's, steered or not, alone and in any batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import reference
import torch
from conftest import Load, conversation, vector
from torch import nn

import mechint as mi
from mechint.base.errors import SwapError, UsageError, VectorMismatchError
from mechint.interventions.specifications import CLEAN, Injection, Swap

BACKENDS = ("bridge", "hooked")
TEXTS = (
    "Tell me about bread. I notice a thought about the sea, or nothing at all.",
    "The answer",
    "Yes or no? The sea is a cat, and the cats are bread.",
)
Plain = Callable[..., nn.Module]


def naive(plain: nn.Module, tokens: list[int], steer: Injection | None = None) -> float:
    """Hugging Face's own loss of one text, with vectors added at every position."""
    layers = steer.layers if steer else ()
    additions = [
        reference.Addition(layer, steer.vector.vectors[layer] * steer.strength, range(len(tokens))) for layer in layers
    ]
    ids = torch.tensor([tokens])
    with reference.added(plain, additions):
        return float(plain(ids, labels=ids).loss)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("arch", ["qwen2", "llama", "gemma2", "gemma3", "gpt2", "gpt_neox"])
def test_losses_equal_hugging_face(arch: str, backend: str, tiny_model: Load, plain_hf: Plain):
    """Texts of three lengths in one batch; the last block is steered too."""
    model, plain = tiny_model(arch, backend), plain_hf(arch)
    steer = Injection(vector(model), layers=[1, 3], strength=1.5, name="v")
    table = mi.text_loss(model, TEXTS, [CLEAN, steer]).set_index(["text", "intervention"])
    assert list(table.index) == list(itertools.product(range(3), ["clean", "v"]))
    assert list(table.columns) == ["n_tokens", "loss", "perplexity"]
    for number, text in enumerate(TEXTS):
        tokens = model.tokenizer(text)["input_ids"]
        for name, injection in (("clean", None), ("v", steer)):
            row = table.loc[number, name]
            assert row["n_tokens"] == len(tokens) - 1
            assert row["loss"] == pytest.approx(naive(plain, tokens, injection), abs=1e-4)
            assert row["perplexity"] == pytest.approx(math.exp(row["loss"]))
        assert abs(table.loc[number, "clean"]["loss"] - table.loc[number, "v"]["loss"]) > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_change_nothing(backend: str, tiny_model: Load):
    model, other = tiny_model("qwen2", backend), tiny_model("qwen2", backend, seed=1)
    relative = Injection(vector(model), layers=[0, 2], relative_strength=0.5, name="v")
    interventions = [CLEAN, relative, Swap(other, "other")]
    whole = mi.text_loss(model, TEXTS, interventions, batch_size=16)
    small = mi.text_loss(model, TEXTS, interventions, batch_size=2)
    alone = [
        mi.text_loss(model, text, intervention, batch_size=1)["loss"].item()
        for text, intervention in itertools.product(TEXTS, interventions)
    ]
    assert whole["loss"].tolist() == pytest.approx(alone, abs=1e-5)
    assert small["loss"].tolist() == pytest.approx(alone, abs=1e-5)


def test_long_texts_are_read_out_in_pieces(model: mi.Model, plain_hf: Plain):
    """The logits of a long text are not held at once, and add up all the same."""
    text = " ".join(TEXTS * 7)
    tokens = model.tokenizer(text)["input_ids"]
    assert len(tokens) > 257
    (row,) = mi.text_loss(model, text, CLEAN).itertuples()
    assert row.loss == pytest.approx(naive(plain_hf("qwen2"), tokens), abs=1e-4)


def test_identities(model: mi.Model):
    v = vector(model)
    zero = Injection(v, layers=[1, 2], strength=0.0, name="zero")
    none = (Injection(v, layers=[1], strength=2.0) + Injection(-v, layers=[1], strength=2.0)).renamed("none")
    whole = Injection(v, layers=[1, 2], strength=1.0, name="whole")
    half = Injection(v, layers=[1, 2], strength=0.5)
    table = mi.text_loss(model, TEXTS, [CLEAN, zero, none, Swap(model, "self"), whole, (half + half).renamed("halves")])
    for _, rows in table.groupby("text"):
        loss = rows.set_index("intervention")["loss"]
        assert loss["zero"] == loss["clean"]
        assert loss[["none", "self"]].tolist() == pytest.approx([loss["clean"]] * 2, abs=1e-5)
        assert loss["halves"] == pytest.approx(loss["whole"], abs=1e-5)
        assert loss["whole"] != pytest.approx(loss["clean"], abs=1e-3)


def test_a_swap_has_the_other_models_loss(model: mi.Model, tiny_model: Load):
    other = tiny_model("qwen2", seed=1)
    swapped = mi.text_loss(model, TEXTS, Swap(other, "s"))["loss"].tolist()
    assert swapped == mi.text_loss(other, TEXTS, CLEAN)["loss"].tolist()
    assert swapped != pytest.approx(mi.text_loss(model, TEXTS, CLEAN)["loss"].tolist(), abs=0.01)


def test_relative_strength_is_the_same_in_every_text(model: mi.Model):
    relative = Injection(vector(model) * 3.0, layers=[1, 2], relative_strength=0.4, name="v")
    losses = mi.text_loss(model, TEXTS, relative)["loss"].tolist()
    scaled = vector(model).rescaled({layer: 0.4 * norm for layer, norm in enumerate(model.residual_norms)})
    same = Injection(scaled, layers=[1, 2], strength=1.0)
    assert mi.text_loss(model, TEXTS, same)["loss"].tolist() == pytest.approx(losses, abs=1e-4)


def test_special_tokens_are_added_only_by_the_tokenizer(tiny_checkpoint: Callable[..., object], plain_hf: Plain):
    from tokenizers.processors import TemplateProcessing

    model = mi.load(tiny_checkpoint("llama"))
    assert mi.text_loss(model, TEXTS[1], CLEAN)["n_tokens"].item() == len(model.tokenizer.tokenize(TEXTS[1])) - 1
    bos = model.tokenizer.bos_token_id
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bos)]
    )
    tokens = model.tokenizer(TEXTS[1])["input_ids"]
    assert tokens[0] == bos
    (row,) = mi.text_loss(model, TEXTS[1], CLEAN).itertuples()
    assert row.n_tokens == len(tokens) - 1
    assert row.loss == pytest.approx(naive(plain_hf("llama"), tokens), abs=1e-4)


def test_a_strength_beyond_all_sense_still_has_a_number(model: mi.Model):
    huge = Injection(vector(model), layers=[1], strength=1e6, name="huge")
    (row,) = mi.text_loss(model, TEXTS[0], huge).itertuples()
    assert row.loss > 0
    assert row.perplexity > 1
    assert model.backend.live_hooks() == []


def test_progress_counts_rows(model: mi.Model):
    calls: list[tuple[int, int]] = []
    mi.text_loss(model, TEXTS, CLEAN, batch_size=2, progress=lambda *counts: calls.append(counts))
    assert [count for count, _ in calls] == [2, 1]
    assert sum(tokens for _, tokens in calls) == sum(len(model.tokenizer(text)["input_ids"]) for text in TEXTS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_conversation_stands_for_its_last_message(backend: str, tiny_model: Load, plain_hf: Plain):
    """The loss is that of the last message's tokens alone, and so is what words are averaged over."""
    model, plain = tiny_model("llama", backend), plain_hf("llama")
    chat = conversation(prefix="The answer is yes")
    steer = Injection(vector(model), layers=[1, 3], strength=1.5, name="v")
    words = {"cats": " cats", "sea": " sea"}
    table = mi.text_loss(model, [TEXTS[0], chat], [CLEAN, steer], words=words).set_index(["text", "intervention"])
    rendered = mi.render(model.tokenizer, chat)
    ids, n = torch.tensor([rendered.tokens]), len(model.tokenizer(" The answer is yes")["input_ids"])
    additions = [reference.Addition(layer, steer.vector.vectors[layer] * 1.5, range(len(ids[0]))) for layer in (1, 3)]
    for name, added in (("clean", []), ("v", additions)):
        with reference.added(plain, added), torch.no_grad():
            log_p = plain(ids).logits[0].log_softmax(-1)
        row, at = table.loc[1, name], range(ids.shape[1] - n - 1, ids.shape[1] - 1)
        assert row["n_tokens"] == n
        assert row["loss"] == pytest.approx(-np.mean([float(log_p[i, ids[0, i + 1]]) for i in at]), abs=1e-4)
        for label, word in words.items():
            token = model.tokenizer(word)["input_ids"][0]
            assert row[f"log_p_{label}"] == pytest.approx(float(log_p[list(at), token].mean()), abs=1e-4)
    alone = mi.text_loss(model, TEXTS[0], steer, words=words)
    np.testing.assert_allclose(alone["log_p_sea"].item(), table.loc[0, "v"]["log_p_sea"], atol=1e-5)
    with pytest.raises(UsageError, match="words without a token"):
        mi.text_loss(model, TEXTS[0], CLEAN, words={"nothing": ""})


def test_bad_input_is_refused(model: mi.Model, tiny_model: Load):
    steer = Injection(vector(model), layers=[1], strength=1.0, name="v")
    for text in ("", "The"):
        with pytest.raises(UsageError, match="two tokens or more"):
            mi.text_loss(model, [TEXTS[0], text], CLEAN)
    with pytest.raises(UsageError, match="no texts"):
        mi.text_loss(model, [], CLEAN)
    with pytest.raises(UsageError, match="no intervention names"):
        mi.text_loss(model, TEXTS, [])
    with pytest.raises(UsageError, match="names that occur more than once"):
        mi.text_loss(model, TEXTS, [steer, steer])
    with pytest.raises(UsageError, match="batch_size=0"):
        mi.text_loss(model, TEXTS, CLEAN, batch_size=0)
    with pytest.raises(UsageError, match="narrowed to positions"):
        mi.text_loss(model, TEXTS, Injection(vector(model), layers=[1], strength=1.0, positions=[0]))
    short = mi.ConceptVector({1: torch.ones(8)}, "short", model.n_layers)
    with pytest.raises(VectorMismatchError):
        mi.text_loss(model, TEXTS, Injection(short, strength=1.0))
    with pytest.raises(SwapError):
        mi.text_loss(model, TEXTS, Swap(tiny_model("qwen2", "hooked"), "hooked"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_texts_longer_than_the_model_are_refused(backend: str, tiny_model: Load):
    with pytest.raises(UsageError, match="at most 512"):
        mi.text_loss(tiny_model("gpt2", backend), "yes no " * 300, CLEAN)
