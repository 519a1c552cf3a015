"""How time grows with concepts, prompts and layer ranges: with the distinct work, it should be, not with the cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import mechint as mi
from benchmarks.common import SMALL, Timer, checkpoint, command, injections, random_vectors
from mechint.base.files import JSON
from mechint.chat.conversations import Conversation
from mechint.prompts.design import PromptDesign
from mechint.prompts.sets import controls

MIDDLE = range(3, 6)


def measure(folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return cells, distinct tokens, work and seconds of growing tables, each timed `sample` times."""
    model = mi.load(checkpoint(folder, SMALL))
    points: list[JSON] = []
    for axis, size, chats, steers in tables(model.n_layers):
        cost = mi.explain(model, chats, [mi.CLEAN, *steers])
        seconds = []
        for _ in range(sample):
            with Timer() as timer:
                mi.score(model, chats, [mi.CLEAN, *steers])
            seconds.append(timer.seconds)
        points.append(
            {
                "axis": axis,
                "size": size,
                "cells": cost.cells,
                "alone_tokens": cost.alone_tokens,
                "distinct_tokens": cost.distinct_tokens,
                "distinct_blocks": cost.blocks,
                "seconds": min(seconds),
            }
        )
    rates = [point["seconds"] / point["distinct_blocks"] for point in points]  # type: ignore[index, call-overload, operator]
    summary = f"{len(points)} tables, seconds for each (distinct token x block) within {max(rates) / min(rates):.2f}x"
    return {"points": points}, summary


def tables(n_layers: int) -> Iterator[tuple[str, int, list[Conversation], Sequence[mi.Injection]]]:
    """Yield growing tables along each axis: (what grows, its size, conversations, injections)."""
    chats = controls(PromptDesign.load("full"))
    for size in (1, 3, 9, 18):
        yield "concepts", size, chats[:40], injections(SMALL.d_model, n_layers, MIDDLE, size)
    for size in (20, 80, 320):
        yield "prompts", size, chats[:size], injections(SMALL.d_model, n_layers, MIDDLE, 3)
    (vector,) = random_vectors(SMALL.d_model, range(n_layers), 1)
    whole = mi.ConceptVector(vector, "v", n_layers)
    ranges = [range(i, j) for i in range(n_layers) for j in range(i + 1, n_layers + 1)]
    for size in (5, 15, 45):
        chosen = ranges[:: len(ranges) // size][:size]
        named = [mi.Injection(whole, layers, strength=1.0, name=f"{layers[0]}:{layers[-1] + 1}") for layers in chosen]
        yield "layer ranges", size, chats[:10], named


if __name__ == "__main__":
    command("scaling", __doc__, measure, sample=2, sampled="times that each table is timed; the fastest counts")
