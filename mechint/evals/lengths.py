"""Does a model know how long its reply would be, and with which word it would begin?

    table = mi.evals.lengths(run.model(base), base)
    mi.evals.length_rates(table)               # errors beside those of one constant length, and of the base's guesses

Lengths are in words. A reply that is cut off has at least as many as were said: it is censored. Guesses are read from
the probabilities of several lengths, so that none is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mechint.base.progress import Progress
from mechint.base.signatures import Count, Seed, checked
from mechint.engine.shards import Shard
from mechint.evals.closed import by_conversation, log_probs
from mechint.evals.draws import Draws
from mechint.evals.length_prompts import FIRST_WORD, LENGTH, LengthPrompts
from mechint.evals.properties import first_word
from mechint.evals.responders import Responder, Running, compared
from mechint.evals.spoken import spoken

COLUMNS = (
    *("object_model", "guesser", "measure", "item", "actual", "predicted", "censored", "n_tokens"),
    *("word", "predicted_word", "p_actual", "mass", "samples", "prompt"),
)
_COMMON = 8  # first words of other replies among which one is to be told


@dataclass(frozen=True)
class Reply:
    """What a model replies to a prompt: words and tokens (medians over samples), whether cut off, its first word."""

    words: float
    n_tokens: float
    censored: bool
    first_word: str
    samples: int


@checked
def lengths(
    model: Responder,
    base: Responder,
    prompts: LengthPrompts | None = None,
    *,
    others: Mapping[str, Responder] | None = None,
    samples: Count = 5,
    limit: Count = 128,
    seed: Seed = 0,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row for each prompt, measure, model that replies and model that guesses.

    Models are named as in `self_prediction`; `prompts` are those that suit the model's vocabulary by default. Columns:
    `object_model`, whose reply, `guesser`, whose guess; `measure`, "length" or "first-word". Of lengths `actual`, the
    median number of words of `samples` replies at temperature 1, of at most `limit` tokens; `censored`, whether half of
    them or more were cut off, so that it is a lower bound; `n_tokens`, their median with the end token; `predicted`,
    the median of the distribution over the lengths that are offered. Of first words `word`, the commonest, and
    `predicted_word`, the likeliest of what all models begin with there and of the commonest elsewhere; `p_actual`, its
    probability among them. `mass` is the probability of all that is offered. First words are asked for once all
    replies are there: in a shard they may be missing, and are in the table of a later call.

    The other arguments are those of `mi.score`. Raises UsageError for a name twice, and what `name_log_probs` and
    `mi.generate` raise.
    """
    chosen = LengthPrompts.load(model.prompts) if prompts is None else prompts
    running = Running(batch_size, batch_tokens, offload, max_memory, progress, store, shard)
    models = compared(model, base, others or {})
    draws = Draws(samples, limit, seed)
    replies: dict[str, dict[str, Reply]] = {}
    receipts: list[object] = []
    for name, responder in models.items():
        chats = [chosen.request(item) for item in chosen.prompts]
        table = spoken(responder, draws.requests(chats), running)
        receipts += table.attrs["receipts"]
        replies[name] = _read(chosen, table, draws)
    rows: list[dict[str, object]] = []
    words = _words(chosen, replies)
    for guesser, responder in models.items():
        closed = {(LENGTH, item): chosen.length(item) for item in chosen.prompts}
        closed |= {(FIRST_WORD, item): chosen.first_word(item, of_it) for item, of_it in words.items()}
        table = log_probs(responder, list(closed.values()), running)
        receipts += table.attrs["receipts"]
        read = by_conversation(table)
        guesses = {key: read[label] for key, of_it in closed.items() if (label := of_it.conversation.label) in read}
        rows += _rows(chosen, guesser, replies, guesses)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table.attrs["receipts"] = receipts
    return table


def _read(prompts: LengthPrompts, table: pd.DataFrame, draws: Draws) -> dict[str, Reply]:
    """Return what a model replies to each prompt to which all replies are there."""
    replies = {}
    for item in prompts.prompts:
        rows = table[table["conversation"] == prompts.request(item).label].sort_values("sample")
        if len(rows) < draws.samples:
            continue
        texts = [str(text) for text in rows["text"]]
        firsts = [first_word(text) for text in texts]
        replies[item] = Reply(
            words=float(np.median([len(text.split()) for text in texts])),
            n_tokens=float(rows["n_tokens"].median()),
            censored=bool((rows["stopped"] != "end").mean() >= 0.5),
            first_word=max(dict.fromkeys(firsts), key=firsts.count),
            samples=draws.samples,
        )
    return replies


def _words(prompts: LengthPrompts, replies: Mapping[str, Mapping[str, Reply]]) -> dict[str, list[str]]:
    """Return the words among which the first one of each reply is to be told, none until all replies are there."""
    if any(len(of_model) < len(prompts.prompts) for of_model in replies.values()):
        return {}
    firsts = {item: [of_model[item].first_word for of_model in replies.values()] for item in prompts.prompts}
    counts = Counter(word for of_it in firsts.values() for word in of_it if word)
    common = sorted(counts, key=lambda word: (-counts[word], word))[:_COMMON]
    words = {item: [word for word in dict.fromkeys([*of_it, *common]) if word] for item, of_it in firsts.items()}
    return {item: of_it for item, of_it in words.items() if len(of_it) > 1}


def _rows(
    prompts: LengthPrompts,
    guesser: str,
    replies: Mapping[str, Mapping[str, Reply]],
    guesses: Mapping[tuple[str, str], Mapping[str, float]],
) -> list[dict[str, object]]:
    rows = []
    for (measure, item), log_p in guesses.items():
        whole = float(np.logaddexp.reduce(list(log_p.values())))
        p = {value: float(np.exp(of_it - whole)) for value, of_it in log_p.items()}
        for object_model, of_model in replies.items():
            if item not in of_model:
                continue
            reply = of_model[item]
            row: dict[str, object] = {
                "object_model": object_model,
                "guesser": guesser,
                "measure": measure,
                "item": item,
            }
            row |= {"censored": reply.censored, "n_tokens": reply.n_tokens, "samples": reply.samples}
            row |= {"mass": float(np.exp(whole)), "prompt": prompts.prompts[item]}
            if measure == LENGTH:
                row |= {"actual": reply.words, "predicted": _median(p), "word": "", "predicted_word": ""}
            else:
                likeliest = max(p, key=lambda value: p[value])
                row |= {"word": reply.first_word, "predicted_word": likeliest}
                row |= {"p_actual": p.get(reply.first_word, float("nan"))}
            rows.append(row)
    return rows


def _median(p: Mapping[str, float]) -> float:
    """Return the median of a distribution over numbers."""
    numbers = sorted(p, key=int)
    reached = np.cumsum([p[number] for number in numbers]) >= 0.5
    return float(numbers[int(reached.argmax())]) if reached.any() else float(numbers[-1])
