"""The folder of a run: what it says, which adapters are there, and what is no run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import mechint as mi
from mechint.base.errors import StaleArtefactError, UsageError
from mechint.base.kept_folders import keep_folder
from mechint.finetune.injections import fixed_dose, injection_of
from mechint.finetune.run import RECORD, VERIFIED, RunRecord, checkpoint_steps, run_folder

RECIPE = mi.finetune.Recipe.load("published/original").adapted(4, small=True)


def record(**changes: object) -> RunRecord:
    fields: dict[str, object] = {
        "recipe": RECIPE.to_dict(),
        "recipe_hash": RECIPE.hash,
        "data": "d",
        "model": "tiny",
        "identity": "i",
        "seed": 3,
        "steps": 20,
        "checkpoints": checkpoint_steps(20),
        "dtype": "float32",
        "threads": 1,
        "processes": 1,
        "versions": {"torch": "2"},
    }
    return RunRecord(**(fields | changes))  # type: ignore[arg-type]


def leave(folder: Path, *steps: int) -> None:
    for step in steps:
        keep_folder(folder / f"step-{step:06d}", lambda path: {"file": (path / "a").write_text("a")})


def test_adapters_are_left_at_steps_that_only_their_number_decides() -> None:
    assert checkpoint_steps(127) == (16, 32, 64, 127)
    assert checkpoint_steps(3) == (1, 2, 3)
    assert checkpoint_steps(1) == (1,)
    assert all(checkpoint_steps(steps)[-1] == steps for steps in range(1, 300))


def test_a_run_says_what_it_is_of_and_which_adapters_are_there(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, RECIPE, 3)
    assert folder == tmp_path / "published__original" / "seed-3"
    record().write(folder)
    leave(folder, 3, 5)
    run = mi.finetune.Run(folder)
    assert (run.recipe, run.seed, run.steps, run.is_finished) == (RECIPE, 3, (3, 5), False)
    assert run.record == record()
    assert run.adapter(5) == folder / "step-000005"
    with pytest.raises(UsageError, match="no adapter after step 20"):
        run.adapter()
    with pytest.raises(UsageError, match="no adapter after step 4"):
        run.adapter(4)
    leave(folder, 10, 20)
    assert not run.is_finished, "its receipt is not written"
    (folder / VERIFIED).write_text("{}")
    assert run.is_finished
    assert run.adapter("final") == run.adapter(20)
    (folder / "step-000020" / "a").write_text("b")
    assert not run.is_finished, "an adapter that was altered is none"


def test_a_run_is_of_one_model_and_of_the_texts_it_was_trained_with(tmp_path: Path, model: mi.Model) -> None:
    record(recipe_hash="another").write(tmp_path)
    leave(tmp_path, 20)
    with pytest.raises(StaleArtefactError, match="other texts"):
        _ = mi.finetune.Run(tmp_path).recipe
    with pytest.raises(StaleArtefactError, match="of other weights"):
        mi.finetune.Run(tmp_path).model(model)


@pytest.mark.parametrize(
    "content", [[], {"seed": 1}, {**vars(record()), "extra": 1}, {**vars(record()), "checkpoints": 3}]
)
def test_what_is_no_run_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(UsageError, match=RECORD):
        mi.finetune.Run(tmp_path)
    (tmp_path / RECORD).write_text(json.dumps(content))
    with pytest.raises(UsageError, match="record of a training"):
        mi.finetune.Run(tmp_path)


def test_a_dose_in_units_of_the_base_stays_what_it_is_on_a_finetuned_copy(model: mi.Model, tmp_path: Path) -> None:
    example = next(
        text for index in range(8) if (text := mi.finetune.example(RECIPE, 0, 0, index)).steered and text.relative
    )
    relative = injection_of(RECIPE, example, model.d_model)
    fixed = fixed_dose(relative, model)
    for layer in example.layers:
        assert torch.equal(fixed.terms[0].amount(layer, model), relative.terms[0].amount(layer, model))
    assert fixed.name == relative.name
    assert fixed_dose(fixed, model) is fixed
    assert fixed_dose(mi.CLEAN, model) is mi.CLEAN
    both = fixed_dose(relative + relative.renamed("again"), model)  # type: ignore[operator]
    assert len(both.terms) == 2
