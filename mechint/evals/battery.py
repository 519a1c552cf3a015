"""A battery of questions on the model itself and on other things: what it stands for, apart from how it answers.

    before, after = mi.evals.battery(base), mi.evals.battery(run.model(base))
    mi.evals.stances(after, before)          # by group: stance, bias, mass; shift and compression against the base
    mi.evals.contrast(after, before)         # questions on itself against controls that the base answered alike

Each item is asked in two keyings, affirmed and denied, and in every format. Half the difference of both log odds is the
stance, half their sum the bias: a model that says yes to everything has a bias, and no stance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mechint.base.progress import Progress
from mechint.base.signatures import Count, checked
from mechint.engine.job import Request
from mechint.engine.shards import Shard
from mechint.evals.items import Format, Items, Question
from mechint.evals.responders import Responder, Running, answered
from mechint.interventions.specifications import CLEAN


@checked
def battery(
    model: Responder,
    items: Items | None = None,
    *,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row for each item, keying and format; `items` are those that suit the model's vocabulary by default.

    Columns: `item`, `group`, `side` ("self" or "control"), `keying`, `format`; `log_odds` of the positive answer
    against the negative one (nats, float32, spellings summed), `p_yes`, `mass` of both, `refusal`, the probability of
    first tokens of other replies (NaN where a format has none), `entropy` (nats) over the vocabulary. The other
    arguments are those of `mi.score`. Raises TokenizationError for a spelling that is several tokens, and what
    `mi.score` raises.
    """
    chosen = Items.load(model.prompts) if items is None else items
    questions = list(chosen.questions())
    running = Running(batch_size, batch_tokens, offload, max_memory, progress, store, shard)
    read = answered(model, _requests(chosen, questions), running)
    receipts, read.attrs = read.attrs["receipts"], {}
    described = pd.DataFrame([question.record() for question in questions])
    table = described.merge(read.drop(columns="intervention"), on="conversation", how="inner", validate="one_to_one")
    table = table.assign(refusal=_refusal(table, chosen)).rename(
        columns={"logit_diff": "log_odds", "yes_no_mass": "mass"}
    )
    columns = ["item", "group", "side", "keying", "format", "log_odds", "p_yes", "mass", "refusal", "entropy"]
    table = table[columns]
    table.attrs["receipts"] = receipts
    return table


def _requests(items: Items, questions: Sequence[Question]) -> list[Request]:
    """Return a request for each format, whose answers are read in all of their spellings."""
    return [
        Request([question.conversation for question in questions if question.format == name], CLEAN, asked_in.answers)
        for name, asked_in in items.formats.items()
    ]


def _refusal(table: pd.DataFrame, items: Items) -> pd.Series:
    """Return the probability of first tokens of replies that answer neither way."""
    values = pd.Series(float("nan"), index=table.index)
    for name, asked_in in items.formats.items():
        if columns := _columns(asked_in):
            rows = table["format"] == name
            values[rows] = table.loc[rows, columns].sum(axis=1)
    return values


def _columns(asked_in: Format) -> list[str]:
    return [f"p_{text}" for text in asked_in.refusals]
