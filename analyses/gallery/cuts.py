"""What a budget may cut of each analysis: fixed steps, each with fewer vectors, questions or places of a grid.

Every step holds for all conditions of an analysis alike. Concepts and random vectors shrink together, and control
questions in every group. Three rounds of vectors, questions and grid, in this order, make at most nine steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from types import MappingProxyType
from typing import TYPE_CHECKING

from analyses.kit.options import Common

if TYPE_CHECKING:
    from analyses.kit.dose import Dose

Cuts = Mapping[str, object]  # options by name; False switches an option of the gallery off, None leaves one out
VECTORS = ((6, 6), (5, 4), (4, 3))  # concepts, random vectors; the last are the fewest that intervals can be made of
# Control questions of each group. Others ask two at most, questions of their own, or a choice in several orders.
QUESTIONS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "calibration": (6, 4, 2),
        "controls": (6, 4, 2),
        "logit_lens": (3, 2),
        "model_swap": (6, 4, 2),
        "layer_strength": (2,),
    }
)
# Concepts of each reader's own (calibration), and the one contrast vector of two models, are not exchanged for others.
_OWN_CONCEPTS = frozenset({"calibration", "model_swap"})
_ORDERS: tuple[Cuts, ...] = ({"orders": 6}, {"orders": 4}, {"orders": 2})


@dataclass(frozen=True)
class Scope:
    """What steps depend on: the concepts and the dose of an analysis, and the depth of its model."""

    concepts: tuple[str, ...]
    dose: Dose
    n_layers: int


def steps(name: str, config: Common, scope: Scope) -> list[Cuts]:
    """Return what each step cuts of an analysis, besides the steps before it; options that are set are bounds."""
    grid = [step for step in GRIDS.get(name, _no_grid)(scope) if config.layers is None or "windows" not in step]
    rounds = zip_longest(_vectors(name, config, scope), _questions(name, config), grid, fillvalue=None)
    return [step for steps_of_round in rounds for step in steps_of_round if step]


def words(cuts: Cuts) -> str:
    """Return cuts as words: 4 concepts, 3 random vectors, --orders 4, no --ranges."""
    return ", ".join(_words(name, value) for name, value in cuts.items() if value is not None) or "nothing cut"


def _vectors(name: str, config: Common, scope: Scope) -> Iterator[Cuts]:
    for n_concepts, n_random in VECTORS:
        cuts: dict[str, object] = {}
        if len(scope.concepts) > n_concepts and name not in _OWN_CONCEPTS:
            cuts["concepts"] = list(scope.concepts[:n_concepts])
        if config.n_random > n_random and name != "calibration":
            cuts["n_random"] = n_random
        yield cuts


def _questions(name: str, config: Common) -> Iterator[Cuts]:
    if config.conversations is None:
        limit = math.inf if config.limit is None else config.limit
        yield from ({"limit": count} for count in QUESTIONS.get(name, ()) if count < limit)


def _no_grid(_scope: Scope) -> Sequence[Cuts]:
    return ()


def _lens_grid(scope: Scope) -> Sequence[Cuts]:
    """Wider windows, of which there are fewer, and in the end no sweep."""
    half, most = math.ceil(scope.n_layers / 2), math.ceil(scope.n_layers * 2 / 3)
    return {"window": half}, {"window": most}, {"layer_sweep": False, "window": None}


def _strength_grid(scope: Scope) -> Sequence[Cuts]:
    """Every second strength, the dose's own among them; fewer windows and ranges; and in the end no ranges."""
    from analyses.layer_strength import FACTORS, PLACES

    strengths: Cuts = {"strengths": [scope.dose.times(factor).amount for factor in FACTORS[1::2]]}
    unit: Cuts = {} if scope.dose.is_relative else {"absolute": True}
    return {**strengths, **unit}, {"step": 2 * max(1, round(scope.n_layers / PLACES))}, {"ranges": False}


def _steering_grid(_scope: Scope) -> Sequence[Cuts]:
    return {"factors": [0.5, 1.0, 2.0]}, {"n_samples": 1}, {"max_new_tokens": 16}


def _cache_grid(scope: Scope) -> Sequence[Cuts]:
    """Fewer windows that are taken apart, then windows of twice the layers."""
    from analyses.kv_attribution.steps import Size

    layers = Size(None, None).layers_of(scope.n_layers)
    return {"most": 2}, {"window_layers": min(2 * layers, scope.n_layers)}, {"most": 1}


GRIDS: Mapping[str, Callable[[Scope], Sequence[Cuts]]] = MappingProxyType(
    {
        "dose": lambda _: ({"windows": 3}, {"replies": 1}, {"max_new_tokens": 16}),
        "logit_lens": _lens_grid,
        "identification": lambda _: _ORDERS,
        "location": lambda _: _ORDERS,
        "layer_strength": _strength_grid,
        "steering": _steering_grid,
        "trials": lambda _: ({"max_new_tokens": 40}, {"samples": 3}, {"max_new_tokens": 24}),
        "kv_attribution": _cache_grid,
        "sae_attribution": lambda _: ({"top": 8}, {"top": 6}),
    }
)


def _words(name: str, value: object) -> str:
    option = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return option if value else f"no {option}"
    if name == "concepts" and isinstance(value, list):
        return f"{len(value)} concepts"
    counted = {"n_random": "random vectors", "limit": "questions a control group"}
    if name in counted:
        return f"{value} {counted[name]}"
    text = ",".join(f"{item:g}" for item in value) if isinstance(value, list) else str(value)
    return f"{option} {text}"
