"""Random tiny checkpoints of several architectures and chat templates of several styles; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + "
    "m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' + "
    "m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + (system + '\\n\\n' if system is defined and loop.last else '') + m['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL}

SPECIALS = (
    "<pad>",
    "<s>",
    "</s>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
)
CORPUS = [
    "The answer is yes. The answer is no. Yes or no? yes no Yes No 0 1",
    "Tell me about cats. Tell me about bread. I notice a thought about the sea, or nothing at all.",
    "user assistant system model: do you detect an injected thought? Answer with yes or no.",
] * 20
ARCHITECTURES = ("qwen2", "llama", "mistral", "gemma2", "gemma3", "gpt2", "gpt_neox")
TEMPLATE_OF = {"qwen2": "chatml", "llama": "llama3", "mistral": "mistral", "gemma2": "gemma", "gemma3": "gemma"}


def tokenizer(template: str = "chatml") -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which ' yes', ' no', 'Yes', ... are single tokens and ' maybe' is several."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\p{N}|\s+|[^\s\p{L}\p{N}]+"), "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=TEMPLATES[template]
    )


def hf_model(architecture: str, vocab_size: int, n_layers: int = 4, seed: int = 0) -> PreTrainedModel:
    """A random Hugging Face model with weights large enough that layers and positions matter."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    shape = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "initializer_range": 0.15,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    grouped = {"num_key_value_heads": 2}
    gemma = {**grouped, "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 12}
    special: dict[str, dict[str, object]] = {
        "qwen2": grouped,
        "llama": grouped,
        "mistral": {**grouped, "sliding_window": None},
        "gemma2": gemma,
        "gemma3_text": {**gemma, "sliding_window_pattern": 2},
        "gpt2": {"n_embd": 32, "n_layer": n_layers, "n_head": 4, "n_positions": 512},
        "gpt_neox": {"rotary_pct": 0.5},
    }
    key = {"gemma3": "gemma3_text"}.get(architecture, architecture)
    config = CONFIG_MAPPING[key](**{**shape, **special.get(key, {})})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for name, parameter in model.named_parameters():  # biases and norms are trivial at initialisation
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name or "ln_" in name else 0.0, 0.1)
    return model.eval()


def checkpoint(
    directory: Path, architecture: str, template: str | None = None, seed: int = 0, n_layers: int = 4
) -> Path:
    """Write a random checkpoint with its tokenizer and return its directory."""
    tok = tokenizer(template or TEMPLATE_OF.get(architecture, "chatml"))
    path = directory / f"{architecture}-{template or 'own'}-{seed}-{n_layers}"
    if not path.exists():
        hf_model(architecture, len(tok) + 3, n_layers, seed).save_pretrained(path)
        tok.save_pretrained(path)
    return path
