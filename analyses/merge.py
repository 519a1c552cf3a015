"""Join the parts that runs with --shard have left, and write table and figures as one run would have."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from analyses import ANALYSES
from analyses.kit import cli, option_types
from analyses.kit import record as run
from analyses.kit import shard_files as parts
from mechint.base.errors import UsageError


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.Parser(prog="python -m analyses.merge", description=__doc__, allow_abbrev=False)
    options.add_argument(
        "paths",
        type=option_types.path,
        nargs="*",
        default=[Path("figures")],
        help="part files, or directories below which they are",
    )
    options.add_argument("--out", type=option_types.path, default=Path("figures"), help="where results are written")
    cli.add_overwrite(options)
    return options


def merge(paths: Sequence[Path], out: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the results of every analysis with parts at `paths`, and remove parts below `out`; returns their paths."""
    from analyses.kit import compute as tables

    clock, files = run.Clock(), parts.files(paths)
    written: list[Path] = []
    for name, (rows, record) in parts.read(files).items():
        if name not in ANALYSES:
            raise UsageError(f"parts of {name!r}", ", ".join(ANALYSES), "use the version that has made them")
        if record.code != run.source_hash():
            raise UsageError(
                given=f"parts of {name} that another version of the code has written",
                allowed="parts that this version has written: another may draw other columns",
                advice="join them with that version, or run the shards again",
            )
        analysis = importlib.import_module(f"analyses.{name}").ANALYSIS
        config = dataclasses.replace(analysis.parsed(record.argv), out=out, shard=None, overwrite=overwrite)
        written += tables.conclude(analysis.run_of(config, record.argv, clock, record.found), rows)
    for file in files:
        if file.resolve().is_relative_to(out.resolve()):
            file.unlink()
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)

    def task() -> None:
        options = parser().parse_args(arguments)
        cli.list_figures(merge(options.paths, options.out, overwrite=options.overwrite))

    return cli.guarded(task)


if __name__ == "__main__":
    sys.exit(main())
