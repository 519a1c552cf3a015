"""Which of several: to which layers, how strongly, in which sentence, or which concept was it added?

    table = mi.evals.multiple_choice(run.model(base), run.recipe, base=base)
    mi.evals.multiple_choice_rates(table)      # agreement beyond chance, and which answer is given to which

For recipes with options, whose answers are neither yes nor no (`matched/which-third`, `how-strong`, `which-sentence`,
`which-of-ten`). Who gives one answer to everything is as often right as that answer is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.progress import Progress
from mechint.base.signatures import Count, Seed, checked
from mechint.chat.render import render
from mechint.chat.tokens import Answers
from mechint.engine.job import Request
from mechint.engine.shards import Shard
from mechint.evals.responders import Oracle, Responder, Running, answered
from mechint.finetune.examples import TextExample, example
from mechint.finetune.injections import fixed_dose, injection_of, steered_positions
from mechint.finetune.specification import Recipe
from mechint.interventions.specifications import Intervention
from mechint.models.model import Model
from mechint.stats.agreement import kappa_interval, mode_baseline
from mechint.stats.intervals import PROBABILITY, mean_interval
from mechint.vectors.concept_vectors import ConceptVector

Estimator = Literal["ours", "published"]
COLUMNS = ("recipe", "text", "vector", "layers", "dose", "wording", "right", "answered", "p_right", "mass")
_SAID, _HARDLY = 0.5, 0.1  # masses: one of the options would be said, and hardly any would
_HELD_OUT = ("vectors", "openers", "replies", "wordings")


@checked
def multiple_choice(
    model: Responder,
    recipe: Recipe,
    *,
    n: Count = 64,
    concepts: Mapping[str, ConceptVector] | None = None,
    base: Model | None = None,
    seed: Seed = 0,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row for each of `n` examples of a recipe with options, whose texts and vectors are held out.

    Columns: `recipe`, `text`, `vector`, `layers`, `dose`, `wording`; `right`, the right option, and `answered`, the
    likeliest of all; `p_right`, the probability of the right one among the options, and `mass`, that of all of them.
    Doses in norms of the stream are measured on `base`, or on the model itself; `concepts` are vectors of the recipe's
    held-out concepts, where it has any. The other arguments are those of `mi.score`; of a shard the table has the
    trials that the store has by then. Raises UsageError for a recipe without options, and what `mi.score` raises.
    """
    if not recipe.answers.options:
        raise UsageError(
            given=f"several options of recipe {recipe.name!r}, which asks for one of two answers",
            allowed="recipes with options, such as matched/which-third",
            advice="use detection, which reads two answers",
        )
    factors = (*_HELD_OUT, *(("sentences",) if recipe.asking.sentences else ()))
    rows = recipe.budget.rows
    items = [example(recipe, seed, *divmod(at, rows), factors) for at in range(n)]
    requests = [_request(model, recipe, item, at, base, concepts) for at, item in enumerate(items)]
    read = answered(model, requests, Running(batch_size, batch_tokens, offload, max_memory, progress, store, shard))
    receipts, read.attrs = read.attrs["receipts"], {}
    records = {str(record["conversation"]): record for record in read.to_dict("records")}
    finished = [(at, item) for at, item in enumerate(items) if _label(at) in records]
    table = pd.DataFrame([_row(item, records[_label(at)], at) for at, item in finished], columns=list(COLUMNS))
    table.attrs["receipts"] = receipts
    return table


def _label(at: int) -> str:
    return f"choice-{at:03d}"


def _request(
    model: Responder,
    recipe: Recipe,
    item: TextExample,
    at: int,
    base: Model | None,
    concepts: Mapping[str, ConceptVector] | None,
) -> Request:
    chat = replace(item.conversation(), label=_label(at))
    answers = Answers.options(list(item.answers))
    return Request([chat], [_added(model, recipe, item, base, concepts)], answers)


def _added(
    model: Responder,
    recipe: Recipe,
    item: TextExample,
    base: Model | None,
    concepts: Mapping[str, ConceptVector] | None,
) -> Intervention:
    if isinstance(model, Oracle):
        return injection_of(recipe, replace(item, span=""), model.d_model, concepts)
    positions = steered_positions(model.tokenizer, render(model, item.conversation()), item)
    return fixed_dose(injection_of(recipe, item, model.d_model, concepts, positions), model if base is None else base)


def _row(item: TextExample, record: Mapping[str, object], at: int) -> dict[str, object]:
    p = {word: float(str(record[f"p_{word}"])) for word in item.answers}
    mass = sum(p.values())
    return {
        "recipe": item.recipe,
        "text": f"text-{at:03d}",
        "vector": item.vector,
        "layers": f"{item.first_block}:{item.stop_block}",
        "dose": item.dose,
        "wording": item.question,
        "right": item.answer.strip(),
        "answered": max(p, key=lambda word: p[word]).strip(),
        "p_right": p[item.answer] / mass if mass else float("nan"),
        "mass": mass,
    }


@checked
def multiple_choice_rates(
    table: pd.DataFrame,
    *,
    words: Mapping[str, str] | None = None,
    estimator: Estimator = "ours",
    level: float = 0.95,
) -> pd.DataFrame:
    """Return one row for each recipe of a table of `multiple_choice`.

    `accuracy` and `kappa` (agreement beyond what the shares of answers give) with bounds over vectors (`_low`,
    `_high`); `baseline`, the share of the commonest right answer; `commonest`, that of the commonest answer given;
    `log_score`, the mean log-probability (nats) of the right option among all; `mass`, `n_trials`, and a `warning`
    where options are hardly said or one is given to everything. `words` are other names of options, where several are
    to be one answer.

    `estimator="published"`: `accuracy`, where less than half of all probability is no answer and so a wrong one,
    against a `chance` of one in the number of words, however often each is right. Raises UsageError for an empty table.
    """
    if table.empty:
        raise UsageError("a table without trials", "a table of mi.evals.multiple_choice", "compute it first")
    named = table.assign(**{name: table[name].replace(dict(words or {})) for name in ("right", "answered")})
    rows = []
    for recipe, group in named.groupby("recipe", sort=False):
        row = _published(group) if estimator == "published" else _ours(group, level)
        rows.append({"recipe": recipe, **row, "n_trials": len(group)})
    return pd.DataFrame(rows)


def _ours(group: pd.DataFrame, level: float) -> dict[str, object]:
    right, chosen = group["right"].to_numpy(object), group["answered"].to_numpy(object)
    units = group["vector"].to_numpy(object)
    by_vector = pd.Series((right == chosen).astype(float)).groupby(units).mean().to_numpy()
    accuracy = mean_interval(by_vector, level=level, within=PROBABILITY)
    kappa = kappa_interval(right, chosen, [units], level=level)
    commonest = float(group["answered"].value_counts(normalize=True).iloc[0])
    mass = float(group["mass"].mean())
    with np.errstate(divide="ignore"):
        log_score = float(np.log(group["p_right"].to_numpy(float)).mean())
    faults = {"options are hardly said": mass < _HARDLY, "one answer to everything": commonest == 1.0}
    return {
        "accuracy": float((right == chosen).mean()),
        "accuracy_low": float(accuracy.low),
        "accuracy_high": float(accuracy.high),
        "kappa": float(kappa.mean),
        "kappa_low": float(kappa.low),
        "kappa_high": float(kappa.high),
        "baseline": mode_baseline(right),
        "commonest": commonest,
        "log_score": log_score,
        "mass": mass,
        "warning": "; ".join(fault for fault, is_so in faults.items() if is_so),
    }


def _published(group: pd.DataFrame) -> dict[str, object]:
    is_right = (group["right"] == group["answered"]) & (group["mass"] > _SAID)
    return {"accuracy": float(is_right.mean()), "chance": 1 / group["right"].nunique()}
