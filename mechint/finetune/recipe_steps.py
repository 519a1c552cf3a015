"""The steps of a recipe's training: examples to prompts, prompts to batches, batches to gradients and measures."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from mechint.base.errors import NumericalError
from mechint.chat.render import render_all
from mechint.finetune.answer_batch import AnswerBatch, Places, Prompt, Prompts
from mechint.finetune.batch import Batch, Example
from mechint.finetune.examples import step_examples
from mechint.finetune.forward import answer_logits, as_base, text_logits
from mechint.finetune.loop import Measures
from mechint.finetune.lora import Trainee
from mechint.finetune.losses import answer_losses, answer_mass, divergences, is_right
from mechint.finetune.processes import SINGLE, Processes
from mechint.finetune.replay import replay_texts
from mechint.finetune.specification import Recipe
from mechint.finetune.steered_training import recomputed

Item = TypeVar("Item")
Sums = Mapping[str, float]
_SUMS = ("loss", "mass", "right", "tokens", "replay", "questions")


@dataclass(frozen=True)
class RecipeSteps:
    """The steps of a recipe's training: each a function of the recipe, the seed and the number of the step."""

    trainee: Trainee
    prompts: Prompts
    seed: int
    recompute: bool = False
    processes: Processes = SINGLE

    @property
    def recipe(self) -> Recipe:
        """The recipe, adapted to the model."""
        return self.prompts.recipe

    def backward(self, step: int) -> Measures:
        """Add up the gradients of a step over its batches; returns means over its examples, and the tokens passed.

        `loss` is the cross-entropy of the answers, `mass` their probability, `right` the share in which the likelier is
        the right one; `replay` and `questions` are divergences from the base, of a recipe that has them, which are
        minimised besides. Raises NumericalError for a loss that is no number, naming the examples.
        """
        prompts = self.prompts.of(step_examples(self.recipe, self.seed, step))
        texts = self._replayed(step)
        questions = sum(len(prompt.rendered.tokens) - prompt.trunk for prompt in prompts)
        sums = dict.fromkeys(_SUMS, 0.0)
        lost: list[Prompt] = []
        for number, rows in self._share(prompts):
            with _random(self.trainee.device, f"{self.seed} {step} {number}"):
                losses, others = self._answers(rows, questions)
            _add(sums, {"loss": float(losses.sum()), **others})
            lost += [prompt for prompt, loss in zip(rows, losses, strict=True) if not loss.isfinite()]
        for number, chats in self._share(texts):
            with _random(self.trainee.device, f"{self.seed} {step} replay {number}"):
                _add(sums, self._replay(chats, sum(len(text.tokens) for text in texts)))
        totals = dict(zip(sums, self.processes.total(list(sums.values())), strict=True))
        if not all(math.isfinite(total) for total in totals.values()):
            raise _lost(step, lost)
        return self._means(totals)

    def _share(self, items: Sequence[Item]) -> Iterator[tuple[int, Sequence[Item]]]:
        """Yield the batches of this process, with their numbers."""
        size = self.recipe.budget.batch
        for number, start in enumerate(range(0, len(items), size)):
            if number % self.processes.count == self.processes.index:
                yield number, items[start : start + size]

    def _means(self, totals: Sums) -> Measures:
        rows, replay = self.recipe.budget.rows, self.recipe.replay
        means = {name: totals[name] / rows for name in ("loss", "mass", "right")}
        means |= {"replay": totals["replay"]} if replay.share else {}
        means |= {"questions": totals["questions"]} if replay.question_weight else {}
        return {**means, "tokens": totals["tokens"]}

    def _answers(self, rows: Sequence[Prompt], questions: int) -> tuple[Tensor, Sums]:
        """Add the gradients of a batch's answers, and of its questions' divergence where the recipe has that."""
        recipe, weight = self.recipe, self.recipe.replay.question_weight
        batch = AnswerBatch.of(self.prompts.model, rows, split=recipe.fill.gradient == "stopped")
        places = batch.question_places if weight else batch.answer_places
        base = self._of_base(batch, places) if weight else None
        with answer_logits(
            self.trainee, batch, recipe.fill, places, dropout=recipe.lora.dropout > 0, recompute=self.recompute
        ) as logits:
            of_answers = logits[places[:, 1] == batch.last[places[:, 0]]]
            answers, targets = batch.answers.to(logits.device), batch.targets.to(logits.device)
            losses = answer_losses(of_answers, answers, targets, recipe.loss.over)
            drift = logits.new_zeros(()) if base is None else divergences(logits, base).sum() / questions
            torch.autograd.backward(losses.sum() / recipe.budget.rows + weight * drift)
        right = is_right(of_answers, answers, targets)
        mass = answer_mass(of_answers, answers)
        others = {"mass": mass.sum(), "right": right.sum(), "tokens": batch.real.sum(), "questions": drift.detach()}
        return losses.detach(), {name: float(value) for name, value in others.items()}

    def _of_base(self, batch: AnswerBatch, places: Places) -> Tensor:
        """Return the base's logits under the same steering."""
        with as_base(self.trainee), answer_logits(self.trainee, batch, self.recipe.fill, places) as logits:
            return logits

    def _replayed(self, step: int) -> list[Example]:
        """Return the ordinary chats of a step as tokens."""
        chats = replay_texts(self.recipe, self.seed, step)
        return [Example(rendered.tokens, 0) for rendered in render_all(self.prompts.model, chats)]

    def _replay(self, texts: Sequence[Example], tokens: int) -> Sums:
        """Add the gradients of a batch's divergence from the base, which is a mean over so many tokens of the step."""
        recipe, batch = self.recipe, Batch.of(texts)
        with as_base(self.trainee):
            base = text_logits(self.trainee, batch)
        with recomputed(self.trainee.blocks) if self.recompute else nullcontext():
            logits = text_logits(self.trainee, batch, dropout=recipe.lora.dropout > 0)
        drift = divergences(logits, base).sum() / tokens
        torch.autograd.backward(recipe.replay.weight * drift)
        return {"replay": float(drift.detach()), "tokens": float(batch.real.sum())}


def _add(sums: dict[str, float], more: Sums) -> None:
    for name, value in more.items():
        sums[name] += value


@contextmanager
def _random(device: torch.device, batch: str) -> Iterator[None]:
    """Let dropout be a function of seed, step and batch; the caller's random numbers go on as they were."""
    digest = hashlib.sha256(batch.encode()).digest()
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=devices, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(int.from_bytes(digest[:7], "big"))
        yield


def _lost(step: int, prompts: Sequence[Prompt]) -> NumericalError:
    examples = [prompt.example for prompt in prompts]
    rows = "; ".join(
        f"row {example.index} ({example.vector} at {example.first_block}:{example.stop_block}, dose {example.dose:g})"
        if example.steered
        else f"row {example.index} (nothing added)"
        for example in examples[:4]
    )
    return NumericalError(
        given=f"step {step + 1}: a loss that is no finite number, in {len(examples)} of its examples: {rows}",
        allowed="finite losses; the checkpoints before this step are kept",
        advice="lower the learning rate or the dose, or load the model in float32",
    )
