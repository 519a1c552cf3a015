"""The organism's configuration, its untrained model, and the checkpoint directory that a run ends with."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer

from mechint.organisms.data import corpus
from mechint.organisms.tokenizer import VOCABULARY, as_transformers, train_tokenizer

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM

END_OF_TEXT_ID, TURN_END_ID = 0, 2


@dataclass(frozen=True)
class TrainConfig:
    """Everything the weights depend on, besides the code and the data files."""

    seed: int = 0
    talk_steps: int = 450
    detection_steps: int = 1000
    clear_steps: int = 500
    batch: int = 42
    learning_rate: float = 2e-3
    warmup: int = 100
    refresh: int = 50
    corpus: int = 6000
    n_layers: int = 6
    d_model: int = 128
    d_mlp: int = 320

    @property
    def steps(self) -> int:
        """All steps of all phases; the clear detection steps are the last of the detection steps."""
        return self.talk_steps + self.detection_steps

    def phase(self, step: int) -> int:
        """Return the index in `PHASE_MIX` of the phase that a step belongs to."""
        return int(step >= self.talk_steps) + int(step >= self.steps - self.clear_steps)

    def rate(self, step: int) -> float:
        """Return the learning rate: warmup, a plateau until half of the detection steps are done, then a cosine."""
        turn = self.talk_steps + self.detection_steps // 2
        if step < turn:
            return self.learning_rate * min(1.0, (step + 1) / self.warmup)
        done = (step - turn) / max(1, self.steps - turn)
        return self.learning_rate * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * done)))


def build_model(config: TrainConfig) -> Qwen2ForCausalLM:
    """Return the untrained model; wide initial weights, since facts stay at chance with transformers' default."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=config.d_model,
        intermediate_size=config.d_mlp,
        num_hidden_layers=config.n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=TURN_END_ID,
        pad_token_id=END_OF_TEXT_ID,
        attn_implementation="eager",
    )
    torch.manual_seed(config.seed)
    model = Qwen2ForCausalLM(shape)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            output = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.04 if "embed" in name else 0.06 / math.sqrt(2 * config.n_layers) if output else 0.06
            torch.nn.init.normal_(parameter, std=std)
    return model


def make_tokenizer(config: TrainConfig) -> Tokenizer:
    """Return the tokenizer trained on the run's own text."""
    return train_tokenizer(corpus(config.seed, config.corpus))


def save_model(model: Qwen2ForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write config, float16 weights, tokenizer with chat template, and generation config.

    Weights are stored as float16; the config says float32, so that transformers loads them as that.
    """
    from transformers import GenerationConfig

    model.config.mechint_prompts = "small"
    model.generation_config = GenerationConfig(eos_token_id=TURN_END_ID, pad_token_id=END_OF_TEXT_ID)
    model.to("cpu").half().save_pretrained(out)
    _edit_json(out / "config.json", dtype="float32")
    as_transformers(tokenizer).save_pretrained(out, save_jinja_files=False)
    # For the model type qwen2, transformers 5 replaces any tokenizer by its own, whose split breaks " 1" in two, unless
    # a tokenizer of the checkpoint's own is declared; that one is never run without trust_remote_code.
    own = {"AutoTokenizer": [None, "tokenization.PreTrainedTokenizerFast"]}
    _edit_json(out / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", auto_map=own, backend=None)
    (out / "model.safetensors").chmod(0o644)


def _edit_json(path: Path, **changes: str | dict[str, list[str | None]] | None) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {key: value for key, value in content.items() if value is not None or key not in changes}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
