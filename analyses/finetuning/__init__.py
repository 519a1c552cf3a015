"""What does finetuning change? Trainings by recipe and seed, watched at their fixed steps on what is never trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.finetuning.options import NAME, Config, Facts, check
from analyses.kit.analysis import as_record
from analyses.kit.command import Command, Results
from analyses.kit.record import Clock, check_place, write_record, write_table

if TYPE_CHECKING:
    import pandas as pd

    from mechint.finetune.run import Run


def tables(runs: Sequence[Run], skill: float) -> tuple[Mapping[str, pd.DataFrame], Facts]:
    """Return the tables by file name, and what was read; raises UsageError where no run was watched."""
    from analyses.finetuning.training import means_table, rows_table, skill_table
    from mechint.finetune.run import WATCHED
    from mechint.finetune.watch_rows import read_watch

    watched = [run for run in runs if (run.path / WATCHED).is_file()]
    rows = [row for run in watched or runs for row in read_watch(run.path)]
    table = rows_table(rows)
    recipes = tuple(dict.fromkeys(table["recipe"]))
    facts = Facts(
        model=runs[0].record.model,
        identity=runs[0].record.identity,
        recipes=recipes,
        seeds=int(table["seed"].nunique()),
        skill=skill,
        not_watched=tuple(str(run.path) for run in runs if run not in watched),
    )
    return {"table": table, "means": means_table(table), "skill": skill_table(rows, skill)}, facts


class Finetuning(Command[Config]):
    """The analysis: it needs no model, and reads what trainings have left."""

    def run(self, **options: object) -> Results:
        """Draw from Python; options have the names of the command line's. Without `out` nothing is left on disk.

        finetuning.run(runs="runs").table
        """
        return self.call(options)

    def execute(self, config: Config, argv: Sequence[str], *, keep: bool = True) -> Results:
        """Read and draw, and write tables, figures and a record if they are to be kept."""
        import mechint as mi
        from analyses.finetuning.figures import figures
        from mechint.figures.markup import drawable_figure, literal

        clock, directory = Clock(), config.out / NAME
        runs = check(config)
        check_place(directory, config, None)
        frames, facts = tables(runs, config.skill)
        # What users have written may not be read as markup.
        drawn = figures(literal(frames["table"]), literal(frames["means"]), literal(facts))
        record = as_record(facts)
        paths: list[Path] = []
        if keep:
            paths = [path for name, frame in frames.items() for path in write_table(frame, directory, name)]
            paths += mi.figures.save_all(drawn, directory, script_in=config.out)
            paths = write_record(directory, paths, config=config, argv=argv, clock=clock, record=record)
        return Results(frames, {name: drawable_figure(figure) for name, figure in drawn.items()}, record, paths)


ANALYSIS = Finetuning(NAME, f"{__doc__} Needs no model.", Config)
main = ANALYSIS.main
run = ANALYSIS.run
