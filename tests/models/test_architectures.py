"""Other architectures than those of the common tests: exact beside plain Hugging Face, or refused with their reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor

import mechint as mi
from benchmarks import exactness, plain, tiny_models
from mechint.base.errors import MechintError, ModelValidationError
from mechint.models.backends import bridge, reasons, versions, wrappers


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory):
    """A factory of tiny checkpoints by transformers' name of the architecture, with settings of their own."""
    folder = tmp_path_factory.mktemp("architectures")

    def make(model_type: str, **special: object) -> Path:
        path = folder / "-".join([model_type, *sorted(special)])
        if not path.exists():
            tiny_models.write_checkpoint(path, tiny_models.tiny_model(tiny_models.tiny_config(model_type, special)))
        return path

    return make


def plain_model(path: Path) -> plain.Plain:
    from transformers import AutoConfig

    kind = wrappers.auto_class(AutoConfig.from_pretrained(path))
    return plain.Plain(kind.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval())


# Sinks and no fused attention; local attention without scaling; biases of distance; a wrapper that sees.
@pytest.mark.parametrize("model_type", ["gpt_oss", "gpt_neo", "gptj", "bloom", "mistral3"])
def test_scores_lens_and_caches_are_those_of_plain_hugging_face(model_type, checkpoint_of):
    path = checkpoint_of(model_type)
    subject = exactness.Subject(mi.load(path), plain_model(path))
    assert max(exactness.differences(subject).values()) < 1e-4
    steered = subject.truth["short", "steer"][-1]
    clean = subject.truth["short", "clean"][-1]
    assert (steered - clean).abs().max() > 0.01, "an injection that does nothing would be right for no reason"


def test_attention_sinks_matter_and_are_kept(checkpoint_of):
    """Without sinks the same weights say something else, so a kernel that leaves them out would be seen."""
    path = checkpoint_of("gpt_oss")
    model, tokens = mi.load(path), torch.tensor([[5, 6, 7, 8]])
    assert model.blocks.model.config._attn_implementation == "eager"
    other = plain_model(path).model
    for name, weight in other.named_parameters():
        if name.endswith("sinks"):
            weight.data.fill_(-1e4)
    with torch.no_grad():
        assert (other(tokens).logits - model.logits(tokens)).abs().max() > 0.01


def test_the_text_model_of_a_wrapper_is_made_of_its_own_weights(checkpoint_of):
    path = checkpoint_of("mistral3")
    model = mi.load(path)
    names = [name for name, _ in model.backend.parameters()]
    assert type(model.backend.hf_model).__name__ in ("MistralForCausalLM", "Ministral3ForCausalLM")
    assert not any("vision" in name for name in names), "nothing of what sees is kept"


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("mamba", "recurrent or a hybrid"),
        ("rwkv", "recurrent or a hybrid"),
        ("lfm2", "recurrent or a hybrid: layers of kind conv"),
        ("qwen3_next", "recurrent or a hybrid: layers of kind linear_attention"),
        ("granitemoehybrid", "recurrent or a hybrid"),
        ("bert", "an encoder"),
        ("bart", "an encoder-decoder"),
        ("gemma3n_text", "no keys and values of their own"),
        ("diffllama", "TransformerLens .* has no adapter"),
        ("openai-gpt", "without ln_final"),
    ],
)
def test_what_cannot_be_used_says_why(model_type, reason, checkpoint_of):
    with pytest.raises(ModelValidationError, match=reason):
        mi.load(checkpoint_of(model_type))


def test_a_bridge_in_compatibility_mode_is_told_as_that(tiny_checkpoint):
    model = mi.load(tiny_checkpoint("gpt2", seed=11))
    handle = model.backend.handle
    handle.enable_compatibility_mode()
    with pytest.raises(ModelValidationError, match="compatibility mode"):
        mi.wrap(handle, tokenizer=model.tokenizer)


@pytest.mark.parametrize("error", [IndexError("list index out of range"), RuntimeError("x\ny"), AssertionError()])
@pytest.mark.parametrize("place", ["boot", "make_twin", "forward"])
def test_whatever_goes_wrong_while_a_model_is_set_up_is_one_message(place, error, tiny_checkpoint, monkeypatch):
    from transformer_lens.model_bridge import TransformerBridge

    def fail(*_: object, **__: object) -> None:
        raise error

    target = {"boot": (TransformerBridge, "boot_transformers"), "make_twin": (bridge, "make_twin")}
    monkeypatch.setattr(*target.get(place, (bridge.BridgeBackend, "logits")), fail)
    with pytest.raises(ModelValidationError, match=type(error).__name__) as refused:
        mi.load(tiny_checkpoint("qwen2"))
    assert "transformers" in str(refused.value)


def test_memory_that_runs_out_is_not_told_as_the_architecture():
    with pytest.raises(torch.OutOfMemoryError), reasons.refused("X", "it fails"):
        raise torch.OutOfMemoryError("no memory")
    with pytest.raises(MechintError, match="own words"), reasons.refused("X", "it fails"):
        raise MechintError("own words", "y", "z")


@pytest.mark.filterwarnings("ignore:Hook alias:UserWarning")
def test_no_model_lets_a_library_install_packages(checkpoint_of, monkeypatch):
    """TransformerLens runs pip where a processor of images cannot be loaded; conversations of text need none."""
    import transformers

    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a package would be installed"))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    path = checkpoint_of("llava")
    handle = bridge.boot(plain_model(path).model, mi.load(path).tokenizer, str(path))
    assert handle.adapter.cfg.is_multimodal, "a model for which it would do that"
    assert transformers.AutoProcessor is AutoProcessor


def test_the_model_of_a_wrapper_that_exists_only_inside_it_is_an_ordinary_one_for_text(checkpoint_of):
    """Positions of three axes (Qwen-VL) are the ordinary ones where there are no pictures."""
    path = checkpoint_of("qwen3_vl")
    model, tokens = mi.load(path), torch.randint(3, 2000, (1, 60), generator=torch.Generator().manual_seed(0))
    assert type(model.backend.hf_model).__name__ == "Qwen3ForCausalLM"
    with torch.no_grad():
        expected = plain_model(path).model(tokens).logits
    assert (model.logits(tokens) - expected).abs().max() < 1e-4


def test_a_text_model_that_says_something_else_is_not_taken(checkpoint_of, monkeypatch):
    wrapper = plain_model(checkpoint_of("mistral3")).model
    assert wrappers.text_model(wrapper) is not wrapper
    monkeypatch.setattr(wrappers, "_say_the_same", lambda *_: False)
    assert wrappers.text_model(wrapper) is wrapper


@pytest.mark.parametrize(
    ("model_type", "architectures", "reason"),
    [
        ("t5", ["T5ForConditionalGeneration"], "T5ForConditionalGeneration .* an encoder-decoder"),
        ("vit", [], "no causal language model of it"),
    ],
)
def test_what_is_no_language_model_says_so_before_weights_are_read(
    model_type, architectures, reason, checkpoint_of, tmp_path
):
    import json
    import shutil

    path = Path(shutil.copytree(checkpoint_of("llama"), tmp_path / model_type))
    (path / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": architectures}))
    with pytest.raises(ModelValidationError, match=reason):
        mi.load(path)


@pytest.mark.parametrize(
    ("model_type", "special", "reason"),
    [
        ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 2}, "FalconForCausalLM .*split"),
        pytest.param(
            "cohere",
            {"use_qk_norm": True},
            "CohereForCausalLM .*q_norm",
            marks=pytest.mark.skipif(not versions.has_hooked(), reason="TransformerLens 4 computes Cohere exactly"),
        ),
        # TransformerLens 4 fills a cache for it, and computes something else than transformers does.
        ("falcon", {"alibi": True, "multi_query": False, "num_kv_heads": 4}, "cache holds 0 positions|differ by"),
        ("glm_moe_dsa", {}, "an indexer chooses"),
        ("bamba", {}, "recurrent or a hybrid"),
        ("jamba", {}, "recurrent or a hybrid"),
        ("falcon_h1", {}, "recurrent or a hybrid"),
        ("qwen3_5_text", {}, "recurrent or a hybrid"),
    ],
)
def test_models_that_used_to_end_in_a_traceback_say_why(model_type, special, reason, checkpoint_of):
    with pytest.raises(ModelValidationError, match=reason) as refused:
        mi.load(checkpoint_of(model_type, **special))
    assert refused.value.advice


def test_whatever_transformers_makes_of_a_configuration_is_one_message(checkpoint_of, monkeypatch):
    from transformers import AutoModelForCausalLM

    path = checkpoint_of("llama")

    def fail(*_: object, **__: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'get'")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(ModelValidationError, match="its weights cannot be loaded: 'NoneType'"):
        mi.load(path)


def test_a_language_model_that_cannot_be_run_alone_says_so(checkpoint_of):
    with pytest.raises(ModelValidationError, match=r"Gemma4Unified\w+ .*cannot be run alone: ValueError"):
        mi.load(checkpoint_of("gemma4_unified_assistant"))
