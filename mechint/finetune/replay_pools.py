"""Ordinary chats for replay, which have no turn in common with what is trained and held out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import JSON, read_json, sha256
from mechint.chat.conversations import Conversation, Message
from mechint.finetune.pools import SPLITS, Pools, plain
from mechint.prompts.fields import as_object, as_text, as_texts

_KEYS = ("name", "note", "chats")


@dataclass(frozen=True)
class Chats:
    """Chats of some turns each, the user's and the assistant's by turns, and the hash of all of them."""

    name: str
    conversations: tuple[Conversation, ...]
    key: str

    @classmethod
    def load(cls, name_or_path: str | Path) -> Chats:
        """Return the packaged chats "full" or "small", or those of a `.json` file; raises UsageError."""
        if Path(name_or_path).suffix == ".json":
            return cls.from_dict(read_json(Path(name_or_path)), str(name_or_path))
        return _packaged(str(name_or_path))

    @classmethod
    def from_dict(cls, data: JSON, where: str = "chats") -> Chats:
        """Return the chats that a JSON object lists; raises UsageError, naming the place."""
        top = as_object(data, where, _KEYS)
        entries = top["chats"] if isinstance(top["chats"], list) else []
        turns = [as_texts(entry, f"{where}, chats, {at}") for at, entry in enumerate(entries)]
        if not turns or any(len(texts) % 2 for texts in turns):
            raise UsageError(
                given=f"{where}: chats that do not end with the assistant's turn, or none",
                allowed="lists of turns, the user's and the assistant's by turns",
                advice="add the reply, or leave the chat out",
            )
        name = as_text(top["name"], f"{where}, name")
        chats = tuple(_conversation(f"replay {name} {at}", texts) for at, texts in enumerate(turns))
        return cls(name, chats, sha256(json.dumps(data, sort_keys=True).encode()))


def check_apart(chats: Chats, pools: Pools) -> None:
    """Raise UsageError, naming the factor, where a turn of a chat is a text of the pools, whatever its split.

    A text that is evaluated would else be one on which the model was kept as its base is.
    """
    homes = {plain(text): factor for factor, text in _texts(pools)}
    for chat in chats.conversations:
        for message in chat.messages:
            if factor := homes.get(plain(message.content)):
                raise UsageError(
                    given=f"replay: {message.content!r} of chats {chats.name!r} is in pools {pools.name!r}, {factor}",
                    allowed="chats that share no turn with the pools",
                    advice="leave it out of one of the two",
                )


@lru_cache(maxsize=8)
def _packaged(name: str) -> Chats:
    folder = Path(str(resources.files("mechint.finetune").joinpath("pools", "replay")))
    names = sorted(path.stem for path in folder.glob("*.json"))
    if name not in names:
        raise UnknownNameError(f"unknown chats {name!r}", f"{', '.join(names)}, or a .json file", "choose one of these")
    return Chats.from_dict(read_json(folder / f"{name}.json"), f"chats {name}")


def _conversation(label: str, texts: tuple[str, ...]) -> Conversation:
    roles = ("user", "assistant")
    return Conversation(label, tuple(Message(roles[at % 2], text) for at, text in enumerate(texts)))


def _texts(pools: Pools) -> Iterator[tuple[str, str]]:
    """Yield every text of the pools that a model reads, with its factor."""
    factors = {
        **{f"openers, {topic}": texts for topic, texts in pools.opener_texts.items()},
        **{f"replies, {topic}": texts for topic, texts in pools.reply_texts.items()},
        **{f"banks, {bank}": texts for bank, texts in pools.bank_texts.items()},
        "sentences": pools.sentence_texts,
    }
    yield from ((factor, text) for factor, texts in factors.items() for split in SPLITS for text in texts[split])
