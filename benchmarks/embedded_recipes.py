"""Every published recipe trained on an embedded model: how long it takes, and what it learns.

Seconds are CPU time of one thread, without watching: neither other programs nor a second core count.
Each training is read once, at its end and on the base, on the texts and vectors that trainings are watched with.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch

import mechint as mi
from benchmarks.common import command
from mechint.base.errors import UsageError
from mechint.base.files import JSON

MODEL, GROUP = "organism-blind", "published/"


def measure(folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return a row of each recipe and of `sample` seeds, and the largest and the total number of seconds."""
    torch.set_num_threads(1)
    model = mi.load(MODEL)
    names = [name for name in mi.finetune.recipes()["name"] if name.startswith(GROUP)]
    rows = [row(model, name, seed, folder) for name in names for seed in range(sample)]
    seconds = [float(str(each["seconds"])) for each in rows]
    longest = rows[seconds.index(max(seconds))]["recipe"]
    summary = f"{len(rows)} trainings in {sum(seconds) / 60:.0f} minutes, the longest, {longest}, {max(seconds):.0f} s"
    return {"model": MODEL, "rows": [*rows]}, summary


def row(model: mi.Model, name: str, seed: int, folder: Path) -> dict[str, JSON]:
    """Train a recipe from a seed, and return its size, its seconds, and what it was watched with at both ends."""
    begin = time.process_time()
    run = mi.finetune.train(model, name, seed, folder, watch=False)
    seconds = time.process_time() - begin
    losses, eighth = run.losses, max(1, run.record.steps // 8)
    return {
        "recipe": name,
        "seed": seed,
        "steps": run.record.steps,
        "examples": run.record.steps * run.recipe.budget.rows,
        "seconds": seconds,
        "loss_first": float(losses.head(eighth)["loss"].mean()),
        "loss_last": float(losses.tail(eighth)["loss"].mean()),
        "right_last": float(losses.tail(eighth)["right"].mean()),
        **{
            f"{end}_{key}": value
            for end, step in (("base", 0), ("last", run.record.steps))
            for key, value in watched(run, model, step).items()
        },
    }


def watched(run: mi.finetune.Run, model: mi.Model, step: int) -> dict[str, JSON]:
    """Return areas of steered against clean, and of the recipe's own labels; empty where it has neither."""
    try:
        line = mi.finetune.watch_run(run, model, step)
    except UsageError:  # recipes of several options have no areas
        return {}
    values = {key: float(str(line[key])) for key in ("auc", "auc_low", "auc_high", "task_auc", "kl")}
    return {key: value for key, value in values.items() if not math.isnan(value)}  # labels that are all one have none


if __name__ == "__main__":
    command("embedded_recipes", __doc__, measure, sample=1, sampled="seeds of each recipe")
