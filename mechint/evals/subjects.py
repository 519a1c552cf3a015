"""What a suite evaluates: a base, or a base with an adapter on top, and the vectors that all are steered with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from mechint.base.errors import UsageError
from mechint.evals.realtime import one_token
from mechint.finetune.pools import Pools
from mechint.finetune.run import Run
from mechint.finetune.signal import Signal
from mechint.finetune.specification import Recipe
from mechint.finetune.watched import watched_recipe
from mechint.models.model import Model
from mechint.vectors.concept_vectors import ConceptVector
from mechint.vectors.extract import mean_difference

BASE = "base"
_LEAST_CONCEPTS, _MOST_CONCEPTS = 2, 8


@dataclass(frozen=True)
class Subject:
    """A model that is evaluated: the base as it is, or with the adapter of a run after a step on top.

    `recipe` is the one by whose questions it is asked, None for evaluations that have questions of their own; `signal`
    is what is added where that recipe trains without a signal.
    """

    base: Model = field(repr=False)
    run: Run | None = None
    step: int = 0
    recipe: Recipe | None = None
    signal: Signal | None = None
    adapted: Model | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """The recipe that it was trained by, or `base`."""
        return BASE if self.run is None else str(self.run.record.recipe["name"])

    @property
    def seed(self) -> int:
        """The seed that it was trained from; -1 for the base."""
        return -1 if self.run is None else self.run.seed

    @property
    def place(self) -> tuple[Path, int] | None:
        """What adapters are told apart by; None for the base."""
        return None if self.run is None else (self.run.path, self.step)

    @property
    def model(self) -> Model:
        """The model with its adapter, which a suite puts on top for all evaluations of it."""
        return self.base if self.adapted is None else self.adapted

    def steered_recipe(self) -> Recipe:
        """Return the recipe with a signal, and labels that say whether anything was added, whatever its own were."""
        assert self.recipe is not None  # evaluations that need one say so
        recipe = self.recipe
        if recipe.signal.vectors == "none":
            recipe = watched_recipe(recipe, self.base) if self.signal is None else replace(recipe, signal=self.signal)
        return replace(recipe, labels=replace(recipe.labels, rule="steered"))


@dataclass
class Concepts:
    """Vectors of concepts that all subjects are steered with: mean differences of the base, made when first wanted."""

    base: Model = field(repr=False)
    _of_recipes: dict[str, dict[str, ConceptVector]] = field(default_factory=dict, repr=False)

    @cached_property
    def vectors(self) -> Mapping[str, ConceptVector]:
        """Return up to eight, of held-out concepts of the pools whose names are one token.

        Raises UsageError where there are fewer than two.
        """
        names = self.names
        if len(names) < _LEAST_CONCEPTS:
            raise UsageError(
                given=f"{len(names)} concepts of one token for {self.base.name}",
                allowed=f"{_LEAST_CONCEPTS} or more",
                advice="leave out realtime",
            )
        return mean_difference(self.base, names)

    def of(self, recipe: Recipe) -> Mapping[str, ConceptVector]:
        """Return the vectors of a recipe's own concepts, trained and held out; none where it names none."""
        if not recipe.signal.has_concepts:
            return {}
        names = [*recipe.concepts("train"), *recipe.concepts("held_out")]
        key = "\n".join(names)
        if key not in self._of_recipes:
            self._of_recipes[key] = mean_difference(self.base, names)
        return self._of_recipes[key]

    @property
    def names(self) -> list[str]:
        """Names of held-out concepts that are one token each."""
        return one_token(self.base, Pools.load(self.base.prompts).concepts("held_out"))[:_MOST_CONCEPTS]
