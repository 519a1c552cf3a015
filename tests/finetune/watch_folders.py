"""Folders of trainings that never were, watched with planted values."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mechint.finetune.run import WATCHED, checkpoint_steps, run_folder
from mechint.finetune.specification import Recipe
from tests.finetune.watch_data import START, record


def watched_run(out: Path, name: str, seed: int, areas: Iterable[float], **changes: object) -> Path:
    """Write the folder of a run by a recipe, whose areas before training and at its fixed steps are given."""
    recipe = Recipe.load(name).adapted(8, small=True)
    folder, steps = run_folder(out, recipe, seed), checkpoint_steps(recipe.budget.steps_made)
    folder.mkdir(parents=True)
    fields = {"seed": seed, "steps": steps[-1], "checkpoints": steps, "model": "organism-blind"}
    record(recipe, **(fields | changes)).write(folder)
    of_run = replace(START, recipe=name, recipe_hash=recipe.hash, seed=seed, vectors_of=name)
    rows = [
        replace(of_run, step=step, examples=step * recipe.budget.rows, auc=area, criterion=seed - 1.0, kl=area - 0.5)
        for step, area in zip((0, *steps), areas, strict=False)
    ]
    (folder / WATCHED).write_text("".join(f"{json.dumps(row.to_dict())}\n" for row in rows))
    return folder
