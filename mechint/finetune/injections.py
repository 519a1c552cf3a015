"""What an example adds, as an intervention that every readout takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.errors import UnknownConceptError, UsageError
from mechint.chat.render import Rendered
from mechint.chat.spans import positions_of
from mechint.finetune.examples import TextExample
from mechint.finetune.pools import Split
from mechint.finetune.specification import Recipe
from mechint.interventions.specifications import CLEAN, Injection, InjectionSum, Intervention
from mechint.models.model import Model
from mechint.vectors.concept_vectors import ConceptVector, check_not_zero
from mechint.vectors.extract import mean_difference

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_RANDOM = "random-"


def injection_of(
    recipe: Recipe,
    example: TextExample,
    d_model: int,
    concepts: Mapping[str, ConceptVector] | None = None,
    positions: Sequence[int] | None = None,
) -> Intervention:
    """Return the injection that an example asks for, `CLEAN` where it asks for none.

    The same unit direction is added at each of its layers: a random one, which is a function of the recipe's
    `vector_seed` and its number alone, or that of a vector of `concepts` (UnknownConceptError where it is missing),
    read at the recipe's `read_layer` for all layers, or at each. Raises VectorMismatchError for one of another width,
    InvalidVectorError for one that is zero there, LayerRangeError where it has no such layer, and UsageError where
    `positions` are missing of an example that is steered in one sentence alone: `steered_positions` has them.
    """
    if not example.steered:
        return CLEAN
    if example.span and positions is None:
        raise UsageError(
            given=f"an injection into one sentence, {example.span!r}, without its positions",
            allowed="positions of the tokens that it has",
            advice="give positions=steered_positions(tokenizer, rendered, example)",
        )
    vectors = {layer: _direction(recipe, example, layer, d_model, concepts or {}) for layer in example.layers}
    vector = ConceptVector(vectors, example.vector)
    if example.relative:
        return Injection(vector, tuple(example.layers), relative_strength=example.strength, positions=positions)
    return Injection(vector, tuple(example.layers), strength=example.strength, positions=positions)


def steered_positions(
    tokenizer: PreTrainedTokenizerBase, rendered: Rendered, example: TextExample
) -> tuple[int, ...] | None:
    """Return the tokens of the sentence that something is added to, None where it is all of the first turns.

    `rendered` is the example's conversation; raises UsageError where the sentence cannot be told from what is around.
    """
    if not example.span:
        return None
    return positions_of(tokenizer, rendered, example.span, message=1 if example.system else 0)


def concept_vectors(model: Model, recipe: Recipe, split: Split = "train") -> dict[str, ConceptVector]:
    """Return the vectors of a recipe's concepts on a model, mean differences; none where the recipe names none."""
    if not recipe.signal.has_concepts:
        return {}
    return mean_difference(model, recipe.concepts(split))


def fixed_dose(intervention: Intervention, base: Model) -> Intervention:
    """Return an injection with the amounts that it adds to `base`, whatever model it is used on.

    An adapter moves the norms that relative strengths are measured in, and a training doses in those of its base: so
    the adapted model is asked under the dose that it was trained on, and two checkpoints under the same.
    """
    if not any(term.is_relative for term in intervention.terms):
        return intervention
    terms = [_fixed(term, base) for term in intervention.terms]
    return terms[0] if len(terms) == 1 else InjectionSum(tuple(terms), intervention.name)


def _fixed(term: Injection, base: Model) -> Injection:
    amounts = {layer: term.amount(layer, base) for layer in term.layers or ()}
    # A layer to which nothing is added would be a vector of zeros, which no injection takes.
    layers = [layer for layer, amount in amounts.items() if amount.any()]
    vector = ConceptVector({layer: amounts[layer] for layer in layers}, term.vector.name)
    return replace(term, vector=vector, layers=layers, strength=1.0, relative_strength=None, name=term.name)


@lru_cache(maxsize=1024)
def random_direction(d_model: int, seed: int, number: int) -> Float[Tensor, " d_model"]:
    """Return a unit vector that is drawn uniformly, by seed and number: how many others there are does not matter."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
    drawn = torch.randn(d_model, generator=generator)
    return _unit(drawn)


def _direction(
    recipe: Recipe, example: TextExample, layer: int, d_model: int, concepts: Mapping[str, ConceptVector]
) -> Float[Tensor, " d_model"]:
    if recipe.signal.vectors != "concept" and example.vector.startswith(_RANDOM):
        number = int(example.vector.removeprefix(_RANDOM))
        return random_direction(d_model, recipe.signal.vector_seed, number)
    if example.vector not in concepts:
        raise UnknownConceptError(
            given=f"no vector of the concept {example.vector!r}",
            allowed=", ".join(concepts) or "vectors of all concepts of the recipe",
            advice="extract them: mi.extract.mean_difference(model, recipe.concepts('train'))",
        )
    read = layer if recipe.signal.read_layer is None else recipe.signal.read_layer
    vector = concepts[example.vector].at([read])
    vector.check_fits(d_model, recipe.signal.blocks)
    check_not_zero(vector)
    return _unit(vector.vectors[read])


def _unit(vector: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    unit: Tensor = vector / vector.norm()
    return unit
