"""Run every analysis with its gallery options, and write `index.html` with all figures."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from analyses import ANALYSES, cli, gallery


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code of the first analysis that fails, or 0."""
    argv = sys.argv[1:] if argv is None else list(argv)
    out: list[Path] = []
    code = cli.guarded(lambda: out.append(_parsed_out(argv)))
    for name, options in ANALYSES.items():
        if code:
            return code
        sys.stderr.write(f"python -m analyses.{name} {shlex.join([*argv, *options])}\n")
        code = importlib.import_module(f"analyses.{name}").main([*argv, *options])
    return code or cli.guarded(lambda: _write_index(out[0]))


def _parsed_out(argv: Sequence[str]) -> Path:
    """Check the options, which are passed on to every analysis, and return where results go."""
    out: Path = cli.common_parser("analyses.all", __doc__ or "").parse_args(argv).out
    return out


def _write_index(out: Path) -> None:
    sys.stdout.write(f"{gallery.write_index(out, tuple(ANALYSES))}\n")


if __name__ == "__main__":
    sys.exit(main())
