"""The embedded models: their names, where their weights lie, and the concepts they know."""

from __future__ import annotations

import json
from pathlib import Path

from mechint.errors import UnknownModelError, UnknownNameError

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
ORGANISMS: tuple[str, ...] = ("organism",)


def organism_path(name: str) -> Path:
    """Return the checkpoint directory of an embedded model; raises UnknownModelError."""
    if name not in ORGANISMS:
        raise UnknownModelError(
            given=f"model {name!r}", allowed=", ".join(ORGANISMS), advice="choose an embedded model"
        )
    return HERE / name


def concepts(split: str = "trained") -> tuple[str, ...]:
    """Return concept words: those injected in training, those only talked about, or all, in the lexicon's order."""
    if split not in ("trained", "held_out", "all"):
        raise UnknownNameError(given=f"split {split!r}", allowed="trained, held_out, all", advice="choose one of these")
    entries = json.loads((DATA / "lexicon.json").read_text(encoding="utf-8"))["concepts"]
    return tuple(word for word, entry in entries.items() if split in ("all", entry["split"]))
