"""Run every analysis with its gallery options, in a given time if need be, and write `index.html` with all figures."""

from __future__ import annotations

import dataclasses
import importlib
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from analyses import ANALYSES, TRAINED, WITHOUT_MODEL
from analyses.gallery import budget, page
from analyses.gallery.cuts import Cuts
from analyses.gallery.unfinished import Unfinished
from analyses.kit import checks, cli, declarations, option_types
from analyses.kit.declarations import option
from analyses.kit.options import Common, Out
from mechint.base.errors import MechintError, UsageError
from mechint.base.files import remove_file
from mechint.organisms import EMBEDDED

# Its gallery is that of --out itself; those of other models lie in folders of their names there.
_FIRST = "organism"
# What is not run, as trainings and sweeps of several models take minutes, and has its place where it is there.
SHOWN = ("trial_contrasts", "finetuning")
_ALL, _COMMAND = "make figures", "python -m analyses.all"


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    """The options of all analyses, and of the gallery."""

    GROUP: ClassVar[str] = "gallery"

    budget: int | None = option(
        "time for all together, 2h, 90m or 3600s: concepts, questions and grids are cut until they are expected to fit",
        parse=option_types.duration,
    )
    plan: bool = option("say how long each analysis is expected to take, and what is cut; run nothing", default=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code of the first analysis that fails, or 0.

    An analysis that cannot be run with these options (an own file of conversations where it asks its own questions, a
    swap without a finetuned copy) is left out with a line that says why; if that is so for all, the exit code is 2.
    Where one fails the others are run all the same. After a failure or an interruption the same command goes on with
    what was not finished, unless options, the files behind them or code have changed.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    galleries: list[_Gallery] = []
    options = _parsed(argv)
    if options.plan:
        return cli.guarded(lambda: _write_plan(options, argv))
    if code := cli.guarded(lambda: galleries.append(_Gallery.of(options, argv))):
        return code
    gallery = galleries[0]
    return cli.guarded(gallery.begin) or gallery.run() or cli.guarded(gallery.write) or gallery.finish()


@dataclass(frozen=True)
class _Step:
    """One analysis of a gallery; `problem` says why it refuses the options, as far as it knows without a model."""

    name: str
    options: Options
    problem: MechintError | None = None

    @classmethod
    def of(cls, name: str, options: Options) -> _Step:
        """Return an analysis with the options of the command line and those of the gallery."""
        step = cls(name, options)
        return dataclasses.replace(step, problem=step._problem())

    @property
    def module(self) -> ModuleType:
        """The analysis."""
        return importlib.import_module(f"analyses.{self.name}")

    def arguments(self, cuts: Cuts) -> list[str]:
        """Return the command line of the analysis alone: common options, those of the gallery, and what is cut."""
        shared = Out if self.name in WITHOUT_MODEL else Common
        names = sorted(declarations.declarations(shared), key=list(declarations.declarations(Out)).__contains__)
        values = {name: getattr(self.options, name) for name in names}
        shared_values = {name: value for name, value in values.items() if value != getattr(shared, name)}
        off = [declarations.flag(name) for name, value in cuts.items() if value is False]
        switches = [switch for switch in (*ANALYSES[self.name], *self._trained()) if switch not in off]
        return [*declarations.command_line(self.module.ANALYSIS.options, {**shared_values, **cuts}), *switches]

    def command(self, cuts: Cuts) -> str:
        """Return what to type for it alone."""
        return f"python -m analyses.{shlex.join([self.name, *self.arguments(cuts)])}"

    def _trained(self) -> tuple[str, ...]:
        """Return the options by which a model that nothing comes with gets what an analysis needs beside it."""
        return () if self.options.model in EMBEDDED else TRAINED.get(self.name, ())

    def _problem(self) -> MechintError | None:
        if self.name in WITHOUT_MODEL and self.options.model != _FIRST:
            return UsageError("it is the same for every model", f"--model {_FIRST}", "look at the gallery of that")
        try:
            self.module.ANALYSIS.check(self.module.ANALYSIS.parsed(self.arguments({})))
        except MechintError as error:
            return error
        return None


class _Gallery:
    """A gallery: its options, the analyses in order, what an earlier run has finished, and the plan under a budget."""

    def __init__(self, options: Options, steps: Sequence[_Step], unfinished: Unfinished, root: Path) -> None:
        self.options, self.steps, self._unfinished, self._root = options, steps, unfinished, root
        self.plan: budget.Plan | None = None
        self._failures: dict[str, int] = {}

    @classmethod
    def of(cls, options: Options, argv: Sequence[str]) -> _Gallery:
        """Return the gallery of a command line; raises for options that no analysis can be run with."""
        root, options = options.out, dataclasses.replace(options, out=_place(options))
        checks.check_effect(options.budget is not None, "--budget", options, ("shard",))
        if options.budget is not None and options.engine != "local":
            raise UsageError("--budget with --engine ray", "--engine local", "leave one of them out")
        steps = [_Step.of(name, options) for name in ANALYSES]
        problems = [step.problem for step in steps if step.name not in WITHOUT_MODEL]
        if problems and all(problems) and problems[0] is not None:
            raise problems[0]
        return cls(options, steps, Unfinished(options, argv), root)

    def begin(self) -> None:
        """Read or make the plan, if there is a budget, and remember that the run has begun."""
        if self.options.budget is not None:
            earlier_plan = budget.Plan.read(self.options.out, self._unfinished.key) if self._unfinished.begun else None
            self.plan = earlier_plan or self.new_plan().checked()
            self.plan.write(self.options.out)
            sys.stderr.write(self.plan.table())
        else:
            remove_file(self.options.out / budget.FILE)
        self._unfinished.begin()

    def new_plan(self) -> budget.Plan:
        """Return the plan of a run that begins; loads the model."""
        from analyses.gallery.planning import planned

        steps = {step.name: step.arguments for step in self.steps if step.problem is None}
        return planned(self.options, self.options.budget, self._unfinished.key, steps)

    def run(self) -> int:
        """Run what is not left out or done, below one bar; returns 0, or the exit code of what was interrupted.

        One that fails of itself, such as a training that diverges, does not keep the others from being run.
        """
        from tqdm import tqdm

        with tqdm(self.steps, desc="gallery", unit="analysis", disable=None) as bar:
            for step in bar:
                bar.set_postfix_str(step.name)
                cuts = {} if self.plan is None or step.problem else self.plan.analyses[step.name].cuts
                if step.problem is not None:
                    tqdm.write(f"left out: {step.command(cuts)}\n  {step.problem.given}", file=sys.stderr)
                    continue
                finished = step.name in self._unfinished.names
                tqdm.write(f"{'done before: ' if finished else ''}{step.command(cuts)}", file=sys.stderr)
                code = 0 if finished else self._run(step, cuts)
                if code == cli.INTERRUPTED:
                    return code
                if code:
                    self._failures[step.name] = code
                else:
                    self._unfinished.add(step.name)
        return 0

    def _run(self, step: _Step, cuts: Cuts) -> int:
        """Run an analysis and note how long it took; returns its exit code."""
        begun = time.monotonic()
        code = int(step.module.main(step.arguments(cuts)))
        if self.plan is not None:
            before = self.plan
            self.plan = before.after(step.name, time.monotonic() - begun, finished=code == 0)
            self.plan.write(self.options.out)
            if self.plan.rungs != before.rungs:
                sys.stderr.write(f"{step.name} ran over; what is left is cut again\n{self.plan.table()}")
        return code

    def write(self) -> None:
        """Write the pages of the gallery, and links to it where galleries of other models lie beside it."""
        names, out = (*ANALYSES, *SHOWN), self.options.out
        is_first = out == self._root
        page.write_overview(out, names, _ALL if is_first else f"{_COMMAND} --model {self.options.model}")
        sys.stdout.write(f"{page.write_index(out, names)}\n")
        if not is_first and (self._root / page.INDEX).is_file():
            page.write_overview(self._root, names, _ALL)
            page.write_index(self._root, names)

    def finish(self) -> int:
        """Return the exit code of a gallery that was written: the first failure's, and then it can be gone on with."""
        if not self._failures:
            self._unfinished.forget()
            return 0
        names = ", ".join(self._failures)
        sys.stderr.write(f"failed: {names}; what is said of them stands above. The same command tries them again\n")
        return next(iter(self._failures.values()))


def _write_plan(options: Options, argv: Sequence[str]) -> None:
    """Write the plan of a run that would begin now; nothing is left in --out."""
    with tempfile.TemporaryDirectory(prefix="mechint-") as directory:
        plan = _Gallery.of(dataclasses.replace(options, out=Path(directory)), argv).new_plan()
    sys.stdout.write(plan.table())
    plan.checked()


def _place(options: Options) -> Path:
    """Return where a model's gallery is written: in --out, or in a folder of the model's name there."""
    if options.model == _FIRST:
        return options.out
    path = Path(options.model).expanduser()
    name = path.resolve().name if path.exists() else options.model.rpartition("/")[-1]
    if name in ANALYSES:
        raise UsageError(
            given=f"--model {options.model}, whose gallery would be {options.out / name}, the folder of an analysis",
            allowed="a model with another name",
            advice="rename its directory",
        )
    return options.out / name


def parser() -> declarations.Parser:
    """Return the command line's parser."""
    return declarations.parser(Options, "analyses.all", __doc__ or "")


def _parsed(argv: Sequence[str]) -> Options:
    """Check the options, which are passed on to every analysis."""
    return declarations.parse(Options, parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
