"""`python -m analyses.trial_labels`: label replies of trials in a terminal.

Blind to what was done and to every judge; resumes where it stopped; keeps every version of a label.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import cli, declarations, option_types
from analyses.kit.declarations import option
from analyses.trial_labels.session import Session, differences
from mechint.base.errors import UsageError
from mechint.trials.labelled_sets import LabelledSet

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line takes."""

    set: Path | None = option("folder with trials.jsonl, prompts.json and the labels", parse=option_types.path)
    labeller: str = option("who labels", default="A", parse=str)
    reading: int = option("0, or the number of a further reading by the same person", default=0, parse=int)
    count: int | None = option(
        "label so many replies, drawn at random; with --measure, judge the first so many", parse=int
    )
    freeze: bool = option("fix the labels that are there, and write their hash", default=False)
    judge: str | None = option(
        "show where this judge differs from frozen labels: rules, rules+loss:MODEL, local:MODEL", parse=str
    )
    measure: bool = option("show how far --judge agrees with the held-out half instead", default=False)
    out: Path | None = option(
        "with --measure, write the numbers to this file (.csv), in place of those that it has of the judge",
        parse=option_types.path,
    )
    verdicts: Path | None = option(
        "with --measure, a folder of verdicts, from which an interrupted one goes on", parse=option_types.path
    )
    published: Path | None = option(
        "show how far --judge agrees with a copy of published labels: a .jsonl of open-introspection or a .csv of "
        "llama-introspection",
        parse=option_types.path,
    )


def run(options: Options) -> None:
    """Label, freeze, or show what differs."""
    if options.published is not None:
        _compare_published(options.published, options.judge)
        return
    if not (options.measure and options.judge) and (options.out or options.verdicts):
        raise UsageError("--out or --verdicts alone", "with --judge and --measure", "say which judge is measured")
    if options.set is None:
        raise UsageError("no folder", "--set DIR", "say where trials.jsonl and prompts.json are")
    labelled = LabelledSet.load(options.set)
    if options.freeze:
        sys.stdout.write(f"frozen: {labelled.labels.freeze()}\n")
    elif options.judge is not None and options.measure:
        from mechint.trials.measured import first_replies

        _measure(labelled if options.count is None else first_replies(labelled, options.count), options)
    elif options.judge is not None:
        from mechint.trials.judges import open_judge

        items = labelled.items()
        differences(labelled, {})  # before the judge is run
        verdicts = open_judge(options.judge).judge(items)
        by_id = {item.id: verdict for item, verdict in zip(items, verdicts, strict=True)}
        sys.stdout.write("".join(f"{line}\n" for line in differences(labelled, by_id)))
    else:
        session = Session(labelled, options.labeller, options.reading, input, _tell)
        sys.stdout.write(f"{session.run(options.count)} labelled\n")


def _measure(labelled: LabelledSet, options: Options) -> None:
    """Show how far a judge agrees with the held-out half, and with its passes where the labels have them."""
    from mechint.trials.judges import open_judge
    from mechint.trials.judges.store import VerdictStore
    from mechint.trials.measured import keep_measured, measure
    from mechint.trials.passes import labelled_replies, pass_agreement
    from mechint.trials.prompts import concept_lexicon

    judge = open_judge(options.judge or "rules")
    store = None if options.verdicts is None else VerdictStore(options.verdicts)
    measured = measure(judge, labelled, store=store)
    if options.out is not None:
        keep_measured(measured, options.out)
    _tell_table(measured.drop(columns=["judge", "version", "labels_version"]))
    replies, labels = labelled_replies(labelled)
    if replies:
        table = pass_agreement(judge, replies, labels, concept_lexicon())
        _tell_table(table[table["question"] == "passes"])


def _compare_published(path: Path, name: str | None) -> None:
    from mechint.trials.judges import open_judge
    from mechint.trials.passes import pass_agreement
    from mechint.trials.prompts import concept_lexicon
    from mechint.trials.published_labels import read_published_labels

    replies, labels = read_published_labels(path)
    _tell_table(pass_agreement(open_judge(name or "rules"), replies, labels, concept_lexicon()))


def _tell_table(table: pd.DataFrame) -> None:
    _tell(table.round(2).to_string(index=False))


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    command = declarations.parser(Options, "analyses.trial_labels", (__doc__ or "").split("\n\n")[1])
    return cli.guarded(lambda: run(declarations.parse(Options, command, arguments)))


if __name__ == "__main__":
    sys.exit(main())
