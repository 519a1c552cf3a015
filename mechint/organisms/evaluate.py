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

import torch
from torch import Tensor

from mechint.errors import MechintError
from mechint.organisms import concepts, organism_path
from mechint.organisms.probing import Probe, Prompt, prompt_set, render

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
        drawn = torch.randn(self.n_random, *vectors.shape[1:], generator=torch.Generator().manual_seed(0))
        self.directions = {
            "clean": torch.zeros_like(vectors[:1]),
            "concept": vectors[: len(trained)],
            "held-out concept": vectors[len(trained) :],
            "random direction": torch.nn.functional.normalize(drawn, dim=-1),
            "negated concept": -vectors[: len(trained)],
        }

    def p_yes(
        self,
        prompt: Prompt,
        layers: Sequence[int] = MIDDLE,
        parts: Sequence[str] = ("clean", "concept", "held-out concept", "random direction", "negated concept"),
    ) -> dict[str, Tensor]:
        """Return P(yes) of every direction of each of `parts`."""
        directions = [self.directions[part] for part in parts]
        found = self.probe.answers(prompt, torch.cat(directions), layers, self.strength)[:, 0]
        return dict(zip(parts, torch.split(found, [len(rows) for rows in directions]), strict=True))


def detection_rows(evaluation: Evaluation) -> list[Row]:
    """Return P(yes) of the injection description by info document, format and what was injected."""
    goals = {"clean": "< 0.05", "concept": "> 0.8", "held-out concept": "> 0.5", "random direction": "< 0.3"}
    design, rows = prompt_set(), []
    for form in design["formats"]:
        for info in design["infos"]:
            found = evaluation.p_yes(render(design, "injection", info, form))
            rows += [
                row(f"injection, info {info}, {form}: {part}", v.tolist(), goals.get(part, ""))
                for part, v in found.items()
            ]
    return rows


def description_rows(evaluation: Evaluation) -> list[Row]:
    """Return P(yes) of the other descriptions, over all info documents and both formats."""
    design, rows = prompt_set(), []
    parts = ("clean", "concept", "random direction")
    for description in [name for name in design["descriptions"] if name != "injection"]:
        prompts = [render(design, description, info, form) for info in design["infos"] for form in design["formats"]]
        cells = [evaluation.p_yes(prompt, parts=parts) for prompt in prompts]
        for part in parts:
            rows.append(row(f"{description}: {part}", torch.cat([cell[part] for cell in cells]).tolist()))
    return rows


def layer_rows(evaluation: Evaluation) -> list[Row]:
    """Return P(yes) of the injection description with the introspection document by the layer injected."""
    rows, parts = [], ("concept", "random direction")
    prompt = render(prompt_set(), "injection", "introspection", "yes-no")
    for layer in range(evaluation.probe.n_layers):
        found = evaluation.p_yes(prompt, [layer], parts)
        rows += [row(f"layer {layer} alone: {part}", found[part].tolist()) for part in parts]
    return rows


def control_cells(evaluation: Evaluation, questions: Sequence[str], info: str) -> list[dict[str, Tensor]]:
    """Return P(yes) by part of control questions in both formats, after the injection description."""
    design = prompt_set()
    prompts = [render(design, "injection", info, form, asked) for asked in questions for form in design["formats"]]
    return [evaluation.p_yes(prompt, parts=("clean", "concept")) for prompt in prompts]


def accuracy(cells: Sequence[dict[str, Tensor]], part: str, label: float) -> list[float]:
    """Return 1 for every cell of a part whose answer is right, else 0."""
    return [float((p > 0.5) == (label > 0.5)) for cell in cells for p in cell[part].tolist()]


def control_rows(evaluation: Evaluation, info: str = "introspection") -> list[Row]:
    """Return accuracy and shift of P(yes) of the control questions, by group."""
    rows = []
    for group, questions in prompt_set()["controls"].items():
        cells = control_cells(evaluation, questions, info)
        if group in LABELS:
            for part in ("clean", "concept"):
                rows.append(row(f"control {group}: accuracy, {part}", accuracy(cells, part, LABELS[group]), "> 0.95"))
        else:
            rows.append(row(f"control {group}: P(yes), clean", [cell["clean"].item() for cell in cells]))
        shifts = [cell["concept"].mean().item() - cell["clean"].item() for cell in cells]
        rows.append(row(f"control {group}: shift of P(yes)", shifts, "|mean| < 0.02" if group in LABELS else ""))
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
