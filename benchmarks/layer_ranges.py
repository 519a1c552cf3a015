"""All layer ranges i:j of one vector on six prompts: work in blocks and time, naive against the engine.

The naive loop shares nothing: every range runs its first turns and its question through all blocks. The first turns are
steered from their first token on, so that no two ranges share a prefix: what is saved is saved by sharing layers.
"""

from __future__ import annotations

import random
from pathlib import Path

import mechint as mi
from benchmarks.common import Naive, Shape, Timer, checkpoint, command, plain_model, random_vectors
from mechint.base.files import JSON
from mechint.chat.render import render_all
from mechint.prompts.design import PromptDesign
from mechint.prompts.sets import introspection

DEEP = Shape(d_model=192, n_layers=16, d_mlp=512, n_heads=6, n_key_value_heads=2)
N_PROMPTS = 6


def measure(folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return blocks and seconds of the engine and of the naive loop, timed on `sample` cells and scaled."""
    path = checkpoint(folder, DEEP)
    model = mi.load(path)
    (vector,) = random_vectors(DEEP.d_model, range(DEEP.n_layers), 1)
    ranges = [range(i, j) for i in range(DEEP.n_layers) for j in range(i + 1, DEEP.n_layers)]
    whole = mi.ConceptVector(vector, "v", DEEP.n_layers)
    steers = [mi.Injection(whole, layers, strength=1.0, name=f"{layers[0]}:{layers[-1] + 1}") for layers in ranges]
    chats = introspection(PromptDesign.load("full"), infos=["none", "introspection"], formats=["yes-no"])[:N_PROMPTS]
    cost = mi.explain(model, chats, [mi.CLEAN, *steers])
    naive, rendered = Naive(plain_model(path)), render_all(model.tokenizer, chats)
    pairs = random.Random(0).sample([(c, r) for c in range(len(chats)) for r in range(len(ranges))], sample)
    naive.cell(rendered[0], {})  # the first call is slower
    with Timer() as engine:
        table = mi.score(model, chats, [mi.CLEAN, *steers])
    with Timer() as alone:
        for c, r in pairs:
            naive.cell(rendered[c], {layer: vector[layer] for layer in ranges[r]})
    naive_seconds = alone.seconds * cost.alone_tokens / sum(len(rendered[c].tokens) for c, _ in pairs)
    result: dict[str, JSON] = {
        "layers": DEEP.n_layers,
        "ranges": len(ranges),
        "prompts": len(chats),
        "cells": len(table),
        "naive_blocks": cost.alone_blocks,
        "engine_blocks": cost.blocks,
        "naive_seconds": naive_seconds,
        "engine_seconds": engine.seconds,
    }
    blocks, seconds = cost.blocks / cost.alone_blocks, engine.seconds / naive_seconds
    summary = f"{blocks:.3f} of naive blocks, {seconds:.3f} of naive time"
    return result, summary


if __name__ == "__main__":
    command("layer_ranges", __doc__, measure, sample=60, sampled="cells for the naive loop")
