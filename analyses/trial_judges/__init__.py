"""How far do judges of the same replies agree, and what does each make of the headline?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import option_types
from analyses.kit.command import Command, Results
from analyses.kit.declarations import option
from analyses.kit.options import Out
from analyses.kit.record import Clock, as_json, check_place, write_record, write_table
from analyses.trials.judging import PUBLISHED, RULES, check_judge
from mechint.base.errors import UsageError
from mechint.base.files import check_writable

if TYPE_CHECKING:
    import pandas as pd

    from analyses.trial_judges.comparing import Read
    from analyses.trial_judges.finished import FinishedRun
    from analyses.trial_judges.labelled import Labels

NAME = "trial_judges"
_RETEST = 0.05


def _share_or_none(text: str) -> float:
    """Parse 0 or a share; an argument type."""
    return 0.0 if option_types.not_negative(text) == 0 else option_types.share(text)


@dataclass(frozen=True, kw_only=True)
class Config(Out):
    """All options of this analysis; as it needs no model but those of judges, it has few of those that others share."""

    trials: Path | None = option("a finished run of analyses.trials: its folder, or its --out", parse=option_types.path)
    judges: tuple[str, ...] = option(
        "rules, local:MODEL, openai:URL#MODEL, or published: the verdicts that came with imported trials; several "
        "(default: rules)",
        default=(),
        parse=option_types.words,
        metavar="JUDGE",
        repeated=True,
    )
    labels: tuple[Path, ...] = option(
        "a folder of labels (trials.jsonl, prompts.json, labels.jsonl), or a file of a published labelled set; several "
        "(default: the bundled ones, for judges that were measured on them)",
        default=(),
        parse=option_types.path,
        metavar="LABELS",
        repeated=True,
    )
    retest: float = option(
        "share of the replies that each judge reads twice; 0 for none", default=_RETEST, parse=_share_or_none
    )


@dataclass(frozen=True)
class Inputs:
    """What is read before any judge is opened."""

    run: FinishedRun
    labels: tuple[Labels, ...]
    judges: tuple[str, ...]


def check(config: Config) -> Inputs:
    """Return the run and the labels; raises for all bad input that can be known without a judge."""
    if config.trials is None:
        raise UsageError("no --trials", "a finished run of analyses.trials", "give its --out: --trials figures")
    judges = config.judges if config.judges else (RULES,)
    for name in judges:
        check_judge(name, is_import=True)
    if len(set(judges)) < len(judges):
        raise UsageError(f"--judges {' '.join(judges)}, one of them twice", "each once", "leave the second out")
    from analyses.trial_judges.finished import FinishedRun
    from analyses.trial_judges.labelled import Labels

    run = FinishedRun.read(config.trials)
    if PUBLISHED in judges and not (run.verdicts["judge"] == PUBLISHED).any():
        raise UsageError(
            given=f"--judges {PUBLISHED}: {run.folder} has no verdicts that were published",
            allowed="a run that imported trials with their verdicts",
            advice="name judges that read the replies now",
        )
    check_writable(config.out / NAME, "--out")
    return Inputs(run, tuple(Labels.read(path) for path in config.labels), judges)


def read_all(config: Config, inputs: Inputs) -> tuple[list[Read], pd.DataFrame]:
    """Return what each judge says of the run's replies, and how it agrees with labels (with a column `labels`).

    Verdicts are kept beside the run's own, so what is there is not judged again.
    """
    import pandas as pd

    from analyses.trial_judges.comparing import Read
    from analyses.trials.judging import JudgeFacts, measured_facts, read_replies
    from mechint.trials.judges import open_judge

    run, folder = inputs.run, inputs.run.folder / "verdicts"
    judges: list[Read] = []
    tables: list[pd.DataFrame] = []
    for name in inputs.judges:
        if name == PUBLISHED:
            facts = JudgeFacts(name=PUBLISHED, version=PUBLISHED)
            judges.append(Read(facts, run.verdicts[run.verdicts["judge"] == PUBLISHED]))
            continue
        judge = open_judge(name)
        verdicts, facts = read_replies(run.trials, run.prompts, judge, folder, retest=config.retest)
        measured = [labels.measured(judge, folder).assign(labels=labels.name) for labels in inputs.labels]
        ours = [table for table, labels in zip(measured, inputs.labels, strict=True) if labels.ours is not None]
        if ours:
            facts = measured_facts(facts, ours[0])
        elif facts.agreement:
            measured.append(pd.DataFrame(list(facts.agreement)).assign(labels="bundled labels"))
        tables += measured
        judges.append(Read(facts, verdicts))
    return judges, pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


class TrialJudges(Command[Config]):
    """The analysis that reads a finished run's replies with several judges."""

    def check(self, config: Config) -> Inputs:
        """Return what options name; raises for all bad input."""
        return check(config)

    def run(self, **options: object) -> Results:
        """Compare judges from Python; options have the names of the command line's.

        trial_judges.run(trials="figures", judges=("rules", "local:smollm2")).figures
        """
        return self.call(options)

    def execute(self, config: Config, argv: Sequence[str], *, keep: bool = True) -> Results:
        """Judge all replies, compare, draw, and write all if it is to be kept."""
        import mechint as mi
        from analyses.trial_judges import comparing
        from analyses.trial_judges.figures import figures
        from mechint.figures.markup import DrawableFigures, literal

        clock, directory = Clock(), config.out / NAME
        inputs = check(config)
        check_place(directory, config, None)
        judges, labels = read_all(config, inputs)
        trials = inputs.run.trials
        tables: Mapping[str, pd.DataFrame] = {
            "table": comparing.agreements(trials, judges),
            "labels": labels,
            "classes": comparing.crossed_classes(trials, judges),
            "rates": comparing.headline(trials, judges, unmatched=inputs.run.unmatched),
            **comparing.outcomes_of(trials, judges),
        }
        drawn = figures(literal(dict(tables)), literal(trials), [read.facts for read in judges], inputs.run.source)
        record = {"source": inputs.run.source, "judges": as_json([read.facts for read in judges])}
        paths: list[Path] = []
        if keep:
            paths = [
                path for name, frame in tables.items() if len(frame) for path in write_table(frame, directory, name)
            ]
            paths += mi.figures.save_all(drawn, directory, script_in=config.out)
            paths = write_record(directory, paths, config=config, argv=argv, clock=clock, record=record)
        return Results(tables, DrawableFigures(drawn), record, paths)


ANALYSIS = TrialJudges(NAME, __doc__ or "", Config)
main = ANALYSIS.main
run = ANALYSIS.run
