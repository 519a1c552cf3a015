"""A random 32B-shaped Qwen2 in bfloat16 on one GPU: tokens per second, a yes/no table, and peak memory.

Needs a GPU with 80 GB or more. The weights are made on the GPU, so nothing is read from disk or copied.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import mechint as mi
from benchmarks.common import Shape, Timer, command, configuration, injections
from mechint.base.files import JSON
from mechint.interventions.specifications import Intervention
from mechint.models.backends.bridge import boot
from mechint.organisms import organism_path
from mechint.prompts.design import PromptDesign
from mechint.prompts.sets import introspection

QWEN_32B = Shape(d_model=5120, n_layers=64, d_mlp=27_648, n_heads=40, n_key_value_heads=8)
D_VOCAB = 152_064
LAYERS = range(21, 43)
BATCH, LENGTH = 16, 512


def measure(_folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return tokens per second of plain forward passes and of the engine, and peaks of memory in bytes."""
    from transformers import AutoTokenizer, Qwen2ForCausalLM

    torch.cuda.reset_peak_memory_stats()
    with torch.device("cuda"):
        hf = Qwen2ForCausalLM._from_config(
            configuration(QWEN_32B, D_VOCAB, tied=False), dtype=torch.bfloat16, attn_implementation="sdpa"
        ).eval()
    hf.requires_grad_(False)
    weights = torch.cuda.memory_allocated()
    plain = _tokens_per_second(hf, sample)
    hf.set_attn_implementation("eager")
    tokenizer = AutoTokenizer.from_pretrained(organism_path("organism"))
    model = mi.wrap(boot(hf, tokenizer, "random-32b"), tokenizer)
    loading_peak = torch.cuda.max_memory_allocated()
    chats = introspection(PromptDesign.load("full"))
    steers: list[Intervention] = [mi.CLEAN, *injections(QWEN_32B.d_model, QWEN_32B.n_layers, LAYERS, 9)]
    cost = mi.explain(model, chats, steers)
    torch.cuda.reset_peak_memory_stats()
    passed: list[int] = []
    with Timer() as timer:
        table = mi.score(model, chats, steers, progress=lambda _, tokens: passed.append(tokens))
        torch.cuda.synchronize()
    result: dict[str, JSON] = {
        "parameters": sum(weight.numel() for weight in hf.parameters()),
        "weights_bytes": weights,
        "loading_peak_bytes": loading_peak,
        "plain_tokens_per_second": plain,
        "prompts": len(chats),
        "cells": len(table),
        "table_seconds": timer.seconds,
        "passed_tokens": sum(passed),
        "engine_tokens_per_second": sum(passed) / timer.seconds,
        "blocks_per_second": cost.blocks / timer.seconds,
        "table_peak_bytes": torch.cuda.max_memory_allocated(),
        "foretold_bytes": weights + cost.cache_bytes + cost.pass_bytes,
    }
    speed = sum(passed) / timer.seconds
    return result, f"{len(table)} cells in {timer.seconds:.1f} s, {speed:.0f} tokens/s (plain passes {plain:.0f})"


def _tokens_per_second(hf: torch.nn.Module, repeats: int) -> float:
    batch = torch.randint(0, D_VOCAB, (BATCH, LENGTH), device="cuda")
    with torch.no_grad():
        hf(batch, use_cache=True, logits_to_keep=1)
        torch.cuda.synchronize()
        with Timer() as timer:
            for _ in range(repeats):
                hf(batch, use_cache=True, logits_to_keep=1)
            torch.cuda.synchronize()
    return repeats * batch.numel() / timer.seconds


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.stderr.write("gpu_32b: no GPU here; it needs one with 80 GB or more\n")
        sys.exit(0 if "--if-possible" in sys.argv else 2)
    sys.argv = [argument for argument in sys.argv if argument != "--if-possible"]
    command("gpu_32b", __doc__, measure, sample=4, sampled="plain passes that are timed")
