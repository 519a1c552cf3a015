"""Conversations for the tasks of a prompt set: choose from a list, name freely, say where, say what comes to mind.

All of them have the first turns of `prompts.introspection`, or first turns of their own where the place is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from mechint.base.errors import UnknownNameError, UsageError
from mechint.chat.conversations import Conversation, Message
from mechint.chat.tokens import Answers
from mechint.prompts.design import PromptDesign
from mechint.prompts.sets import first_turns
from mechint.prompts.tasks import COUNTS, OPTIONS, QUESTION, Place

FIRST_DIGIT = {"identification": 0, "location": 1}
MOST_OPTIONS = max(COUNTS)  # each has a digit


def identification(
    design: PromptDesign, options: Sequence[str], label: str, *, description: str = "injection", info: str = "none"
) -> Conversation:
    """Return the question which of `options` was injected, in this order, numbered from 0.

    Raises UsageError for fewer than two options, more than ten, or equal ones.
    """
    _check_options(options)
    lists, task = design.tasks.lists, design.tasks.identification
    question = task.asked(lists.listed(options, FIRST_DIGIT["identification"]), len(options))
    return Conversation(label, _with_question(first_turns(design, description, info), question, lists.prefix))


def naming(design: PromptDesign, label: str, *, description: str = "injection", info: str = "none") -> Conversation:
    """Return the question which concept was injected; a name comes next."""
    task = design.tasks.naming
    return Conversation(label, _with_question(first_turns(design, description, info), task.question, task.prefix))


def location(
    design: PromptDesign, place: str, order: Sequence[int], label: str, *, preference: bool = False, info: str = "none"
) -> Conversation:
    """Return the question where something was injected, or, as a control, which of these places is liked better.

    The options are those of `place_options`, listed in the given order and numbered from 1. Raises UnknownNameError for
    a place that the set does not have.
    """
    lists, wording = design.tasks.lists, _place(design, place)
    options = place_options(design, place)
    question = lists.question.replace(QUESTION, wording.preference if preference else wording.question)
    question = question.replace(OPTIONS, lists.listed([options[at] for at in order], FIRST_DIGIT["location"]))
    document, task = design.infos[info], design.tasks.location
    text = f"{task.setup}\n{' '.join(task.sentences)}"
    turns = (
        Message("system", design.system),
        Message("user", f"{document}\n\n{text}" if document else text, add_injection=True),
        Message("assistant", task.reply, add_injection=True),
    )
    return Conversation(label, _with_question(turns, question, lists.prefix))


def place_options(design: PromptDesign, place: str) -> tuple[str, ...]:
    """Return the options of a question of place, in the order of the places."""
    return _place(design, place).of(len(design.tasks.location.sentences))


def answers(design: PromptDesign, task: str, count: int) -> Answers:
    """Return the digits of the first `count` options of a task (`identification`, `location`) as answers."""
    return Answers.options(design.tasks.lists.digits(count, FIRST_DIGIT[task]))


def top_of_mind(design: PromptDesign) -> list[Conversation]:
    """Return open requests, one for each beginning of the reply; the request itself is marked."""
    task = design.tasks.top_of_mind
    return [
        Conversation(
            f"top-of-mind-{number}",
            (
                Message("system", design.system),
                Message("user", prompt, add_injection=True),
                *([Message("assistant", prefix, continue_msg=True)] if prefix else []),
            ),
            extra={"prompt": prompt, "prefix": prefix},
        )
        for number, (prompt, prefix) in enumerate(zip(task.prompts, task.prefixes, strict=True))
    ]


def _with_question(turns: Sequence[Message], question: str, prefix: str) -> tuple[Message, ...]:
    return (*turns, Message("user", question), Message("assistant", prefix, continue_msg=True))


def _place(design: PromptDesign, place: str) -> Place:
    places = design.tasks.location.places
    if place not in places:
        raise UnknownNameError(f"unknown place {place!r}", ", ".join(places), "choose one of these")
    return places[place]


def _check_options(options: Sequence[str]) -> None:
    if not 2 <= len(options) <= MOST_OPTIONS or len(set(options)) < len(options):
        raise UsageError(
            given=f"{len(options)} options, {len(set(options))} of them different",
            allowed=f"2 to {MOST_OPTIONS} different options, since each is answered by one digit",
            advice="name fewer concepts",
        )
