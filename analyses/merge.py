"""Join the parts that runs with --shard have left, and write table and figures as one run would have."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from analyses import ANALYSES
from analyses.kit import cli, declarations, option_types
from analyses.kit.analysis import Run
from analyses.kit.options import Out
from analyses.kit.record import Clock, source_hash
from analyses.kit.shard_files import part_files, read_parts
from mechint.base.errors import UsageError


def parser() -> declarations.Parser:
    """Return the command line's parser."""
    command = declarations.parser(Out, "analyses.merge", __doc__ or "")
    command.add_argument(
        "paths",
        type=option_types.path,
        nargs="*",
        default=[Path("figures")],
        help="part files, or directories below which they are",
    )
    return command


def merge(paths: Sequence[Path], out: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the results of every analysis with parts at `paths`, and remove parts below `out`; returns their paths."""
    clock = Clock()
    files = part_files(paths)
    written: list[Path] = []
    for name, (rows, record) in read_parts(files).items():
        if name not in ANALYSES:
            raise UsageError(f"parts of {name!r}", ", ".join(ANALYSES), "use the version that has made them")
        if record.code != source_hash():
            raise UsageError(
                given=f"parts of {name} that another version of the code has written",
                allowed="parts that this version has written: another may draw other columns",
                advice="join them with that version, or run the shards again",
            )
        analysis = importlib.import_module(f"analyses.{name}").ANALYSIS
        config = dataclasses.replace(analysis.parsed(record.argv), out=out, shard=None, overwrite=overwrite)
        started = Run(config, record.argv, clock)
        written += analysis.conclude(started, rows, analysis.facts_of(record.facts)).paths
    for file in files:
        if file.resolve().is_relative_to(out.resolve()):
            file.unlink()
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""

    def joined(arguments: Sequence[str]) -> Sequence[Path]:
        options = parser().parse_args(arguments)
        return merge(options.paths, options.out, overwrite=options.overwrite)

    return cli.run(argv, joined)


if __name__ == "__main__":
    sys.exit(main())
