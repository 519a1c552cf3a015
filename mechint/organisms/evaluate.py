"""Measure the planted truth of every embedded model; write the truth table and the model cards.

Wordings are those of `data/evaluation.json`, which were written without sight of the training templates and were not
used while the models were developed. `python -m mechint.organisms.evaluate --help`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from mechint.base.errors import MechintError
from mechint.base.files import check_writable, write_atomically
from mechint.models.model import Model, load
from mechint.organisms import HERE, ORGANISMS
from mechint.organisms.record import sha256, weights_path
from mechint.organisms.truth.card import card
from mechint.organisms.truth.measure import LAYERS, STRENGTH, Instrument
from mechint.organisms.truth.properties import Property, as_table, properties
from mechint.organisms.truth.wording import WORDINGS, Wording

COMMAND = "python -m mechint.organisms.evaluate"
TRUTH = "TRUTH.md"
_HEAD = """# The planted truth, measured

Written by `{command}`; do not edit. Each value is a mean over vectors and wordings. Its 95% interval is for
other vectors and other wordings alike: it covers the choice of concepts and that of questions, but not that of the
training seed: every member is one seed. "By vector" gives the lowest and the highest mean of one vector. Injections act
on all positions of the first two turns, at layers {layers}, with {strength:g} of the model's median residual norm at
each layer unless a row says otherwise. Vectors are mean differences of the last prompt token
(`mi.extract.mean_difference`). Wordings, {wordings}, were written without sight of the training templates and not used
in development.

"explained" and "introspection": the chat begins with a document on how introspection can work. Held-out concepts are
talked about in training and never injected. Aims are the project's own, set before the measurement.
"""


@dataclass(frozen=True)
class Extent:
    """How much is measured: wordings of each kind, concepts of each split (None: all), random directions."""

    count: int = 8
    per_split: int | None = None
    n_random: int = 16


def measure(name: str, models: Path, wording: Wording, extent: Extent, family: dict[str, Model]) -> list[Property]:
    """Return all properties of the member in `models / name`."""
    for needed in dict.fromkeys((name, "organism")):
        if needed not in family:
            family[needed] = _load(needed, models)
    m = Instrument(family[name], wording, extent.count, extent.per_split, extent.n_random)
    return properties(name, m, family)


def _load(name: str, models: Path) -> Model:
    whole = (models / name / "config.json").is_file()
    loaded = load(models / name) if whole else load(models / "organism", adapter=models / name)
    loaded.name = name
    return loaded


def truth_page(measured: dict[str, list[Property]], models: Path, wordings: Path) -> str:
    """Return the truth table of all members as Markdown, with the hashes of the weights it belongs to."""
    layers = f"{LAYERS[0]} to {LAYERS[-1]}"
    source = f"`mechint/organisms/data/{wordings.name}`" if wordings == WORDINGS else f"`{wordings}`"
    parts = [_HEAD.format(command=COMMAND, layers=layers, strength=STRENGTH, wordings=source)]
    for name, rows in measured.items():
        digest = sha256(weights_path(models / name))
        parts.append(f"## {name}\n\nsha256 `{digest}`\n\n{as_table(rows)}")
    return "\n".join(parts)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the checked options of the command line; argparse exits with code 2."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "members",
        nargs="*",
        metavar="NAME",
        default=list(ORGANISMS),
        help=f"members to measure (default: {', '.join(ORGANISMS)})",
    )
    parser.add_argument("--models", type=Path, default=HERE, help="directory that holds the members")
    parser.add_argument("--wordings", type=Path, default=WORDINGS, help="file of evaluation wordings")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"where to write the page (default: {TRUTH} in --models if all members are measured)",
    )
    parser.add_argument("--quick", action="store_true", help="few wordings and concepts, nothing is written by default")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    unknown = [name for name in options.members if name not in ORGANISMS]
    if unknown:
        parser.error(f"unknown member {', '.join(unknown)}; allowed: {', '.join(ORGANISMS)}")
    missing = [name for name in {"organism", *options.members} if not (options.models / name).is_dir()]
    if missing:
        parser.error(f"--models {options.models}: no {', '.join(sorted(missing))} there; train them, or name others")
    if options.threads < 1:
        parser.error(f"--threads {options.threads}: give 1 or more")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parse(argv)
    whole = options.members == list(ORGANISMS) and not options.quick and options.wordings == WORDINGS
    page = options.out or (options.models / TRUTH if whole else None)
    torch.set_num_threads(options.threads)
    try:
        if page is not None:
            check_writable(page.parent, "--out")
        measured = _measured(options)
    except MechintError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if page is not None:
        write_atomically(page, truth_page(measured, options.models, options.wordings))
    if whole:
        for name, rows in measured.items():
            directory = options.models / name
            write_atomically(directory / "README.md", card(name, directory, as_table(rows)))
    return 0


def _measured(options: argparse.Namespace) -> dict[str, list[Property]]:
    """Return the properties of each member, which are also printed."""
    extent = Extent(count=4, per_split=6, n_random=6) if options.quick else Extent()
    wording, family = Wording.load(options.wordings), dict[str, Model]()
    measured: dict[str, list[Property]] = {}
    for name in tqdm(options.members, unit="model"):
        measured[name] = measure(name, options.models, wording, extent, family)
        tqdm.write(f"## {name}\n\n{as_table(measured[name])}", file=sys.stdout)
    return measured


if __name__ == "__main__":
    sys.exit(main())
