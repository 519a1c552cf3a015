"""Reading from any block on: equal to the engine's tables and to plain Hugging Face, with and without gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Load, conversation, vector

import mechint as mi
from mechint.attribution.reading import Reading
from mechint.base.errors import LayerRangeError, UsageError
from mechint.models.capture import EMBED

BACKENDS = ("bridge", "hooked")
ARCHITECTURES = ("qwen2", "llama", "gpt2")


def read(model: mi.Model, **options: object) -> Reading:
    steer = mi.Injection(vector(model), range(1, 3), 2.0, name="steer")
    return Reading.of(model, conversation(), [mi.CLEAN, steer], **options)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_the_table_from_every_layer(tiny_model: Load, architecture: str, backend: str):
    model = tiny_model(architecture, backend)
    reading = read(model)
    expected = mi.score(model, conversation(), list(reading.interventions))["logit_diff"].tolist()
    assert abs(expected[0] - expected[1]) > 1e-3
    assert reading.logit_diffs([0, 1]).tolist() == pytest.approx(expected, abs=1e-4)
    streams = reading.residuals([EMBED, *range(model.n_layers)])
    for layer, resid in streams.items():
        assert reading.logit_diffs([0, 1], resid=resid, layer=layer).tolist() == pytest.approx(expected, abs=1e-4)


def test_rows_batches_and_caches_are_told_apart(model: mi.Model):
    reading = read(model)
    clean, steered = reading.logit_diffs([0, 1]).tolist()
    assert read(model, batch_size=1).logit_diffs([1, 0, 1]).tolist() == pytest.approx(
        [steered, clean, steered], abs=1e-4
    )
    other = reading.cache.select(torch.tensor([1, 0]))
    assert reading.logit_diffs([0, 1], cache=other).tolist() == pytest.approx([steered, clean], abs=1e-4)


def test_an_edit_at_a_layer_is_what_a_stream_that_begins_there_is(model: mi.Model):
    reading = read(model)
    added = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    edited = reading.logit_diffs([0, 1], edits={1: lambda resid, rows: resid + added})
    stream = reading.residuals([1])[1] + added
    assert torch.allclose(edited, reading.logit_diffs([0, 1], resid=stream, layer=1), atol=1e-5)
    assert not torch.allclose(edited, reading.logit_diffs([0, 1]), atol=1e-3)
    assert torch.equal(reading.logit_diffs([0], edits={1: lambda resid, rows: resid}), reading.logit_diffs([0]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_are_those_of_finite_differences(tiny_model: Load, architecture: str, backend: str):
    model = tiny_model(architecture, backend)
    reading = read(model)
    stream = reading.residuals([1])[1].requires_grad_()
    keys = tuple(key.clone().requires_grad_() for key in reading.cache.keys)
    cache = mi.KVCache(keys, reading.cache.values)
    diff = reading.logit_diffs([0, 1], resid=stream, layer=1, cache=cache)
    by_stream, by_keys = torch.autograd.grad(diff.sum(), [stream, keys[2]])
    step = torch.randn(stream.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        there = reading.logit_diffs([0, 1], resid=stream + 1e-2 * step, layer=1).sum()
        back = reading.logit_diffs([0, 1], resid=stream - 1e-2 * step, layer=1).sum()
    assert float((by_stream * step).sum()) == pytest.approx(float(there - back) / 2e-2, rel=0.05, abs=1e-3)
    assert by_keys.abs().sum() > 0
    assert not reading.logit_diffs([0, 1]).requires_grad


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stream_in_float32_is_read_by_a_bfloat16_model(tiny_checkpoint: Callable[..., Path], backend: str):
    model = mi.load(tiny_checkpoint("qwen2"), backend=backend, dtype="bfloat16")
    reading = read(model)
    stream = reading.residuals([1])[1].float()
    expected = reading.logit_diffs([0, 1])
    assert torch.allclose(reading.logit_diffs([0, 1], resid=stream, layer=1), expected, atol=1e-5)
    assert torch.allclose(
        reading.logit_diffs([0, 1], edits={1: lambda resid, rows: resid.float()}), expected, atol=1e-5
    )


def test_a_conversation_without_marks_is_read_whole(model: mi.Model):
    chat = mi.Conversation("plain", conversation().messages[3:], yes_token=" yes", no_token=" no")
    reading = Reading.of(model, chat, mi.CLEAN)
    expected = mi.score(model, chat, mi.CLEAN)["logit_diff"].tolist()
    assert reading.logit_diffs([0]).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda r: r.run([2]), UsageError),
        (lambda r: r.run([]), UsageError),
        (lambda r: r.run([0], layer=1), UsageError),
        (lambda r: r.run([0], resid=r.residuals([1])[1], layer=1), UsageError),
        (lambda r: r.run([0, 1], resid=r.residuals([1])[1], layer=1, keep=[0]), UsageError),
        (lambda r: r.run([0], keep=[99]), LayerRangeError),
        (lambda r: r.run([0], edits={99: lambda resid, rows: resid}), LayerRangeError),
    ],
)
def test_bad_input(model: mi.Model, call: Callable[[Reading], object], error: type[Exception]):
    with pytest.raises(error):
        call(read(model))


def test_answers_must_be_named(model: mi.Model):
    unnamed = mi.Conversation("c", conversation().messages)
    with pytest.raises(UsageError, match="yes or no"):
        Reading.of(model, unnamed, mi.CLEAN).logit_diffs([0])
    reading = Reading.of(model, unnamed, mi.CLEAN, answers=mi.Answers(yes=" yes", no=" no"))
    assert reading.logit_diffs([0]).isfinite().all()
