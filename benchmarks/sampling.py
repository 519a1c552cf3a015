"""A sweep of sampled replies, steered while they are said: the naive loop against the engine, on two models.

One prompt, vectors x layers x strengths with samples of each, and clean controls, as trials of introspection are
published: the first token drawn clean, a vector added at each later step, temperature 1. The naive loop does one trial
after another with plain Hugging Face: it reads the prompt again, then a token per pass with its cache, a hook on one
block. It is timed on a random sample of the engine's trials, with as many tokens as these have, and scaled to all of
them: prompts by their number, replies by their tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import mechint as mi
from benchmarks.common import SMALL, Timer, checkpoint, command, plain_model, random_vectors
from mechint.base.files import JSON
from mechint.chat.conversations import Conversation
from mechint.chat.render import render
from mechint.prompts.design import PromptDesign
from mechint.prompts.sets import introspection

if TYPE_CHECKING:
    from transformers import PreTrainedModel

N_VECTORS, N_SAMPLES, STRENGTHS = 3, 8, (0.2, 0.4)
MAX_NEW_TOKENS = 100


@dataclass(frozen=True)
class Loop:
    """The naive way: a trial at a time, its prompt read anew, then token by token under a hook."""

    model: PreTrainedModel
    prompt: Timer
    reply: Timer

    def trial(self, tokens: torch.Tensor, layer: int, vector: torch.Tensor, n_tokens: int) -> list[int]:
        """Return a reply of `n_tokens` tokens; nothing but the time is used of it."""
        from transformers import DynamicCache

        cache, said = DynamicCache(), list[int]()
        with torch.no_grad():
            with self.prompt:
                out = self.model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
                said.append(_drawn(out.logits[0, -1]))
            handle = self.model.model.layers[layer].register_forward_hook(lambda _module, _args, out: out + vector)
            with self.reply:
                while len(said) < n_tokens:
                    out = self.model(torch.tensor([[said[-1]]]), past_key_values=cache, use_cache=True)
                    said.append(_drawn(out.logits[0, -1]))
            handle.remove()
        return said


def _drawn(logits: torch.Tensor) -> int:
    return int(torch.multinomial(logits.float().softmax(-1), 1))


def sweep(model: mi.Model) -> tuple[Conversation, list[mi.Injection]]:
    """Return a prompt of a trial and the steered cells."""
    (chat,) = introspection(PromptDesign.load("full"), ["injection"], ["none"], ["yes-no"])
    third = model.n_layers // 3
    layers = (third, model.n_layers // 2, 2 * third)
    vectors = random_vectors(model.d_model, layers, N_VECTORS)
    return chat, [
        mi.Injection(
            mi.ConceptVector(vector, f"v{number}", model.n_layers),
            layers=[layer],
            relative_strength=strength,
            name=f"v{number} L{layer} x{strength:g}",
        )
        for number, vector in enumerate(vectors)
        for layer in layers
        for strength in STRENGTHS
    ]


def compared(model: mi.Model, plain: PreTrainedModel, sample: int, seed: int = 0) -> dict[str, JSON]:
    """Return seconds and tokens of the engine, and of the naive loop, timed on a sample of its trials."""
    chat, steers = sweep(model)
    trials = mi.ReplyRequest(
        chat, steers, n=N_SAMPLES, temperature=1.0, max_new_tokens=MAX_NEW_TOKENS, seed=seed, steer="reply"
    )
    requests = [trials, replace(trials, interventions=mi.CLEAN, n=N_SAMPLES * len(steers) // 2)]
    cost = mi.explain(model, requests)
    mi.generate(model, chat, steers[0], n=2, temperature=1.0, max_new_tokens=4, steer="reply")  # first calls are slow
    with Timer() as engine:
        table = mi.replies(model, requests)
    loop, tokens = Loop(plain, Timer(), Timer()), render(model, chat).token_tensor()
    loop.trial(tokens, 0, torch.zeros(model.d_model), 4)
    timed = Loop(plain, Timer(), Timer())
    chosen = table.sample(min(sample, len(table)), random_state=seed)
    n_said = 0
    for name, n_tokens in zip(chosen["intervention"], chosen["n_tokens"], strict=True):
        steer = next((item for item in steers if item.name == name), None)
        n_said += len(_naive(timed, tokens, model, steer, int(n_tokens)))
    # A reply's last token is not read.
    said, of_sample = int((table["n_tokens"] - 1).sum()), n_said - len(chosen)
    prompts, replies = timed.prompt.seconds * len(table) / len(chosen), timed.reply.seconds * said / of_sample
    return {
        "parameters": sum(weight.numel() for _, weight in model.backend.parameters()),
        "prompt_tokens": tokens.shape[1],
        "trials": len(table),
        "cells": len(steers) + 1,
        "prefills": len(table.attrs["prefills"]),
        "reply_tokens": said,
        "stopped": {kind: int(count) for kind, count in table["stopped"].value_counts().items()},
        "foretold_bytes": cost.peak_bytes,
        "naive_prompt_seconds": prompts,
        "naive_reply_seconds": replies,
        "naive_seconds": prompts + replies,
        "engine_seconds": engine.seconds,
    }


def _naive(loop: Loop, tokens: torch.Tensor, model: mi.Model, steer: mi.Injection | None, n_tokens: int) -> list[int]:
    """Let the naive loop do one of the engine's trials; a clean one has a hook too, that adds nothing."""
    layer = 0 if steer is None or steer.layers is None else steer.layers[0]
    vector = torch.zeros(model.d_model) if steer is None else steer.amount(layer, model)
    return loop.trial(tokens, layer, vector, n_tokens)


def measure(folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return the comparison on a random model of 7 million parameters and, where it is installed, on smollm2."""
    path = checkpoint(folder, SMALL)
    models: dict[str, JSON] = {"random Qwen2": compared(mi.load(path), plain_model(path), sample)}
    smollm2 = mi.load("smollm2")
    directory = smollm2.save(folder / "smollm2")
    models["smollm2"] = compared(smollm2, plain_model(directory), sample)
    times = {
        name: float(str(result["naive_seconds"])) / float(str(result["engine_seconds"]))
        for name, result in models.items()
        if isinstance(result, dict)
    }
    return {"models": models}, ", ".join(f"{name} {factor:.1f} times the naive loop" for name, factor in times.items())


if __name__ == "__main__":
    command("sampling", __doc__, measure, sample=8, sampled="trials for the naive loop")
