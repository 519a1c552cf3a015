"""What does the model say when it is sampled? Replies to prompts that ask it, clean and steered, judged and counted."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import cli
from analyses.kit.analysis import Analysis, Drawn, unchanged
from analyses.kit.command import Results
from analyses.kit.record import sparing_threads
from analyses.kit.subject import Subject
from analyses.trials.browsing import pages
from analyses.trials.designs import design_for
from analyses.trials.judging import PUBLISHED, RULES, JudgeFacts, read_replies, with_outcomes
from analyses.trials.options import NAME, Config, Facts, TrialInputs, check, of_design
from analyses.trials.tables import all_tables, noted

if TYPE_CHECKING:
    import pandas as pd

    from analyses.gallery.counts import Counts
    from mechint.engine.explain_replies import ReplyExplanation
    from mechint.trials.design import TrialDesign
    from mechint.trials.importers import Imported
    from mechint.vectors.concept_vectors import ConceptVector


def prepared(config: Config, inputs: TrialInputs) -> tuple[Subject, TrialDesign]:
    """Return the model with its vectors, and the design: that of a file, or a preset's on this model."""
    assert inputs.files is not None
    subject = Subject.of(of_design(config, inputs.design), inputs.files, NAME)
    design = design_of(config, subject) if inputs.design is None else inputs.design
    return (subject, design) if inputs.ablate is None else _ablated(subject, design, inputs.ablate)


def _ablated(subject: Subject, design: TrialDesign, direction: ConceptVector) -> tuple[Subject, TrialDesign]:
    """Return the subject and the design of a model without a direction; its vectors are those of the whole model."""
    from mechint.trials.cells import model_of

    lacking = replace(design, ablate=direction.name)
    concepts = {**subject.concepts, direction.name: direction}
    return replace(subject, model=model_of(subject.model, lacking, concepts), concepts=concepts), lacking


def design_of(config: Config, subject: Subject) -> TrialDesign:
    """Return the design of a preset on a model, at its dose."""
    is_embedded = subject.model.prompts == "small"
    return design_for(config, subject.dose, list(subject.concepts), is_embedded=is_embedded)


def compute(config: Config, inputs: TrialInputs) -> tuple[pd.DataFrame, Facts]:
    """Return a row for each reply with its verdict and class, sampled or imported, and the facts of the run."""
    if inputs.imported is not None:
        return _of_others(config, inputs.imported)
    from analyses.kit.facts import ModelFacts
    from mechint.engine.explain_replies import AT_ONCE
    from mechint.trials.judges import open_judge
    from mechint.trials.pilot import DROPPED, PILOT
    from mechint.trials.run import run_trials
    from mechint.trials.sweeps import Sweep

    subject, design = prepared(config, inputs)
    folder = config.out / NAME
    with sparing_threads(subject.model):
        trials = run_trials(
            subject.model,
            design,
            subject.concepts,
            store=folder / "replies",
            batch_size=AT_ONCE if config.batch_size is None else config.batch_size,
            max_memory=config.max_memory,
            progress=True,
        )
        shifts = _read_shifts(config, subject, design)
    rows = Sweep.of(subject.model, design, subject.concepts).rows
    texts = {row.cell.prompt.name: row.cell.prompt.text for row in rows}
    verdicts, judge = read_replies(trials, texts, open_judge(config.judge or RULES), folder / "verdicts")
    facts = Facts(
        judge=judge,
        model=ModelFacts.of(subject.model),
        design=design.to_dict(),
        design_key=design.key,
        pilot=trials.attrs.get(PILOT),
        vectors={name: vector.fingerprint() for name, vector in subject.concepts.items()},
        extraction=_extraction(subject.concepts.values()),
        prompts=texts,
    )
    table = _joined(trials, verdicts, facts, shifts)
    table.attrs |= {name: trials.attrs[name] for name in (PILOT, DROPPED) if name in trials.attrs}
    return table, facts


def _extraction(vectors: Iterable[ConceptVector]) -> str:
    """Return how vectors were made, by what they say of it: "mean_difference/reply/baseline"; "" for unknown ones."""
    parts = [[vector.provenance.get(name) for name in ("method", "read", "against")] for vector in vectors]
    texts = ["/".join(str(word) for word in of_vector if word) for of_vector in parts]
    return ", ".join(dict.fromkeys(text for text in texts if text))


def _read_shifts(config: Config, subject: Subject, design: TrialDesign) -> pd.DataFrame | None:
    """Return how far vectors in the prompt move the readout, where replies do not say it by their first tokens."""
    from mechint.trials.shifts import readout_shifts

    if "reply" not in design.steer:
        return None
    store = config.out / NAME / "readouts"
    return readout_shifts(subject.model, design, subject.concepts, store=store, max_memory=config.max_memory)


def _of_others(config: Config, imported: Imported) -> tuple[pd.DataFrame, Facts]:
    from mechint.trials.judges import open_judge

    has_verdicts = len(imported.verdicts) > 0
    name = config.judge or (PUBLISHED if has_verdicts else RULES)
    if name == PUBLISHED:
        verdicts, judge = imported.verdicts, JudgeFacts(name=PUBLISHED, version=PUBLISHED)
    else:
        verdicts, judge = read_replies(imported.trials, {}, open_judge(name), config.out / NAME / "verdicts")
    facts = Facts(
        judge=judge,
        source=Path(str(config.import_)).name,
        integrity=imported.report.text,
        marked_files=tuple(imported.report.files) if config.as_published else (),
        unmatched=config.unmatched,
    )
    return _joined(imported.trials, verdicts, facts), facts


def _joined(
    trials: pd.DataFrame, verdicts: pd.DataFrame, facts: Facts, shifts: pd.DataFrame | None = None
) -> pd.DataFrame:
    from mechint.trials.pilot import dropped_places
    from mechint.trials.shifts import logit_shifts

    table = with_outcomes(trials, verdicts).merge(logit_shifts(trials, shifts), on="id", validate="one_to_one")
    # Of each concept other cells may be left: rates then say which they are of.
    is_uneven = facts.unmatched or (facts.pilot is not None and len(dropped_places(facts.pilot)) > 0)
    table = noted(table, facts.judge, unmatched=is_uneven)
    table.attrs["receipts"] = []
    return table


def draw(table: pd.DataFrame, config: Config, facts: Facts) -> Drawn:
    """Return the figures of a finished table, and the rates that their titles speak of."""
    from analyses.trials.figures import figures

    return figures(all_tables(table), facts)


def explained(config: Config, inputs: TrialInputs) -> tuple[pd.DataFrame, str]:
    """Return how many replies there are of each kind, and what the design takes and can find, as text."""
    from analyses.gallery.counts import Counts
    from mechint.engine.forecast import format_duration
    from mechint.trials.explaining import explain_pilot, explain_trials
    from mechint.trials.power import Power
    from mechint.trials.sweeps import Sweep

    subject, design = prepared(config, inputs)
    rows = Sweep.of(subject.model, design, subject.concepts).rows
    cost = explain_trials(subject.model, design, subject.concepts, max_memory=config.max_memory)
    seconds = seconds_of(cost, design, Counts.timed(subject.model, config))
    power = Power.of(design, len(design.places(subject.model.n_layers)), config.spread)
    table = _kinds([(row.cell.prompt.question, row.cell.series, row.place[:3]) for row in rows])
    lasting = f"about {format_duration(seconds)} of sampling on this machine, if every reply is as long as it may be"
    pilot = explain_pilot(subject.model, design, subject.concepts, store=config.out / NAME / "replies")
    lines = [table.to_string(index=False), str(cost), lasting, str(power), *([pilot] if pilot else [])]
    return table, "".join(f"{line}\n" for line in lines)


def seconds_of(cost: ReplyExplanation, design: TrialDesign, counts: Counts) -> float:
    """Return the seconds that a design takes at most: its prompts and the steps of its replies, at a measured pace."""
    steps = counts.decoding(cost.replies, design.max_new_tokens, cost.at_once)
    return counts.pace * (counts.passes(cost.prompt_tokens) + steps)


def _kinds(rows: Sequence[tuple[str, str, tuple[str, str, str]]]) -> pd.DataFrame:
    """Return the numbers of cells and replies by question and series."""
    import pandas as pd

    table = pd.DataFrame(rows, columns=["question", "series", "cell"])
    counts = table.groupby(["question", "series"], sort=False)["cell"].agg(cells="nunique", replies="size")
    return counts.reset_index()


class Trials(Analysis[Config, TrialInputs, Facts]):
    """The analysis; with `explain` it samples nothing."""

    def execute(self, config: Config, argv: Sequence[str], *, keep: bool = True) -> Results:
        """Run, or say what a run would take and could find."""
        if not config.explain:
            return super().execute(config, argv, keep=keep)
        table, text = explained(config, self.check(config))
        return Results({"table": table}, {}, {"explained": text}, [])

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the command line; returns its exit code."""

        def execute(arguments: Sequence[str]) -> Sequence[Path]:
            results = self.execute(self.parsed(arguments), arguments)
            sys.stdout.write(str(results.facts.get("explained", "")))
            return results.paths

        return cli.run(argv, execute)


ANALYSIS = Trials(
    NAME, __doc__ or "", Config, Facts, check, compute, draw, finish=unchanged, tables=all_tables, pages=pages
)
main = ANALYSIS.main
run = ANALYSIS.run
