"""Receipts: what is counted, how large it is beside the conversation's own stream, and which tokens stand out in it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from conftest import chat, conversation, parsed, vector

import mechint as mi
from mechint.base.errors import ModelValidationError, ReceiptError
from mechint.chat.render import render
from mechint.engine.passes import Pass
from mechint.interventions.receipts import LayerTouch, OutlierToken, Receipt, StreamChange

LAYERS = [1, 2]


def steer(model: mi.Model, name: str = "v") -> mi.Injection:
    return mi.Injection(vector(model), LAYERS, relative_strength=0.3, name=name)


def of_prefill(model: mi.Model, conversation: mi.Conversation, injected: object) -> dict[str, object]:
    return mi.prefill(model, conversation, [injected]).receipts[0].to_dict()


def of_table(model: mi.Model, conversation: mi.Conversation, injected: object) -> dict[str, object]:
    return next(r for r in mi.score(model, conversation, injected).attrs["receipts"] if r["kind"] == "injected")


def test_a_receipt_is_json() -> None:
    touch, token = LayerTouch(1, 1, 6, 2.0, 4.0, 0.5), OutlierToken(0, "<s>", 1, 20.0)
    receipt = Receipt("c", "v", "injected", 9, (0, 1, 2, 5, 7, 8), (touch,), outliers=(token,))
    data = json.loads(json.dumps(receipt.to_dict()))
    assert data["positions"] == ["0:3", "5:6", "7:9"]
    assert data["layers"][0]["ratio"] == 0.5
    assert data["outliers"] == [{"position": 0, "text": "<s>", "layer": 1, "ratio": 20.0}]


@pytest.mark.parametrize("receipt_of", [of_prefill, of_table])
def test_the_added_norm_is_given_in_both_units(receipt_of, outlier: mi.Model, sunk) -> None:
    """By hand: the median over the marked positions of the clean stream where nothing has been added below."""
    conversation = chat(5)
    layer = receipt_of(outlier, conversation, steer(outlier))["layers"][0]
    rendered = render(outlier, conversation)
    marked = rendered.marked().nonzero()[:, 0].tolist()
    hf = reference.load(sunk)
    norms = [float(reference.streams(hf, rendered.tokens[: p + 1])[LAYERS[0] + 1].norm()) for p in marked]
    assert layer["residual_norm"] == pytest.approx(float(np.median(norms)), rel=1e-3)
    assert layer["residual_norm"] < 0.1 * np.mean(norms)
    assert layer["ratio"] == pytest.approx(layer["vector_norm"] / layer["residual_norm"])
    assert layer["unit"] == outlier.residual_norms[LAYERS[0]]
    assert layer["dose"] == pytest.approx(0.3, rel=2e-3)


@pytest.mark.parametrize("receipt_of", [of_prefill, of_table])
def test_outlier_tokens_are_named(receipt_of, outlier: mi.Model, model: mi.Model) -> None:
    short = chat(5)
    (token,) = receipt_of(outlier, short, steer(outlier))["outliers"]
    first = outlier.tokenizer.decode([render(outlier, short).tokens[0]])
    assert (token["position"], token["text"]) == (0, first)
    assert token["layer"] in LAYERS
    assert token["ratio"] > 100
    assert receipt_of(model, conversation(), steer(model))["outliers"] == []


def test_replies_have_outliers_and_medians_too(outlier: mi.Model) -> None:
    first = chat(1)
    bare = replace(first, messages=tuple(replace(m, add_injection=False) for m in first.messages))
    with pytest.raises(mi.MechintError, match="add_injection"):
        mi.generate(outlier, bare, steer(outlier), max_new_tokens=2, steer="onward")
    reply = mi.generate(outlier, first, steer(outlier), max_new_tokens=3, steer="onward").attrs["receipts"][-1]
    assert reply["kind"] == "injected reply"
    assert reply["outliers"] == []
    for layer in reply["layers"]:
        assert layer["dose"] == pytest.approx(0.3, rel=2e-3)
        assert layer["ratio"] == pytest.approx(layer["vector_norm"] / layer["residual_norm"])


def test_a_receipt_says_so_in_short(outlier: mi.Model) -> None:
    receipt = mi.prefill(outlier, chat(5), [steer(outlier, "a<b")]).receipts[0]
    parsed(receipt._repr_html_())
    for text in (str(receipt), receipt._repr_html_()):
        assert "|added| / median |residual| here" in text
        assert "|added| in the model's unit" in text.replace("&#x27;", "'")
        assert f"{2 * len(receipt.positions)} additions at 2 layers" in text
        assert "outlier tokens" in text
        assert " at 0 (" in text
    clean = mi.prefill(outlier, chat(5), [mi.CLEAN]).receipts[0]
    assert "nothing" in str(clean)
    assert "median" not in str(clean)


@pytest.mark.parametrize("receipt_of", [of_prefill, of_table])
def test_what_rounding_swallows_is_not_counted(receipt_of, outlier: mi.Model) -> None:
    """Beside a norm of thousands, the change of one number that is large there; and everywhere, if it is too small."""
    tall = torch.zeros(outlier.d_model)
    tall[5] = 1e-4  # the first token's norm lies here
    short = mi.ConceptVector({1: tall}, "short", outlier.n_layers)
    conversation = chat(5)
    n_marked = int(render(outlier, conversation).marked().sum())
    receipt = receipt_of(outlier, conversation, mi.Injection(short, [1], strength=1.0))
    assert [layer["positions"] for layer in receipt["layers"]] == [n_marked - 1]
    receipt = receipt_of(outlier, conversation, mi.Injection(short, [1], strength=1e-7))
    assert [layer["positions"] for layer in receipt["layers"]] == [0]


def test_a_model_without_a_unit_has_receipts_without_it(model: mi.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: mi.Model) -> tuple[float, ...]:
        raise ModelValidationError("no size", "some", "none")

    monkeypatch.setattr("mechint.models.residual_scale.residual_norms", refuse)
    monkeypatch.setattr(model, "_residual_norms", {})
    for receipt_of in (of_prefill, of_table):
        receipt = receipt_of(model, conversation(), mi.Injection(vector(model), LAYERS, strength=1.0, name="w"))
        assert [(layer["unit"], layer["dose"]) for layer in receipt["layers"]] == [(None, None)] * 2
        assert all(layer["ratio"] > 0 for layer in receipt["layers"])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda change: replace(change, firings=2),
        lambda change: replace(change, positions=change.positions + 1),
        lambda change: replace(change, positions=change.positions.clamp(min=1)),
        lambda change: None,
    ],
)
@pytest.mark.parametrize("terms", [1, 2])
def test_what_a_table_has_counted_is_compared_with_what_was_asked(wrong, terms, model, monkeypatch) -> None:
    """A record that says anything else: fired twice, elsewhere, twice at one place; or none at all."""
    real = Pass.run

    def recorded(self: Pass, *args: object) -> object:
        results = real(self, *args)
        for result in results:
            altered = {key: wrong(change) for key, change in result.changes.items()}
            result.changes = {key: change for key, change in altered.items() if change is not None}
        return results

    injected = steer(model, "v") if terms == 1 else steer(model, "v") + steer(model, "w")
    mi.score(model, conversation(), injected)
    monkeypatch.setattr(Pass, "run", recorded)
    with pytest.raises(ReceiptError, match="each once"):
        mi.score(model, conversation(), injected)


def test_passes_over_a_row_are_put_together() -> None:
    early = StreamChange(1, torch.tensor([0, 1]), torch.tensor([1.0, 3.0]), torch.tensor([100.0, 1.0]))
    late = StreamChange(1, torch.tensor([0]), torch.tensor([2.0]), torch.tensor([3.0])).moved(2)
    touch = LayerTouch.of(4, [early, late], 8.0)
    assert (touch.layer, touch.firings, touch.positions) == (4, 1, 3)
    assert (touch.vector_norm, touch.residual_norm, touch.dose) == (2.0, 3.0, 0.25)
    assert LayerTouch.of(4, [early, early], None).firings == 2
    assert LayerTouch.of(4, [], 8.0).dose == 0.0
