"""Run every analysis with its gallery options, and write `index.html` with all figures."""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from analyses import ANALYSES, WITHOUT_MODEL, cli, gallery


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code of the first analysis that fails, or 0."""
    argv = sys.argv[1:] if argv is None else list(argv)
    common: list[argparse.Namespace] = []
    code = cli.guarded(lambda: common.append(_parsed(argv)))
    for name, options in ANALYSES.items():
        if code:
            return code
        given = [*(_without_model(common[0]) if name in WITHOUT_MODEL else argv), *options]
        sys.stderr.write(f"python -m analyses.{name} {shlex.join(given)}\n")
        code = importlib.import_module(f"analyses.{name}").main(given)
    return code or cli.guarded(lambda: _write_index(common[0].out))


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """Check the options, which are passed on to every analysis."""
    return cli.common_parser("analyses.all", __doc__ or "").parse_args(argv)


def _without_model(common: argparse.Namespace) -> list[str]:
    return ["--seed", str(common.seed), "--out", str(common.out)]


def _write_index(out: Path) -> None:
    sys.stdout.write(f"{gallery.write_index(out, tuple(ANALYSES))}\n")


if __name__ == "__main__":
    sys.exit(main())
