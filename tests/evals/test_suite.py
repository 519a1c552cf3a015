"""A suite on the base and a short training: what is there is not computed again, and nothing is taken for another."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import mechint as mi
from mechint.base.errors import StaleArtefactError, UnknownNameError, UsageError
from mechint.evals.evaluations import EVALUATIONS
from mechint.evals.items import Items
from mechint.evals.multiturn import multiturn
from mechint.evals.subjects import Concepts
from mechint.evals.suite import Suite
from mechint.finetune.run import Run
from mechint.finetune.training import train

NAMES = [evaluation.name for evaluation in EVALUATIONS]


@pytest.fixture(scope="module")
def runs(family: dict[str, mi.Model], tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A control without a signal and a detector, of one step each."""
    out, base = tmp_path_factory.mktemp("runs"), family["organism-blind"]
    names = ("published/no-steer", "published/original")
    return [train(base, name, 0, out, 1, watch=False) for name in names]


def test_the_base_is_asked_in_the_words_of_each_recipe_and_each_run_in_its_own(
    family: dict[str, mi.Model], runs: list[Run], tmp_path: Path
) -> None:
    suite = Suite(family["organism-blind"], runs, tmp_path)
    tasks = {(t.evaluation.name, t.subject.label, t.subject.recipe and t.subject.recipe.name) for t in suite.tasks()}
    names = [str(run.record.recipe["name"]) for run in runs]
    for name in ("detection", "transfer", "multiturn"):
        assert {(name, "base", asked) for asked in names} <= tasks
        assert {(name, trained, trained) for trained in names} <= tasks
        assert (name, names[0], names[1]) not in tasks
    assert ("battery", "base", None) in tasks
    signals = [t.subject.steered_recipe().signal for t in suite.tasks() if t.evaluation.name == "detection"]
    assert len(set(signals)) == 1, "who was never steered is asked about the same steering"
    assert signals[0] == runs[1].recipe.signal


def test_who_was_never_steered_is_asked_with_random_vectors_where_any_recipe_has_them() -> None:
    by_concept = SimpleNamespace(recipe=mi.finetune.Recipe.load("matched/concept-vectors"))
    by_random = SimpleNamespace(recipe=mi.finetune.Recipe.load("matched/original"))
    for runs in ([by_concept, by_random], [by_random, by_concept]):
        assert Suite._signal.fget(SimpleNamespace(runs=runs)) == by_random.recipe.signal  # type: ignore[attr-defined]
    assert Suite._signal.fget(SimpleNamespace(runs=[by_concept])) == by_concept.recipe.signal  # type: ignore[attr-defined]


def test_tables_are_computed_once_and_belong_to_their_weights(
    family: dict[str, mi.Model], runs: list[Run], tmp_path: Path
) -> None:
    base = family["organism-blind"]
    suite = Suite(base, runs[:1], tmp_path, only=("talk",))
    assert suite.run() == 2
    assert suite.run() == 0
    table = suite.tables("talk")
    assert set(table["trained_by"]) == {"base", "published/no-steer"}
    assert set(zip(table["seed"], table["step"], strict=True)) == {(-1, 0), (0, 1)}
    assert "receipts" not in table.attrs
    wider = Suite(base, runs, tmp_path, only=("talk",))
    assert [task.subject.label for task in wider.missing()] == ["published/original"]
    assert len(Suite(base, runs, tmp_path, size="full", only=("talk",)).missing()) == 3


def test_shards_have_all_subjects_between_them(family: dict[str, mi.Model], runs: list[Run], tmp_path: Path) -> None:
    suite = Suite(family["organism-blind"], runs, tmp_path)
    shards = [suite.missing(mi.Shard(at, 2)) for at in range(2)]
    assert sum(map(len, shards)) == len(suite.missing())
    assert not {task.subject.place for task in shards[0]} & {task.subject.place for task in shards[1]}
    of_a_run = len([task for task in suite.missing() if task.subject.run is runs[0]])
    assert abs(len(shards[0]) - len(shards[1])) < of_a_run, "a run that moved to the other would be none too many there"


def test_recipes_whose_vectors_are_of_concepts_are_asked_with_these(family: dict[str, mi.Model]) -> None:
    base = family["organism-blind"]
    recipe = mi.finetune.Recipe.load("matched/concept-vectors").for_model(base.name, base.n_layers, base.prompts)
    concepts = Concepts(base)
    vectors = concepts.of(recipe)
    held_out = set(recipe.concepts("held_out"))
    assert set(vectors) == {*recipe.concepts("train")} | held_out
    assert concepts.of(recipe) is vectors, "extracted once for all subjects"
    assert concepts.of(mi.finetune.Recipe.load("matched/original")) == {}
    items = Items.load(base.prompts).few(1, "prefilled")
    table = multiturn(base, recipe, items, vectors=1, texts=1, concepts=vectors)
    assert set(table[table["steered"]]["vector"]) < held_out
    with pytest.raises(UsageError, match="no vector of the concept"):
        multiturn(base, recipe, items, vectors=1, texts=1)


def test_what_cannot_be_evaluated_is_refused(family: dict[str, mi.Model], runs: list[Run], tmp_path: Path) -> None:
    base = family["organism-blind"]
    with pytest.raises(UnknownNameError, match="poetry"):
        Suite(base, runs, tmp_path, only=("poetry",))
    with pytest.raises(UsageError, match="no runs"):
        Suite(base, [], tmp_path)
    with pytest.raises(UsageError, match="other weights"):
        Suite(family["organism"], runs, tmp_path)
    suite = Suite(base, runs[:1], tmp_path, only=("talk",))
    damaged = suite.path(suite.tasks()[0])
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no table")
    with pytest.raises(StaleArtefactError, match="computed again"):
        suite.tables("talk")
    assert isinstance(suite.tables("battery"), pd.DataFrame)
