"""Replay in training: the divergence from the base is what it says, is minimised, and costs nothing where it is off."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import mechint as mi
from mechint.chat.render import render
from mechint.finetune.answer_batch import Prompts
from mechint.finetune.axes import Fill, Loss, Replay
from mechint.finetune.budget import Budget
from mechint.finetune.injections import injection_of
from mechint.finetune.lora import Trainee, with_lora
from mechint.finetune.losses import divergences
from mechint.finetune.recipe_steps import RecipeSteps
from mechint.finetune.steered_training import steered
from mechint.interventions.addition import Term
from mechint.interventions.prefill import injected_positions

PLAIN = replace(
    mi.finetune.Recipe.load("published/original").adapted(4, small=True),
    loss=Loss(),
    fill=Fill(),
    budget=Budget(steps=4, batch=2, accumulation=2),
)
PLAIN = replace(PLAIN, lora=replace(PLAIN.lora, rank=2, dropout=0.0))
REPLAYED = replace(PLAIN, replay=Replay(share=0.75, weight=2.0, question_weight=0.5))


def steps_of(model: mi.Model, recipe: mi.finetune.Recipe, size: float = 0.05, **options: bool) -> RecipeSteps:
    trainee = with_lora(model, recipe.lora, 0)
    with torch.no_grad():
        for weight in trainee.weights.values():
            weight.add_(size)
    return RecipeSteps(trainee, Prompts(model, recipe), 0, **options)


def gradient(steps: RecipeSteps) -> torch.Tensor:
    steps.trainee.model.zero_grad()
    steps.backward(1)
    return torch.cat([weight.grad.flatten() for weight in steps.trainee.weights.values() if weight.grad is not None])


def naive(trainee: Trainee, tokens: tuple[int, ...], start: int = 0, term: Term | None = None) -> torch.Tensor:
    """The divergence at each token from `start` on, of one text, from two whole passes."""
    ids = torch.tensor([tokens])
    with torch.no_grad(), steered(trainee.blocks, [term] if term else [], len(tokens)):
        tuned = trainee.model(input_ids=ids).logits[0, start:]
        with trainee.model.disable_adapter():
            base = trainee.model(input_ids=ids).logits[0, start:]
    terms = torch.nn.functional.kl_div(tuned.log_softmax(-1), base.log_softmax(-1), log_target=True, reduction="none")
    return terms.sum(-1)


def test_divergences_are_the_means_that_they_are_said_to_be(model: mi.Model) -> None:
    steps = steps_of(model, REPLAYED)
    measures = steps.backward(1)
    chats = mi.finetune.replay_texts(REPLAYED, 0, 1)
    assert len(chats) == 3
    replay = torch.cat([naive(steps.trainee, render(model, chat).tokens) for chat in chats])
    assert measures["replay"] == pytest.approx(float(replay.mean()), rel=1e-4)
    questions = []
    for example in mi.finetune.step_examples(REPLAYED, 0, 1):
        rendered = render(model, example.conversation())
        terms = injection_of(REPLAYED, example, model.d_model).terms
        added = [
            Term(0, injected_positions(rendered, term), {at: term.amount(at, model) for at in term.layers or ()})
            for term in terms
        ]
        questions.append(naive(steps.trainee, rendered.tokens, rendered.prefix_length, added[0] if added else None))
    assert measures["questions"] == pytest.approx(float(torch.cat(questions).mean()), rel=1e-4)
    stopped = steps_of(model, replace(REPLAYED, fill=Fill(gradient="stopped"))).backward(1)
    assert stopped["questions"] == pytest.approx(measures["questions"], rel=1e-4)


def test_they_are_minimised_with_their_weights(model: mi.Model) -> None:
    whole = gradient(steps_of(model, REPLAYED))
    answers = gradient(steps_of(model, PLAIN))
    replay = gradient(steps_of(model, replace(PLAIN, replay=Replay(share=0.75)))) - answers
    questions = gradient(steps_of(model, replace(PLAIN, replay=Replay(question_weight=1.0)))) - answers
    assert replay.norm() > 1e-3
    assert questions.norm() > 1e-3
    assert torch.allclose(whole, answers + 2 * replay + 0.5 * questions, atol=1e-5)
    assert torch.allclose(gradient(steps_of(model, REPLAYED, recompute=True)), whole, atol=1e-6)


def test_an_adapter_that_does_nothing_diverges_by_nothing(model: mi.Model) -> None:
    measures = steps_of(model, REPLAYED, size=0.0).backward(0)
    assert measures["replay"] == pytest.approx(0, abs=1e-6)
    assert measures["questions"] == pytest.approx(0, abs=1e-6)
    plain = steps_of(model, PLAIN).backward(0)
    assert not {"replay", "questions"} & set(plain)
    assert measures["tokens"] > plain["tokens"]
    logits = torch.randn(3, 7)
    assert torch.allclose(divergences(logits, logits + 1.0), torch.zeros(3), atol=1e-6)
    assert (divergences(logits, logits.flip(0))[[0, 2]] > 0).all()
