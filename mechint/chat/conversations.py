"""Messages and conversations, and their JSON files.

The file format is that of the published prompt library of "Latent Introspection" (arXiv 2602.20031).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mechint.base import html
from mechint.base.errors import ConversationError
from mechint.base.files import JSON, read_json, write_atomically
from mechint.base.signatures import checked

ORDER_FILE = "_order.json"
_ROLES = ("system", "user", "assistant")
_MESSAGE_KEYS = {"role": str, "content": str, "add_injection": bool, "continue_msg": bool}
_TEXT_KEYS = ("label", "yes_token", "no_token")
_KEYS = {*_TEXT_KEYS, "messages", "extra"}
# Names by which `extra` may tell conversations apart; anything else in it is its author's.
_NAMES = ("kind", "group")


@checked
@dataclass(frozen=True)
class Message:
    """One message: `add_injection` marks its segment, `continue_msg` leaves it open as assistant_prefix."""

    role: str
    content: str
    add_injection: bool = False
    continue_msg: bool = False

    def to_dict(self) -> dict[str, JSON]:
        """Return the message as the file format writes it: flags only where they are set."""
        flags = {name: True for name in ("add_injection", "continue_msg") if getattr(self, name)}
        return {"role": self.role, "content": self.content, **flags}


@checked
@dataclass(frozen=True)
class Conversation:
    """A labelled list of messages with the answer tokens it names ("" where it names none).

    Raises ConversationError if there are no messages, a role is unknown, a system message is not the first,
    or a message before the last one is left open.
    """

    label: str
    messages: Sequence[Message]
    yes_token: str = ""
    no_token: str = ""
    extra: Mapping[str, JSON] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", tuple(self.messages))
        object.__setattr__(self, "extra", dict(self.extra))
        _check_messages(self.label, self.messages)

    @classmethod
    def from_dict(cls, data: JSON, where: str = "conversation") -> Conversation:
        """Return the conversation that one JSON object of the file format describes.

        Raises ConversationError, naming `where`, on missing or unknown keys and wrong types.
        """
        if not isinstance(data, dict):
            raise _malformed(where, f"a {type(data).__name__} where an object must stand")
        _check_keys(data, where)
        messages = data["messages"]
        if not isinstance(messages, list):
            raise _malformed(where, "`messages` is not a list")
        text = {key: _text(data.get(key, ""), f"{where}, `{key}`") for key in _TEXT_KEYS}
        extra = data.get("extra") or {}
        if not isinstance(extra, dict):
            raise _malformed(where, "`extra` is not an object")
        _check_names(extra, where)
        parsed = tuple(_message(item, f"{where}, message {i}") for i, item in enumerate(messages))
        return cls(messages=parsed, extra=extra, **text)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Conversation:
        """Return the one conversation in a JSON file; raises ConversationError if it holds several."""
        conversations = load_conversations(path)
        if len(conversations) != 1:
            raise _malformed(str(path), f"{len(conversations)} conversations where one is expected")
        return conversations[0]

    def to_dict(self) -> dict[str, JSON]:
        """Return the conversation as a JSON object of the file format."""
        return {
            "label": self.label,
            "yes_token": self.yes_token,
            "no_token": self.no_token,
            "extra": dict(self.extra),
            "messages": [message.to_dict() for message in self.messages],
        }

    @checked
    def save(self, path: str | Path) -> Path:
        """Write the conversation as a JSON file, atomically; return its path."""
        return write_atomically(Path(path), _dump(self.to_dict()))

    def _repr_html_(self) -> str:
        answers = " / ".join(repr(token) for token in (self.yes_token, self.no_token) if token)
        turns = [_turn_html(message) for message in self.messages]
        return html.heading(self.label, [f"answers {answers}" if answers else ""]) + "".join(turns)

    def with_content(self, index: int, content: str) -> Conversation:
        """Return a copy in which message `index` says `content`."""
        messages = list(self.messages)
        messages[index] = replace(messages[index], content=content)
        return replace(self, messages=tuple(messages))


@checked
def load_conversations(path: str | Path) -> list[Conversation]:
    """Return the conversations of a file (one object or a list) or of a directory of such files.

    A directory may hold `_order.json`, the list of labels in the order wanted; otherwise files come in the order
    of their names. Raises ConversationError with file and line on broken JSON, and on labels that occur twice.
    """
    path = Path(path)
    if not path.exists():
        raise _malformed(str(path), "no such file or directory")
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    conversations = [c for file in files if file.name != ORDER_FILE for c in _read_file(file)]
    if not conversations:
        raise _malformed(str(path), "no conversations in it")
    _check_labels(path, conversations)
    order = path / ORDER_FILE
    return _in_order(order, conversations) if order.is_file() else conversations


@checked
def save_conversations(conversations: Sequence[Conversation], path: str | Path) -> Path:
    """Write conversations as one JSON list, atomically; return the path."""
    return write_atomically(Path(path), _dump([c.to_dict() for c in conversations]))


def _turn_html(message: Message) -> str:
    note = "left open: the answer follows" if message.continue_msg else ""
    return html.turn(message.role, message.content, steered=message.add_injection, note=note)


def _dump(data: JSON) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _read_file(path: Path) -> list[Conversation]:
    data = read_json(path, ConversationError)
    if isinstance(data, list):
        return [Conversation.from_dict(item, f"{path}, item {i}") for i, item in enumerate(data)]
    return [Conversation.from_dict(data, str(path))]


def _in_order(order_file: Path, conversations: Sequence[Conversation]) -> list[Conversation]:
    order = read_json(order_file, ConversationError)
    if not isinstance(order, list) or not all(isinstance(label, str) for label in order):
        raise _malformed(str(order_file), "not a list of labels")
    by_label = {c.label: c for c in conversations}
    if sorted(map(str, order)) != sorted(by_label):
        differing = sorted(set(map(str, order)) ^ set(by_label))[:5]
        raise _malformed(str(order_file), f"its labels and those of the files differ, or repeat: {differing}")
    return [by_label[str(label)] for label in order]


def _check_labels(path: Path, conversations: Sequence[Conversation]) -> None:
    labels = [c.label for c in conversations]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise _malformed(str(path), f"labels that occur more than once: {repeated[:5]}")


def _check_keys(data: Mapping[str, JSON], where: str) -> None:
    missing = {"label", "messages"} - set(data)
    unknown = set(data) - _KEYS
    if missing or unknown:
        raise _malformed(where, f"missing keys {sorted(missing)}, unknown keys {sorted(unknown)}")


def _check_names(extra: Mapping[str, JSON], where: str) -> None:
    """Raise ConversationError for a name that is no text: tables tell rows apart by them."""
    for key in _NAMES:
        if not isinstance(extra.get(key, ""), str | None):
            raise _malformed(where, f"`extra.{key}` is {extra[key]!r}, not a text")


def _message(data: JSON, where: str) -> Message:
    if not isinstance(data, dict):
        raise _malformed(where, "not an object")
    unknown, missing = set(data) - set(_MESSAGE_KEYS), {"role", "content"} - set(data)
    if unknown or missing:
        raise _malformed(where, f"missing keys {sorted(missing)}, unknown keys {sorted(unknown)}")
    for key, value in data.items():
        if not isinstance(value, _MESSAGE_KEYS[key]):
            raise _malformed(where, f"`{key}` is {value!r}, not a {_MESSAGE_KEYS[key].__name__}")
    flags = {name: data.get(name) is True for name in ("add_injection", "continue_msg")}
    return Message(role=str(data["role"]), content=str(data["content"]), **flags)


def _text(value: JSON, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _malformed(where, f"{value!r} is not a text")
    return value


def _check_messages(label: str, messages: Sequence[Message]) -> None:
    where = f"conversation {label!r}"
    if not any(message.role != "system" for message in messages):
        raise _malformed(where, "no message of a user or assistant")
    for index, message in enumerate(messages):
        if message.role not in _ROLES:
            raise _malformed(where, f"message {index} has the role {message.role!r}")
        if message.role == "system" and index > 0:
            raise _malformed(where, f"message {index} is a system message; only the first may be one")
        if message.continue_msg and index < len(messages) - 1:
            raise _malformed(where, f"message {index} is left open (continue_msg) but is not the last")
    if messages[0].role == "system" and messages[0].add_injection and not messages[1].add_injection:
        raise _malformed(where, "the system message is marked add_injection, but the message after it is not")


def _malformed(where: str, fault: str) -> ConversationError:
    return ConversationError(
        given=f"{where}: {fault}",
        allowed=f"label, messages (role one of {', '.join(_ROLES)}; content; add_injection; continue_msg), "
        "yes_token, no_token, extra",
        advice="correct the conversation; docs/conversations.md describes the format",
    )
