"""Do trials differ by prompt, model, concept or steering? Declared contrasts on matched cells, with a scorecard."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import cli
from analyses.kit.analysis import as_record
from analyses.kit.command import Command, Results
from analyses.kit.record import Clock, as_json, check_place, write_record, write_table
from analyses.trial_contrasts.options import NAME, SMALLEST_EFFECT, Config, Facts, Inputs, check

if TYPE_CHECKING:
    import pandas as pd

    from analyses.trial_contrasts.drawing import Drawing
    from mechint.trials.plans import Contrast

PLAN = "plan.json"
_BY_RULE = "Declared by rule, before any verdict was read"


@dataclass(frozen=True)
class Compared:
    """The scorecard, its contrasts, and all that the data allow by the rule, declared or not."""

    table: pd.DataFrame
    plan: Sequence[Contrast]
    allowed: Sequence[Contrast]


def compute(config: Config, inputs: Inputs) -> tuple[Compared, Facts]:
    """Return the scorecard, its contrasts and all that the data allow, and the facts of the run."""
    from analyses.trial_contrasts.declaring import declared, kind_of
    from mechint.base.errors import UsageError
    from mechint.trials.scorecard import contrast_table

    sweeps = inputs.sweeps
    effect = SMALLEST_EFFECT if config.smallest_effect is None else config.smallest_effect
    by_rule = declared(sweeps.trials, effect)
    plan = by_rule.contrasts if inputs.plan is None else tuple(inputs.plan)
    if not plan and inputs.plan is None:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in by_rule.left_out.items())
        raise UsageError(
            given=f"trials that allow no contrast by the rule{f' ({reasons})' if reasons else ''}",
            allowed="two prompts that differ in one factor, two models, two categories, or two modes of steering",
            advice="declare what is to be compared: --plan plan.json, as docs/trials.md shows",
        )
    table = contrast_table(sweeps.trials, sweeps.outcomes, plan)
    facts = Facts(
        sources=sweeps.sources,
        judge=sweeps.judge,
        declared=_BY_RULE if inputs.plan is None else f"Declared in {Path(str(config.plan)).name}",
        not_declared=by_rule.left_out if inputs.plan is None else {},
        not_drawn={},
    )
    table.insert(1, "kind", [kind_of(contrast) for contrast in plan])
    return Compared(table, plan, by_rule.contrasts), facts


def draw(inputs: Inputs, compared: Compared, facts: Facts) -> tuple[dict[str, Drawing], dict[str, str]]:
    """Return the figures by name, and for each that the data do not carry why."""
    from analyses.trial_contrasts.figures import figures
    from analyses.trial_contrasts.material import Material
    from mechint.figures.markup import literal

    # What users and models have written may not be read as markup.
    trials, outcomes = literal(inputs.sweeps.trials), literal(inputs.sweeps.outcomes)
    table, allowed = literal(compared.table), literal(list(compared.allowed))
    return figures(Material(trials, outcomes, table, allowed, literal(facts)))


class TrialContrasts(Command[Config]):
    """The analysis: it needs no model, and reads what `analyses.trials` has left."""

    def check(self, config: Config) -> Inputs:
        """Return what options name; raises for all bad input."""
        return check(config)

    def run(self, **options: object) -> Results:
        """Compare from Python; options have the names of the command line's. Without `out` nothing is left on disk.

        trial_contrasts.run(trials=("sweeps/a", "sweeps/b")).table
        """
        return self.call(options)

    def execute(self, config: Config, argv: Sequence[str], *, keep: bool = True) -> Results:
        """Measure and draw, and write the scorecard, the plan, figures and a record if they are to be kept."""
        import mechint as mi
        from mechint.figures.markup import DrawableFigures
        from mechint.trials.plans import write_plan

        clock, directory = Clock(), config.out / NAME
        inputs = self.check(config)
        check_place(directory, config, None)
        compared, facts = compute(config, inputs)
        plan = compared.plan
        drawn, not_drawn = draw(inputs, compared, facts)
        tables = {"table": compared.table, "points": _points(drawn)}
        figures = {name: drawing.figure for name, drawing in drawn.items()}
        facts = replace(facts, not_drawn=not_drawn)
        record = {**as_record(facts), "plan": as_json([asdict(contrast) for contrast in plan])}
        paths: list[Path] = []
        if keep:
            paths = [path for name, frame in tables.items() for path in write_table(frame, directory, name)]
            paths += [
                write_plan(plan, directory / PLAN),
                *mi.figures.save_all(figures, directory, script_in=config.out),
            ]
            paths = write_record(directory, paths, config=config, argv=argv, clock=clock, record=record)
        return Results(tables, DrawableFigures(figures), record, paths)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the command line, and say what was not compared and not drawn; returns its exit code."""

        def execute(arguments: Sequence[str]) -> Sequence[Path]:
            results = self.execute(self.parsed(arguments), arguments)
            sys.stdout.write(_left_out(results.facts))
            return results.paths

        return cli.run(argv, execute)


def _points(drawn: Mapping[str, Drawing]) -> pd.DataFrame:
    """Return all points of all figures."""
    import pandas as pd

    from mechint.figures.markup import plain

    parts = [drawing.points.assign(figure=name) for name, drawing in drawn.items()]
    table = pd.concat(parts, ignore_index=True)
    texts = {
        name: [plain(str(text).replace("<br>", " ")) for text in table[name]] for name in ("panel", "row", "series")
    }
    return table.assign(**texts)[["figure", *parts[0].columns[:-1]]]


def _left_out(facts: Mapping[str, object]) -> str:
    """Return the lines that say what was not declared and not drawn, and why."""
    lines = []
    for key, word in (("not_declared", "not compared"), ("not_drawn", "not drawn")):
        reasons = facts[key]
        assert isinstance(reasons, Mapping)
        lines += [f"{word}: {name}: {reason}\n" for name, reason in reasons.items()]
    return "".join(lines)


ANALYSIS = TrialContrasts(NAME, f"{__doc__} Needs no model.", Config)
main = ANALYSIS.main
run = ANALYSIS.run
