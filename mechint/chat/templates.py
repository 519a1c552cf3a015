"""Chat templates: the text of a list of messages, with everything that could vary fixed and named.

A template may ask for the date, for thinking on or off, and for variables of its own. `TemplateOptions` fixes them all,
so that the same conversation is the same tokens on every day and machine.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mechint.base.errors import ChatTemplateError, UsageError
from mechint.base.files import JSON
from mechint.base.signatures import checked
from mechint.chat.conversations import Message

if TYPE_CHECKING:
    from jinja2 import Template
    from transformers import PreTrainedTokenizerBase

# What templates that ask for today are told, unless options say otherwise.
DATE = "2025-01-01"
_SWITCHES = ("enable_thinking", "thinking")  # variables by which templates turn thinking on and off
_MARKERS = {True: "/think", False: "/no_think"}  # words in a system message by which others do
_CLOCK, _DATE_TEXT, _DATE_FORM = "strftime_now", "date_string", "%d %b %Y"
# Put in place of a text to find out where a template writes it; digits, which no change of case or escaping touches.
SENTINEL = "73902184650172"


@checked
@dataclass(frozen=True)
class TemplateOptions:
    """The options of a chat template: thinking, date, variables. Recorded with every rendering.

    `thinking`: off (the default) or on, in templates that have a switch for it; None leaves it to the template. `date`
    (2026-11-29) is what a template that writes today's date is told (None: 1 January 2025, never the clock).
    `variables` are passed to the template by name ({"reasoning_effort": "low"}).

    Raises UsageError for a date that is none.
    """

    thinking: bool | None = False
    date: str | None = None
    variables: Mapping[str, JSON] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", dict(self.variables))
        try:
            datetime.date.fromisoformat(DATE if self.date is None else self.date)
        except (TypeError, ValueError) as error:
            raise UsageError(f"date={self.date!r}", "a date as 2026-11-29", "write year, month and day") from error

    @property
    def day(self) -> datetime.date:
        """The date that templates are given."""
        return datetime.date.fromisoformat(self.date or DATE)

    def to_dict(self) -> dict[str, JSON]:
        """Return the options as JSON data."""
        return {"thinking": self.thinking, "date": str(self.day), "variables": dict(self.variables)}


@runtime_checkable
class HasTemplate(Protocol):
    """An object with a tokenizer and the options of its chat template: a `Model`."""

    tokenizer: PreTrainedTokenizerBase
    template: TemplateOptions


class ChatTemplate:
    """The chat template of a tokenizer under some options.

    Raises ChatTemplateError if there is none, if it is no valid Jinja, if thinking is to be on and there is no switch
    for it, and for a date or variables that it does not read.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: TemplateOptions) -> None:
        self.tokenizer, self.options = tokenizer, options
        self.source = _source(tokenizer)
        self._check_options()

    @cached_property
    def reads(self) -> frozenset[str]:
        """Names that the template reads and does not always set itself."""
        return self._compiled[1]

    @cached_property
    def switch(self) -> str | None:
        """The switch of thinking: the name of a variable, words in a system message, or None."""
        named = [name for name in _SWITCHES if name in self.reads]
        if named:
            return " and ".join(named)
        return " and ".join(_MARKERS.values()) if all(word in self.source for word in _MARKERS.values()) else None

    @cached_property
    def asks_date(self) -> bool:
        """Whether the template writes a date, as far as its names tell."""
        return bool({_CLOCK, _DATE_TEXT} & self.reads)

    def text(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Return the text that the template writes. Raises ChatTemplateError, with the template's own reason."""
        from mechint.chat import sandbox

        chat = self._marked([{"role": message.role, "content": message.content} for message in messages])
        inputs = {"messages": chat, "tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
        try:
            return sandbox.rendered(self._compiled[0], inputs | self._variables)
        except Exception as error:  # whatever a program that comes with a checkpoint raises
            raise _failed(error, [message.role for message in messages]) from error

    def generation_prompt(self, messages: Sequence[Message]) -> str:
        """Return the text of `messages` up to where the model's reply begins."""
        return self.text(messages, add_generation_prompt=True)

    def facts(self) -> list[str]:
        """Return the date and the state of thinking that the template writes under these options, for people."""
        day, thinking = self.options.day, {True: "on", False: "off", None: "as the template does by itself"}
        facts = [f"dates in the chat template: {day}, not today's" if _CLOCK in self.reads else ""]
        if self.switch is not None:
            facts.append(f"thinking: {thinking[self.options.thinking]} (by {self.switch})")
        return [fact for fact in facts if fact]

    @cached_property
    def _compiled(self) -> tuple[Template, frozenset[str]]:
        from mechint.chat import sandbox

        try:
            return sandbox.compiled(self.source), sandbox.names_read(self.source)
        except Exception as error:  # a syntax error, or whatever else Jinja raises on odd templates
            raise _failed(error, []) from error

    @cached_property
    def _variables(self) -> dict[str, object]:
        """Return the variables that the template is given besides the messages."""
        variables: dict[str, object] = dict(self.tokenizer.special_tokens_map)
        if self.options.thinking is not None:
            variables |= {name: self.options.thinking for name in _SWITCHES if name in self.reads}
        if self.options.date is not None and _DATE_TEXT in self.reads:
            variables[_DATE_TEXT] = self.options.day.strftime(_DATE_FORM)
        return variables | {_CLOCK: self.options.day.strftime} | dict(self.options.variables)

    def _marked(self, chat: list[dict[str, str]]) -> list[dict[str, str]]:
        """Add the word to the system message by which the template switches thinking, if it does so by words."""
        if self.options.thinking is None or self.switch is None or any(name in self.reads for name in _SWITCHES):
            return chat
        word = _MARKERS[self.options.thinking]
        if not chat or chat[0]["role"] != "system":
            return [{"role": "system", "content": word}, *chat]
        return [{"role": "system", "content": f"{chat[0]['content']}{word}"}, *chat[1:]]

    def _check_options(self) -> None:
        if self.options.thinking and self.switch is None:
            raise _without_effect("thinking", "has no switch for thinking", self.reads)
        if self.options.date is not None and not self.asks_date:
            raise _without_effect(f"date {self.options.date}", "writes no date", self.reads)
        unread = sorted(set(self.options.variables) - self.reads)
        if unread:
            raise _without_effect(f"template variables {unread}", "does not read them", self.reads)


def _source(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the template of a tokenizer; of several, the default one."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str) or not template:
        raise ChatTemplateError(
            given="the tokenizer has no chat template",
            allowed="chat models, whose tokenizer carries one",
            advice="load the instruction-tuned checkpoint, or set tokenizer.chat_template",
        )
    return template


def _without_effect(option: str, why: str, reads: frozenset[str]) -> ChatTemplateError:
    return ChatTemplateError(
        given=f"{option}: the chat template {why}",
        allowed=f"what the template reads: {', '.join(sorted(reads))}",
        advice="leave the option out, or pass a variable of the template's own: "
        "mi.TemplateOptions(variables={...}), --template-variables",
    )


def _failed(error: Exception, roles: Sequence[str]) -> ChatTemplateError:
    """Return the error for a template that failed, by the kind of exception that it raised."""
    from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError, UndefinedError

    from mechint.chat.sandbox import EndlessTemplateError

    where, why = _where(error), str(error).strip() or type(error).__name__
    if isinstance(error, EndlessTemplateError):
        fault, advice = f"does not come to an end{where}: {why}", "use another template: tokenizer.chat_template = ..."
    elif isinstance(error, TemplateSyntaxError):
        fault, advice = f"is no valid Jinja (line {error.lineno}): {why}", "correct the template"
    elif isinstance(error, UndefinedError):
        fault = f"reads something that is not there{where}: {why}"
        advice = "pass it: mi.TemplateOptions(variables={...}), --template-variables"
    elif isinstance(error, SecurityError):
        fault, advice = f"does what no template may{where}: {why}", "use another template"
    elif type(error) is TemplateError:  # what a template says by raise_exception
        fault, advice = f"refuses a conversation with the roles {list(roles)}: {why}", "change the conversation"
    else:
        fault, advice = f"fails{where}: {type(error).__name__}: {why}", "correct the template, or the conversation"
    return ChatTemplateError(f"the chat template {fault}", "templates that write this conversation", advice)


def _where(error: Exception) -> str:
    """Return the line of the template in which an error was raised, if that is known."""
    line, at = 0, error.__traceback__
    while isinstance(at, TracebackType):
        if at.tb_frame.f_code.co_filename == "<template>":
            line = at.tb_lineno
        at = at.tb_next
    return f" in line {line}" if line else ""
