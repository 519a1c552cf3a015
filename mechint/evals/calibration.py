"""Self-calibration: does a model know how often it gives each of several answers?

    table = mi.evals.calibration(run.model(base), base)
    mi.evals.calibration_rates(table)          # how far reports are from what it does, beside what others report

What a model does is read exactly where the options are closed, and sampled where they are open. What it says of it is
read twice: from lists that it writes, in a strict format, and from forced choices between each two options. All of it
is asked under the same system prompt, at temperature 1 without cutting off what is rare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from mechint.base.progress import Progress
from mechint.base.signatures import Count, Seed, checked
from mechint.engine.shards import Shard
from mechint.evals.closed import by_conversation, log_probs
from mechint.evals.distribution_sets import DistributionSet, DistributionSets
from mechint.evals.draws import Draws
from mechint.evals.properties import first_word
from mechint.evals.reported import distribution, from_choices
from mechint.evals.responders import Responder, Running, compared
from mechint.evals.spoken import spoken

ACTUAL, HALF, VERBAL, FORCED = "actual", "half", "verbal", "choice"
_ANSWER = 8  # tokens of a reply to an open request, of which the first word counts
COLUMNS = ("model", "prompt", "kind", "system", "source", "report", "answer", "p", "parsed", "mass", "unseen", "text")


@dataclass(frozen=True)
class Asking:
    """How a model is asked: sets, and how answers and reports are drawn."""

    sets: DistributionSets
    answering: Draws
    reporting: Draws


@checked
def calibration(
    model: Responder,
    base: Responder,
    sets: DistributionSets | None = None,
    *,
    others: Mapping[str, Responder] | None = None,
    system: str = "",
    samples: Count = 50,
    reports: Count = 4,
    max_new_tokens: Count = 64,
    seed: Seed = 0,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row for each model, request, source, report and answer.

    Models are named as in `self_prediction`; `sets` are those that suit the model's vocabulary by default, with
    `system` before each conversation. Columns: `model`, `prompt`, `kind` ("closed" or "open"), `system`; `source`:
    "actual", what it does, "half", what it does in every other reply to an open request, "verbal", the lists of
    `reports` replies, numbered by `report`, and "choice", forced choices between the options; `answer` in small letters
    with its probability `p`. `parsed` is whether a list could be read; if not, it has one row, without answer and p.
    `mass` is the probability of all options together, for choices its mean (NaN where replies are sampled); `unseen`
    the share of replies to open requests whose answer came once: as much is still unseen (Good, 1953). `text` is a list
    as it was written. Answers to open requests are the first words of `samples` replies.

    The other arguments are those of `mi.score`; of a shard the table has what the store has by then. Raises UsageError
    for a name twice, and what `name_log_probs` and `mi.generate` raise.
    """
    chosen = DistributionSets.load(model.prompts) if sets is None else sets
    running = Running(batch_size, batch_tokens, offload, max_memory, progress, store, shard)
    asking = Asking(
        replace(chosen, system=system or chosen.system),
        Draws(samples, _ANSWER, seed),
        Draws(reports, max_new_tokens, seed),
    )
    rows, receipts = [], []
    for name, responder in compared(model, base, others or {}).items():
        parts, read = _of_model(responder, asking, running)
        rows += [{"model": name, "system": asking.sets.system, **row} for row in parts]
        receipts += read
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table.attrs["receipts"] = receipts
    return table


def _of_model(responder: Responder, asking: Asking, running: Running) -> tuple[list[dict[str, object]], list[object]]:
    rows, receipts = [], []
    for reading in (_exact, _sampled, _written, _chosen):
        more, read = reading(responder, asking, running)
        rows += more
        receipts += read
    return rows, receipts


def _exact(responder: Responder, asking: Asking, running: Running) -> tuple[list[dict[str, object]], list[object]]:
    """Return what a model does where options are closed."""
    sets, closed = asking.sets, [of_it for of_it in asking.sets.sets if of_it.options]
    if not closed:
        return [], []
    table = log_probs(responder, [sets.closed(of_it) for of_it in closed], running)
    read, rows = by_conversation(table), []
    for of_it in closed:
        if (log_p := read.get(sets.request(of_it).label)) is None:
            continue
        whole = float(np.logaddexp.reduce(list(log_p.values())))
        p = {option.lower(): float(np.exp(value - whole)) for option, value in log_p.items()}
        rows += _rows(of_it, ACTUAL, p, mass=float(np.exp(whole)))
    return rows, table.attrs["receipts"]


def _sampled(responder: Responder, asking: Asking, running: Running) -> tuple[list[dict[str, object]], list[object]]:
    """Return what a model does where answers are open: the first words of replies."""
    opened = [of_it for of_it in asking.sets.sets if not of_it.options]
    if not opened:
        return [], []
    chats = {of_it.name: asking.sets.request(of_it) for of_it in opened}
    table = spoken(responder, asking.answering.requests(list(chats.values())), running)
    rows = []
    for of_it in opened:
        texts = table.loc[table["conversation"] == chats[of_it.name].label, "text"]
        if len(texts) < asking.answering.samples:
            continue
        words = [first_word(str(text)).lower() for text in texts]
        unseen = sum(words.count(word) == 1 for word in words) / len(words)
        rows += _rows(of_it, ACTUAL, _shares(words), unseen=unseen)
        for number in range(2 if len(words) > 1 else 0):
            rows += _rows(of_it, HALF, _shares(words[number::2]), report=number)
    return rows, table.attrs["receipts"]


def _written(responder: Responder, asking: Asking, running: Running) -> tuple[list[dict[str, object]], list[object]]:
    """Return the lists that a model writes."""
    chats = {of_it.name: asking.sets.report(of_it) for of_it in asking.sets.sets}
    table = spoken(responder, asking.reporting.requests(list(chats.values())), running)
    by_label = {chat.label: name for name, chat in chats.items()}
    named = {of_it.name: of_it for of_it in asking.sets.sets}
    rows = []
    for label, number, text in zip(table["conversation"], table["sample"], table["text"], strict=True):
        p = distribution(str(text))
        of_it = named[by_label[str(label)]]
        rows += _rows(of_it, VERBAL, p or {"": float("nan")}, report=int(number), parsed=bool(p), text=str(text))
    return rows, table.attrs["receipts"]


def _chosen(responder: Responder, asking: Asking, running: Running) -> tuple[list[dict[str, object]], list[object]]:
    """Return the distributions that forced choices amount to."""
    questions = {of_it.name: asking.sets.choices(of_it) for of_it in asking.sets.sets if of_it.options}
    if not questions:
        return [], []
    listed = [closed for of_set in questions.values() for closed in of_set.values()]
    table = log_probs(responder, listed, running)
    read, rows = by_conversation(table), []
    for of_it in asking.sets.sets:
        pairs = {pair: read.get(item.conversation.label) for pair, item in questions.get(of_it.name, {}).items()}
        complete = {pair: log_p for pair, log_p in pairs.items() if log_p is not None}
        if not pairs or len(complete) < len(pairs):
            continue
        log_odds = {(first, second): log_p[first] - log_p[second] for (first, second), log_p in complete.items()}
        mass = float(np.mean([np.exp(list(log_p.values())).sum() for log_p in complete.values()]))
        p = {option.lower(): value for option, value in from_choices(log_odds).items()}
        rows += _rows(of_it, FORCED, p, mass=mass)
    return rows, table.attrs["receipts"]


def _shares(words: Sequence[str]) -> dict[str, float]:
    return {word: words.count(word) / len(words) for word in dict.fromkeys(words)}


def _rows(
    of_it: DistributionSet, source: str, p: Mapping[str, float], **columns: float | int | bool | str
) -> list[dict[str, object]]:
    shared: dict[str, object] = {"prompt": of_it.name, "kind": "closed" if of_it.options else "open", "source": source}
    shared |= {"report": 0, "parsed": True, "mass": float("nan"), "unseen": 0.0, "text": ""} | columns
    return [shared | {"answer": answer, "p": value} for answer, value in p.items()]
