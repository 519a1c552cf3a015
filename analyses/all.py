"""Run every analysis with its gallery options, and write `index.html` with all figures."""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from analyses import ANALYSES, WITHOUT_MODEL, cli, gallery
from mechint.errors import MechintError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code of the first analysis that fails, or 0.

    An analysis that cannot be run with these options (an own file of conversations where it asks its own questions, a
    swap without a finetuned copy) is left out with a line that says why; if that is so for all, the exit code is 2.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    common: list[argparse.Namespace] = []
    if code := cli.guarded(lambda: common.append(_parsed(argv))):
        return code
    left_out: list[MechintError] = []
    for name, options in ANALYSES.items():
        given = [*(_without_model(common[0]) if name in WITHOUT_MODEL else argv), *options]
        module = importlib.import_module(f"analyses.{name}")
        if problem := _problem(module, given):
            left_out.append(problem)
            sys.stderr.write(f"left out: python -m analyses.{name} {shlex.join(given)}\n  {problem.given}\n")
            continue
        sys.stderr.write(f"python -m analyses.{name} {shlex.join(given)}\n")
        if code := module.main(given):
            return int(code)
    if left_out and len(left_out) == len(set(ANALYSES) - WITHOUT_MODEL):
        sys.stderr.write(f"error: {left_out[0]}\n")
        return 2
    return cli.guarded(lambda: _write_index(common[0].out))


def _problem(module: ModuleType, given: Sequence[str]) -> MechintError | None:
    """Return why an analysis refuses some options, as far as it knows without a model."""
    if not hasattr(module, "ANALYSIS"):
        return None
    try:
        module.ANALYSIS.check(module.ANALYSIS.parsed(given))
    except MechintError as error:
        return error
    return None


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """Check the options, which are passed on to every analysis."""
    return cli.common_parser("analyses.all", __doc__ or "").parse_args(argv)


def _without_model(common: argparse.Namespace) -> list[str]:
    return ["--seed", str(common.seed), "--out", str(common.out)]


def _write_index(out: Path) -> None:
    sys.stdout.write(f"{gallery.write_index(out, tuple(ANALYSES))}\n")


if __name__ == "__main__":
    sys.exit(main())
