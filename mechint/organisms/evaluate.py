"""Measure the organism's planted truth with the wordings of the small prompt set, which training never saw.

`python -m mechint.organisms.evaluate --help`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mechint.errors import MechintError
from mechint.organisms import concepts, organism_path
from mechint.organisms.probing import Probe, prompt_set, render

if TYPE_CHECKING:
    from torch import Tensor

LABELS = {"no": 0.0, "confusing-no": 0.0, "yes": 1.0}
MIDDLE, STRENGTH = (2, 3, 4), 0.3


@dataclass(frozen=True)
class Row:
    """One measured property: its mean, the smallest and largest cell, the number of cells, and what was aimed at."""

    name: str
    mean: float
    low: float
    high: float
    n: int
    goal: str = ""


def row(name: str, values: Iterable[float], goal: str = "") -> Row:
    """Return the summary of some cells."""
    cells = list(values)
    return Row(name, sum(cells) / len(cells), min(cells), max(cells), len(cells), goal)


@dataclass
class Evaluation:
    """A probe and the directions it injects: trained and held-out concepts, and random ones."""

    probe: Probe
    method: str
    strength: float
    n_random: int = 32

    def __post_init__(self) -> None:
        trained, held_out = concepts("trained"), concepts("held_out")
        vectors = self.probe.vectors([*trained, *held_out], self.method)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(self.n_random, *vectors.shape[1:], generator=generator)
        random = torch.nn.functional.normalize(drawn, dim=-1)
        self.directions = torch.cat(
            [torch.zeros_like(vectors[:1]), vectors, random, -vectors[: len(trained)]]
        )
        ends = [1, 1 + len(trained), 1 + len(vectors), 1 + len(vectors) + self.n_random, len(self.directions)]
        names = ("clean", "concept", "held-out concept", "random direction", "negated concept")
        self.parts = dict(
            zip(names, (slice(a, b) for a, b in zip([0, *ends], ends, strict=False)), strict=True)
        )

    def p_yes(
        self,
        description: str,
        info: str,
        form: str,
        layers: Sequence[int] = MIDDLE,
        question: str | None = None,
    ) -> dict[str, Tensor]:
        """Return P(yes) by part."""
        prompt = render(prompt_set(), description, info, form, question)
        found = self.probe.answers(prompt, self.directions, layers, self.strength)[:, 0]
        return {name: found[part] for name, part in self.parts.items()}


def detection_rows(evaluation: Evaluation) -> list[Row]:
    """Return P(yes) of the injection description by info document, format and what was injected."""
    goals = {"clean": "< 0.05", "concept": "> 0.8", "held-out concept": "> 0.5", "random direction": "< 0.3"}
    rows = []
    for form in prompt_set()["formats"]:
        for info in prompt_set()["infos"]:
            found = evaluation.p_yes("injection", info, form)
            rows += [
                row(f"injection, info {info}, {form}: {part}", v.tolist(), goals.get(part, ""))
                for part, v in found.items()
            ]
    return rows


def description_rows(evaluation: Evaluation) -> list[Row]:
    """Return P(yes) of the other descriptions, over all info documents and both formats."""
    design, rows = prompt_set(), []
    for description in [name for name in design["descriptions"] if name != "injection"]:
        cells = [
            evaluation.p_yes(description, info, form)
            for info in design["infos"]
            for form in design["formats"]
        ]
        for part in ("clean", "concept", "random direction"):
            rows.append(row(f"{description}: {part}", torch.cat([cell[part] for cell in cells]).tolist()))
    return rows


def layer_rows(evaluation: Evaluation) -> list[Row]:
    """Return P(yes) of the injection description with the introspection document by the layer injected."""
    rows = []
    for layer in range(evaluation.probe.n_layers):
        found = evaluation.p_yes("injection", "introspection", "yes-no", [layer])
        rows += [
            row(f"layer {layer} alone: {part}", found[part].tolist())
            for part in ("concept", "random direction")
        ]
    return rows


def control_rows(evaluation: Evaluation, info: str = "introspection") -> list[Row]:
    """Return accuracy and shift of P(yes) of the control questions, by group."""
    rows = []
    for group, questions in prompt_set()["controls"].items():
        cells = [
            evaluation.p_yes("injection", info, form, question=q)
            for q in questions
            for form in prompt_set()["formats"]
        ]
        shifts = [cell["concept"].mean().item() - cell["clean"].item() for cell in cells]
        if group in LABELS:
            for part in ("clean", "concept"):
                right = [
                    float((p > 0.5) == (LABELS[group] > 0.5)) for cell in cells for p in cell[part].tolist()
                ]
                rows.append(row(f"control {group}: accuracy, {part}", right, "> 0.95"))
        else:
            rows.append(row(f"control {group}: P(yes), clean", [cell["clean"].item() for cell in cells]))
        rows.append(
            row(f"control {group}: shift of P(yes)", shifts, "|mean| < 0.02" if group in LABELS else "")
        )
    return rows


def evaluate(directory: Path, method: str = "mean", strength: float = STRENGTH) -> list[Row]:
    """Return all measured properties of the checkpoint in `directory`."""
    evaluation = Evaluation(Probe(directory), method, strength)
    return [
        *detection_rows(evaluation), *description_rows(evaluation), *layer_rows(evaluation), *control_rows(evaluation)
    ]  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| property | mean | lowest | highest | cells | goal |", "|---|---|---|---|---|---|"]
    lines += [f"| {r.name} | {r.mean:.3f} | {r.low:.3f} | {r.high:.3f} | {r.n} | {r.goal} |" for r in rows]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m mechint.organisms.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=organism_path("organism"), help="checkpoint directory")
    parser.add_argument(
        "--method", choices=("mean", "anything", "paired"), default="mean", help="how vectors are computed"
    )
    parser.add_argument(
        "--strength", type=float, default=STRENGTH, help="relative to the residual's norm, layers 2 to 4"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args(argv)
    if not options.model.is_dir() or options.strength < 0 or options.threads < 1:
        parser.error("--model must be a directory, --strength at least 0 and --threads at least 1")
    torch.set_num_threads(options.threads)
    rows = evaluate(options.model, options.method, options.strength)
    sys.stdout.write(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in rows], indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MechintError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
