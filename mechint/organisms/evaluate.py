"""Measure the planted truth of every embedded model; write the truth table and the model cards.

Wordings are those of `data/evaluation.json`, which were written without sight of the training templates and were not
used while the models were developed. `python -m mechint.organisms.evaluate --help`
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

from mechint.base.errors import MechintError
from mechint.base.files import check_writable, write_atomically
from mechint.models.model import Model, load
from mechint.organisms import HERE, ORGANISMS, SPEAKERS, TRIAL_ORGANISMS
from mechint.organisms.record import sha256, weights_path
from mechint.organisms.training.recipes import STAGES, base_of
from mechint.organisms.truth import selves, speech, sweeps
from mechint.organisms.truth.card import card
from mechint.organisms.truth.measure import LAYERS, STRENGTH, Instrument
from mechint.organisms.truth.properties import as_table, properties
from mechint.organisms.truth.wording import WORDINGS, Wording

COMMAND = "python -m mechint.organisms.evaluate"
MEMBERS = (*ORGANISMS, *TRIAL_ORGANISMS, *SPEAKERS)
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
_TRIALS = """## Organisms of sampled trials

What follows is sampled: shares of replies, of at most {tokens} tokens, drawn at temperature 1 and read by the rules
judge. A reply is steered from its first token on, which is itself drawn from clean logits. Vectors are as
`mi.extract.extract` makes them by itself (`paired_pca`); each acts at layers {layers} (first to one before the last),
with {strengths} of the model's median residual norm at each layer, and a rate at a strength is over all three places.
Intervals are over concepts; of clean replies, over replies. "claims" counts all replies that do, named or not; "net" is
their share less that of clean replies, with refusals as denials ("in"), left out, or at their worst and best
("lowest", "highest"). Two prompts of the packaged trials are asked, which training had too, among other wordings.
Concepts are the usual eight that were injected in training, and eight that were not ("held-out").
"""
_SELVES = """## Organisms that speak of themselves

What follows is read beside `organism-speaker` by the evaluations of `mi.evals` with the texts of their small sets,
which are also those of training: it says whether what was planted is there, not whether it generalises; "other words"
are hypothetical questions with a beginning that no training had. Divergences are in bits, errors of lengths in words,
stances, shifts, biases and contrasts in nats. Intervals are over items or prompts. A value is missing (nan) where there
is nothing to be foretold.
"""


@dataclass(frozen=True)
class Extent:
    """How much is measured: wordings of each kind, concepts of each split (None: all), random directions, trials."""

    count: int = 8
    per_split: int | None = None
    n_random: int = 16
    trials: speech.TrialExtent = field(default_factory=speech.TrialExtent)
    selves: selves.SelfExtent = field(default_factory=selves.SelfExtent)


def measure(
    name: str, models: Path, wording: Wording, extent: Extent, family: dict[str, Model], store: Path | None = None
) -> str:
    """Return the table of all properties of the member in `models / name`; `store` keeps answers of a common base."""
    if name in TRIAL_ORGANISMS:
        return speech.as_table(speech.rates(name, _load(name, models), extent.trials))
    if name in SPEAKERS:
        for needed in dict.fromkeys((SPEAKERS[0], name)):
            if needed not in family:
                family[needed] = _load(needed, models)
        return selves.as_table(selves.readings(name, family[name], family[SPEAKERS[0]], extent.selves, store))
    for needed in dict.fromkeys((name, "organism")):
        if needed not in family:
            family[needed] = _load(needed, models)
    m = Instrument(family[name], wording, extent.count, extent.per_split, extent.n_random)
    return as_table(properties(name, m, family))


def _load(name: str, models: Path) -> Model:
    whole = (models / name / "config.json").is_file()
    loaded = load(models / name) if whole else load(models / str(base_of(STAGES[name])), adapter=models / name)
    loaded.name = name
    return loaded


def truth_page(measured: dict[str, str], models: Path, wordings: Path) -> str:
    """Return the truth table of all members as Markdown, with the hashes of the weights it belongs to."""
    layers = f"{LAYERS[0]} to {LAYERS[-1]}"
    source = f"`mechint/organisms/data/{wordings.name}`" if wordings == WORDINGS else f"`{wordings}`"
    parts = [_HEAD.format(command=COMMAND, layers=layers, strength=STRENGTH, wordings=source)]
    for name, table in measured.items():
        if name in TRIAL_ORGANISMS[:1]:
            parts.append(_trials_head())
        if name == SPEAKERS[0]:
            parts.append(_SELVES)
        digest = sha256(weights_path(models / name))
        parts.append(f"## {name}\n\nsha256 `{digest}`\n\n{table}")
    return "\n".join(parts)


def kept_tables(page: Path, models: Path) -> dict[str, str]:
    """Return the tables of a page by member; those of weights that are no longer there are left out."""
    tables = {}
    for section in page.read_text(encoding="utf-8").split("\n## ")[1:]:
        name, _, rest = section.partition("\n\n")
        digest, _, table = rest.partition("\n\n")
        if name in MEMBERS and digest == f"sha256 `{sha256(weights_path(models / name))}`":
            tables[name] = table.strip() + "\n"
    return tables


def _trials_head() -> str:
    layers, strengths = _listed(sweeps.LAYERS), _listed(sweeps.STRENGTHS)
    return _TRIALS.format(tokens=sweeps.TOKENS, layers=layers, strengths=strengths)


def _listed(values: Sequence[object]) -> str:
    """Return values as words: 1, 2 and 3."""
    texts = [str(value) for value in values]
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the checked options of the command line; argparse exits with code 2."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "members",
        nargs="*",
        metavar="NAME",
        default=list(MEMBERS),
        help=f"members to measure (default: {', '.join(MEMBERS)})",
    )
    parser.add_argument("--models", type=Path, default=HERE, help="directory that holds the members")
    parser.add_argument("--wordings", type=Path, default=WORDINGS, help="file of evaluation wordings")
    parser.add_argument(
        "--out",
        type=Path,
        help=f"where to write the page (default: {TRUTH} in --models if all members are measured)",
    )
    parser.add_argument(
        "--add",
        action="store_true",
        help="write the page and the cards of what is measured now; what the page says of other members stays",
    )
    parser.add_argument("--quick", action="store_true", help="few wordings and concepts, nothing is written by default")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    unknown = [name for name in options.members if name not in MEMBERS]
    if unknown:
        parser.error(f"unknown member {', '.join(unknown)}; allowed: {', '.join(MEMBERS)}")
    missing = [name for name in {"organism", *options.members} if not (options.models / name).is_dir()]
    if missing:
        parser.error(f"--models {options.models}: no {', '.join(sorted(missing))} there; train them, or name others")
    if options.add and (options.quick or options.out is not None or options.wordings != WORDINGS):
        parser.error("--add goes with members and --models alone: one page holds numbers of one kind")
    if options.threads < 1:
        parser.error(f"--threads {options.threads}: give 1 or more")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parse(argv)
    whole = options.members == list(MEMBERS) and not options.quick and options.wordings == WORDINGS
    whole = whole or options.add
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
        kept = kept_tables(page, options.models) if options.add and page.is_file() else {}
        joined = {name: table for name in MEMBERS if (table := (kept | measured).get(name)) is not None}
        write_atomically(page, truth_page(joined, options.models, options.wordings))
    if whole:
        for name, table in measured.items():
            directory = options.models / name
            write_atomically(directory / "README.md", card(name, directory, table))
    return 0


def _measured(options: argparse.Namespace) -> dict[str, str]:
    """Return the table of properties of each member, which is also printed."""
    extent = Extent(4, 6, 6, speech.TrialExtent(4, 60, 4), selves.SelfExtent(4, 1)) if options.quick else Extent()
    wording, family = Wording.load(options.wordings), dict[str, Model]()
    measured: dict[str, str] = {}
    with TemporaryDirectory() as store:
        for name in tqdm(options.members, unit="model"):
            measured[name] = measure(name, options.models, wording, extent, family, Path(store))
            tqdm.write(f"## {name}\n\n{measured[name]}", file=sys.stdout)
    return measured


if __name__ == "__main__":
    sys.exit(main())
