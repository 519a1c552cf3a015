"""The texts that a training is watched with: openers, replies, wordings and vectors of which none is ever trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count, islice

from mechint.base.errors import UsageError
from mechint.finetune.examples import TextExample, example
from mechint.finetune.injections import fixed_dose, injection_of
from mechint.finetune.specification import Recipe
from mechint.interventions.specifications import Intervention
from mechint.models.model import Model
from mechint.vectors.concept_vectors import ConceptVector

FACTORS = ("vectors", "openers", "replies", "wordings")
LEAST_CLEAN = 20  # texts, below which a rate of false alarms says nothing
REFERENCE = "matched/original"
_DRAWN = 64  # examples that are looked at for each text that is wanted


def watched_recipe(recipe: Recipe, model: Model) -> Recipe:
    """Return the recipe with vectors: its own, or those of the reference for one that trains without any.

    A control that was never steered is asked about the same steering as the others.
    """
    if recipe.signal.vectors != "none":
        return recipe
    reference = Recipe.load(REFERENCE).for_model(model.name, model.n_layers, model.prompts)
    return replace(recipe, signal=reference.signal)


def is_watchable(recipe: Recipe) -> bool:
    """Return whether the right answers of a recipe are two that its examples say."""
    return not recipe.answers.options and recipe.labels.rule != "self"


def check_watchable(recipe: Recipe) -> None:
    """Raise UsageError for a recipe that is not watchable."""
    if not is_watchable(recipe):
        several = f"one of {len(recipe.answers.options)} answers"
        raise UsageError(
            given=f"recipe {recipe.name!r} watched, which asks for "
            + (several if recipe.answers.options else "the model's own answers"),
            allowed="recipes with two answers, of which an example says which is right",
            advice="train it without watching, and read what it answers afterwards",
        )


def watched_examples(recipe: Recipe, seed: int, n: int) -> list[TextExample]:
    """Return up to `n` steered examples of different texts, each of which is to be read clean as well.

    Without a vector a trial is a function of its text, so that a text that comes twice is no second clean trial. Raises
    UsageError where there are fewer than 20, and for a recipe whose right answers are not two that its examples say:
    neither areas nor false alarms are of it.
    """
    check_watchable(recipe)
    if n >= LEAST_CLEAN:
        texts: dict[tuple[str, ...], TextExample] = {}
        for item in islice(_stream(recipe, seed), _DRAWN * n):
            if item.steered:
                texts.setdefault((*item.prompt, item.positive), item)
            if len(texts) == n:
                break
        n = len(texts)
    if n < LEAST_CLEAN:
        raise UsageError(
            given=f"recipe {recipe.name!r} watched with {n} different clean texts",
            allowed=f"{LEAST_CLEAN} or more: a rate of false alarms over fewer says nothing",
            advice="ask for more, or give its pools more texts for validation",
        )
    return list(texts.values())


def steering_of(
    recipe: Recipe, item: TextExample, model: Model, unit: Model, concepts: Mapping[str, ConceptVector] | None = None
) -> Intervention:
    """Return what an example adds, its relative strength in the norms of `unit`: the same for a model and its base."""
    return fixed_dose(injection_of(recipe, item, model.d_model, concepts), unit)


def task_label(recipe: Recipe, item: TextExample, *, steered: bool) -> bool | None:
    """Return the right label of a text, before noise, read with its vector or without; None where it has none then."""
    rule = recipe.labels.rule
    if rule == "concept" and not steered:
        return None
    if rule == "steered":
        return steered
    truth = item.label != item.flipped
    return steered and truth if rule == "meaningful" else truth


def _stream(recipe: Recipe, seed: int) -> Iterator[TextExample]:
    rows = recipe.budget.rows
    return (example(recipe, seed, at // rows, at % rows, FACTORS, "validation") for at in count())
