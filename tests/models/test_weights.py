"""The identity of a model is a hash of all of it: whatever is changed, wherever and however, it differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import Load, conversation, vector
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mechint as mi
from mechint.base.errors import ModelValidationError, StaleArtefactError
from mechint.chat.render import render
from mechint.interventions.fill_files import FillSource
from mechint.interventions.specifications import CLEAN, Injection, Swap
from mechint.models import weights
from mechint.models.model import LoadArguments

BACKENDS = ("bridge", "hooked")


@pytest.fixture
def fresh(tiny_checkpoint: Callable[..., Path]) -> Load:
    """A factory of models that a test may edit."""
    return lambda architecture="qwen2", **options: mi.load(tiny_checkpoint(architecture), **options)


@contextmanager
def edited(tensor: Tensor, by: float = 0.5) -> Iterator[None]:
    """Add to one element, in the middle of a tensor, as long as the context is open."""
    element = tensor.data[tuple(size // 2 for size in tensor.shape)]
    before = element.clone()
    element += by
    try:
        yield
    finally:
        element.copy_(before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ["qwen2", "gemma3", "gpt2"])
def test_one_element_of_any_weight_or_buffer_counts(architecture: str, backend: str, fresh: Load) -> None:
    model = fresh(architecture, backend=backend)
    identity = model.identity
    named = [*model.backend.parameters(), *model.backend.buffers()]
    tensors = [tensor for _, tensor in named if tensor.numel()]
    identities = {identity}
    for tensor in tensors:  # through .data, which torch's own version counters do not see
        element = tensor.data[tuple(size // 3 for size in tensor.shape)]
        before = element.clone()
        element.copy_(torch.zeros_like(before) if before.isinf() else before.logical_not() + 0.5)
        identities.add(model.identity)
        element.copy_(before)
    assert len(identities) == 1 + len({weights._place(tensor) for tensor in tensors})
    assert model.identity == identity == model.rehash()


def test_rotary_frequencies_are_part_of_a_model(fresh: Load) -> None:
    names = [name for name, _ in fresh().backend.buffers()]
    assert any("inv_freq" in name for name in names)


def test_a_store_is_not_believed_after_an_edit(fresh: Load, tmp_path: Path) -> None:
    model, chats = fresh(), [conversation()]
    steers = [CLEAN, Injection(vector(model), layers=[1], strength=2.0, name="v")]
    first = mi.score(model, chats, steers, store=tmp_path)
    pd.testing.assert_frame_equal(mi.score(model, chats, steers, store=tmp_path), first)
    token = render(model.tokenizer, chats[0]).tokens[5]
    with torch.no_grad():
        model.backend.hf_model.get_input_embeddings().weight[token] = 0
    again = mi.score(model, chats, steers, store=tmp_path)
    pd.testing.assert_frame_equal(again, mi.score(model, chats, steers))
    assert (again.logit_diff - first.logit_diff).abs().min() > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("architecture", "dtype"), [("qwen2", "bfloat16"), ("gemma3", "float32"), ("gpt2", "float32")])
def test_the_readout_follows_an_edit_of_norm_and_unembedding(
    architecture: str, dtype: str, backend: str, fresh: Load
) -> None:
    model = fresh(architecture, backend=backend, dtype=dtype)
    resid = torch.randn(1, model.d_model, generator=torch.Generator().manual_seed(0))
    norms = [w for name, w in model.backend.parameters() if w.ndim == 1 and ("norm" in name or "ln_f" in name)]
    for tensor in (norms[-1], model.readout.weight):
        before = model.readout.logits(resid)
        with edited(tensor.data, 2.0):
            assert (model.readout.logits(resid) - before).abs().max() > 1e-3
        assert torch.equal(model.readout.logits(resid), before)


def test_weights_that_were_replaced_are_refused(fresh: Load) -> None:
    """The parts of a model that were made at loading would go on with the old ones."""
    model = fresh()
    weight = next(weight for name, weight in model.backend.parameters() if "down_proj" in name)
    weight.data = weight.detach() * 2
    with pytest.raises(ModelValidationError, match="replaced"):
        _ = model.identity
    with pytest.raises(ModelValidationError, match="replaced"):
        mi.score(model, [conversation()], CLEAN)


def test_a_swap_with_a_model_that_was_edited_since_is_refused(tiny_model: Load, fresh: Load) -> None:
    other = fresh()
    swap = Swap(other, name="other")
    with edited(other.backend.hf_model.get_input_embeddings().weight.data):
        with pytest.raises(StaleArtefactError, match="edited after this swap"):
            mi.score(tiny_model("qwen2"), [conversation()], [CLEAN, swap])
        assert Swap(other).key != swap.key
    assert Swap(other).key == swap.key


def test_vectors_fills_and_workers_go_by_the_weights_as_they_are(fresh: Load) -> None:
    model = fresh()
    before = FillSource.of(model, "clean", causal=True)
    arguments = LoadArguments(model.arguments.name_or_path, identity=model.identity)
    assert arguments.load().identity == model.identity
    old = mi.extract.mean_difference(model, ["cats"])["cats"].provenance
    model.backend.hf_model.get_input_embeddings().weight.data[7] *= 1.5
    assert FillSource.of(model, "clean", causal=True) != before
    assert mi.extract.mean_difference(model, ["cats"])["cats"].provenance["key"] != old["key"]
    with pytest.raises(StaleArtefactError, match="other weights"):
        LoadArguments(model.arguments.name_or_path, identity=model.identity).load()


def test_settings_that_change_what_is_computed_count_and_where_it_lies_does_not(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    path = shutil.copytree(tiny_checkpoint("gemma3"), tmp_path / "copy")
    same = mi.load(path).identity
    assert same == mi.load(tiny_checkpoint("gemma3")).identity
    identities = {same}
    content = json.loads((path / "config.json").read_text())
    for change in ({"rms_norm_eps": 1e-3}, {"sliding_window": 5}, {"query_pre_attn_scalar": 16}):
        (path / "config.json").write_text(json.dumps(content | change))
        identities.add(mi.load(path).identity)
    assert len(identities) == 4


def test_tied_weights_are_hashed_once(fresh: Load) -> None:
    names = [name for name, _ in weights.Weights(fresh("gemma3").backend)._named()]
    assert sum("embed_tokens" in name and name.endswith("weight") for name in names) == 1
    assert not any("lm_head" in name and name.endswith("weight") for name in names)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40_000), st.integers(0, 2**32), st.sampled_from(["bit", "signs", "swap", "sum"]), st.booleans())
def test_sums_over_weights_on_a_gpu_see_any_change(n: int, seed: int, change: str, shifted: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n + 1, generator=generator)[int(shifted) :][:n]
    before = weights._sums(values.view(torch.uint8))
    assert len(before) <= n * 4 // 1024 + 8192
    other = values.clone()
    first, second = torch.randint(n, (2,), generator=generator).tolist()
    if change == "bit":
        other.view(torch.uint8)[first * 4 + seed % 4] ^= 1 << seed % 8
    if change == "signs":
        other[[first, second]] *= -1
    if change == "swap":
        other[[first, second]] = other[[second, first]]
    if change == "sum":
        other[first] += 1
        other[second] -= 1
    differs = not torch.equal(other.view(torch.uint8), values.contiguous().view(torch.uint8))
    assert torch.equal(weights._sums(other.view(torch.uint8)), before) is not differs


def test_hashes_of_a_gpu_are_used_again_only_if_nothing_has_changed(
    tiny_model: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is none here: the sums stand in for what would be asked of it."""
    taken: list[int] = []
    real = weights._hash
    monkeypatch.setattr(weights, "_hash", lambda data: taken.append(len(data)) or real(data))
    monkeypatch.setattr(weights, "_on_cpu", lambda data: False)
    tensor = torch.randn(300_000)
    held = weights.Weights(tiny_model("qwen2").backend)
    first = held._digest(tensor)
    assert held._digest(tensor) == first
    assert sum(n == 1_200_000 for n in taken) == 1
    tensor.data[1234] += 1
    assert held._digest(tensor) != first
    held.forget()
    held._digest(tensor)
    assert sum(n == 1_200_000 for n in taken) == 3


@pytest.mark.parametrize("few", [0, 1 << 40])
def test_threads_hash_what_one_alone_would(few: int, fresh: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh()
    usual = model.identity
    monkeypatch.setattr(weights, "_FEW", few)
    used: list[int] = []
    real = weights.ThreadPoolExecutor
    monkeypatch.setattr(weights, "ThreadPoolExecutor", lambda count: (used.append(count), real(count))[1])
    assert model.identity == usual
    assert bool(used) == (few == 0)
