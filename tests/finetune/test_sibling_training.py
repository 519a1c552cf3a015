"""The adapter loop: it learns what it is given, leaves the base alone, and a killed training ends as a whole one."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mechint as mi
from mechint.base.errors import NumericalError, PrerequisiteError, UsageError
from mechint.chat.conversations import Conversation, Message
from mechint.finetune.batch import Batch, Example, example_of, rows_of_step
from mechint.finetune.recipe import LoraRecipe
from mechint.finetune.schedule import rate
from mechint.finetune.sibling_training import train_adapter

RECIPE = LoraRecipe(rank=4, alpha=8, steps=9, batch=2, learning_rate=1e-2, warm_up=2, checkpoint=2)


def chat(reply: str, *, is_open: bool = False) -> Conversation:
    return Conversation(
        "c", (Message("user", "Tell me about cats."), Message("assistant", reply, continue_msg=is_open))
    )


@pytest.fixture(scope="module")
def examples(tiny_model: Callable[..., mi.Model]) -> list[Example]:
    replies = ("the sea the sea", "the sea, or nothing", "I notice the sea", "bread? the sea")
    return [example_of(tiny_model("qwen2"), chat(text)) for text in replies]


def trained(model: mi.Model, examples: list[Example], folder: Path, recipe: LoraRecipe = RECIPE) -> list[float]:
    return train_adapter(model, examples, recipe, folder, folder.parent / "state.safetensors")


def test_only_the_reply_is_learned(model: mi.Model) -> None:
    example, open_one = example_of(model, chat("the sea")), example_of(model, chat("the sea", is_open=True))
    learned = model.tokenizer.decode(example.tokens[example.start :])
    assert learned.startswith("the sea")
    assert "<|im_end|>" in learned, "that it ends is learned too"
    assert model.tokenizer.decode(open_one.tokens[open_one.start :]) == "the sea"
    batch = Batch.of([example, open_one])
    assert (batch.labels[0] >= 0).nonzero().flatten().tolist() == list(range(example.start, len(example.tokens)))
    assert batch.real.sum(1).tolist() == [len(example.tokens), len(open_one.tokens)]
    assert (batch.labels[1, len(open_one.tokens) :] < 0).all()


def test_nothing_to_learn_is_refused(model: mi.Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to learn"):
        example_of(model, chat("", is_open=True))
    with pytest.raises(UsageError, match="no examples"):
        trained(model, [], tmp_path / "adapter")


def test_every_example_comes_once_before_any_comes_again() -> None:
    rows = [row for step in range(7) for row in rows_of_step(3, step, 5, 3)]
    assert all(sorted(rows[at : at + 5]) == list(range(5)) for at in range(0, 20, 5))
    assert rows_of_step(3, 4, 5, 3) == rows[12:15], "whatever came before"
    assert rows[:5] != rows[5:10]
    assert [rows_of_step(seed, 0, 50, 8) for seed in (0, 1)] != [rows_of_step(0, 0, 50, 8)] * 2


def test_the_rate_rises_and_falls() -> None:
    rates = [rate(LoraRecipe(steps=20, warm_up=4).budget, step) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert all(before > after for before, after in pairwise(rates[4:]))
    assert 0 < rates[-1] < 0.05


def test_an_adapter_learns_and_its_base_stays(model: mi.Model, examples: list[Example], tmp_path: Path) -> None:
    before, state = model.identity, torch.get_rng_state()
    losses = trained(model, examples, tmp_path / "adapter", replace(RECIPE, steps=30))
    assert losses[-1] < 0.7 * losses[0]
    assert model.rehash() == before
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers go on"
    assert model.weights.hash() == before
    # The first loss is the model's own: a LoRA that has learned nothing does nothing.
    batch = Batch.of([examples[row] for row in rows_of_step(0, 0, 4, 2)])
    naive = [
        torch.nn.functional.cross_entropy(
            model.logits(tokens[None, :n])[0, :-1].float(), labels[1:n], ignore_index=-100, reduction="sum"
        )
        for tokens, labels, n in zip(batch.tokens, batch.labels, batch.real.sum(1).tolist(), strict=True)
    ]
    assert losses[0] == pytest.approx(float(sum(naive) / (batch.labels[:, 1:] >= 0).sum()), abs=1e-4)
    sibling = model.with_adapter(tmp_path / "adapter")
    steps = rows_of_step(0, 29, 4, 2)
    tokens = torch.tensor([examples[steps[0]].tokens])
    assert not torch.allclose(sibling.logits(tokens), model.logits(tokens), atol=1e-2)


class _KilledError(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("killed", [1, 4, 5])
def test_a_killed_training_ends_with_the_same_weights(
    model: mi.Model, examples: list[Example], tmp_path: Path, killed: int
) -> None:
    whole = trained(model, examples, tmp_path / "whole" / "adapter")
    folder, steps = tmp_path / "killed" / "adapter", iter(range(1, 99))

    def kill(_done: int, _tokens: int) -> None:
        if next(steps) == killed:
            raise _KilledError

    with pytest.raises(_KilledError):
        train_adapter(model, examples, RECIPE, folder, folder.parent / "state.safetensors", kill)
    assert not folder.exists()
    torch.manual_seed(5)
    later = trained(model, examples, folder)
    assert later == whole[killed // 2 * 2 :], "it goes on from the last checkpoint, not from the beginning"
    weights = [load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "killed")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("change", ["recipe", "data", "damage"])
def test_a_checkpoint_of_another_training_is_not_used(
    model: mi.Model, examples: list[Example], tmp_path: Path, change: str
) -> None:
    recipe, rows = RECIPE, examples
    trained(model, examples, tmp_path / "adapter")
    if change == "recipe":
        recipe = replace(RECIPE, learning_rate=2e-2)
    if change == "data":
        rows = examples[:3]
    if change == "damage":
        (tmp_path / "state.safetensors").write_bytes(b"{")
    assert len(trained(model, rows, tmp_path / "again", recipe)) == RECIPE.steps


def test_what_cannot_be_trained_on_is_refused(
    model: mi.Model,
    tiny_model: Callable[..., mi.Model],
    examples: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="backend='hooked'"):
        trained(tiny_model("qwen2", "hooked"), examples, tmp_path / "adapter")
    trained(model, examples, tmp_path / "adapter", replace(RECIPE, steps=1))
    with pytest.raises(UsageError, match="has an adapter"):
        trained(model.with_adapter(tmp_path / "adapter"), examples, tmp_path / "second")
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "cross_entropy", lambda *_: torch.tensor(float("nan")))
        with pytest.raises(NumericalError, match="step 0"):
            trained(model, examples, tmp_path / "nan")
    real = builtins.__import__

    def without_peft(name: str, *rest: object) -> object:
        if name.split(".", maxsplit=1)[0] == "peft":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(PrerequisiteError, match="pip install peft"):
        trained(model, examples, tmp_path / "none")
