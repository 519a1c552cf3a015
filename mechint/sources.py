"""Where a model name leads: an embedded organism, a checkpoint directory, or a hub id. Needs no heavy import."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mechint.errors import UnknownModelError
from mechint.organisms import ORGANISMS, organism_path

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Source:
    """What `mi.load` was asked for: the name as given, and the directory or hub id it stands for."""

    name: str
    location: str
    is_local: bool


def resolve(name: str | Path) -> Source:
    """Return the source that `name` stands for. Raises UnknownModelError; never opens a connection."""
    text = str(name)
    if text in ORGANISMS:
        return Source(text, str(organism_path(text)), is_local=True)
    path = Path(text).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise _unknown(text, "the directory holds no config.json")
        return Source(text, str(path), is_local=True)
    if _HUB_ID.fullmatch(text) and not text.startswith("."):
        return Source(text, text, is_local=False)
    raise _unknown(text, "no such directory, and not of the form owner/name")


def _unknown(name: str, why: str) -> UnknownModelError:
    return UnknownModelError(
        given=f"model {name!r}: {why}",
        allowed=f"{', '.join(ORGANISMS)} (embedded), a checkpoint directory, or a hub id such as "
        "Qwen/Qwen2.5-Coder-32B-Instruct",
        advice="check the spelling or the path",
    )
