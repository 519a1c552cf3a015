"""Prefills touch what their interventions ask for, nothing else, and say so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import conversation, vector

import mechint as mi
from mechint.base.errors import (
    ConversationError,
    InvalidVectorError,
    LayerRangeError,
    ReceiptError,
    SwapError,
    UsageError,
    VectorMismatchError,
)
from mechint.chat.conversations import Message
from mechint.chat.render import render
from mechint.interventions.prefill import prefill
from mechint.interventions.specifications import CLEAN, Injection, Swap

BACKENDS = ["bridge", "hooked"]


def changed_positions(model: mi.Model, steer: mi.Injection, chat: mi.Conversation) -> dict[int, list[int]]:
    """Positions whose cached keys differ from clean, by layer, one layer above the injection."""
    cache = prefill(model, chat, [CLEAN, steer]).cache
    difference = [(k[0] - k[1]).abs().amax((0, 2)) for k in cache.keys]
    return {layer: (d > 1e-7).nonzero()[:, 0].tolist() for layer, d in enumerate(difference)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_injection_touches_its_layers_and_all_marked_positions(backend, tiny_model):
    model = tiny_model("qwen2", backend)
    steer = Injection(vector(model), layers=range(1, 3), strength=2.0)
    filled = prefill(model, conversation(), [CLEAN, steer])
    n_pos = render(model.tokenizer, conversation()).prefix_length
    clean, receipt = filled.receipts
    assert (clean.kind, clean.layers, clean.positions) == ("clean", (), ())
    assert receipt.positions == tuple(range(n_pos))
    assert [(touch.layer, touch.firings, touch.positions) for touch in receipt.layers] == [(1, 1, n_pos), (2, 1, n_pos)]
    for touch in receipt.layers:
        assert touch.vector_norm == pytest.approx(2.0 * vector(model).norms[touch.layer], rel=1e-4)
        assert touch.ratio == pytest.approx(touch.vector_norm / touch.residual_norm)
    changed = changed_positions(model, steer, conversation())
    assert changed == {0: [], 1: [], 2: list(range(n_pos)), 3: list(range(n_pos))}


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_marked_segments_are_touched(backend, tiny_model):
    model = tiny_model("qwen2", backend)
    messages = list(conversation().messages)
    messages[1] = replace(messages[1], add_injection=False)
    chat = mi.Conversation("second only", tuple(messages))
    second = render(model.tokenizer, chat).segments[1]
    changed = changed_positions(model, Injection(vector(model), layers=[0], strength=1.0), chat)
    assert changed[1] == list(range(second.start, second.stop))


def test_positions_and_segments_narrow_the_injection(model):
    rendered = render(model.tokenizer, conversation())
    by_segment = Injection(vector(model), layers=[0], strength=1.0, segments=[1])
    assert changed_positions(model, by_segment, conversation())[1] == list(
        range(rendered.segments[1].start, rendered.segments[1].stop)
    )
    by_position = Injection(vector(model), layers=[0], strength=1.0, positions=[3, 5])
    # Later layers change after the first touched position too, through attention; the next one just there.
    assert changed_positions(model, by_position, conversation())[1] == [3, 5]
    assert prefill(model, rendered, [by_position]).receipts[0].positions == (3, 5)


@pytest.mark.parametrize("where", [{"positions": [10_000]}, {"positions": [-1]}, {"segments": [2]}, {"segments": [9]}])
def test_unmarked_positions_are_refused(where, model):
    with pytest.raises(UsageError, match="add_injection"):
        prefill(model, conversation(), [Injection(vector(model), layers=[0], strength=1.0, **where)])


def test_relative_strength_is_in_units_of_the_models_typical_norm(model):
    rendered, norms = render(model.tokenizer, conversation()), model.residual_norms
    steer = Injection(vector(model) * 7.0, layers=[1, 2], relative_strength=0.3)
    for touch in prefill(model, rendered, [steer]).receipts[0].layers:
        assert touch.vector_norm == pytest.approx(0.3 * norms[touch.layer], rel=1e-4)
    scaled = vector(model).rescaled({layer: 0.3 * norm for layer, norm in enumerate(norms)})
    same = Injection(scaled, layers=[1, 2], strength=1.0)
    first = prefill(model, rendered, [steer]).cache
    other = prefill(model, rendered, [same]).cache
    torch.testing.assert_close(first.keys[3], other.keys[3], atol=1e-5, rtol=1e-5)


def test_identities(model):
    """Zero strength, two halves, and a vector with its negative."""
    v = vector(model)

    def keys(*steers: object) -> torch.Tensor:
        return prefill(model, conversation(), list(steers)).cache.keys[-1]

    full = Injection(v, layers=[1, 2], strength=2.0)
    half = Injection(v, layers=[1, 2], strength=1.0)
    clean, zero = keys(CLEAN, Injection(v, layers=[1, 2], strength=0.0))
    assert torch.equal(clean, zero)
    whole, two, none = keys(full, half + half, full + Injection(-v, layers=[1, 2], strength=2.0))
    torch.testing.assert_close(whole, two, atol=1e-5, rtol=0)
    torch.testing.assert_close(none, clean, atol=1e-5, rtol=0)
    assert (whole - clean).abs().max() > 1e-2


def test_sum_composes_different_layers_and_positions(model):
    a = Injection(vector(model, 1), layers=[0], strength=1.0, segments=[0], name="a")
    b = Injection(vector(model, 2), layers=[2], strength=1.0, name="b")
    both = a + b
    assert both.name == "a + b"
    assert (a + b).key == (b + a).key != a.key
    receipt = prefill(model, conversation(), [both]).receipts[0]
    assert [touch.layer for touch in receipt.layers] == [0, 2]
    assert receipt.layers[0].positions < receipt.layers[1].positions


@pytest.mark.parametrize("backend", BACKENDS)
def test_swap_fills_marked_segments_only(backend, tiny_model):
    base, other = tiny_model("qwen2", backend), tiny_model("qwen2", backend, seed=1)
    messages = list(conversation().messages)
    messages[1] = replace(messages[1], add_injection=False)
    chat = mi.Conversation("swap", tuple(messages))
    rendered = render(base.tokenizer, chat)
    filled = prefill(base, chat, [CLEAN, Swap(other)])
    second = rendered.segments[1]
    assert filled.receipts[1].positions == tuple(range(second.start, second.stop))
    clean = filled.cache.select(torch.tensor([0]))
    swapped = filled.cache.select(torch.tensor([1]))
    for k_clean, k_swapped in zip(clean.keys, swapped.keys, strict=True):
        torch.testing.assert_close(k_clean[:, :, : second.start], k_swapped[:, :, : second.start])
        assert (k_clean[:, :, second.start :] - k_swapped[:, :, second.start :]).abs().max() > 1e-2
    by_hand = base.forward(rendered.token_tensor()[:, : second.start])
    by_hand = other.forward(rendered.token_tensor()[:, second.start : second.stop], by_hand)
    torch.testing.assert_close(swapped.values[-1], by_hand.values[-1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_swap_with_itself_is_clean(backend, tiny_model):
    model = tiny_model("gemma2", backend)
    cache = prefill(model, conversation(), [CLEAN, Swap(model)]).cache
    torch.testing.assert_close(cache.keys[-1][0], cache.keys[-1][1], atol=1e-5, rtol=0)


def test_swap_refuses_another_kind_of_model(tiny_model, tiny_checkpoint):
    base = tiny_model("qwen2")
    deeper = mi.load(tiny_checkpoint("qwen2", n_layers=2))
    with pytest.raises(SwapError, match="n_layers"):
        prefill(base, conversation(), [Swap(deeper)])


def test_swap_refuses_another_backend(tiny_model):
    """HookedTransformer caches keys before the rotation by position, the bridge after it: they must not be mixed."""
    bridge, hooked = tiny_model("llama", "bridge"), tiny_model("llama", "hooked")
    tokens = torch.arange(3, 23)[None]
    first = bridge.forward(tokens)
    other = hooked.forward(tokens)
    torch.testing.assert_close(first.values[-1], other.values[-1], atol=1e-5, rtol=1e-4)
    assert (first.keys[-1] - other.keys[-1]).abs().max() > 0.1
    with pytest.raises(SwapError, match="backend"):
        prefill(bridge, conversation(), [Swap(hooked)])


def test_rows_come_in_the_order_of_the_interventions(tiny_model):
    """Swaps are filled apart from the rest, so they could end up in other rows than their receipts say."""
    model, other = tiny_model("qwen2"), tiny_model("qwen2", seed=1)
    steer, swap = Injection(vector(model), layers=[0], strength=2.0, name="steer"), Swap(other, name="swap")
    alone = {i.name: prefill(model, conversation(), [i]).cache.keys[-1][0] for i in (CLEAN, steer, swap)}
    filled = prefill(model, conversation(), [swap, CLEAN, steer])
    assert [(r.row, r.intervention) for r in filled.receipts] == [(0, "swap"), (1, "clean"), (2, "steer")]
    for receipt in filled.receipts:
        torch.testing.assert_close(filled.cache.keys[-1][receipt.row], alone[receipt.intervention], atol=1e-5, rtol=0)


def test_no_hook_is_live_afterwards(tiny_model):
    for backend in BACKENDS:
        model = tiny_model("qwen2", backend)
        prefill(model, conversation(), [Injection(vector(model), strength=1.0)])
        assert model.backend.live_hooks() == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_exception_in_a_prefill_leaves_the_model_unsteered(backend, tiny_model, monkeypatch):
    from mechint.interventions import addition as steering

    model = tiny_model("qwen2", backend)
    before = prefill(model, conversation(), [CLEAN]).cache.fingerprint()

    def explode(self: object, terms: object, places: object) -> torch.Tensor:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steering._TermHook, "_delta", explode)
        with pytest.raises(KeyboardInterrupt):
            prefill(model, conversation(), [Injection(vector(model), strength=1.0)])
    assert model.backend.live_hooks() == []
    assert prefill(model, conversation(), [CLEAN]).cache.fingerprint() == before


def test_hooks_that_do_not_fire_are_noticed(tiny_checkpoint, monkeypatch):
    """As if TransformerLens had ignored the name."""
    model = mi.load(tiny_checkpoint("qwen2", seed=5))
    real = model.backend.forward
    monkeypatch.setattr(model.backend, "forward", lambda t, c, m, hooks: real(t, c, m, ()))
    with pytest.raises(ReceiptError, match="fired 0 times"):
        prefill(model, conversation(), [Injection(vector(model), layers=[1], strength=1.0)])


def test_hooks_that_fire_twice_are_noticed(tiny_checkpoint, monkeypatch):
    model = mi.load(tiny_checkpoint("qwen2", seed=5))
    real = model.backend.forward
    monkeypatch.setattr(model.backend, "forward", lambda t, c, m, hooks: real(t, c, m, [*hooks, *hooks]))
    with pytest.raises(ReceiptError, match="fired 2 times"):
        prefill(model, conversation(), [Injection(vector(model), layers=[1], strength=1.0)])


def test_positions_that_are_missed_are_noticed(model, monkeypatch):
    from mechint.interventions import addition as steering

    real = steering._TermHook._delta

    def first_half(self: steering._TermHook, terms: list[steering.Term], places: torch.Tensor) -> torch.Tensor:
        delta = real(self, terms, places).repeat(len(places), 1)
        delta[len(places) // 2 :] = 0
        return delta

    monkeypatch.setattr(steering._TermHook, "_delta", first_half)
    with pytest.raises(ReceiptError, match="pairs"):
        prefill(model, conversation(), [Injection(vector(model), layers=[1], strength=1.0)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cache_of_length_one(backend, tiny_checkpoint):
    """Steering code that skips passes of one token, to leave decoding alone, would never act here."""
    model = mi.load(tiny_checkpoint("qwen2"), backend=backend)
    model.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    messages = (Message("user", "<s>", add_injection=True), Message("assistant", "The answer is", continue_msg=True))
    short = mi.Conversation("one", messages, yes_token=" yes", no_token=" no")
    steer = Injection(vector(model), layers=[0, 1], strength=3.0, name="steer")
    filled = prefill(model, short, [CLEAN, steer])
    assert (filled.cache.n_pos, filled.receipts[1].positions) == (1, (0,))
    assert (filled.cache.values[2][0] - filled.cache.values[2][1]).abs().max() > 1e-2
    assert abs(mi.score(model, short, steer).logit_diff_shift[0]) > 1e-3


def test_nothing_marked(model):
    bare = mi.Conversation("bare", tuple(replace(m, add_injection=False) for m in conversation().messages))
    assert prefill(model, bare, [CLEAN]).cache.n_pos == 0
    with pytest.raises(ConversationError, match="no message is marked"):
        prefill(model, bare, [Injection(vector(model), strength=1.0)])


def test_marked_end(model):
    marked = mi.Conversation("all", (Message("user", "u", True), Message("assistant", "a", True, continue_msg=True)))
    with pytest.raises(ConversationError, match="last message is marked"):
        prefill(model, marked, [Injection(vector(model), strength=1.0)])


class TestBadInterventions:
    """What a specification refuses by itself, or for a model."""

    def test_strengths(self, model):
        for strengths in ({}, {"strength": 1.0, "relative_strength": 1.0}):
            with pytest.raises(UsageError, match="exactly one"):
                Injection(vector(model), **strengths)

    @pytest.mark.parametrize("layers", [range(3, 1), [], [-1], [1, 1]])
    def test_layers(self, layers, model):
        with pytest.raises(UsageError):
            Injection(vector(model), layers=layers, strength=1.0)

    def test_layers_outside_the_model(self, model):
        deep = mi.ConceptVector({k: torch.ones(model.d_model) for k in range(9)})
        with pytest.raises(VectorMismatchError, match="at least 9"):
            prefill(model, conversation(), [Injection(deep, layers=[8], strength=1.0)])
        with pytest.raises(LayerRangeError, match="0:4"):
            Injection(vector(model), layers=range(2, 9), strength=1.0)

    def test_vector_of_another_model(self, model):
        narrow = mi.ConceptVector({1: torch.ones(16)}, "narrow")
        with pytest.raises(VectorMismatchError, match=r"d_model=16.*\n.*32, 4"):
            prefill(model, conversation(), [Injection(narrow, strength=1.0)])
        shallow = mi.ConceptVector({1: torch.ones(32)}, "shallow", n_layers=3)
        with pytest.raises(VectorMismatchError, match="n_layers=3"):
            prefill(model, conversation(), [Injection(shallow, strength=1.0)])

    def test_zero_vector(self, model):
        v = vector(model)
        with pytest.raises(InvalidVectorError, match="zero"):
            Injection(v - v, strength=1.0)

    def test_both_positions_and_segments(self, model):
        with pytest.raises(UsageError, match="both"):
            Injection(vector(model), strength=1.0, positions=[1], segments=[0])

    def test_key_is_by_content(self, model):
        injection = Injection(vector(model), layers=range(1, 3), strength=2.0)
        same = Injection(vector(model), layers=range(1, 3), strength=2.0)
        assert injection == same
        assert hash(injection) == hash(same)
        assert injection.key == injection.renamed("other").key
        for other in (
            Injection(vector(model), layers=[1], strength=2.0),
            Injection(vector(model), layers=range(1, 3), strength=2.1),
            Injection(vector(model, 1), layers=range(1, 3), strength=2.0),
            Injection(vector(model), layers=range(1, 3), strength=2.0, segments=[0]),
        ):
            assert other.key != injection.key
