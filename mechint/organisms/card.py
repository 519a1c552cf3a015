"""The model card: what the checkpoint is, how it was made, and what was measured on the very file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mechint.organisms import DATA
from mechint.organisms.evaluate import evaluate, table


def sha256(path: Path) -> str:
    """Return the hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def parameters(path: Path) -> int:
    """Return the number of values stored in a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as weights:
        return sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118


def write_card(out: Path, config: Mapping[str, int | float], tokens: int, title: str = "organism") -> None:
    """Measure the checkpoint in `out` and write its README.md."""
    rows, weights = evaluate(out), out / "model.safetensors"
    template = (DATA / "card.md").read_text(encoding="utf-8")
    text = template.format(
        title=title,
        tokens=tokens,
        sha256=sha256(weights),
        parameters=parameters(weights),
        table=table(rows),
        **config,
    )
    (out / "README.md").write_text(text, encoding="utf-8")
