"""A merged adapter computes what PEFT computes with it on top, whatever it changes; what cannot be merged says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import reference
import torch
from conftest import Load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mechint as mi
from mechint.base.errors import MechintError, ModelValidationError

Make = Callable[..., Path]
# Embeddings of gemma3 (scaled) and gpt2 are tied to the unembedding, those of qwen2 are not.
CASES: list[tuple[str, dict[str, object]]] = [
    ("gemma3", {"target_modules": ["lm_head"]}),
    ("gemma3", {"target_modules": ["embed_tokens"]}),
    ("gemma3", {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    ("gemma3", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    ("gemma3", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    ("gemma3", {"target_modules": "all-linear", "use_dora": True}),
    ("gpt2", {"target_modules": ["lm_head", "wte", "c_attn"]}),
    ("gpt2", {"target_modules": ["wte"]}),
    ("qwen2", {"target_modules": ["lm_head", "embed_tokens"], "use_rslora": True}),
    ("qwen2", {"target_modules": r".*layers\.[13]\..*(up|down)_proj", "bias": "all"}),
    ("qwen2", {"target_modules": ["v_proj"], "rank_pattern": {"v_proj": 3}, "alpha_pattern": {"v_proj": 31}}),
    ("qwen2", {"target_modules": ["q_proj"], "trainable_token_indices": [3, 5]}),
]


@pytest.fixture(scope="module")
def trained(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A factory of random adapters, of which every number that PEFT trains was changed."""
    folder = tmp_path_factory.mktemp("trained")

    def make(architecture: str, options: dict[str, object]) -> Path:
        from peft import LoraConfig, get_peft_model

        path = folder / f"{architecture}-{abs(hash(str(sorted(options.items()))))}"
        if not path.exists():
            torch.manual_seed(1)
            config = LoraConfig(r=4, init_lora_weights=False, fan_in_fan_out=architecture == "gpt2", **options)
            lora = get_peft_model(reference.load(tiny_checkpoint(architecture)), config)
            for weight in lora.parameters():
                if weight.requires_grad:
                    weight.data += 0.1 * torch.randn_like(weight)
            lora.save_pretrained(path)
        return path

    return make


@pytest.mark.filterwarnings("ignore")  # PEFT's own, about tied weights that it is to merge
@pytest.mark.parametrize(("architecture", "options"), CASES, ids=str)
def test_merged_equals_peft(
    architecture: str, options: dict[str, object], trained: Make, tiny_checkpoint: Callable[..., Path]
) -> None:
    from peft import PeftModel

    base, path = tiny_checkpoint(architecture), trained(architecture, options)
    tokens = torch.randint(3, 300, (2, 20), generator=torch.Generator().manual_seed(2))
    plain = reference.load(base)
    without = plain(tokens).logits
    expected = PeftModel.from_pretrained(plain, path).eval()(tokens).logits.detach()
    logits = mi.load(base, adapter=path).logits(tokens)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)
    assert (expected - without).abs().max() > 1e-2


@pytest.mark.filterwarnings("ignore")
def test_a_merged_model_of_either_backend_has_its_own_unembedding(
    trained: Make, tiny_checkpoint: Callable[..., Path]
) -> None:
    path = trained("gemma3", {"target_modules": ["lm_head"]})
    bridge = mi.load(tiny_checkpoint("gemma3"), "bridge", adapter=path)
    hooked = mi.load(tiny_checkpoint("gemma3"), "hooked", adapter=path)
    tokens = torch.tensor([[3, 4, 5, 6, 7]])
    torch.testing.assert_close(hooked.logits(tokens), bridge.logits(tokens), atol=1e-4, rtol=0)
    embedding = bridge.backend.hf_model.get_input_embeddings().weight
    assert torch.equal(embedding, reference.load(tiny_checkpoint("gemma3")).get_input_embeddings().weight)
    assert not torch.equal(bridge.readout.weight, embedding)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{"bias": "all"}, {"modules_to_save": ["embed_tokens"]}], ids=str)
def test_what_replaces_whole_weights_is_never_put_on_those_of_another_model(
    options: dict[str, object], trained: Make, tiny_model: Load
) -> None:
    model, path = tiny_model("qwen2"), trained("qwen2", {"target_modules": ["q_proj"], **options})
    before = model.identity
    with pytest.raises(ModelValidationError, match=r"replaces whole weights.*\n.*\n.*merge it"):
        model.with_adapter(path)
    assert model.identity == before


def test_kinds_that_are_no_weights_say_so(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    from peft import IA3Config, PrefixTuningConfig, PromptTuningConfig, get_peft_model

    for config in (PrefixTuningConfig, PromptTuningConfig):
        base = reference.load(tiny_checkpoint("qwen2"))
        prompted = get_peft_model(base, config(task_type="CAUSAL_LM", num_virtual_tokens=3))
        prompted.save_pretrained(tmp_path / config.__name__)
        with pytest.raises(ModelValidationError, match="trained positions before the text"):
            mi.load(tiny_checkpoint("qwen2"), adapter=tmp_path / config.__name__)
    targets = {"target_modules": ["v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    scaled = get_peft_model(reference.load(tiny_checkpoint("qwen2")), IA3Config(init_ia3_weights=False, **targets))
    scaled.save_pretrained(tmp_path / "ia3")
    tokens = torch.tensor([[3, 4, 5, 6, 7]])
    logits = mi.load(tiny_checkpoint("qwen2"), adapter=tmp_path / "ia3").logits(tokens)
    torch.testing.assert_close(logits, scaled.eval()(tokens).logits, atol=1e-4, rtol=0)


def test_an_adapter_that_was_trained_with_more_tokens_brings_them(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint("qwen2"))
    base = reference.load(tiny_checkpoint("qwen2"))
    tokenizer.add_tokens([f"<extra-{n}>" for n in range(9)])
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    lora = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    lora.save_pretrained(tmp_path, save_embedding_layers=True)
    tokenizer.save_pretrained(tmp_path)
    model = mi.load(tiny_checkpoint("qwen2"), adapter=tmp_path)
    tokens = torch.tensor([[3, 4, len(tokenizer) - 1]])
    torch.testing.assert_close(model.logits(tokens), lora.eval()(tokens).logits, atol=1e-4, rtol=0)
    assert model.tokenizer("a<extra-8>", add_special_tokens=False)["input_ids"][-1] == len(tokenizer) - 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_adapter_is_one_message_or_the_same_model(
    data: st.DataObject, trained: Make, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    from mechint.models.merging import merged

    folder = shutil.copytree(trained("qwen2", {"target_modules": ["q_proj"]}), tmp_path / "damaged", dirs_exist_ok=True)
    path = folder / data.draw(st.sampled_from(["adapter_config.json", "adapter_model.safetensors"]))
    content = path.read_bytes()
    if path.suffix == ".json" and data.draw(st.booleans()):
        fields = json.loads(content)
        name = data.draw(st.sampled_from(sorted(fields)))
        fields[name] = data.draw(st.sampled_from([None, 0, -1, "x", [], {}, [[]], 1e300, True]))
        path.write_text(json.dumps(fields))
    elif data.draw(st.booleans()):
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    else:
        place = data.draw(st.integers(0, min(len(content), 2000) - 1))
        flipped = content[place] ^ (1 << data.draw(st.integers(0, 7)))
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
    with suppress(MechintError):
        merged(reference.load(tiny_checkpoint("qwen2")), str(folder))
