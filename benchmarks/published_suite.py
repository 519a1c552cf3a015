"""The published suite's shape, naive against the engine, and the engine against plain forward passes.

40 yes/no prompts, 1,360 control prompts, 20 lens prompts and 100 ten-way prompts, each under 9 concepts, on a random
checkpoint of 7 million parameters. The naive loop runs one row at a time, clean and injected for every concept, as
published; it is timed on a random sample of cells of each kind and scaled to all of them. With one thread
(`OMP_NUM_THREADS=1`) seconds are CPU time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import mechint as mi
from benchmarks.common import (
    SMALL,
    Naive,
    Timer,
    checkpoint,
    clock_name,
    command,
    fair_clock,
    injections,
    plain_model,
    random_vectors,
)
from mechint.base.files import JSON
from mechint.chat.conversations import Conversation, Message
from mechint.chat.render import Rendered, render_all
from mechint.organisms import concepts
from mechint.prompts.design import PromptDesign
from mechint.prompts.sets import controls, introspection

LAYERS = range(3, 6)
N_CONCEPTS, N_ORDERS = 9, 20
FLOOR_BATCHES, FLOOR_TOKENS = ((1, 512), (2, 512), (4, 256), (8, 512)), 4096


@dataclass(frozen=True)
class Experiment:
    """One of the suite's experiments: its prompts and how they are read."""

    name: str
    conversations: list[Conversation]
    lens: bool = False
    ten_way: bool = False

    def request(self, steers: Sequence[mi.Injection], n_layers: int) -> mi.Request:
        """Return the request to the engine: clean and injected conversations."""
        answers = mi.Answers.options([str(digit) for digit in range(10)]) if self.ten_way else None
        layers = tuple(range(n_layers)) if self.lens else None
        return mi.Request(self.conversations, [mi.CLEAN, *steers], answers, layers)


def suite() -> list[Experiment]:
    """Return the four experiments."""
    design = PromptDesign.load("full")
    chats = introspection(design)
    return [
        Experiment("yes/no", chats),
        Experiment("controls", controls(design)),
        Experiment("lens", [chat for chat in chats if chat.extra["format"] == "yes-no"], lens=True),
        Experiment("ten-way", ten_way(chats), ten_way=True),
    ]


def ten_way(questions: Sequence[Conversation]) -> list[Conversation]:
    """Return 100 questions with numbered options: five setups, each with the options in twenty orders."""
    setups = [chat for chat in questions if (chat.extra["info"], chat.extra["format"]) == ("introspection", "yes-no")]
    chats = []
    for setup in setups:
        for order in range(N_ORDERS):
            options = [*concepts("trained")[:N_CONCEPTS], "nothing"]
            random.Random(order).shuffle(options)
            listed = "\n".join(f"{number} {option}" for number, option in enumerate(options))
            messages = (*setup.messages[:3], Message("user", f"Which of these was it?\n{listed}\nGive its digit."))
            messages += (Message("assistant", "The digit is ", continue_msg=True),)
            chats.append(Conversation(f"{setup.label}_order-{order:02d}", messages))
    return chats


def naive_seconds(
    path: Path, experiment: Experiment, rendered: Sequence[Rendered], added: Sequence[dict[int, torch.Tensor]], n: int
) -> tuple[float, int]:
    """Return the time for all cells, clean and injected, scaled from a sample, and the tokens passed."""
    naive = Naive(plain_model(path), experiment.lens)
    rng = random.Random(0)
    pairs = rng.sample([(c, v) for c in range(len(rendered)) for v in range(len(added))], n)
    naive.cell(rendered[0], added[0])  # the first call is slower
    with Timer(clock=fair_clock()) as timer:
        for c, v in pairs:
            naive.cell(rendered[c], {})
            naive.cell(rendered[c], added[v])
    sampled = sum(2 * len(rendered[c].tokens) for c, _ in pairs)
    tokens = 2 * len(added) * sum(len(item.tokens) for item in rendered)
    return timer.seconds * tokens / sampled, tokens


def floor_seconds(path: Path, tokens: int, sample: int = 4) -> float:
    """Return the time of plain forward passes over so many tokens, scaled from the fastest of some batch shapes."""
    model = plain_model(path)
    seconds = []
    for rows, n_pos in FLOOR_BATCHES:
        batch = torch.randint(0, model.config.vocab_size, (rows, n_pos))
        repeats = sample * FLOOR_TOKENS // batch.numel()
        with torch.no_grad(), Timer(clock=fair_clock()) as timer:
            for _ in range(repeats):
                model(batch, use_cache=True, logits_to_keep=1)
        seconds.append(timer.seconds / (repeats * batch.numel()))
    return min(seconds) * tokens


def measure(folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return seconds of the engine, of plain passes and of the naive loop, timed on `sample` cells an experiment."""
    path = checkpoint(folder, SMALL)
    model = mi.load(path)
    added = random_vectors(SMALL.d_model, LAYERS, N_CONCEPTS)
    steers = injections(SMALL.d_model, SMALL.n_layers, LAYERS, N_CONCEPTS)
    experiments = suite()
    requests = [experiment.request(steers, SMALL.n_layers) for experiment in experiments]
    cost = mi.explain(model, requests)
    floor = floor_seconds(path, cost.distinct_tokens)
    with Timer(clock=fair_clock()) as engine:
        tables = mi.tables(model, requests)
    floor = (floor + floor_seconds(path, cost.distinct_tokens)) / 2
    naive, naive_tokens, parts = 0.0, 0, dict[str, JSON]()
    for experiment in experiments:
        rendered = render_all(model.tokenizer, experiment.conversations)
        seconds, tokens = naive_seconds(path, experiment, rendered, added, sample)
        naive, naive_tokens = naive + seconds, naive_tokens + tokens
        parts[experiment.name] = {"prompts": len(rendered), "naive_seconds": seconds, "naive_tokens": tokens}
    result: dict[str, JSON] = {
        "clock": clock_name(),
        "parameters": sum(weight.numel() for weight in plain_model(path).parameters()),
        "cells": sum(len(table) for table in tables),
        "naive_tokens": naive_tokens,
        "distinct_tokens": cost.distinct_tokens,
        "passed_tokens": cost.passed_tokens,
        "naive_seconds": naive,
        "engine_seconds": engine.seconds,
        "floor_seconds": floor,
        "experiments": parts,
    }
    return result, f"{naive / engine.seconds:.1f}x naive, {engine.seconds / floor:.2f} of the floor"


if __name__ == "__main__":
    command("published_suite", __doc__, measure, sample=24, sampled="cells of each kind for the naive loop")
