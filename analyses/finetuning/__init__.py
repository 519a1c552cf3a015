"""What does finetuning change? Trainings by recipe and seed, watched at their fixed steps, and evaluated in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.finetuning.effects import effects_table
from analyses.finetuning.evaluated import Evaluating, tables_of, train_quick
from analyses.finetuning.options import NAME, PARTS, Config, Facts, check, read_runs
from analyses.finetuning.units import units_table
from analyses.kit.analysis import as_record
from analyses.kit.command import Command, Results
from analyses.kit.record import Clock, check_place, write_record, write_table
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from mechint.finetune.run import Run


def tables(runs: Sequence[Run], skill: float) -> tuple[Mapping[str, pd.DataFrame], Facts]:
    """Return the tables by file name, and what was read; there are no tables where no run was watched."""
    from analyses.finetuning.training import means_table, rows_table, skill_table
    from mechint.finetune.watch_rows import read_watch

    watched = [run for run in runs if is_watched(run)]
    facts = Facts(
        model=runs[0].record.model,
        identity=runs[0].record.identity,
        recipes=tuple(dict.fromkeys(run.recipe.name for run in runs)),
        seeds=len({run.seed for run in runs}),
        skill=skill,
        not_watched=tuple(str(run.path) for run in runs if run not in watched),
    )
    if not watched:
        return {}, facts
    rows = [row for run in watched for row in read_watch(run.path)]
    table = rows_table(rows)
    return {"table": table, "means": means_table(table), "skill": skill_table(rows, skill)}, facts


def is_watched(run: Run) -> bool:
    """Whether a run was watched while it was trained."""
    from mechint.finetune.run import WATCHED

    return (run.path / WATCHED).is_file()


def check_parts(config: Config, runs: Sequence[Run]) -> None:
    """Raise UsageError, before anything is computed, where the parts that are asked for come to nothing."""
    if not any(map(is_watched, runs)) and not any(is_evaluated(config, run) for run in runs):
        raise UsageError(
            given=f"{len(runs)} runs, of which none was watched or has come to its end",
            allowed="runs that were watched (without --no-watch), or finished ones and parts beside training",
            advice=f"train them to the end, or choose --parts among {', '.join(PARTS)}",
        )


def is_evaluated(config: Config, run: Run) -> bool:
    """Whether a run has come to its end, so that its adapter can be asked, and anything is to be asked at all."""
    parts = PARTS if config.parts is None else config.parts
    return set(parts) != {"training"} and bool(run.steps) and run.steps[-1] == run.record.steps


class Finetuning(Command[Config]):
    """The analysis: it loads the model that the runs are of, unless only what they were watched with is drawn."""

    def run(self, **options: object) -> Results:
        """Evaluate and draw from Python; options have the names of the command line's.

        Without `out` nothing is left on disk but the tables of evaluations, which are kept beside the runs.

        finetuning.run(runs="runs").tables["units"]
        """
        return self.call(options)

    def execute(self, config: Config, argv: Sequence[str], *, keep: bool = True) -> Results:
        """Read, evaluate what is not there yet, draw, and write tables, figures and a record if they are to be kept."""
        import mechint as mi
        from analyses.finetuning.drawing import drawn
        from mechint.figures.markup import DrawableFigures, literal

        clock, directory = Clock(), config.out / NAME
        runs = check(config)
        check_place(directory, config, None)
        if config.quick:
            train_quick(config.runs[0], config.processes)
            runs = read_runs(config.runs)
        check_parts(config, runs)
        evaluated = [run for run in runs if is_evaluated(config, run)]
        rows = tables_of(Evaluating.of(config, evaluated), config.processes) if evaluated else {}
        frames, facts = tables(runs, config.skill)
        facts = replace(
            facts,
            size=config.size if rows else "",
            evaluations=tuple(rows),
            not_evaluated=tuple(str(run.path) for run in runs if run not in evaluated),
        )
        units = units_table(rows)
        if rows:
            frames = {**frames, "units": units, "effects": effects_table(units)}
        # What users have written may not be read as markup.
        marked = [{name: literal(frame) for name, frame in each.items()} for each in (frames, rows)]
        figures = drawn(marked[0], marked[1], literal(facts))
        record = as_record(facts)
        paths: list[Path] = []
        if keep:
            paths = [path for name, frame in frames.items() for path in write_table(frame, directory, name)]
            paths += mi.figures.save_all(figures, directory, script_in=config.out)
            paths = write_record(directory, paths, config=config, argv=argv, clock=clock, record=record)
        return Results({**frames, **rows}, DrawableFigures(figures), record, paths)


ANALYSIS = Finetuning(NAME, f"{__doc__} Loads the model that they are of.", Config)
main = ANALYSIS.main
run = ANALYSIS.run
