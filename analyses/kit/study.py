"""Cells that say what they are: conditions, groups of conversations under them, and the queries that they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from analyses.kit import checks, questions
from analyses.kit.compute import Query

if TYPE_CHECKING:
    import pandas as pd

    from mechint.chat.conversations import Conversation
    from mechint.engine.job import Request
    from mechint.interventions.specifications import Intervention
    from mechint.models.model import Model

Value = str | int | float


@dataclasses.dataclass(frozen=True)
class Condition:
    """One intervention and its columns in the table: series, unit, and whatever else tells it apart.

    `series` is clean, injected, random, swapped, contrast, or a word of the analysis' own; `unit` is the vector's or
    the filling model's name, "" for clean.
    """

    intervention: Intervention
    unit: str
    series: str
    columns: Mapping[str, Value] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Group:
    """Conversations, every one of which is asked under some conditions; `columns` are said of all their rows."""

    conversations: Sequence[Conversation]
    conditions: Sequence[Condition]
    columns: Mapping[str, Value] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run has read before its model is loaded, and the conversations that it asks."""

    files: checks.Files
    conversations: Sequence[Conversation]


def asking(analysis: str) -> Callable[[questions.QuestionOptions], Inputs]:
    """Return the usual check of an analysis: of the options that all share, and of the conversations that it asks."""

    def check(config: questions.QuestionOptions) -> Inputs:
        checks.check_effect(config.conversations is not None, "--conversations", config, questions.WORDED)
        files = checks.check_common(config, analysis)
        return Inputs(files, questions.conversations(config, config.wording, files))

    return check


def ask(
    model: Model,
    groups: Sequence[Group],
    *,
    layers: Sequence[int] | None = None,
    clean: Mapping[str, Value] | None = None,
) -> Query:
    """Return what is asked of a model: the clean cell of each conversation, once, and each group's cells.

    Rows get the columns `series`, `unit` and those that conditions and groups name (clean rows have there what
    `clean` says, else NaN), those of `questions.described`, and `layer` (as text) if layers are given.
    """
    from mechint.engine.job import Request
    from mechint.interventions.specifications import CLEAN

    once = {chat.label: chat for group in groups for chat in group.conversations}
    first = Group(list(once.values()), [Condition(CLEAN, "", "clean", clean or {})])
    every = [group for group in (first, *groups) if group.conditions and group.conversations]
    requests = [
        Request(group.conversations, [condition.intervention for condition in group.conditions], layers=layers)
        for group in every
    ]

    def with_columns(number: int, rows: pd.DataFrame) -> pd.DataFrame:
        named = rows.drop(columns="layer") if layers is None else labelled(rows)
        return questions.described(described(named, every[number]), list(once.values()))

    return Query(model, requests, with_columns)


def chats(requests: Sequence[Request]) -> list[Conversation]:
    """Return the conversations of some requests, in order."""
    from mechint.chat.conversations import Conversation

    of_requests = [request.conversations for request in requests]
    return [
        chat
        for conversations in of_requests
        for chat in ([conversations] if isinstance(conversations, Conversation) else conversations)
    ]


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Name layers, as texts: a column of a file has one type."""
    from mechint.readouts.lens import with_labels

    named = with_labels(rows)
    return named.assign(layer=named["layer"].astype(str))


def described(rows: pd.DataFrame, group: Group) -> pd.DataFrame:
    """Add what a group and its conditions say: `series`, `unit`, and whatever else they name."""
    columns_of = {
        condition.intervention.name: {"series": condition.series, "unit": condition.unit, **condition.columns}
        for condition in group.conditions
    }
    names = list(dict.fromkeys(name for row in columns_of.values() for name in row))
    # The clean cells that shifts are taken against are in every request, and are not shown again.
    cells = [columns_of.get(name, {}) for name in rows["intervention"]]
    columns = {name: [row.get(name, "") for row in cells] for name in names}
    return rows.assign(**columns, **group.columns)
