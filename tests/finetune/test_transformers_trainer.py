"""The class of docs/finetuning.md: our batches and our loss inside transformers.Trainer make the steps of our loop."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mechint as mi

PAGE = Path(__file__).resolve().parents[2] / "docs" / "finetuning.md"
BLOCK = re.compile(r"^<!-- file: steered_trainer.py -->\n```python\n(?P<code>.*?)^```$", re.M | re.S)
RECIPE = mi.finetune.Recipe.load("matched/yes-no").adapted(4, small=True)


@pytest.fixture(scope="module")
def steered_trainer() -> Callable[..., object]:
    """The class on the page."""
    (block,) = BLOCK.finditer(PAGE.read_text())
    names: dict[str, object] = {"__name__": "steered_trainer"}
    exec(compile(block["code"], PAGE.name, "exec"), names)
    trainer = names["SteeredTrainer"]
    assert callable(trainer)
    return trainer


def arguments(recipe: mi.finetune.Recipe, out: Path) -> object:
    from transformers import TrainingArguments

    budget = recipe.budget
    return TrainingArguments(
        str(out),
        max_steps=budget.steps_made,
        per_device_train_batch_size=budget.batch,
        gradient_accumulation_steps=budget.accumulation,
        max_grad_norm=budget.clip,
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )


@pytest.mark.parametrize(("gradient", "accumulation"), [("through", 1), ("stopped", 2)])
def test_steps_are_those_of_our_own_loop(
    gradient: str,
    accumulation: int,
    tiny_model: Callable[..., mi.Model],
    steered_trainer: Callable[..., object],
    tmp_path: Path,
) -> None:
    base = tiny_model("qwen2")
    budget = replace(RECIPE.budget, steps=2, batch=2, accumulation=accumulation, warm_up=1, weight_decay=0.01)
    recipe = replace(RECIPE, budget=budget, fill=replace(RECIPE.fill, gradient=gradient))
    run = mi.finetune.train(base, recipe, seed=4, out=tmp_path / "ours", watch=False)
    ours = load_file(run.adapter() / "adapter_model.safetensors")
    trainer = steered_trainer(base, recipe, seed=4, args=arguments(recipe, tmp_path / "out"))
    start = {name: weight.detach().clone() for name, weight in trainer.trainee.weights.items()}  # type: ignore[attr-defined]
    trainer.train()  # type: ignore[attr-defined]
    trainer.trainee.save(tmp_path / "theirs")  # type: ignore[attr-defined]
    theirs = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    assert theirs.keys() == ours.keys()
    assert max(float((theirs[name] - ours[name]).abs().max()) for name in ours) <= 1e-6
    moved = [not torch.equal(start[name], weight) for name, weight in trainer.trainee.weights.items()]  # type: ignore[attr-defined]
    assert any(moved), "steps were made"
    assert base.with_adapter(tmp_path / "theirs").identity != base.identity
