"""Self-prediction: does a model foretell its own answers, better than others that saw the same question do?

    table = mi.evals.self_prediction(run.model(base), base)
    mi.evals.self_prediction_rates(table)          # by property: agreement beyond chance, and beyond the best other
    mi.evals.self_prediction_matrix(table)         # whose answers x who foretells them

Each question is asked by itself, and its answer read; then each model is asked which answer it would give to the whole
question (object and hypothetical questions: Binder et al., 2024, arXiv 2410.13787). Every model foretells the answers
of every other: what the base foretells as well is no knowledge of itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mechint.base.progress import Progress
from mechint.base.signatures import Count, Seed, checked
from mechint.engine.shards import Shard
from mechint.evals.closed import Closed, by_conversation, log_probs
from mechint.evals.draws import Draws
from mechint.evals.properties import UNANSWERED, value_of
from mechint.evals.responders import Responder, Running, compared
from mechint.evals.self_items import SelfItem, SelfItems
from mechint.evals.spoken import spoken

Questions = Mapping[tuple[str, str], Closed]  # on answers, by item and property
MOSTLY = 0.5  # of all probability: with more, one of the answers that were offered would be given
COLUMNS = (
    *("object_model", "meta_model", "task", "property", "keying", "item", "unit", "actual", "share", "samples"),
    *("object_mass", "predicted", "p_actual", "mass", "complied", "prompt"),
)


@dataclass(frozen=True)
class Behaviour:
    """What a model answers to an item by itself: the value of each property, "" for none, and how surely.

    `share` is that of the samples with this value, or the probability of the answer among the options; `mass` the
    probability of all options together, 1 for an open question.
    """

    actual: Mapping[str, str]
    share: Mapping[str, float]
    samples: int
    mass: float


@checked
def self_prediction(
    model: Responder,
    base: Responder,
    items: SelfItems | None = None,
    *,
    others: Mapping[str, Responder] | None = None,
    samples: Count = 5,
    max_new_tokens: Count = 24,
    seed: Seed = 0,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row for each item, property, model that answers and model that foretells.

    `items` are those that suit the model's vocabulary by default. The models are "self", "base" (not where `base` is
    the model itself) and those of `others` by name. Columns: `object_model`, whose answer, and `meta_model`, who
    foretells it; `task`, `property`, `keying`, `item`, `unit` (items in another order are of the same); `actual`, the
    value of the property that the answer has ("" for none), `share` and `samples` of it: where the options are closed,
    the likeliest of them with its probability among them and `samples` 0, else the commonest value among `samples`
    replies that are drawn at temperature 1; `object_mass`, the probability of the options. `predicted`, the likeliest
    value when asked; `p_actual`, the probability of the actual one among all values; `mass`, that of all values, and
    `complied`, whether it is more than half, so that one of them would be said. `prompt` is the question.

    The other arguments are those of `mi.score`; of a shard the table has the trials that the store has by then. Raises
    UsageError for a name twice, and what `name_log_probs` and `mi.generate` raise.
    """
    chosen = SelfItems.load(model.prompts) if items is None else items
    models = compared(model, base, others or {})
    running = Running(batch_size, batch_tokens, offload, max_memory, progress, store, shard)
    draws = Draws(samples, max_new_tokens, seed)
    questions = {
        (item.name, name): chosen.hypothetical(item, name) for item in chosen.items for name in item.properties
    }
    receipts, behaviours, reports = [], {}, {}
    for name, responder in models.items():
        behaviours[name], read = _behaviour(responder, chosen, draws, running)
        reports[name], more = _reports(responder, questions, running)
        receipts += [*read, *more]
    rows = [
        row
        for whose, behaviour in behaviours.items()
        for who, report in reports.items()
        for row in _rows(chosen, questions, (whose, who), behaviour, report)
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table.attrs["receipts"] = receipts
    return table


def _behaviour(
    responder: Responder, items: SelfItems, draws: Draws, running: Running
) -> tuple[dict[str, Behaviour], list[object]]:
    """Return the behaviour by item, of those that were read, and the receipts."""
    closed = [item for item in items.items if item.options]
    opened = [item for item in items.items if not item.options]
    behaviours: dict[str, Behaviour] = {}
    receipts: list[object] = []
    if closed:
        table = log_probs(responder, [item.closed() for item in closed], running)
        receipts += table.attrs["receipts"]
        read = by_conversation(table)
        behaviours |= {
            item.name: _exact(item, read[label]) for item in closed if (label := item.conversation().label) in read
        }
    if opened:
        replies = spoken(responder, draws.requests([item.conversation() for item in opened]), running)
        receipts += replies.attrs["receipts"]
        texts = {label: rows.sort_values("sample")["text"].to_list() for label, rows in replies.groupby("conversation")}
        complete = [item for item in opened if len(texts.get(item.conversation().label, ())) == draws.samples]
        behaviours |= {item.name: _sampled(item, texts[item.conversation().label]) for item in complete}
    return behaviours, receipts


def _reports(
    responder: Responder, questions: Questions, running: Running
) -> tuple[dict[str, Mapping[str, float]], list[object]]:
    """Return the log-probability of each value by hypothetical question, of those that were read, and the receipts."""
    table = log_probs(responder, list(questions.values()), running)
    return by_conversation(table), table.attrs["receipts"]


def _exact(item: SelfItem, log_p: Mapping[str, float]) -> Behaviour:
    p = {option: float(np.exp(value)) for option, value in log_p.items()}
    mass, answer = sum(p.values()), max(p, key=lambda option: p[option])
    actual = {name: value_of(name, answer, item.options) for name in item.properties}
    # Several options may have the value, of which only the likeliest counts: the answer is one of them.
    return Behaviour(actual, dict.fromkeys(actual, p[answer] / mass if mass else float("nan")), 0, mass)


def _sampled(item: SelfItem, texts: Sequence[str]) -> Behaviour:
    actual, share = {}, {}
    for name in item.properties:
        values = [value_of(name, text) for text in texts]
        # Of values that are as common, that which came first.
        actual[name] = max(dict.fromkeys(values), key=values.count)
        share[name] = values.count(actual[name]) / len(values)
    return Behaviour(actual, share, len(texts), 1.0)


def _rows(
    items: SelfItems,
    questions: Questions,
    names: tuple[str, str],
    behaviour: Mapping[str, Behaviour],
    reports: Mapping[str, Mapping[str, float]],
) -> list[dict[str, object]]:
    """Return the rows of one model's answers as another foretells them, of the items that were read."""
    rows = []
    for item in items.items:
        answer = behaviour.get(item.name)
        for name in item.properties:
            hypothetical = questions[item.name, name].conversation
            if answer is None or hypothetical.label not in reports:
                continue
            row: dict[str, object] = {"object_model": names[0], "meta_model": names[1]}
            row |= {"task": item.task, "property": name, "keying": hypothetical.extra["keying"]}
            row |= {"item": item.name, "unit": item.unit, "prompt": item.question}
            row |= {"actual": answer.actual[name], "share": answer.share[name]}
            row |= {"samples": answer.samples, "object_mass": answer.mass}
            rows.append(row | _foretold(reports[hypothetical.label], answer.actual[name]))
    return rows


def _foretold(log_p: Mapping[str, float], actual: str) -> dict[str, object]:
    values = np.array(list(log_p.values()), dtype=np.float64)
    whole = float(np.logaddexp.reduce(values))
    mass = float(np.exp(whole))
    return {
        "predicted": max(log_p, key=lambda value: log_p[value]),
        "p_actual": float("nan") if actual == UNANSWERED else float(np.exp(log_p[actual] - whole)),
        "mass": mass,
        "complied": mass > MOSTLY,
    }
