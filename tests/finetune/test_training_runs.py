"""Runs: what they leave, that an interrupted one ends as a whole one does, and what is not gone on with."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from forks import forked
from safetensors.torch import load_file

import mechint as mi
from mechint.base.errors import NumericalError, StaleArtefactError, UsageError
from mechint.finetune import recipe_steps
from mechint.finetune.answer_batch import Prompts
from mechint.finetune.axes import Fill, Loss
from mechint.finetune.budget import Budget
from mechint.finetune.injections import injection_of
from mechint.finetune.lora import with_lora
from mechint.finetune.processes import Processes
from mechint.finetune.recipe_steps import RecipeSteps
from mechint.finetune.run import LOSSES, RECORD, STATE, WATCHED

STEPS = 6


def recipe_of(**budget: object) -> mi.finetune.Recipe:
    recipe = mi.finetune.Recipe.load("published/original").adapted(4, small=True)
    settings = {"steps": STEPS, "batch": 2, "accumulation": 2, "learning_rate": 1e-2, "warm_up": 1} | budget
    return replace(
        recipe,
        name="tests/short",
        loss=Loss(),
        fill=Fill(),
        lora=replace(recipe.lora, rank=2, dropout=0.2, projections=("q_proj", "v_proj")),
        budget=Budget(**{"weight_decay": 0.0} | settings),
    )


RECIPE = recipe_of()


def trained(model: mi.Model, out: Path, recipe: mi.finetune.Recipe = RECIPE, **options: object) -> mi.finetune.Run:
    return mi.finetune.train(model, recipe, 1, out, **{"watch": False} | options)


@pytest.fixture(scope="module")
def whole(tiny_model: Callable[..., mi.Model], tmp_path_factory: pytest.TempPathFactory) -> mi.finetune.Run:
    """A run that nothing interrupted."""
    return trained(tiny_model("qwen2"), tmp_path_factory.mktemp("whole"))


@pytest.fixture
def unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings are not held against `mi.score` before and after, which takes longer than they do; `whole` is."""
    alike = pd.DataFrame({"difference": [0.0]})
    monkeypatch.setattr("mechint.finetune.training.compared", lambda *_: alike)


def assert_same(run: mi.finetune.Run, whole: mi.finetune.Run) -> None:
    assert run.steps == whole.steps
    for step in run.steps:
        ours = load_file(run.adapter(step) / "adapter_model.safetensors")
        theirs = load_file(whole.adapter(step) / "adapter_model.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours), step
    assert (run.path / LOSSES).read_text() == (whole.path / LOSSES).read_text()


def test_a_run_leaves_adapters_losses_and_a_receipt(whole: mi.finetune.Run, model: mi.Model) -> None:
    assert whole.path.parts[-2:] == ("tests__short", "seed-1")
    assert (whole.steps, whole.is_finished, whole.seed) == ((1, 2, 3, 6), True, 1)
    assert whole.recipe == RECIPE
    losses = whole.losses
    assert losses["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert losses["rate"].iloc[0] == 1e-2
    assert losses["mass"].between(0, 1).all()
    assert set(losses["right"] * 4) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert json.loads((whole.path / "verified.json").read_text())["difference"] < 1e-3
    assert not (whole.path / STATE).exists()
    record = whole.record
    assert (record.identity, record.dtype, record.steps) == (model.identity, "float32", STEPS)
    assert model.rehash() == record.identity, "the base is what it was"
    early, late = whole.model(model, step=1), whole.model(model)
    assert early.identity != late.identity
    table = mi.finetune.verify(whole, model, rows=3)
    assert len(table) == 2 * 3
    assert mi.finetune.verify(whole.adapter(2), model, RECIPE, step=4, rows=2)["difference"].max() < 1e-3
    with pytest.raises(UsageError, match="without its recipe"):
        mi.finetune.verify(whole.adapter(2), model)


def test_the_loss_falls_and_the_first_is_the_models_own(whole: mi.finetune.Run, model: mi.Model) -> None:
    losses = []
    for example in mi.finetune.step_examples(RECIPE, 1, 0):
        injection = injection_of(RECIPE, example, model.d_model)
        row = mi.score(model, example.conversation(), injection).iloc[-1]
        losses.append(-np.log(row["p_yes" if example.label else "p_no"]))
    assert whole.losses["loss"].iloc[0] == pytest.approx(np.mean(losses), rel=1e-3)
    assert whole.losses["loss"].iloc[-2:].mean() < whole.losses["loss"].iloc[0]


class _StoppedError(Exception):
    """Stands for whatever ends a process from inside."""


@pytest.mark.usefixtures("unverified")
@pytest.mark.parametrize("steps", [1, 4])
def test_a_killed_run_ends_as_a_whole_one(model: mi.Model, whole: mi.finetune.Run, tmp_path: Path, steps: int) -> None:
    made = iter(range(1, 99))

    def kill(sender: Connection) -> None:
        def die(_done: int, _tokens: int) -> None:
            if next(made) == steps:
                os.kill(os.getpid(), signal.SIGKILL)

        trained(model, tmp_path, progress=die)
        sender.send("it lived")

    process, _ = forked(kill)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    # Half a line, as a kill while writing leaves it.
    with (tmp_path / "tests__short" / "seed-1" / LOSSES).open("a") as file:
        file.write('{"step": 5, "lo')
    torch.manual_seed(steps)
    later: list[int] = []
    run = trained(model, tmp_path, progress=lambda done, _tokens: later.append(done))
    assert sum(later) == STEPS - steps
    assert_same(run, whole)
    assert trained(model, tmp_path, progress=lambda *_: pytest.fail("trained again")).steps == run.steps


@pytest.mark.usefixtures("unverified")
def test_a_run_that_was_killed_after_its_last_adapter_is_not_finished(
    model: mi.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(steps=2, accumulation=1)

    def watch(run: mi.finetune.Run, base: mi.Model, step: int) -> dict[str, int]:
        if step == run.record.steps and not (tmp_path / "goes on").exists():
            raise _StoppedError
        return {"step": step}

    monkeypatch.setattr("mechint.finetune.training.watch_run", watch)
    with pytest.raises(_StoppedError):
        trained(model, tmp_path, recipe, watch=True)
    run = mi.finetune.Run(tmp_path / "tests__short" / "seed-1")
    assert run.steps == (1, 2), "all adapters are there"
    assert not run.is_finished
    (tmp_path / "goes on").touch()
    run = trained(model, tmp_path, recipe, watch=True)
    assert run.is_finished
    assert [json.loads(line)["step"] for line in (run.path / WATCHED).read_text().splitlines()] == [0, 1, 2]
    assert run.losses["step"].tolist() == [1, 2]


@pytest.mark.usefixtures("unverified")
def test_ctrl_c_ends_after_its_step_and_the_same_call_goes_on(
    model: mi.Model, whole: mi.finetune.Run, tmp_path: Path
) -> None:
    before, later, made = signal.getsignal(signal.SIGINT), [], iter(range(1, 99))
    folder = tmp_path / "tests__short" / "seed-1"

    def press(_done: int, _tokens: int) -> None:
        if next(made) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(model, tmp_path, progress=press)
    assert signal.getsignal(signal.SIGINT) is before
    assert (folder / STATE).is_file()
    assert mi.finetune.Run(folder).steps == (1, 2, 3), "the step that was being made is made"
    run = trained(model, tmp_path, progress=lambda done, _: later.append(done))
    assert len(later) == STEPS - 3
    assert_same(run, whole)


@pytest.mark.usefixtures("unverified")
def test_base_and_adapters_are_watched_and_have_a_page(
    model: mi.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def note(run: mi.finetune.Run, base: mi.Model, step: int) -> dict[str, int]:
        assert base is model
        assert step in (0, *run.steps), "its adapter is there"
        return {"step": step}

    monkeypatch.setattr("mechint.finetune.training.watch_run", note)
    run = trained(model, tmp_path, recipe_of(steps=2, accumulation=1), watch=True)
    assert [json.loads(line)["step"] for line in (run.path / WATCHED).read_text().splitlines()] == [0, 1, 2]
    assert "after 2 of 2 steps" in (run.adapter() / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("recipe", r"another recipe \(lora.rank: 2 → 3\)"),
        ("steps", r"another recipe \(budget.steps: 6 → 5"),
        ("model", "another weights of the model"),
        ("data", "another examples"),
        ("seed", "another seed"),
    ],
)
def test_what_is_not_the_same_training_is_not_gone_on_with(
    whole: mi.finetune.Run,
    tiny_model: Callable[..., mi.Model],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    complaint: str,
) -> None:
    model, recipe, steps = tiny_model("qwen2", seed=3 if change == "model" else 0), RECIPE, None
    if change == "recipe":
        recipe = replace(RECIPE, lora=replace(RECIPE.lora, rank=3))
    if change == "steps":
        steps = 5
    if change == "data":
        monkeypatch.setattr("mechint.finetune.training._data", lambda *_: "another")
    if change == "seed":
        monkeypatch.setattr("mechint.finetune.training.run_folder", lambda *_: whole.path)
    before = (whole.path / RECORD).read_text()
    with pytest.raises(StaleArtefactError, match=complaint):
        mi.finetune.train(model, recipe, 2 if change == "seed" else 1, whole.path.parents[1], steps, watch=False)
    assert (whole.path / RECORD).read_text() == before
    assert whole.is_finished


@pytest.mark.usefixtures("unverified")
def test_overwriting_removes_what_a_run_has_left_and_nothing_else(model: mi.Model, tmp_path: Path) -> None:
    short = recipe_of(steps=1, accumulation=1)
    folder = trained(model, tmp_path, short).path
    (folder / "notes.txt").write_text("kept")
    longer = replace(short, budget=replace(short.budget, steps=2))
    run = trained(model, tmp_path, longer, overwrite=True)
    assert (run.steps, run.record.steps) == ((1, 2), 2)
    assert (folder / "notes.txt").read_text() == "kept"


@pytest.mark.usefixtures("unverified")
def test_a_loss_that_is_no_number_names_its_examples_and_keeps_checkpoints(
    model: mi.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = recipe_steps.answer_losses, iter(range(99))

    def broken(*arguments: object) -> torch.Tensor:
        losses = real(*arguments)
        return losses * float("nan") if next(calls) == 5 else losses

    monkeypatch.setattr(recipe_steps, "answer_losses", broken)
    with pytest.raises(NumericalError, match=r"step 3: a loss .* in 2 of its examples: row 2 \("):
        trained(model, tmp_path)
    assert mi.finetune.Run(tmp_path / "tests__short" / "seed-1").steps == (1, 2)


def steps_of(model: mi.Model, processes: Processes | None = None, **budget: object) -> RecipeSteps:
    recipe = recipe_of(**budget)
    plain = replace(recipe, lora=replace(recipe.lora, dropout=0.0))
    trainee = with_lora(model, plain.lora, 0)
    with torch.no_grad():
        for weight in trainee.weights.values():
            weight.add_(0.05)
    return RecipeSteps(trainee, Prompts(model, plain), 0, processes=processes or Processes())


class _Share(Processes):
    """One of two processes, whose sums are made by the test."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index, self.count = index, 2


def test_batches_and_processes_add_up_to_the_step(model: mi.Model) -> None:
    def gradient(steps: RecipeSteps) -> torch.Tensor:
        steps.backward(3)
        weights = steps.trainee.weights.values()
        return torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])

    def differs(left: torch.Tensor, right: torch.Tensor) -> bool:
        return float((left - right).abs().max()) > 1e-6 * float(right.abs().max())

    whole = gradient(steps_of(model, batch=4, accumulation=1))
    assert not differs(gradient(steps_of(model, batch=1, accumulation=4)), whole)
    shares = [gradient(steps_of(model, _Share(index))) for index in (0, 1)]
    assert not differs(shares[0] + shares[1], whole)
    assert differs(shares[0], whole / 2)


def test_a_plain_loop_makes_the_same_step(model: mi.Model, whole: mi.finetune.Run) -> None:
    """AdamW, clipping and the rate of the first steps, written out."""
    recipe = recipe_of()
    steps = RecipeSteps(with_lora(model, recipe.lora, 1), Prompts(model, recipe), 1)
    weights = steps.trainee.weights
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-2, weight_decay=0.0)
    for step in (0, 1):
        optimizer.zero_grad()
        steps.backward(step)
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
    left = load_file(whole.adapter(2) / "adapter_model.safetensors")
    for name, weight in weights.items():
        assert torch.allclose(left[name.replace(".default", "")], weight, atol=1e-6)


def test_a_budget_can_be_shortened_with_its_schedule() -> None:
    fixed = Budget(examples=100, validation=10, epochs=8.0, batch=2, accumulation=2, warm_up=90, read_at=50)
    for steps in (1, 7, 50, 51, 400):
        assert fixed.lasting(steps).steps_made == steps
    assert fixed.lasting(20).warm_up == 10
    assert fixed.lasting(50) is fixed
    assert Budget(steps=100).lasting(40).scheduled == 40
    with pytest.raises(UsageError, match="steps=0"):
        fixed.lasting(0)


def test_dropout_depends_on_the_step_and_on_nothing_before_it(model: mi.Model) -> None:
    recipe = recipe_of()
    losses = []
    for warm in (0, 3):
        steps = RecipeSteps(with_lora(model, recipe.lora, 1), Prompts(model, recipe), 1)
        with torch.no_grad():
            for weight in steps.trainee.weights.values():
                weight.add_(0.1)
        torch.rand(warm)
        losses.append([steps.backward(step)["loss"] for step in ((2,) if warm else (1, 2))][-1])
        steps.trainee.set_dropout(False)
    assert losses[0] == losses[1]
    off = RecipeSteps(steps.trainee, Prompts(model, replace(recipe, lora=replace(recipe.lora, dropout=0.0))), 1)
    assert off.backward(2)["loss"] != losses[0], "dropout does something"
