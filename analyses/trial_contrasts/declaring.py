"""Contrasts by a written rule: which there are is decided by what was sampled, before any verdict is read.

Of each model: every pair of prompts that differ in one factor, every category of concepts against the other concepts,
every pair of steering modes. Between models: every pair, and for every pair what each such change of the prompt does
to one less what it does to the other. Net detection where there are clean replies, else hits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType

import pandas as pd

from analyses.trial_contrasts.matching import shared_columns
from mechint.base.errors import UsageError
from mechint.trials.arms import flagged, selected
from mechint.trials.contrasts import difference
from mechint.trials.plans import Contrast, Group
from mechint.trials.prompts import TrialPrompts

# What a contrast is of, by the columns in which its sides differ.
KINDS = ("prompt", "model", "asymmetry", "category", "steer")
OTHER = "other"
_DESIGN = ("model", "prompt", "concept", "category", "layers", "depth", "strength", "steer")
_FACTOR_WORDS: Mapping[str, str] = MappingProxyType({"nothing": "leave to notice nothing"})
_NOT_ALIKE = "the models were steered at layers of different depths, at several each"


@dataclass(frozen=True)
class Declared:
    """The contrasts that a table allows, and of those that the rule names but the table does not, why not."""

    contrasts: tuple[Contrast, ...]
    left_out: Mapping[str, str]


def declared(trials: pd.DataFrame, smallest_effect: float) -> Declared:
    """Return the contrasts of the rule for a table of trials; no reply and no verdict is looked at."""
    blind = _blind(trials)
    kept: list[Contrast] = []
    left_out: dict[str, str] = {}
    for candidate in candidates(trials):
        contrast = replace(candidate, smallest_effect=smallest_effect)
        hits = replace(contrast, measure="hits")
        if not (refusal := _refusal(contrast, blind)):
            kept.append(contrast)
        elif not _refusal(hits, blind):
            kept.append(hits)
        else:
            left_out[contrast.name] = refusal.removeprefix(f"{contrast.name}: ")
    kept.sort(key=lambda contrast: KINDS.index(kind_of(contrast)))  # models stay in their order within a kind
    missing = dict.fromkeys(_unmatched_models(design_of(trials)), _NOT_ALIKE)
    return Declared(tuple(kept), {**left_out, **missing})


def design_of(trials: pd.DataFrame) -> pd.DataFrame:
    """Return what was sampled of concepts under the question: a row for each cell, without what came of it."""
    is_introspection = (trials["question"] == "introspection") & (trials["series"] == "injected")
    return trials.loc[is_introspection, list(_DESIGN)].drop_duplicates(ignore_index=True)


def candidates(trials: pd.DataFrame) -> Iterator[Contrast]:
    """Yield the contrasts of the rule, whether or not there are cells to measure them on."""
    design = design_of(trials)
    models = list(dict.fromkeys(design["model"]))
    for model in models:
        yield from _within(model, design[design["model"] == model])
    for left, right in combinations(models, 2):
        yield from _between(left, right, design)


def kind_of(contrast: Contrast) -> str:
    """Return what a contrast is of: one of `KINDS`, or OTHER."""
    columns = [set(group) for group in contrast.groups]
    differing = {name for name in set().union(*columns) if len({str(group.get(name)) for group in contrast.groups}) > 1}
    if len(contrast.left) == 1 and len(differing) == 1 and (kind := differing.pop()) in KINDS:
        return kind
    return "asymmetry" if len(contrast.left) == 2 and differing == {"model", "prompt"} else OTHER


def prompt_changes(design: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Return the pairs of a design's prompts of which the second has one factor more, with that factor."""
    prompts = set(design["prompt"])
    return [pair for pair in TrialPrompts.load().differences() if {pair[0], pair[1]} <= prompts]


def factor_words(factor: str) -> str:
    """Return what a factor of a prompt is called beside numbers: "nothing" by itself reads as no change."""
    return _FACTOR_WORDS.get(factor, factor)


def categories(design: pd.DataFrame) -> list[str]:
    """Return the categories of a design's concepts."""
    return [name for name in dict.fromkeys(design["category"]) if name]


def _within(model: str, design: pd.DataFrame) -> Iterator[Contrast]:
    """Yield the contrasts of one model."""
    of_model: Group = {"model": model}
    for before, after, factor in prompt_changes(design):
        name = f"{factor_words(factor)}: {before} to {after}, {model}"
        yield Contrast(name, [{**of_model, "prompt": after}], [{**of_model, "prompt": before}])
    names = categories(design)
    # Of two categories, the second against the first is the first against the second.
    for category in names if len(names) > 2 else names[: len(names) - 1]:
        others = [other for other in names if other != category]
        against = others[0] if len(others) == 1 else "other concepts"
        sides = [{**of_model, "category": category}], [{**of_model, "category": others}]
        yield Contrast(f"{category} less {against}, {model}", *sides)
    for mode, other in combinations(dict.fromkeys(design["steer"]), 2):
        yield Contrast(
            f"steered {mode} less {other}, {model}", [{**of_model, "steer": mode}], [{**of_model, "steer": other}]
        )


def _between(left: str, right: str, design: pd.DataFrame) -> Iterator[Contrast]:
    """Yield the contrasts of two models; none where their cells cannot be matched."""
    if not (columns := shared_columns(design, (left, right))):
        return
    where = "" if "layers" in columns else ", each at its own layers"
    yield Contrast(f"{left} less {right}{where}", [{"model": left}], [{"model": right}], match=columns)
    changes = [set(prompt_changes(design[design["model"] == model])) for model in (left, right)]
    for before, after, factor in prompt_changes(design):
        if all((before, after, factor) in of_model for of_model in changes):
            yield Contrast(
                f"{factor_words(factor)} in {left} less in {right}{where}",
                [{"model": left, "prompt": after}, {"model": right, "prompt": before}],
                [{"model": left, "prompt": before}, {"model": right, "prompt": after}],
                match=[name for name in columns if name != "prompt"],
            )


def _unmatched_models(design: pd.DataFrame) -> list[str]:
    pairs = combinations(dict.fromkeys(design["model"]), 2)
    return [f"{left} less {right}" for left, right in pairs if not shared_columns(design, (left, right))]


def _blind(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the table that contrasts are measured on with every reply a denial: what is refused is so by design."""
    columns = sorted({"category", "steer", "strength", "layers"})
    return flagged(selected(trials, ("injected", "random"), "introspection", columns).assign(outcome="denies"))


def _refusal(contrast: Contrast, blind: pd.DataFrame) -> str:
    """Return why a contrast cannot be measured, "" if it can."""
    try:
        difference(contrast, blind)
    except UsageError as error:
        return error.given
    return ""
