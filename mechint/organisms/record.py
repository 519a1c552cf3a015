"""The record that a finished stage leaves beside its weights: how they were made, and their hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TypedDict, cast

from mechint.organisms.training.recipes import Stage

RECORD = "training.json"
WEIGHTS = ("model.safetensors", "adapter_model.safetensors")


class PhaseRecord(TypedDict):
    """A training phase in a record."""

    name: str
    steps: int
    rates: list[float]
    batch: int


class Record(TypedDict):
    """The content of a stage's record."""

    stage: str
    start: str | None
    trains: str
    blocks: int
    phases: list[PhaseRecord]
    seed: int
    tokens: int
    parameters: int
    sha256: str


def weights_path(directory: Path) -> Path:
    """Return the file with the weights or the adapter of a directory."""
    return next((directory / name for name in WEIGHTS if (directory / name).is_file()), directory / WEIGHTS[0])


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def parameters(path: Path) -> int:
    """Return the number of values stored in a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as weights:
        return sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118


def write_record(directory: Path, stage: Stage, seed: int, tokens: int) -> None:
    """Write how the weights in `directory` were made; `tokens` were seen in this stage."""
    weights = weights_path(directory)
    record: Record = {
        "stage": stage.name,
        "start": stage.start,
        "trains": stage.trains,
        "blocks": stage.blocks,
        "phases": [
            {"name": phase.name, "steps": phase.steps, "rates": list(phase.rates), "batch": phase.batch}
            for phase in stage.phases
        ],
        "seed": seed,
        "tokens": tokens,
        "parameters": parameters(weights),
        "sha256": sha256(weights),
    }
    (directory / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_record(directory: Path) -> Record:
    """Return the record of a stage's directory."""
    return cast(Record, json.loads((directory / RECORD).read_text(encoding="utf-8")))


def is_made(directory: Path, stage: Stage, seed: int) -> bool:
    """Whether `directory` holds the weights of this stage and seed, unchanged."""
    if not (directory / RECORD).is_file():
        return False
    record = read_record(directory)
    return (record["stage"], record["seed"], record["sha256"]) == (stage.name, seed, sha256(weights_path(directory)))
