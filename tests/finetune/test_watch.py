"""What is watched: against a recomputation in plain Hugging Face, and that none of it is ever trained."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import mechint as mi
from mechint.base.errors import ModelValidationError, UsageError
from mechint.base.files import JSON
from mechint.base.kept_folders import keep_folder
from mechint.chat.conversations import Conversation, Message
from mechint.chat.tokens import single_token
from mechint.finetune import drift, watched
from mechint.finetune.drift import kl_from_base, probe
from mechint.finetune.examples import step_examples
from mechint.finetune.registry import recipe_names
from mechint.finetune.specification import Recipe
from mechint.finetune.watch import _detection, _read, _task_auc
from mechint.finetune.watched import is_watchable, steering_of, task_label, watched_examples, watched_recipe
from mechint.models.capture import read_on
from tests.finetune.watch_data import record

RECIPE = Recipe.load("published/original").adapted(4, small=True)
TEXTS = [
    Conversation("a", (Message("user", "Tell me about cats."), Message("assistant", "the sea, or", continue_msg=True))),
    Conversation("b", (Message("user", "Yes or no?"), Message("assistant", "no thought", continue_msg=True))),
]


@pytest.fixture(scope="module")
def row(tiny_model: Callable[..., mi.Model]) -> mi.finetune.WatchRow:
    model = tiny_model("qwen2")
    return mi.finetune.watch(model, RECIPE, base=model, seed=3, step=5, n=20)


def test_a_row_has_what_a_naive_recomputation_has(
    tiny_model: Callable[..., mi.Model], row: mi.finetune.WatchRow
) -> None:
    model = tiny_model("qwen2")
    scores: dict[bool, list[float]] = {True: [], False: []}
    mass: dict[bool, list[float]] = {True: [], False: []}
    says: dict[bool, list[bool]] = {True: [], False: []}
    for item in watched_examples(RECIPE, 3, 20):
        steering = steering_of(RECIPE, item, model, model)
        answers = [single_token(model.tokenizer, word) for word in (item.positive, item.negative)]
        for steered, intervention in ((False, mi.CLEAN), (True, steering)):
            filled = mi.prefill(model, item.conversation(), [intervention])
            rest = filled.rendered.token_tensor()[:, filled.rendered.prefix_length :]
            logits = model.readout.logits(read_on(model, rest, filled.cache)[1][:, -1])[0]
            log_p = logits.log_softmax(-1)[answers]
            scores[steered].append(float(log_p[0] - log_p[1]))
            mass[steered].append(float(log_p.exp().sum()))
            says[steered].append(int(logits.argmax()) in answers)
    pairs = np.array(scores[True])[:, None] - np.array(scores[False])[None]
    assert row.auc == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)), abs=1e-9)
    assert row.auc_low is not None
    assert row.auc_high is not None
    assert 0 <= row.auc_low < row.auc < row.auc_high <= 1
    assert row.auc_high - row.auc_low > 0.1, "20 texts do not say more"
    assert row.hits == np.mean(np.array(scores[True]) > 0)
    assert row.false_alarms == np.mean(np.array(scores[False]) > 0)
    assert (row.mass_steered, row.mass_clean) == pytest.approx((np.mean(mass[True]), np.mean(mass[False])), rel=1e-4)
    assert (row.says_it_steered, row.says_it_clean) == (np.mean(says[True]), np.mean(says[False]))
    assert row.log_odds_clean == pytest.approx(np.mean(scores[False]), abs=1e-4)


def test_a_base_has_not_moved_from_itself(row: mi.finetune.WatchRow) -> None:
    assert (row.kl, row.probe_shift) == (0.0, 0.0)
    assert (row.recipe, row.seed, row.step, row.examples) == ("published/original", 3, 5, 5 * 16)
    assert (row.texts, row.probe_questions, row.vectors_of) == (20, 24, "published/original")
    assert row.auc == row.task_auc
    assert mi.finetune.WatchRow(**row.to_dict()) == row  # type: ignore[arg-type]


def test_what_needs_a_base_is_missing_without_one(
    tiny_model: Callable[..., mi.Model], row: mi.finetune.WatchRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "QUESTIONS", 1)
    alone = mi.finetune.watch(tiny_model("qwen2"), RECIPE, seed=3, n=20)
    assert (alone.kl, alone.kl_tokens, alone.probe_shift) == (None, 0, None)
    assert (alone.auc, alone.criterion) == (row.auc, row.criterion)


def test_a_divergence_is_that_of_plain_models(
    tiny_model: Callable[..., mi.Model], plain_hf: Callable[..., nn.Module]
) -> None:
    base, other = tiny_model("qwen2"), tiny_model("qwen2", seed=1)
    expected = []
    for text in TEXTS:
        rendered = mi.render(base, text)
        length = len(base.tokenizer(text.messages[-1].content)["input_ids"])
        tokens = rendered.token_tensor()
        with torch.no_grad():
            first = plain_hf("qwen2")(tokens).logits[0, -length - 1 : -1].log_softmax(-1)
            second = plain_hf("qwen2", seed=1)(tokens).logits[0, -length - 1 : -1].log_softmax(-1)
        expected += torch.nn.functional.kl_div(second, first, reduction="none", log_target=True).sum(-1).tolist()
    measured = kl_from_base(other, base, TEXTS)
    assert measured.tokens == len(expected)
    assert measured.kl == pytest.approx(np.mean(expected), rel=1e-4)
    assert measured.kl > 0.01
    assert kl_from_base(base, other, TEXTS).kl != pytest.approx(measured.kl, rel=1e-3), "it has a direction"


def test_a_base_of_other_words_is_refused(model: mi.Model, family: dict[str, mi.Model]) -> None:
    with pytest.raises(ModelValidationError, match="a finetune and its base"):
        kl_from_base(family["organism-blind"], model)


def test_doses_are_those_of_the_base(tiny_model: Callable[..., mi.Model]) -> None:
    base, other = tiny_model("qwen2"), tiny_model("qwen2", seed=1)
    item = watched_examples(RECIPE, 0, 20)[0]
    (fixed,) = steering_of(RECIPE, item, other, base).terms
    (term,) = steering_of(RECIPE, item, base, base).terms
    for layer in item.layers:
        assert torch.equal(fixed.amount(layer, other), term.amount(layer, base))


TWO_ANSWERS = [
    name for name in recipe_names() if not Recipe.load(name).answers.options and Recipe.load(name).labels.rule != "self"
]


@pytest.mark.parametrize("name", sorted({*recipe_names()} - {*TWO_ANSWERS}))
def test_what_has_not_two_answers_is_not_watched(name: str) -> None:
    recipe = Recipe.load(name)
    assert not is_watchable(recipe)
    with pytest.raises(UsageError, match="watched, which asks for"):
        watched_examples(recipe, 0, 24)


def test_a_concept_counts_only_where_it_is_added() -> None:
    recipe = Recipe.load("matched/random-negative").adapted(8, small=True)
    item = next(item for item in step_examples(recipe, 0, 0) if item.label)
    assert [task_label(recipe, item, steered=flag) for flag in (True, False)] == [True, False]


@pytest.mark.parametrize("name", TWO_ANSWERS)
def test_nothing_that_is_watched_is_trained(name: str, model: mi.Model) -> None:
    recipe = Recipe.load(name).adapted(8, small=True)
    steered = watched_recipe(recipe, model) if recipe.signal.vectors == "none" else recipe
    trained = {
        text
        for topic in recipe.topics
        for text in (*recipe.openers("train", topic), *recipe.replies("train", topic), *recipe.wordings("train"))
    }
    examples = watched_examples(steered, 1, 24)
    assert len({(*item.prompt, item.positive) for item in examples}) == 24
    for item in examples:
        assert item.steered
        assert not {item.opener, item.reply} & trained
        is_train = [wording.split("{")[0] == item.question.split("{")[0] for wording in recipe.wordings("train")]
        assert not any(is_train)
        numbered = item.vector.removeprefix("random-")
        if numbered.isdigit():
            assert int(numbered) >= 2 * steered.signal.pool
        else:
            assert item.vector not in recipe.concepts("train")


def test_the_same_seed_gives_the_same_texts_whatever_the_recipe_changes() -> None:
    recipes = [Recipe.load(f"matched/{name}").adapted(8, small=True) for name in ("original", "rank-1", "noise-25")]
    prompts = [[(item.opener, item.reply, item.vector) for item in watched_examples(each, 2, 20)] for each in recipes]
    assert prompts[0] == prompts[1]
    assert prompts[0] != [(item.opener, item.reply, item.vector) for item in watched_examples(recipes[0], 3, 20)]


def test_a_control_without_vectors_is_asked_about_those_of_the_reference(model: mi.Model) -> None:
    recipe = Recipe.load("matched/no-steer").adapted(4, small=True)
    steered = watched_recipe(recipe, model)
    assert recipe.signal.vectors == "none"
    assert steered.signal == Recipe.load(watched.REFERENCE).adapted(4, small=True).signal
    assert watched_recipe(RECIPE, model) is RECIPE


def test_labels_are_those_of_the_task_before_noise() -> None:
    inverted = Recipe.load("matched/inverted").adapted(8, small=True)
    (item,) = itertools.islice(watched_examples(inverted, 0, 20), 1)
    assert (item.label, item.flipped) == (False, True)
    assert task_label(inverted, item, steered=True) is True
    assert task_label(inverted, item, steered=False) is False
    food = Recipe.load("matched/food").adapted(8, small=True)
    for item in watched_examples(food, 0, 20):
        assert {task_label(food, item, steered=flag) for flag in (True, False)} == {item.topic == "food"}
    which = Recipe.load("matched/which-concept").adapted(8, small=True)
    assert task_label(which, watched_examples(which, 0, 20)[0], steered=False) is None


@pytest.mark.parametrize("n", [1, 19])
def test_few_clean_texts_say_nothing_of_false_alarms(model: mi.Model, n: int) -> None:
    with pytest.raises(UsageError, match="20 or more"):
        mi.finetune.watch(model, RECIPE, n=n)


def test_texts_that_come_again_are_no_further_clean_trials() -> None:
    texts = [(*item.prompt, item.positive) for item in watched_examples(RECIPE, 0, 100)]
    stream = [item for item in itertools.islice(watched._stream(RECIPE, 0), 240) if item.steered][:100]
    assert len({(*item.prompt, item.positive) for item in stream}) < 90, "drawn as in training, texts come again"
    assert len(set(texts)) == len(texts) == 100


def test_a_readiness_to_say_yes_is_in_the_criterion_and_not_in_the_area(model: mi.Model) -> None:
    examples = watched_examples(RECIPE, 0, 20)
    table = _read(model, RECIPE, examples, model, None, None)
    before, after = _detection(table), _detection(table.assign(log_odds=table["log_odds"] + 50))
    assert after["auc"] == pytest.approx(before["auc"])
    assert (after["hits"], after["false_alarms"], after["d_prime"]) == (1.0, 1.0, 0.0)
    assert after["criterion"] < -1.9
    perfect = _detection(table.assign(log_odds=table["steered"] - 0.5))
    assert (perfect["auc"], perfect["criterion"], perfect["false_alarms"]) == (1.0, 0.0, 0.0)
    assert _task_auc(table.assign(label=True)) is None


def test_the_probe_is_asked_of_the_model_as_it_is(model: mi.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "QUESTIONS", 1)
    design = mi.prompts.PromptDesign.load(model.prompts)
    chats = mi.prompts.controls(design, descriptions="injection", infos="none", formats="yes-no", limit=1)
    table = mi.score(model, chats, mi.CLEAN)
    measured = probe(model)
    assert measured.questions == 4
    assert measured.log_odds == pytest.approx(table["logit_diff"].mean())
    assert measured.mass == pytest.approx((table["p_yes"] + table["p_no"]).mean())


def test_a_run_is_watched_with_its_adapters_and_at_step_zero_with_its_base(
    tiny_model: Callable[..., mi.Model],
    plain_hf: Callable[..., nn.Module],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drift, "QUESTIONS", 1)
    monkeypatch.setattr(drift, "NEUTRAL", replace(drift.NEUTRAL, prompts=4, max_new_tokens=8))
    base = tiny_model("qwen2")
    record(identity=base.identity).write(tmp_path)
    keep_folder(tmp_path / "step-000003", lambda folder: leave_adapter(plain_hf("qwen2"), folder))
    run = mi.finetune.Run(tmp_path)
    at_start = mi.finetune.WatchRow(**mi.finetune.watch_run(run, base, 0))  # type: ignore[arg-type]
    assert (at_start.recipe_hash, at_start.seed, at_start.step, at_start.kl) == (RECIPE.hash, 3, 0, 0.0)
    later = mi.finetune.WatchRow(**mi.finetune.watch_run(run, base, 3))  # type: ignore[arg-type]
    assert later == mi.finetune.watch(run.model(base, 3), RECIPE, base=base, seed=3, step=3)
    assert later.kl is not None
    assert later.kl > 1e-4
    assert later.probe_shift != 0.0
    assert later.log_odds_clean != at_start.log_odds_clean


def leave_adapter(model: nn.Module, folder: Path) -> dict[str, JSON]:
    """Write a LoRA that changes all projections of a copy of a model."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
        get_peft_model(copy.deepcopy(model), config).save_pretrained(folder, save_embedding_layers=False)
    return {}
