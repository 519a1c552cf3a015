"""An adapter on top of a model equals the merged one, copies no weights, and leaves the model as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import reference
import torch
from conftest import conversation

import mechint as mi
from mechint.base.errors import ModelValidationError, UsageError
from mechint.interventions.specifications import CLEAN, Swap

TARGETS = {"gpt2": ["c_fc", "c_proj"], "gpt_neox": ["query_key_value"]}
Make = Callable[..., Path]


@pytest.fixture(scope="session")
def adapter(tiny_checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A factory of random LoRA adapters of tiny checkpoints."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapters")

    def make(architecture: str = "qwen2", seed: int = 0, **options: object) -> Path:
        path = folder / f"{architecture}-{seed}-{sorted(options.items())}".replace("/", "_")
        if not path.exists():
            targets = TARGETS.get(architecture, ["q_proj", "v_proj", "down_proj"])
            chosen = {"r": 4, "target_modules": targets, "fan_in_fan_out": architecture == "gpt2", **options}
            torch.manual_seed(seed)
            base = reference.load(tiny_checkpoint(architecture))
            get_peft_model(base, LoraConfig(init_lora_weights=False, **chosen)).save_pretrained(
                path, save_embedding_layers=False
            )
        return path

    return make


@pytest.fixture
def chats() -> list[mi.Conversation]:
    return [conversation("one"), conversation("two", "is the sea a cat?")]


def some_tokens(model: mi.Model) -> torch.Tensor:
    return torch.randint(0, model.backend.d_vocab, (2, 15), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "gemma2", "gemma3", "gpt2"])
def test_on_top_equals_merged(architecture, tiny_model, tiny_checkpoint, adapter):
    model, path = tiny_model(architecture), adapter(architecture)
    on_top, merged = model.with_adapter(path), mi.load(tiny_checkpoint(architecture), adapter=path)
    tokens = some_tokens(model)
    torch.testing.assert_close(on_top.logits(tokens), merged.logits(tokens), atol=1e-4, rtol=0)
    assert (on_top.logits(tokens) - model.logits(tokens)).abs().max() > 0.1


def test_adapter_swap_equals_swap_with_the_merged_model(tiny_model, tiny_checkpoint, adapter, chats):
    model = tiny_model("qwen2")
    merged = Swap(mi.load(tiny_checkpoint("qwen2"), adapter=adapter()), name="swap")
    expected = mi.score(model, chats, [CLEAN, merged])
    scored = mi.score(model, chats, [CLEAN, Swap(model.with_adapter(adapter()), name="swap")])
    pd.testing.assert_frame_equal(scored, expected, atol=1e-4, rtol=0)
    assert (scored.logit_diff_shift[scored.intervention == "swap"].abs() > 0.01).all()


def test_weights_are_shared_and_the_model_is_not_changed(tiny_checkpoint, adapter, chats):
    model = mi.load(tiny_checkpoint("qwen2"))
    base = {tensor.data_ptr() for _, tensor in model.backend.parameters()}
    before, identity = mi.score(model, chats, CLEAN), model.identity
    on_top = model.with_adapter(adapter())
    mi.score(on_top, chats, CLEAN)
    adapted = [(name, t) for name, t in on_top.backend.parameters() if t.data_ptr() not in base]
    assert sum("lora_" in name for name, _ in adapted) == 2 * 3 * model.n_layers
    # TransformerLens 3 gives every unembedding a bias of zeros.
    assert {name for name, _ in adapted if "lora_" not in name} <= {"lm_head._original_component.bias"}
    assert len(base - {tensor.data_ptr() for _, tensor in on_top.backend.parameters()}) <= 1
    blocks = {tensor.data_ptr() for tensor in on_top.blocks.model.parameters()}
    assert blocks <= {tensor.data_ptr() for _, tensor in on_top.backend.parameters()}
    pd.testing.assert_frame_equal(mi.score(model, chats, CLEAN), before)
    assert mi.load(tiny_checkpoint("qwen2")).identity == identity == model.identity


def test_identity_tells_adapters_and_bases_apart(tiny_model, adapter, tiny_checkpoint):
    model = tiny_model("qwen2")
    scored = {
        model.identity,
        model.with_adapter(adapter()).identity,
        model.with_adapter(adapter(seed=1)).identity,
        model.with_adapter(adapter(lora_alpha=32)).identity,  # the same weights, scaled differently
        tiny_model("qwen2", seed=1).with_adapter(adapter()).identity,
    }
    assert len(scored) == 5
    assert mi.load(tiny_checkpoint("qwen2")).with_adapter(adapter()).identity in scored


def test_arguments_load_the_same_again(tiny_model, adapter):
    on_top = tiny_model("qwen2").with_adapter(adapter())
    again = on_top.arguments.load()
    assert again.identity == on_top.identity
    assert again.name == on_top.name == str(adapter())
    assert on_top.tokenizer is tiny_model("qwen2").tokenizer


def test_bfloat16(tiny_checkpoint, adapter):
    model = mi.load(tiny_checkpoint("qwen2"), dtype="bfloat16")
    on_top, merged = model.with_adapter(adapter()), mi.load(tiny_checkpoint("qwen2"), adapter=adapter())
    assert on_top.backend.dtype == torch.bfloat16
    base = {tensor.data_ptr() for _, tensor in model.backend.parameters()}
    assert len(base - {tensor.data_ptr() for _, tensor in on_top.backend.parameters()}) <= 1
    tokens = some_tokens(model)
    spread = merged.logits(tokens).std()
    assert (on_top.logits(tokens).float() - merged.logits(tokens)).abs().max() < 0.1 * spread


def test_what_cannot_run_on_top_is_refused(tiny_model, adapter, tmp_path):
    model = tiny_model("qwen2")
    with pytest.raises(UsageError, match="bridge"):
        tiny_model("qwen2", "hooked").with_adapter(adapter())
    with pytest.raises(UsageError, match="second adapter"):
        model.with_adapter(adapter()).with_adapter(adapter(seed=1))
    with pytest.raises(ModelValidationError, match="nothing"):
        model.with_adapter(tmp_path / "nothing")
    with pytest.raises(ModelValidationError, match="unembedding"):
        model.with_adapter(adapter(target_modules=["lm_head"]))
    for architecture, joint in (("gpt_neox", "query_key_value"), ("gpt2", "c_attn")):  # the bridge splits them
        with pytest.raises(ModelValidationError, match="qkv"):
            tiny_model(architecture).with_adapter(adapter(architecture, target_modules=[joint]))


def test_an_adapter_of_another_model_is_refused(tiny_model, adapter, tmp_path):
    with pytest.raises(ModelValidationError, match="does not load"):
        tiny_model("gpt2").with_adapter(adapter())
    partial = tmp_path / "partial"
    partial.mkdir()
    config = json.loads((adapter() / "adapter_config.json").read_text())
    config["target_modules"] = ["q_proj", "v_proj", "down_proj", "k_proj"]  # weights for the last one are missing
    (partial / "adapter_config.json").write_text(json.dumps(config))
    (partial / "adapter_model.safetensors").write_bytes((adapter() / "adapter_model.safetensors").read_bytes())
    with pytest.raises(ModelValidationError, match="missing adapter keys"):
        tiny_model("qwen2").with_adapter(partial)
