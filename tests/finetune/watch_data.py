"""Rows and records of trainings that never were."""

from __future__ import annotations

from dataclasses import replace

from mechint.finetune.run import RunRecord, checkpoint_steps
from mechint.finetune.specification import Recipe
from mechint.finetune.watch_rows import WatchRow

RECIPE = Recipe.load("published/original").adapted(4, small=True)
START = WatchRow(
    recipe=RECIPE.name,
    recipe_hash=RECIPE.hash,
    seed=0,
    step=0,
    examples=0,
    vectors_of=RECIPE.name,
    texts=48,
    auc=0.5,
    task_auc=0.5,
    d_prime=0.0,
    criterion=0.0,
    hits=0.5,
    false_alarms=0.5,
    log_odds_steered=0.0,
    log_odds_clean=0.0,
    mass_steered=0.05,
    mass_clean=0.05,
    says_it_steered=0.0,
    says_it_clean=0.0,
    kl=0.0,
    kl_tokens=300,
    probe_log_odds=-1.0,
    probe_shift=0.0,
    probe_mass=1.0,
    probe_questions=24,
)


def row_at(step: int, auc: float, **changes: object) -> WatchRow:
    """A row of a step with an area."""
    return replace(START, step=step, examples=step * RECIPE.budget.rows, auc=auc, task_auc=auc, **changes)  # type: ignore[arg-type]


def record(recipe: Recipe = RECIPE, **changes: object) -> RunRecord:
    """What a run of a recipe was made from."""
    fields: dict[str, object] = {
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe.hash,
        "data": "data-hash",
        "model": "tiny",
        "identity": "weights-hash",
        "seed": 3,
        "steps": 20,
        "checkpoints": checkpoint_steps(20),
        "dtype": "float32",
        "threads": 1,
        "processes": 1,
        "versions": {"torch": "2.9"},
    }
    return RunRecord(**(fields | changes))  # type: ignore[arg-type]
