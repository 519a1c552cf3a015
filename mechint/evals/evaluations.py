"""The evaluations of a suite, and how much each asks by size: a new one is a function and a line of `EVALUATIONS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from mechint.evals.ability import ability
from mechint.evals.battery import battery
from mechint.evals.calibration import calibration
from mechint.evals.detection import detection
from mechint.evals.first_tokens import first_tokens
from mechint.evals.items import Items
from mechint.evals.lengths import lengths
from mechint.evals.multiturn import multiturn
from mechint.evals.realtime import realtime
from mechint.evals.self_prediction import self_prediction
from mechint.evals.subjects import Concepts, Subject
from mechint.evals.talk import talk
from mechint.evals.transfer import KEYED, AskedIn, askings, transfer
from mechint.finetune.signal import Signal
from mechint.finetune.specification import Recipe

Size = Literal["quick", "full"]


@dataclass(frozen=True)
class Asking:
    """How a subject is asked: how much, with which vectors of concepts, and where finished cells are kept."""

    size: Size
    concepts: Concepts
    store: Path | None = None


Evaluate = Callable[[Subject, Asking], pd.DataFrame]


@dataclass(frozen=True)
class Evaluation:
    """What is asked under a name; `by_recipe` in the words of a recipe, so that the base is asked in those of each.

    `at_steps` also at the steps before the last, where these are evaluated at all.
    """

    name: str
    evaluate: Evaluate
    by_recipe: bool = False
    at_steps: bool = False


_PLAIN = ("explicit", "vague")  # banks that are asked with yes and no, the last of `askings`
# How many vectors, texts and so on are taken, by size.
_DETECTION: Mapping[Size, tuple[int, int, int]] = {"quick": (6, 24, 40), "full": (8, 40, 100)}
_TRANSFER: Mapping[Size, tuple[int, int, int]] = {"quick": (1, 20, 20), "full": (6, 24, 40)}
_TURNS: Mapping[Size, tuple[int, int, int]] = {"quick": (4, 4, 1), "full": (8, 8, 2)}
_DOSES: Mapping[Size, tuple[float, ...]] = {"quick": (0.1, 0.4), "full": (0.05, 0.1, 0.2, 0.4, 0.8)}
_SHUFFLES: Mapping[Size, int] = {"quick": 2, "full": 8}
_SAMPLES: Mapping[Size, tuple[int, int]] = {"quick": (3, 32), "full": (10, 80)}
# Samples of answers; of answers and of lists; of replies, and their limit in tokens.
_FORETOLD: Mapping[Size, int] = {"quick": 1, "full": 5}
_REPORTED: Mapping[Size, tuple[int, int]] = {"quick": (12, 1), "full": (50, 4)}
_LENGTHS: Mapping[Size, tuple[int, int]] = {"quick": (1, 48), "full": (5, 128)}


def _asked(
    evaluate: Callable[..., pd.DataFrame], subject: Subject, asking: Asking, *values: object, **amounts: object
) -> pd.DataFrame:
    """Return what a subject answers with the vectors of its recipe; `values` come after the recipe."""
    recipe = subject.steered_recipe()
    concepts = asking.concepts.of(recipe)
    return evaluate(subject.model, recipe, *values, concepts=concepts, base=subject.base, store=asking.store, **amounts)


def _detection(subject: Subject, asking: Asking) -> pd.DataFrame:
    vectors, texts, dev_texts = _DETECTION[asking.size]
    return _asked(detection, subject, asking, vectors=vectors, texts=texts, dev_texts=dev_texts)


def _first_tokens(subject: Subject, asking: Asking) -> pd.DataFrame:
    vectors, texts, _ = _DETECTION[asking.size]
    return _asked(first_tokens, subject, asking, vectors=vectors, texts=texts)


def _transfer(subject: Subject, asking: Asking) -> pd.DataFrame:
    vectors, texts, dev_texts = _TRANSFER[asking.size]
    recipe = subject.steered_recipe()
    is_quick = asking.size == "quick"
    ways, signal = (_ways(recipe), _strong(recipe.signal)) if is_quick else (askings(recipe), recipe.signal)
    return _asked(transfer, subject, asking, ways, signal=signal, vectors=vectors, texts=texts, dev_texts=dev_texts)


def _ways(recipe: Recipe) -> list[AskedIn]:
    """Return some of the ways of asking: each pair once, the recipe's own both ways round, and the yes/no banks."""
    ways = askings(recipe)
    first = [way for way in ways if way.bank == KEYED[0]]
    return [*[way for way in first if way.mapping == "fixed" or way.pair == first[0].pair], *ways[-len(_PLAIN) :]]


def _strong(signal: Signal) -> Signal:
    """Return a signal at its two strongest doses."""
    return replace(signal, dose=tuple(sorted(signal.dose)[-2:]))


def _battery(subject: Subject, asking: Asking) -> pd.DataFrame:
    return battery(subject.model, store=asking.store)


def _multiturn(subject: Subject, asking: Asking) -> pd.DataFrame:
    vectors, texts, per_group = _TURNS[asking.size]
    items = Items.load(subject.base.prompts).few(per_group, "prefilled")
    return _asked(multiturn, subject, asking, items, vectors=vectors, texts=texts)


def _realtime(subject: Subject, asking: Asking) -> pd.DataFrame:
    return realtime(
        subject.model,
        asking.concepts.vectors,
        doses=_DOSES[asking.size],
        shuffles=_SHUFFLES[asking.size],
        base=subject.base,
        store=asking.store,
    )


def _talk(subject: Subject, asking: Asking) -> pd.DataFrame:
    samples, length = _SAMPLES[asking.size]
    return talk(subject.model, samples=samples, max_new_tokens=length, store=asking.store)


def _self_prediction(subject: Subject, asking: Asking) -> pd.DataFrame:
    return self_prediction(subject.model, subject.base, samples=_FORETOLD[asking.size], store=asking.store)


def _calibration(subject: Subject, asking: Asking) -> pd.DataFrame:
    samples, reports = _REPORTED[asking.size]
    return calibration(subject.model, subject.base, samples=samples, reports=reports, store=asking.store)


def _lengths(subject: Subject, asking: Asking) -> pd.DataFrame:
    samples, limit = _LENGTHS[asking.size]
    return lengths(subject.model, subject.base, samples=samples, limit=limit, store=asking.store)


def _ability(subject: Subject, asking: Asking) -> pd.DataFrame:
    concepts = asking.concepts.vectors if asking.size == "full" else None
    return ability(subject.model, subject.base, concepts=concepts, store=asking.store)


EVALUATIONS: tuple[Evaluation, ...] = (
    Evaluation("detection", _detection, by_recipe=True, at_steps=True),
    Evaluation("first_tokens", _first_tokens, by_recipe=True),
    Evaluation("battery", _battery, at_steps=True),
    Evaluation("transfer", _transfer, by_recipe=True),
    Evaluation("multiturn", _multiturn, by_recipe=True),
    Evaluation("realtime", _realtime),
    Evaluation("talk", _talk),
    Evaluation("self_prediction", _self_prediction),
    Evaluation("calibration", _calibration),
    Evaluation("lengths", _lengths),
    Evaluation("ability", _ability, at_steps=True),
)
