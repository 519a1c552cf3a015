"""A real chat model: `mi.score` beside the naive loop and beside plain Hugging Face passes, by turns in one run.

Two tables on SmolLM2-135M-Instruct: the 40 yes/no prompts under 9 vectors, and the 1,360 control questions under 3,
which are measured on some of their 20 first turns and scaled to all. After each pass of the engine its clock is
stopped, and the others are timed until each has had its share of the time: other programs slow all of them alike. With
one thread (`OMP_NUM_THREADS=1`) seconds are CPU time.

The naive loop fills and reads every cell by itself. The floor are plain passes with fused attention over as many tokens
as the distinct (token x block) work comes to, padding not counted, in the fastest of several batch shapes. Its short
rows attend to little, while a question attends to all of the conversation before it. So there is a second floor with
the attention that the table needs: first turns in single rows as long as they are, and questions in rows of `TAIL`
tokens, one row for each vector, that continue a cache of first turns.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, repeat
from pathlib import Path

import torch

import mechint as mi
from benchmarks.common import Naive, Timer, clock_name, command, fair_clock, injections
from mechint.base.errors import PrerequisiteError
from mechint.base.files import JSON
from mechint.chat.conversations import Conversation
from mechint.chat.render import Rendered, render_all
from mechint.engine.plan import make_plans
from mechint.interventions.specifications import Injection
from mechint.models.backends.bridge import BridgeBackend
from mechint.models.backends.twin import plain_copy
from mechint.models.packaged_models import packaged_path
from mechint.prompts.design import PromptDesign
from mechint.prompts.sets import controls, introspection

MODEL, LAYERS = "smollm2", range(10, 20)
TABLES = {"yes/no": 9, "controls": 3}  # with the number of vectors
SHAPES, TRIALS = ((1, 128), (1, 256), (1, 512), (2, 256), (4, 128), (4, 256), (8, 128), (8, 256)), 3
SHARE = 0.4  # of the engine's time, for each of the others
TAIL, CACHES = 128, 4  # tokens of a row that continues first turns; how many of these, from the shortest to the longest
Shape = tuple[int, int]


@dataclass
class Pace:
    """How long something takes a token, from as many runs of it as there is time for."""

    run: Callable[[], int]
    seconds: float = 0.0
    tokens: int = 0

    def sample(self) -> None:
        """Run it once more; it returns how many tokens it has passed."""
        with (timer := Timer(clock=fair_clock())):
            passed = self.run()
        self.seconds, self.tokens = self.seconds + timer.seconds, self.tokens + passed

    @property
    def per_token(self) -> float:
        """Seconds of one token."""
        return self.seconds / self.tokens


@dataclass
class Turns:
    """A progress of the engine that lets others have their turns between its passes."""

    others: Sequence[Pace]
    engine: Timer = field(default_factory=lambda: Timer(clock=fair_clock()))

    def __call__(self, _cells: int, _tokens: int) -> None:
        """Stop the engine's clock, give each of the others its share of the time so far, and start the clock again."""
        self.engine.__exit__()
        for pace in self.others:
            while pace.seconds < SHARE * self.engine.seconds:
                pace.sample()
        self.engine.__enter__()


def plain_passes(model: torch.nn.Module, d_vocab: int, shapes: Iterator[Shape]) -> Pace:
    """Return the pace of plain passes over random tokens in some batch shapes, one after another."""

    def run() -> int:
        batch = torch.randint(0, d_vocab, next(shapes))
        with torch.no_grad():
            model(batch, use_cache=True, logits_to_keep=1)
        return batch.numel()

    return Pace(run)


def continued_passes(model: torch.nn.Module, d_vocab: int, prefixes: Sequence[Sequence[int]], rows: int) -> Pace:
    """Return the pace of plain passes over rows of random tokens, each of which continues a cache of first turns."""
    from transformers import DynamicCache

    def filled(tokens: Sequence[int]) -> DynamicCache:
        cache = DynamicCache()
        with torch.no_grad():
            model(torch.tensor([tokens] * rows), past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache

    ordered = sorted(prefixes, key=len)
    chosen = [ordered[place * (len(ordered) - 1) // (CACHES - 1)] for place in range(CACHES)]
    caches = {len(tokens): filled(tokens) for tokens in chosen}
    turn = cycle(caches)

    def run() -> int:
        length = next(turn)
        batch = torch.randint(0, d_vocab, (rows, TAIL))
        with torch.no_grad():
            model(batch, past_key_values=caches[length], use_cache=True, logits_to_keep=1)
        caches[length].crop(-TAIL)  # what the row has added
        return batch.numel()

    return Pace(run)


def fastest(model: torch.nn.Module, d_vocab: int) -> Shape:
    """Return the fastest batch shape, tried by turns."""
    paces: dict[Shape, list[float]] = {shape: [] for shape in SHAPES}
    plain_passes(model, d_vocab, repeat(SHAPES[0])).sample()  # the first call is slower
    for _ in range(TRIALS):
        for shape, measured in paces.items():
            pace = plain_passes(model, d_vocab, repeat(shape))
            pace.sample()
            measured.append(pace.per_token)
    return min(paces, key=lambda shape: statistics.median(paces[shape]))


def naive_loop(model: torch.nn.Module, rendered: Sequence[Rendered], steers: Sequence[Injection]) -> Pace:
    """Return the pace of the naive way over cells of a table, clean ones among them, in random order."""
    naive, rng = Naive(model), random.Random(0)

    def run() -> int:
        item, steer = rng.choice(rendered), rng.choice([None, *steers])
        naive.cell(item, {} if steer is None else {layer: steer.vector.vectors[layer] for layer in LAYERS})
        return len(item.tokens)

    return Pace(run)


def questions(design: PromptDesign, first_turns: int) -> list[Conversation]:
    """Return the control questions after some of the first turns, of every description and info document by turns."""
    infos, descriptions = list(design.infos), list(design.descriptions)
    pairs = [(description, info) for info in range(len(infos)) for description in range(len(descriptions))]
    ordered = sorted(pairs, key=lambda pair: ((pair[0] + pair[1]) % len(infos), pair[0]))
    chosen = {(descriptions[description], infos[info]) for description, info in ordered[:first_turns]}
    return [chat for chat in controls(design) if (chat.extra["description"], chat.extra["info"]) in chosen]


def table(
    model: mi.Model, chats: Sequence[Conversation], whole: Sequence[Conversation], vectors: int
) -> dict[str, JSON]:
    """Return what the cells of `whole` take, from a run over `chats`, which are all of them or some."""
    backend = model.backend
    assert isinstance(backend, BridgeBackend)
    plain = plain_copy(backend.hf_model, "sdpa")
    steers, rendered = injections(model.d_model, model.n_layers, LAYERS, vectors), render_all(model, chats)
    shape, rng = fastest(plain, backend.d_vocab), random.Random(1)
    prefixes = [item.tokens[: item.prefix_length] for item in rendered]
    lengths = ((1, len(rng.choice(prefixes))) for _ in repeat(None))
    naive = naive_loop(plain, rendered, steers)
    floor = plain_passes(plain, backend.d_vocab, repeat(shape))
    first_turns = plain_passes(plain, backend.d_vocab, lengths)
    continued = continued_passes(plain, backend.d_vocab, prefixes, vectors + 1)
    mi.score(model, chats[:1], steers[:1])  # the first call is slower
    turns = Turns([floor, first_turns, continued, naive])
    with turns.engine:
        measured = mi.score(model, chats, [mi.CLEAN, *steers], progress=turns)
    cost = mi.explain(model, chats, [mi.CLEAN, *steers])
    full = mi.explain(model, whole, [mi.CLEAN, *steers])
    distinct = full.distinct_blocks / model.n_layers
    share = share_of_first_turns(model, rendered, steers)
    attending = share * first_turns.per_token + (1 - share) * continued.per_token
    return {
        "prompts": len(whole),
        "measured_prompts": len(chats),
        "vectors": vectors,
        "cells": full.cells,
        "measured_cells": len(measured),
        "measured_seconds": turns.engine.seconds,
        "naive_tokens": full.alone_tokens,
        "passed_tokens": full.blocks / model.n_layers,
        "distinct_tokens": distinct,
        "naive_seconds": naive.per_token * full.alone_tokens,
        "engine_seconds": turns.engine.seconds * full.distinct_blocks / cost.distinct_blocks,
        "floor_seconds": floor.per_token * distinct,
        "attending_seconds": attending * distinct,
        "first_turns": share,
        "floor_shape": list(shape),
    }


def share_of_first_turns(model: mi.Model, rendered: Sequence[Rendered], steers: Sequence[Injection]) -> float:
    """Return the share of the distinct work that lies in first turns."""
    interventions = [mi.CLEAN, *steers]
    cells = [(chat, which) for chat in range(len(rendered)) for which in range(len(interventions))]
    plans = make_plans(rendered, interventions, cells, model.n_layers, min_shared=1)
    work = {True: 0, False: 0}
    for step in (step for plan in plans for step in plan.steps()):
        is_first = step.node.stop <= rendered[step.node.members[0]].prefix_length
        work[is_first] += step.n_tokens * sum(step.computed[:-1])
    return work[True] / sum(work.values())


def ratios(row: dict[str, JSON]) -> str:
    """Return how many times faster than the naive loop the engine is, and how much of the floor it takes."""
    seconds = {name: float(str(row[f"{name}_seconds"])) for name in ("naive", "engine", "floor", "attending")}
    engine = seconds["engine"]
    of_floor = f"{engine / seconds['floor']:.2f} of the floor ({engine / seconds['attending']:.2f} with its attention)"
    return f"{seconds['naive'] / engine:.1f}x naive, {of_floor}"


def measure(_folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return the measurements of both tables."""
    model, design = mi.load(MODEL), PromptDesign.load("full")
    chats = {"yes/no": (introspection(design),) * 2, "controls": (questions(design, sample), controls(design))}
    rows = {name: table(model, *chats[name], vectors) for name, vectors in TABLES.items()}
    result: dict[str, JSON] = {
        "model": model.name,
        "clock": clock_name(),
        "layers": model.n_layers,
        "tables": dict(rows),
    }
    return result, "; ".join(f"{name}: {ratios(row)}" for name, row in rows.items())


if __name__ == "__main__":
    if_possible = "--if-possible" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--if-possible"]
    try:
        packaged_path(MODEL)
    except PrerequisiteError as error:
        sys.stderr.write(f"real_model: {error}\n")
        sys.exit(0 if if_possible else 2)
    command(
        "real_model", __doc__, measure, sample=5, sampled="first turns, of 20, whose control questions are measured"
    )
