"""Which conversations an analysis asks: introspection questions and the control questions beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyses.kit import option_types
from analyses.kit.checks import Files
from analyses.kit.declarations import option
from analyses.kit.options import Common
from mechint import prompts
from mechint.base.errors import UsageError
from mechint.chat.conversations import Conversation
from mechint.prompts.design import GROUPS, PromptDesign

if TYPE_CHECKING:
    import pandas as pd


KINDS = ("introspection", "control")
WORDED = ("description", "info", "format")
CONTROLS_IN_SWEEP = 3  # per group; a sweep asks each at dozens of placements


@dataclass(frozen=True)
class Wording:
    """Which cell of a prompt set to ask; every name is checked against the set."""

    description: str = "injection"
    info: str = "introspection"
    format: str = "yes-no"

    @classmethod
    def of(cls, **options: str | None) -> Wording:
        """Return what the options say; the usual where they say nothing."""
        return cls(**{name: value for name, value in options.items() if value is not None})

    def __str__(self) -> str:
        return f"description {self.description}, info {self.info}, format {self.format}"


@dataclass(frozen=True, kw_only=True)
class QuestionOptions(Common):
    """The options of analyses that ask one cell of the prompt set; None: the usual."""

    description: str | None = option(
        f"what the prompt says was done (default: {Wording.description})", parse=option_types.words
    )
    info: str | None = option(
        f"info document that the prompt starts with (default: {Wording.info})", parse=option_types.words
    )
    format: str | None = option(f"answer format (default: {Wording.format})", parse=option_types.words)

    @property
    def wording(self) -> Wording:
        """The cell of the prompt set that is asked."""
        return Wording.of(description=self.description, info=self.info, format=self.format)


def conversations(config: Common, wording: Wording, files: Files) -> list[Conversation]:
    """Return those of `--conversations` (the first `--limit`), or the introspection question and its controls.

    Raises UnknownNameError for names the prompt set does not have, UsageError if no introspection question is left or
    a conversation names no answer tokens, since there is nothing to draw then.
    """
    if files.conversations is None:
        design = PromptDesign.load(files.prompts)
        cell = {"descriptions": [wording.description], "infos": [wording.info], "formats": [wording.format]}
        return prompts.introspection(design, **cell) + prompts.controls(design, **cell, limit=config.limit)
    chats = list(files.conversations[: config.limit])
    _check_said(config, chats)
    if not introspection(chats):
        raise UsageError(
            given=f"{config.conversations}: only control questions",
            allowed="at least one introspection question (extra.kind, or a label that does not begin with `control`)",
            advice="add one, or raise --limit",
        )
    if silent := [
        conversation.label for conversation in chats if not (conversation.yes_token and conversation.no_token)
    ]:
        raise UsageError(
            given=f"{config.conversations}: no answer tokens in {', '.join(silent[:5])}",
            allowed="conversations that name a yes_token and a no_token",
            advice="add them to the file, or take such conversations out",
        )
    return chats


def _check_said(config: Common, chats: Sequence[Conversation]) -> None:
    """Raise UsageError for a kind or a group that no figure would show."""
    for name, read, allowed in (("kind", kind_of, KINDS), ("group", group_of, ("", *GROUPS))):
        if wrong := [f"{read(chat)!r} in {chat.label}" for chat in chats if read(chat) not in allowed]:
            raise UsageError(
                given=f"{config.conversations}: unknown extra.{name}: {', '.join(wrong[:5])}",
                allowed=", ".join(filter(None, allowed)),
                advice=f"correct it, or leave extra.{name} out",
            )


def for_sweep(config: Common, chats: Sequence[Conversation]) -> list[Conversation]:
    """Return what a sweep asks: a few controls of each group, unless the options say which or how many."""
    if config.conversations is not None or config.limit is not None:
        return list(chats)
    counts: Counter[str] = Counter()
    few = []
    for conversation in chats:
        group = group_of(conversation)
        counts[group] += 1
        if not group or counts[group] <= CONTROLS_IN_SWEEP:
            few.append(conversation)
    return few


def introspection(chats: Sequence[Conversation]) -> list[Conversation]:
    """Return the introspection questions among some conversations."""
    return [chat for chat in chats if kind_of(chat) == "introspection"]


def kind_of(conversation: Conversation) -> str:
    """Return `introspection` or `control`, as the conversation's `extra` says, else as its label begins."""
    kind = conversation.extra.get("kind")
    return str(kind) if kind else "control" if conversation.label.startswith("control") else "introspection"


def group_of(conversation: Conversation) -> str:
    """Return the control group; "" for introspection questions, `no` for controls that do not say."""
    group = conversation.extra.get("group")
    return str(group) if group else "no" if kind_of(conversation) == "control" else ""


def described(table: pd.DataFrame, chats: Sequence[Conversation]) -> pd.DataFrame:
    """Add `kind`, `group`, `question` (in words) of each row's conversation, and `description`, `info`, `format`.

    The last three are "" for a conversation that does not say.
    """
    columns_of = {chat.label: (kind_of(chat), group_of(chat), _question(chat), *_worded(chat)) for chat in chats}
    rows = [columns_of[label] for label in table["conversation"]]
    names = ("kind", "group", "question", *WORDED)
    return table.assign(**{name: [row[place] for row in rows] for place, name in enumerate(names)})


def _worded(conversation: Conversation) -> tuple[str, ...]:
    return tuple(str(conversation.extra.get(name) or "") for name in WORDED)


def _question(conversation: Conversation) -> str:
    """Return the control question as its design has it, else what the user said last."""
    requests = [message.content for message in conversation.messages if message.role == "user"]
    return str(conversation.extra.get("control_question") or requests[-1])
