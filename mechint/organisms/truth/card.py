"""The model card: what a member is, how it was made, and what was measured on the very file."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

from mechint.organisms import DATA
from mechint.organisms.record import Record, read_record
from mechint.organisms.training.build import D_MLP, D_MODEL
from mechint.organisms.training.tokenizer import VOCABULARY

WIDTH = 118


def card(name: str, directory: Path, table: str) -> str:
    """Return the card of the member in `directory`, with its part of the truth table."""
    record = read_record(directory)
    texts = json.loads((DATA / "members.json").read_text(encoding="utf-8"))[name]
    template = (DATA / "card.md").read_text(encoding="utf-8")
    return template.format(
        title=name,
        n_layers=record["blocks"],
        d_model=D_MODEL,
        d_mlp=D_MLP,
        vocabulary=VOCABULARY,
        storage=textwrap.fill(_storage(record), WIDTH, subsequent_indent="  "),
        start=f"`{record['start']}`" if record["start"] else "random weights",
        seed=record["seed"],
        tokens=record["tokens"],
        phases=", then ".join(f"{phase['steps']} steps of {phase['name']}" for phase in record["phases"]),
        sha256=record["sha256"],
        table=table,
        **{key: textwrap.fill(text, WIDTH) for key, text in texts.items()},
    )


def _storage(record: Record) -> str:
    rounded = "stored as float16 (weights were rounded before anything below was measured); load them as float32"
    prefix = "an adapter of" if record["trains"] == "adapter" else ""
    return f"Size: {prefix} {record['parameters']:,} parameters, {rounded}.".replace("  ", " ")
