"""Run every analysis with its gallery options, and write `index.html` with all figures."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from analyses import ANALYSES, WITHOUT_MODEL
from analyses.gallery import page as gallery
from analyses.kit import cli, declarations, earlier, inputs
from analyses.kit.options import Common, Out
from mechint.base.errors import MechintError, UsageError
from mechint.base.files import read_json, sha256, write_atomically

# What an interrupted run has finished; gone when all is done.
_UNFINISHED = ".unfinished.json"
_ROOT = Path(__file__).resolve().parent.parent


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code of the first analysis that fails, or 0.

    An analysis that cannot be run with these options (an own file of conversations where it asks its own questions, a
    swap without a finetuned copy) is left out with a line that says why; if that is so for all, the exit code is 2.
    After an interruption the same command goes on with what was not finished, unless options, the files behind them or
    code have changed.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    common: list[Common] = []
    if code := cli.guarded(lambda: common.append(_parsed(argv))):
        return code
    steps = [_Step.of(name, options, common[0], argv) for name, options in ANALYSES.items()]
    problems = [step.problem for step in steps if step.name not in WITHOUT_MODEL]
    if problems and all(problems):
        sys.stderr.write(f"error: {problems[0]}\n")
        return 2
    prepared: list[_Done] = []
    if code := cli.guarded(lambda: prepared.append(_Done(common[0], argv))):
        return code
    done = prepared[0]
    return _run(steps, done) or cli.guarded(lambda: _write_index(common[0].out, done))


@dataclass(frozen=True)
class _Step:
    """One analysis with its options; `problem` says why it refuses them, as far as it knows without a model."""

    name: str
    given: list[str]
    problem: MechintError | None

    @classmethod
    def of(cls, name: str, options: Sequence[str], common: Common, argv: Sequence[str]) -> _Step:
        """Return an analysis with the options of the command line and those of the gallery."""
        arguments = [*(_without_model(common) if name in WITHOUT_MODEL else argv), *options]
        return cls(name, arguments, _problem(_module(name), arguments))

    @property
    def command(self) -> str:
        """What to type for it alone."""
        return f"python -m analyses.{shlex.join([self.name, *self.given])}"


def _run(steps: Sequence[_Step], done: _Done) -> int:
    """Run what is not left out or done, below one bar; returns the exit code of the first that fails, or 0."""
    from tqdm import tqdm

    with tqdm(steps, desc="gallery", unit="analysis", disable=None) as bar:
        for step in bar:
            bar.set_postfix_str(step.name)
            if step.problem is not None:
                tqdm.write(f"left out: {step.command}\n  {step.problem.given}", file=sys.stderr)
                continue
            finished = step.name in done.names
            tqdm.write(f"{'done before: ' if finished else ''}{step.command}", file=sys.stderr)
            if not finished and (code := _module(step.name).main(step.given)):
                return int(code)
            done.add(step.name)
    return 0


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"analyses.{name}")


class _Done:
    """The analyses that a run with these options, models and code has finished, kept in its output directory."""

    def __init__(self, options: Common, argv: Sequence[str]) -> None:
        self._path, self._key = options.out / _UNFINISHED, _key(options, argv)
        self.names = self._read()

    def _read(self) -> list[str]:
        """Return what was finished before; nothing where that was of other options, models or code."""
        if not self._path.is_file():
            return []
        with suppress(UsageError):
            kept = read_json(self._path)
            names = kept.get("names") if isinstance(kept, dict) and kept.get("key") == self._key else []
            return [name for name in ANALYSES if isinstance(names, list) and name in names]
        return []

    def add(self, name: str) -> None:
        """Remember that an analysis is finished."""
        self.names = [*self.names, *([] if name in self.names else [name])]
        write_atomically(self._path, json.dumps({"key": self._key, "names": self.names}) + "\n")

    def forget(self) -> None:
        """Let the next run begin anew."""
        self._path.unlink(missing_ok=True)


def _key(options: Common, argv: Sequence[str]) -> str:
    """Return a hash of options, the files behind them, and all source files: nothing old is taken for finished."""
    files = sorted(file for folder in ("analyses", "mechint") for file in (_ROOT / folder).rglob("*.py"))
    dependencies = [[argument for argument in argv if argument != earlier.OVERWRITE], inputs.digest(options)]
    return sha256(json.dumps(dependencies).encode(), *(file.read_bytes() for file in files))


def _problem(module: ModuleType, arguments: Sequence[str]) -> MechintError | None:
    """Return why an analysis refuses some options, as far as it knows without a model."""
    try:
        module.ANALYSIS.check(module.ANALYSIS.parsed(arguments))
    except MechintError as error:
        return error
    return None


def parser() -> declarations.Parser:
    """Return the command line's parser."""
    return declarations.parser(Common, "analyses.all", __doc__ or "")


def _parsed(argv: Sequence[str]) -> Common:
    """Check the options, which are passed on to every analysis."""
    return declarations.parse(Common, parser(), argv)


def _without_model(common: Common) -> list[str]:
    return declarations.command_line(Out, {"out": common.out, "overwrite": common.overwrite})


def _write_index(out: Path, done: _Done) -> None:
    gallery.write_overview(out, tuple(ANALYSES))
    sys.stdout.write(f"{gallery.write_index(out, tuple(ANALYSES))}\n")
    done.forget()


if __name__ == "__main__":
    sys.exit(main())
