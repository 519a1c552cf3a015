"""Conversations whose answer is one of a closed set of texts of any number of tokens, read exactly from logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mechint.base.files import JSON
from mechint.chat.conversations import Conversation
from mechint.chat.tokens import Answers
from mechint.engine.answers import AnswerIds
from mechint.engine.job import Request
from mechint.evals.responders import Oracle, Responder, Running, answered
from mechint.interventions.specifications import CLEAN
from mechint.models.model import Model
from mechint.readouts.naming import naming_requests

TEXTS = "texts"  # in the `extra` of a conversation: what is read, by value


@dataclass(frozen=True)
class Closed:
    """A conversation and the texts that its answer may be, by the value that each stands for."""

    conversation: Conversation
    texts: Mapping[str, str]

    @property
    def tagged(self) -> Conversation:
        """The conversation with its texts in `extra`, where an oracle sees them."""
        tags: dict[str, JSON] = {**self.conversation.extra, TEXTS: dict(self.texts)}
        return replace(self.conversation, extra=tags)


def log_probs(responder: Responder, questions: Sequence[Closed], running: Running) -> pd.DataFrame:
    """Return one row for each conversation and value: `conversation`, `value`, `log_p` (nats, float32).

    `log_p` is that of an answer that begins with the text, so that the values of a conversation need not add up to 1.
    NaN in a shard for what the store does not have yet. `attrs["receipts"]` has the receipts. Raises what
    `naming_requests` and `mi.score` raise.
    """
    if isinstance(responder, Oracle):
        return _of_oracle(responder, questions)
    return _of_model(responder, questions, running)


def by_conversation(table: pd.DataFrame) -> dict[str, Mapping[str, float]]:
    """Return log-probabilities by value of each conversation of a table of `log_probs` that has all of them."""
    read: dict[str, dict[str, float]] = {}
    for label, value, log_p in zip(table["conversation"], table["value"], table["log_p"], strict=True):
        read.setdefault(str(label), {})[str(value)] = float(log_p)
    return {label: of_it for label, of_it in read.items() if not np.isnan(list(of_it.values())).any()}


def _of_oracle(responder: Oracle, questions: Sequence[Closed]) -> pd.DataFrame:
    groups = _alike(questions)
    requests = [
        Request([item.tagged for item in of_it], CLEAN, Answers.options(list(texts))) for texts, of_it in groups
    ]
    records = {
        str(record["conversation"]): record for read in responder.tables(requests) for record in read.to_dict("records")
    }
    rows = [
        (item.conversation.label, value, float(np.log(float(records[item.conversation.label][f"p_{text}"]))))
        for item in questions
        for value, text in item.texts.items()
    ]
    table = pd.DataFrame(rows, columns=["conversation", "value", "log_p"])
    table.attrs["receipts"] = []
    return table


def _of_model(model: Model, questions: Sequence[Closed], running: Running) -> pd.DataFrame:
    groups = [(of_it[0].texts, of_it) for _, of_it in _alike(questions, by_value=True)]
    namings = [
        naming_requests(model, [item.conversation for item in of_it], dict(texts), CLEAN) for texts, of_it in groups
    ]
    read = answered(model, [request for naming in namings for request in naming.requests], running)
    receipts, read.attrs = read.attrs["receipts"], {}
    # A shard may have no row of a text at all, and then no column.
    columns = dict.fromkeys(
        f"p_{text}" for naming in namings for request in naming.requests for text in _texts(request)
    )
    read = read.reindex(columns=list(dict.fromkeys([*read.columns, *columns])))
    parts = [naming.log_probs(read) for naming in namings]
    table = pd.concat(parts, ignore_index=True).rename(columns={"name": "value"})
    table = table[["conversation", "value", "log_p"]]
    table.attrs["receipts"] = receipts
    return table


def _texts(request: Request) -> list[str]:
    assert isinstance(request.answers, AnswerIds)  # as `naming_requests` makes them
    return [text for text, _ in request.answers.choices]


def _alike(questions: Sequence[Closed], *, by_value: bool = False) -> list[tuple[tuple[str, ...], list[Closed]]]:
    """Return the questions that are read among the same texts together; `by_value` only where these mean the same."""
    groups: dict[tuple[tuple[str, ...], ...], list[Closed]] = {}
    for item in questions:
        texts = tuple(item.texts.values())
        groups.setdefault((texts, tuple(item.texts)) if by_value else (texts,), []).append(item)
    return [(key[0], of_it) for key, of_it in groups.items()]
