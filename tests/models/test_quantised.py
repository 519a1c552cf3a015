"""Quantised checkpoints: read as ordinary weights where transformers can, refused with the way out where it cannot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

import mechint as mi
from mechint.base.errors import ModelValidationError
from mechint.models.backends import bridge
from mechint.models.loading import load_hf
from mechint.models.model_names import resolve

# What published checkpoints write into config.json; none of these libraries is installed with the toolkit.
KINDS = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "hqq": {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int"}}},
    },
    "by a method that it does not name": {"bits": 4},
}


@pytest.fixture
def with_settings(tiny_checkpoint, tmp_path: Path):
    """A copy of a checkpoint whose configuration says that it is quantised."""

    def make(settings: dict[str, object]) -> Path:
        path = Path(shutil.copytree(tiny_checkpoint("qwen2"), tmp_path / "quantised"))
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
        return path

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_that_needs_another_library_says_how_it_is_quantised_and_what_to_do(kind, with_settings):
    with pytest.raises(ModelValidationError, match=rf"Qwen2ForCausalLM .*quantised \({kind}\)") as refused:
        mi.load(with_settings(KINDS[kind]))
    assert "dequantize()" in str(refused.value)


def test_fp8_is_read_as_the_numbers_that_it_stands_for(with_settings):
    path = with_settings({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]})
    weights = load_file(path / "model.safetensors")
    truth, packed = dict(weights), dict(weights)
    for name, weight in weights.items():
        if name.endswith("_proj.weight"):
            scale = weight.abs().max() / 448
            packed[name] = (weight / scale).to(torch.float8_e4m3fn)
            packed[f"{name}_scale_inv"] = scale.reshape(1, 1)
            truth[name] = packed[name].float() * scale
    save_file(packed, path / "model.safetensors", {"format": "pt"})
    model = mi.load(path)
    tokens = torch.randint(3, model.backend.d_vocab, (1, 30), generator=torch.Generator().manual_seed(0))
    expected = AutoModelForCausalLM.from_config(model.blocks.model.config, attn_implementation="eager").eval()
    expected.load_state_dict(truth, strict=False)
    expected.tie_weights()
    with torch.no_grad():
        logits = expected(tokens).logits
    assert (model.logits(tokens) - logits).abs().max() < 1e-4
    assert any((truth[name] - weights[name]).abs().max() > 1e-3 for name in weights), "rounding that would be seen"


class Packed(nn.Linear):
    """A linear map as bitsandbytes has it: two weights of four bits in each byte of its parameter."""

    def __init__(self, of: nn.Linear) -> None:
        super().__init__(of.in_features, of.out_features, bias=of.bias is not None)
        self.weight = nn.Parameter(torch.zeros(of.weight.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)


class Grouped(nn.Module):
    """A linear map as GPTQ has it: integers in a buffer, no weight."""

    def __init__(self, of: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("qweight", torch.zeros(of.in_features // 8, of.out_features, dtype=torch.int32))


@pytest.mark.parametrize(("kind", "held"), [(Packed, "uint8"), (Grouped, "int32")])
def test_packed_weights_are_refused_before_anything_is_computed_with_them(kind, held, tiny_checkpoint):
    path = tiny_checkpoint("qwen2")
    model = load_hf(resolve(path), torch.float32, torch.device("cpu"))
    attention = model.get_decoder().layers[1].self_attn
    attention.o_proj = kind(attention.o_proj)
    with pytest.raises(ModelValidationError, match=f"Qwen2ForCausalLM .*quantised.* hold {held}") as refused:
        bridge.boot(model, AutoTokenizer.from_pretrained(path), str(path))
    assert "dequantize()" in str(refused.value)
