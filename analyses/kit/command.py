"""A command: a name with options, run from a command line or from Python, and what a run has left."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from analyses.kit import cli, declarations
from analyses.kit.options import Out

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.base.files import JSON

Options = TypeVar("Options", bound=Out)


@dataclass(frozen=True)
class Results:
    """What a run has left: its tables and figures by name, facts as `run.json` has them, and the paths of files.

    Of a run in shards, the table holds the rows of one, and there are no figures.
    """

    tables: Mapping[str, pd.DataFrame]
    figures: Mapping[str, go.Figure]
    facts: Mapping[str, JSON]
    paths: Sequence[Path]

    @property
    def table(self) -> pd.DataFrame:
        """The table that has the rows; the others, if there are any, are what they come to."""
        return self.tables["table"]


@dataclass(frozen=True)
class Command(ABC, Generic[Options]):
    """What `python -m analyses.<name>` runs: its name, what --help says of it, and its options."""

    name: str
    description: str
    options: type[Options]

    @abstractmethod
    def execute(self, config: Options, argv: Sequence[str], *, keep: bool = True) -> Results:
        """Run, and write results if they are to be kept."""

    def parser(self, kind: type[declarations.Parser] = declarations.Parser) -> declarations.Parser:
        """Return the command line's parser."""
        return declarations.parser(self.options, f"analyses.{self.name}", self.description, kind)

    def parsed(self, argv: Sequence[str]) -> Options:
        """Return the options of a command line."""
        return declarations.parse(self.options, self.parser(), argv)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the command line (None: the process's); returns its exit code."""
        return cli.run(argv, lambda arguments: self.execute(self.parsed(arguments), arguments).paths)

    def call(self, options: Mapping[str, object]) -> Results:
        """Run from Python; without `out` nothing but what another option names (a `fill`) is left on disk."""
        with tempfile.TemporaryDirectory(prefix="mechint-") as directory:
            kept = options.get("out") is not None
            config, argv = self.called(options if kept else {**options, "out": directory})
            results = self.execute(config, argv, keep=kept)
        return replace(results, paths=tuple(path for path in results.paths if path.exists()))

    def called(self, options: Mapping[str, object]) -> tuple[Options, list[str]]:
        """Return the options of a call, and the command line that stands for them."""
        argv = declarations.command_line(self.options, options)
        return declarations.parse(self.options, self.parser(declarations.CallParser), argv), argv
