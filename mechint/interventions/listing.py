"""Arguments that several functions take: one thing or several, told apart by their names, and numbers with bounds."""

from __future__ import annotations

from collections.abc import Sequence

from mechint.base.errors import UsageError
from mechint.chat.conversations import Conversation
from mechint.interventions.specifications import Intervention


def listed_conversations(conversations: Conversation | Sequence[Conversation]) -> tuple[Conversation, ...]:
    """Return conversations as a tuple. Raises UsageError if there are none or two have one label."""
    listed = (conversations,) if isinstance(conversations, Conversation) else tuple(conversations)
    check_each_once("conversation labels", [conversation.label for conversation in listed])
    return listed


def listed_interventions(interventions: Intervention | Sequence[Intervention]) -> tuple[Intervention, ...]:
    """Return interventions as a tuple. Raises UsageError if there are none or two have one name."""
    listed = (interventions,) if isinstance(interventions, Intervention) else tuple(interventions)
    check_each_once("intervention names", [intervention.name for intervention in listed])
    return listed


def check_each_once(kind: str, names: Sequence[str]) -> None:
    """Raise UsageError if there are no names or one occurs twice."""
    if not names:
        raise UsageError(f"no {kind}", "one or more", "pass at least one")
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise UsageError(
            given=f"{kind} that occur more than once: {repeated[:5]}",
            allowed="each once, since rows of the table are told apart by them",
            advice="rename one, or leave it out",
        )


def check_at_least(name: str, value: int, least: int = 1) -> None:
    """Raise UsageError for a number below the least that makes sense."""
    if value < least:
        raise UsageError(f"{name}={value}", f"{least} or more", "choose a larger number")
