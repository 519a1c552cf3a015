"""An analysis: its options, checks, rows and figures; run from a command line, from Python, or from parts of shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from analyses.kit import facts
from analyses.kit.command import Command, Results
from analyses.kit.compute import finished
from analyses.kit.options import TEMPLATE, Common
from analyses.kit.record import (
    Clock,
    as_json,
    check_place,
    discard_store,
    noted_threads,
    run_key,
    source_hash,
    units_in,
    write_record,
    write_table,
)
from analyses.kit.shard_files import PartRecord, write_part
from mechint.base.errors import UsageError
from mechint.base.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.base.files import JSON
    from mechint.models.model import Model

Options = TypeVar("Options", bound=Common)
Inputs = TypeVar("Inputs")
Facts = TypeVar("Facts")
# Figures by file name, and what they say of the table, for `run.json`.
Drawn = tuple[Mapping[str, "go.Figure"], Mapping[str, "JSON"]]


def unchanged(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows that are no cells of the engine: they are the table as they have been computed."""
    return rows


def no_pages(table: pd.DataFrame, config: Common, run_facts: object) -> Mapping[str, str]:
    """Return no page: figures and tables are all that a run leaves."""
    return {}


def one_table(table: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """Return a table under the name of its file."""
    return {"table": table}


@dataclass(frozen=True)
class Analysis(Command[Options], Generic[Options, Inputs, Facts]):
    """One question.

    `check` raises for all bad input that can be known without a model, and returns what it has read; `compute` returns
    rows and facts; `draw` returns figures of a finished table by file name, and what they say, for `run.json`.
    `finish` makes the table of the rows (those that are no engine's cells are `unchanged`), `tables` the files of it,
    one of which is named "table". `pages` returns further pages of HTML by file name.
    """

    facts: type[Facts]
    check: Callable[[Options], Inputs]
    compute: Callable[[Options, Inputs], tuple[pd.DataFrame, Facts]]
    draw: Callable[[pd.DataFrame, Options, Facts], Drawn]
    finish: Callable[[pd.DataFrame], pd.DataFrame] = finished
    tables: Callable[[pd.DataFrame], Mapping[str, pd.DataFrame]] = one_table
    pages: Callable[[pd.DataFrame, Options, Facts], Mapping[str, str]] = no_pages

    def run(self, *, model: str | Path | Model = "organism", **options: object) -> Results:
        """Run the analysis from Python; options have the names of the command line's, with underscores.

            detection.run(model="organism", concepts=("cats", "bread"), relative_strength=0.4).table

        `model` is a name, or a model that is loaded already. With `out` results are written, and an interrupted run is
        gone on with, as on the command line; without it nothing but what another option names (a `fill`) is left on
        disk. Raises MechintError for bad input.
        """
        if options.get("shard") is not None and options.get("out") is None:
            raise UsageError("shard without out", "both: parts are files", "say with out where they go")
        return self.call({"model": model, **options})

    def called(self, options: Mapping[str, object]) -> tuple[Options, list[str]]:
        """Return the options of a call, and the command line that stands for them; `model` may be loaded."""
        from mechint.models.model import Model

        model = options["model"]
        if not isinstance(model, Model):
            return super().called(options)
        of_loading = ("backend", "device", "dtype", *TEMPLATE)
        if named := [name for name in of_loading if options.get(name) is not None]:
            raise UsageError(
                given=f"{', '.join(named)} with a model that is loaded",
                allowed="the model as it is, or its name with these options",
                advice="load the model so, or set its template",
            )
        loaded = {
            "model": model.name,
            "backend": model.backend.kind,
            "device": model.device.type,
            "dtype": str(model.backend.dtype).removeprefix("torch."),
        }
        config, argv = super().called({**options, **loaded})
        return replace(config, loaded=model), argv

    def execute(self, config: Options, argv: Sequence[str], *, keep: bool = True) -> Results:
        """Run the analysis and write its results, or the part that a shard leaves for `analyses.merge`.

        Without `keep` nothing is written: a caller gets what files would have.
        """
        clock = Clock()
        inputs = self.check(config)
        directory = config.out / self.name
        check_place(directory, config, None)
        with noted_threads() as threads:
            rows, run_facts = self.compute(config, inputs)
        if config.shard is None:
            results = self.conclude(Run(config, argv, clock, keep, threads), rows, run_facts)
        else:
            results = self._write_part(config, argv, rows, run_facts)
        discard_store(directory, config.shard)
        return results

    def _write_part(self, config: Options, argv: Sequence[str], rows: pd.DataFrame, run_facts: Facts) -> Results:
        assert config.shard is not None
        record = as_record(run_facts)
        part = PartRecord(self.name, tuple(argv), run_key(config, record), record, source_hash())
        path = write_part(rows, config.out / self.name, config.shard, part)
        return Results(one_table(rows), {}, record, [path])

    def conclude(self, run: Run[Options], rows: pd.DataFrame, run_facts: Facts) -> Results:
        """Finish a complete table, draw it, and write all with its record if it is to be kept."""
        import mechint as mi
        from mechint.figures.markup import DrawableFigures, literal, plain

        directory, record = run.config.out / self.name, as_record(run_facts)
        check_place(directory, run.config, record)
        table = self.finish(rows)
        receipts = table.attrs.pop("receipts")
        table.attrs["units"] = units_in(record)
        tables = self.tables(table)
        paths: list[Path] = []
        if run.keep:
            paths += [path for name, frame in tables.items() for path in write_table(frame, directory, name)]
            pages = self.pages(table, run.config, run_facts)
            paths += [write_atomically(directory / f"{name}.html", page) for name, page in pages.items()]
        # What users and models have written may not be read as markup.
        figures, findings = self.draw(literal(table), literal(run.config), literal(run_facts))
        plain_findings = {name: as_json(plain(value)) for name, value in findings.items()}
        complete = {**record, **plain_findings, "receipts": receipts}
        if run.keep:
            paths += mi.figures.save_all(figures, directory, script_in=run.config.out)
            written = {"threads": dict(run.threads), **complete}
            paths = write_record(directory, paths, config=run.config, argv=run.argv, clock=run.clock, record=written)
        return Results(tables, DrawableFigures(figures), complete, paths)

    def facts_of(self, record: JSON) -> Facts:
        """Return facts from what a part says of its run; raises ValueError for anything else."""
        return facts.read(self.facts, record)


@dataclass(frozen=True)
class Run(Generic[Options]):
    """How a run was started: its options, the command line that stands for them, when, and if it is to be kept.

    `threads` says by model how many threads were chosen, and what was measured for that.
    """

    config: Options
    argv: Sequence[str]
    clock: Clock = field(default_factory=Clock)
    keep: bool = True
    threads: Mapping[str, JSON] = field(default_factory=dict)


def as_record(run_facts: object) -> dict[str, JSON]:
    """Return facts as `run.json` has them; those that are None are left out."""
    record = as_json(run_facts)
    assert isinstance(record, dict)
    return {name: value for name, value in record.items() if value is not None}
