"""The pass of training: the same numbers as `mi.score`, in both ways of filling, and the gradients that each has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mechint as mi
from mechint.base.errors import ReceiptError, UsageError
from mechint.finetune import verification
from mechint.finetune.answer_batch import AnswerBatch, Prompt, Prompts
from mechint.finetune.axes import Fill, Lora
from mechint.finetune.examples import step_examples
from mechint.finetune.forward import answer_logits, check_recomputing
from mechint.finetune.lora import Trainee, with_lora
from mechint.finetune.losses import answer_losses, answer_mass, is_right
from mechint.finetune.steered_training import recomputed, steered
from mechint.interventions.addition import Term
from mechint.models.rounding import ROUNDING

THROUGH, STOPPED = Fill(gradient="through"), Fill(gradient="stopped")
# What the bridge calls as it is, where an architecture has joint projections.
PROJECTIONS = {
    "gpt2": ("attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    "gpt_neox": ("attention.dense", "dense_h_to_4h", "dense_4h_to_h"),
}
ARCHITECTURES = ("qwen2", "llama", "mistral", "gemma2", "gemma3", "gpt2", "gpt_neox")


def recipe_for(architecture: str = "qwen2", **lora: object) -> mi.finetune.Recipe:
    recipe = mi.finetune.Recipe.load("published/original").adapted(4, small=True)
    projections = PROJECTIONS.get(architecture, recipe.lora.projections)
    return replace(recipe, lora=replace(recipe.lora, rank=4, projections=projections, **lora))


def trainee_of(model: mi.Model, recipe: mi.finetune.Recipe, spread: float = 0.1) -> Trainee:
    """A LoRA that does something: its second factors are zero at first."""
    trainee = with_lora(model, recipe.lora, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in trainee.weights.values():
            weight.add_(torch.randn(weight.shape, generator=generator) * spread)
    return trainee


def prompts_of(model: mi.Model, recipe: mi.finetune.Recipe, count: int = 5) -> list[Prompt]:
    prompts = Prompts(model, recipe).of(step_examples(recipe, 0, 0))[:count]
    assert {prompt.example.steered for prompt in prompts} == {True, False}
    assert len({len(prompt.rendered.tokens) for prompt in prompts}) > 1, "padding has to matter"
    return prompts


def logits_of(trainee: Trainee, model: mi.Model, prompts: list[Prompt], fill: Fill) -> torch.Tensor:
    batch = AnswerBatch.of(model, prompts, split=fill.gradient == "stopped")
    with torch.no_grad(), answer_logits(trainee, batch, fill) as logits:
        return logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_trained_is_what_is_read(
    tiny_model: Callable[..., mi.Model], tmp_path: Path, architecture: str
) -> None:
    model, recipe = tiny_model(architecture), recipe_for(architecture)
    trainee, prompts = trainee_of(model, recipe), prompts_of(model, recipe)
    trainee.save(tmp_path)
    table = verification.compared(trainee, prompts, model, tmp_path, THROUGH)
    assert table["difference"].max() <= 1e-4
    whole = logits_of(trainee, model, prompts, THROUGH)
    assert torch.allclose(logits_of(trainee, model, prompts, STOPPED), whole, atol=1e-4)
    alone = torch.cat([logits_of(trainee, model, [prompt], THROUGH) for prompt in prompts])
    assert torch.allclose(alone, whole, atol=1e-4)
    clean = logits_of(
        trainee, model, [replace(prompt, intervention=mi.CLEAN, additions=()) for prompt in prompts], THROUGH
    )
    moved = (clean - whole).abs().amax(1) > 1e-4
    assert moved.tolist() == [prompt.example.steered for prompt in prompts], "the hooks fire, in their rows alone"


@pytest.mark.parametrize("name", ["matched/which-third", "matched/which-sentence", "matched/self-prediction"])
def test_recipes_of_every_kind_of_answer_are_read_as_they_are_trained(
    family: Mapping[str, mi.Model], tmp_path: Path, name: str
) -> None:
    model = family["organism-blind"]
    recipe = mi.finetune.Recipe.load(name).for_model(model.name, model.n_layers, model.prompts)
    trainee = trainee_of(model, recipe, spread=0.02)
    prompts = Prompts(model, recipe).of(step_examples(recipe, 0, 0)[:3])
    trainee.save(tmp_path)
    table = verification.compared(trainee, prompts, model, tmp_path, recipe.fill)
    assert len(table) == sum(len(prompt.example.answers) for prompt in prompts)
    assert table["difference"].max() <= 1e-3
    for prompt in prompts:
        assert sum(prompt.targets) == pytest.approx(1)
        assert prompt.targets[prompt.example.right] == max(prompt.targets)


def test_the_likeliest_of_several_answers_is_right() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 9.0], [3.0, 3.0, 2.0, 0.0]])
    answers = torch.tensor([[0, 1, 2], [0, 1, 2]])
    targets = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert is_right(logits, answers, targets).tolist() == [True, False], "a tie is not"
    pair = answer_losses(logits, answers, targets, "pair")
    assert pair[0] == pytest.approx(float(torch.tensor([1.0, 3.0, 2.0]).logsumexp(0)) - 3)
    assert answer_losses(logits, answers, targets, "vocabulary")[0] == pytest.approx(float(logits[0].logsumexp(0)) - 3)
    assert answer_mass(logits, answers)[0] == pytest.approx(float(logits[0].softmax(0)[:3].sum()))


def test_a_difference_is_refused(model: mi.Model, tmp_path: Path) -> None:
    recipe = recipe_for()
    trainee = trainee_of(model, recipe)
    trainee.save(tmp_path)
    other = trainee_of(model, recipe, spread=0.2)
    with pytest.raises(ReceiptError, match="logits of training and of mi"):
        verification.compared(other, prompts_of(model, recipe), model, tmp_path, THROUGH)


def test_a_base_in_bfloat16_is_trained_in_float32_and_read_alike(
    tiny_checkpoint: Callable[..., Path], model: mi.Model, tmp_path: Path
) -> None:
    """Its receipt allows the rounding of that dtype, and no other adapter."""
    low, recipe = mi.load(tiny_checkpoint("qwen2"), dtype="bfloat16"), recipe_for()
    trainee, prompts = trainee_of(low, recipe), prompts_of(low, recipe)
    assert {weight.dtype for weight in trainee.weights.values()} == {torch.float32}
    assert trainee.head.weight.dtype == torch.bfloat16
    trainee.save(tmp_path)
    for fill in (THROUGH, STOPPED):
        table = verification.compared(trainee, prompts, low, tmp_path, fill)
        assert 1e-4 < (table["difference"] / table["spread"]).max() < ROUNDING[torch.bfloat16]
    wide = trainee_of(model, recipe)
    exact, rounded = gradients(wide, model, STOPPED), gradients(trainee, low, STOPPED)
    assert {gradient.dtype for gradient in rounded.values()} == {torch.float32}
    whole = torch.cat([gradient.flatten() for gradient in exact.values()])
    assert torch.cosine_similarity(whole, torch.cat([part.flatten() for part in rounded.values()]), dim=0) > 0.95
    with pytest.raises(ReceiptError, match=r"at most 0\.4 of the logits' spread"):
        verification.compared(trainee_of(low, recipe, spread=0.5), prompts, low, tmp_path, THROUGH)


def gradients(trainee: Trainee, model: mi.Model, fill: Fill, *, recompute: bool = False) -> dict[str, torch.Tensor]:
    recipe = recipe_for()
    batch = AnswerBatch.of(model, prompts_of(model, recipe), split=fill.gradient == "stopped")
    trainee.model.zero_grad()
    with torch.enable_grad(), answer_logits(trainee, batch, fill, recompute=recompute) as logits:
        losses = answer_losses(logits, batch.answers, batch.targets, "vocabulary")
        torch.autograd.backward(losses.sum())
    return {name: weight.grad.clone() for name, weight in trainee.weights.items() if weight.grad is not None}


def test_blocks_that_are_passed_again_give_the_same_gradients(model: mi.Model) -> None:
    trainee = trainee_of(model, recipe_for())
    kept, again = gradients(trainee, model, THROUGH), gradients(trainee, model, THROUGH, recompute=True)
    assert kept.keys() == again.keys() == trainee.weights.keys()
    for name, gradient in kept.items():
        assert torch.allclose(again[name], gradient, rtol=1e-5, atol=1e-7), name
    assert all("forward" not in vars(block) for block in trainee.blocks)
    with pytest.raises(UsageError, match="activation checkpointing"):
        check_recomputing(STOPPED)


def test_stopped_is_the_slope_of_a_model_whose_first_turns_stay(model: mi.Model) -> None:
    """Against central differences in which the weights move in the second pass alone, or in both."""
    trainee = trainee_of(model, recipe_for())
    direction = {
        name: torch.randn(weight.shape, generator=torch.Generator().manual_seed(7)) * 0.1
        for name, weight in trainee.weights.items()
    }
    batch = AnswerBatch.of(model, prompts_of(model, recipe_for()), split=True)

    def move(share: float) -> None:
        with torch.no_grad():
            for name, weight in trainee.weights.items():
                weight.add_(direction[name], alpha=share)

    def loss(share: float, *, both: bool) -> float:
        from mechint.finetune.forward import _filled, _logits

        if both:
            move(share)
        cache = _filled(trainee, batch)
        if not both:
            move(share)
        with torch.no_grad():
            logits = _logits(trainee, batch, slice(batch.trunk, None), batch.answer_places, cache)
        move(-share)
        return float(answer_losses(logits, batch.answers, batch.targets, "vocabulary").double().sum())

    slopes = {both: (loss(2e-4, both=both) - loss(-2e-4, both=both)) / 4e-4 for both in (False, True)}
    for fill, both in ((STOPPED, False), (THROUGH, True)):
        computed = sum(
            float((gradient * direction[name]).sum()) for name, gradient in gradients(trainee, model, fill).items()
        )
        assert computed == pytest.approx(slopes[both], rel=2e-2), fill
    assert slopes[False] != pytest.approx(slopes[True], rel=0.2), "the two differ where it is checked"


def test_a_vector_of_no_strength_is_clean_to_the_bit(model: mi.Model) -> None:
    trainee = trainee_of(model, recipe_for())
    prompts = [replace(prompt, intervention=mi.CLEAN, additions=()) for prompt in prompts_of(model, recipe_for())]
    batch = AnswerBatch.of(model, prompts, split=False)
    nothing = Term(1, batch.real[1], dict.fromkeys(range(4), torch.zeros(model.d_model)))
    strong = Term(2, batch.real[2], {3: torch.full((model.d_model,), 50.0)})
    with torch.no_grad(), answer_logits(trainee, batch, THROUGH) as clean:
        pass
    with torch.no_grad(), answer_logits(trainee, replace(batch, terms=(nothing,)), THROUGH) as unmoved:
        assert torch.equal(unmoved, clean)
    first = replace(strong, positions=torch.zeros_like(strong.positions))
    first.positions[:10] = True
    with torch.no_grad(), answer_logits(trainee, replace(batch, terms=(first,)), THROUGH) as last_block:
        assert torch.equal(last_block, clean), "what the last block adds at earlier positions reaches nothing"


def test_dropout_is_off_while_first_turns_are_filled_unless_asked_for(model: mi.Model) -> None:
    recipe = recipe_for(dropout=0.5)
    trainee, prompts = trainee_of(model, recipe), prompts_of(model, recipe)
    batch = AnswerBatch.of(model, prompts, split=True)
    states: list[bool] = []
    handle = trainee.blocks[0].register_forward_hook(lambda *_: states.append(trainee.dropouts[0].training))
    for fill in (STOPPED, replace(STOPPED, dropout=True)):
        with torch.no_grad(), answer_logits(trainee, batch, fill, dropout=True):
            pass
    handle.remove()
    assert states == [False, True, True, True]
    assert not any(
        module.training for block in trainee.blocks for module in block.modules() if "Lora" in str(type(module))
    )


class _PassError(Exception):
    """Whatever goes wrong inside."""


def test_hooks_are_gone_whatever_happens(model: mi.Model) -> None:
    trainee = trainee_of(model, recipe_for())
    term = Term(0, torch.ones(3, dtype=torch.bool), {1: torch.ones(model.d_model)})

    @contextmanager
    def broken() -> Iterator[None]:
        with steered(trainee.blocks, [term], 3), recomputed(trainee.blocks):
            yield

    with pytest.raises(_PassError), broken():
        raise _PassError
    assert not any(block._forward_hooks for block in trainee.blocks)
    assert all("forward" not in vars(block) for block in trainee.blocks)
    with pytest.raises(ReceiptError, match="not passed"), steered(trainee.blocks, [term], 3):
        pass


def test_the_adapter_is_where_the_recipe_says(model: mi.Model) -> None:
    late = with_lora(model, Lora(layers="2:4", projections=("q_proj", "down_proj")), seed=0)
    blocks = {name.split(".layers.")[1].split(".")[0] for name in late.weights}
    kinds = {name.split(".lora_")[0].rsplit(".", maxsplit=1)[-1] for name in late.weights}
    assert (blocks, kinds) == ({"2", "3"}, {"q_proj", "down_proj"})
    assert all(weight.dtype == torch.float32 for weight in late.weights.values())
    everything = with_lora(model, Lora(projections=()), seed=0)
    assert len(everything.weights) == 2 * 7 * model.n_layers, "the unembedding is not among them"
    first, second = with_lora(model, Lora(), seed=0), with_lora(model, Lora(), seed=1)
    assert any(not torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    with pytest.raises(UsageError, match=r"a LoRA of c_attn, w_proj, which blocks .* do not have"):
        with_lora(model, Lora(projections=("q_proj", "c_attn", "w_proj")), seed=0)
