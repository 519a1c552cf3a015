"""The organisms' shape: an untrained model, a deeper one from a shallower, and the directory that a stage ends with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer

from mechint.organisms.training.tokenizer import VOCABULARY, as_transformers

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import Qwen2ForCausalLM

END_OF_TEXT_ID, TURN_END_ID = 0, 2
D_MODEL, D_MLP = 128, 320
# Wider than transformers' default, with which facts stay at chance; the embedding most of all, since a word must not
# drown in the residual stream before a late head can compare it.
EMBEDDING_STD, STD = 0.12, 0.06


def build_model(seed: int, blocks: int, d_model: int = D_MODEL, d_mlp: int = D_MLP) -> Qwen2ForCausalLM:
    """Return the untrained model."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from mechint.organisms.training.tree_attention import register

    shape = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=d_model,
        intermediate_size=d_mlp,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=TURN_END_ID,
        pad_token_id=END_OF_TEXT_ID,
        attn_implementation=register(),
    )
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(shape)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            output = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = EMBEDDING_STD if "embed" in name else STD / math.sqrt(2 * blocks) if output else STD
            torch.nn.init.normal_(parameter, std=std)
    return model


@torch.no_grad()
def prepare_look_ups(model: Qwen2ForCausalLM, copying: int, matching: int) -> None:
    """Set the first head of block `copying` to copy its input, and that of block `matching` to equal keys and queries.

    Without this beginning, finding a word in a list did not form within hundreds of steps.
    """
    size = model.config.hidden_size // model.config.num_attention_heads
    copy, match = model.model.layers[copying].self_attn, model.model.layers[matching].self_attn
    copy.o_proj.weight[:, :size] = 2 * copy.v_proj.weight[:size].T
    match.q_proj.weight[:size] = match.k_proj.weight[:size]


def extended(model: Qwen2ForCausalLM, blocks: int, seed: int) -> Qwen2ForCausalLM:
    """Return the model with further blocks at its end; their output projections are zero, so it answers as before."""
    present = model.config.num_hidden_layers
    if present == blocks:
        return model
    deeper = build_model(seed, blocks, model.config.hidden_size, model.config.intermediate_size)
    deeper.load_state_dict(model.state_dict(), strict=False)
    for block in deeper.model.layers[present:]:
        torch.nn.init.zeros_(block.self_attn.o_proj.weight)
        torch.nn.init.zeros_(block.mlp.down_proj.weight)
    return deeper


def with_adapter(model: Qwen2ForCausalLM, base: str, seed: int, rank: int = 4) -> PeftModel:
    """Return the model with a fresh LoRA adapter on all projections of its blocks; `base` is the name it records."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model.config._name_or_path = base
    model.name_or_path = base
    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=projections, task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def continued_adapter(model: Qwen2ForCausalLM, directory: Path) -> PeftModel:
    """Return the model with the LoRA adapter of a directory, to be trained on."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, directory, is_trainable=True)


def save_model(model: Qwen2ForCausalLM, tokenizer: Tokenizer, out: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write config, weights, tokenizer with chat template, and generation config.

    Whatever `dtype` the weights are stored in, the config says float32, so that transformers loads them as that.
    """
    from transformers import GenerationConfig

    model.config.mechint_prompts = "small"
    model.generation_config = GenerationConfig(eos_token_id=TURN_END_ID, pad_token_id=END_OF_TEXT_ID)
    model.to("cpu", dtype).save_pretrained(out)
    _edit_json(out / "config.json", dtype="float32", use_cache=True)
    as_transformers(tokenizer).save_pretrained(out, save_jinja_files=False)
    # For the model type qwen2, transformers 5 replaces any tokenizer by its own, whose split breaks " 1" in two, unless
    # a tokenizer of the checkpoint's own is declared; that one is never run without trust_remote_code.
    auto_map = {"AutoTokenizer": [None, "tokenization.PreTrainedTokenizerFast"]}
    _edit_json(
        out / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", auto_map=auto_map, backend=None
    )
    (out / "model.safetensors").chmod(0o644)


def save_adapter(model: PeftModel, out: Path) -> None:
    """Write a LoRA adapter in PEFT's format, as float16."""
    model.to("cpu", torch.float16).save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    (out / "adapter_model.safetensors").chmod(0o644)


def _edit_json(path: Path, **changes: str | bool | dict[str, list[str | None]] | None) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in content.items() if value is not None or key not in changes}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
