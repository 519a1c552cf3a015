"""What do the published write-ups report? Their figures redrawn from data, and your own results over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import option_types
from analyses.kit.command import Command, Results
from analyses.kit.declarations import option
from analyses.kit.options import Out
from analyses.kit.record import Clock, as_json, check_place, write_record, write_table
from mechint.base.errors import UsageError
from mechint.base.files import check_writable

if TYPE_CHECKING:
    import pandas as pd

    from analyses.published.overlay import Overlay
    from analyses.published.points import Picture

NAME = "published"


@dataclass(frozen=True, kw_only=True)
class Config(Out):
    """All options of this analysis; as it needs no model, it has none of those that the others share but --out."""

    overlay: tuple[Path, ...] = option(
        "table.parquet of detection, controls, logit_lens or layer_strength, to be laid over the published values that "
        "measure the same; may be given several times",
        default=(),
        parse=option_types.path,
        metavar="TABLE",
        repeated=True,
    )
    where: tuple[str, ...] = option(
        "take only these rows of the overlays, for example strength=0.3 of a sweep; may be given several times",
        default=(),
        parse=option_types.words,
        metavar="COLUMN=VALUE",
        repeated=True,
    )


def check(config: Config) -> list[Overlay]:
    """Return the overlays; raises for those that cannot be laid over, and for an --out that cannot be written."""
    from analyses.published import overlay

    if config.where and not config.overlay:
        raise UsageError("--where without --overlay", "both, or neither", "name the table with --overlay")
    if len(set(config.overlay)) < len(config.overlay):
        raise UsageError("the same --overlay twice", "different tables", "leave one of them out")
    overlays = overlay.read(config.overlay, config.where)
    check_writable(config.out / NAME, "--out")
    return overlays


def pictures(overlays: Sequence[Overlay]) -> dict[str, Picture]:
    """Return every figure with its values, by file name; an overlay changes only the figures that measure the same."""
    from analyses.published import finetuning, shifts, specs, trained

    dots = {name: spec.picture() for name, spec in {**specs.SPECS, **trained.SPECS}.items()}
    return {**shifts.pictures(overlays), **dots, **finetuning.pictures()}


def values(drawn: Mapping[str, Picture], overlays: Sequence[Overlay]) -> pd.DataFrame:
    """Return all that is in the figures; `whose` is published or the label of an overlay, which has no source."""
    import pandas as pd

    parts = []
    for name, picture in drawn.items():
        whose = [
            next((overlay.label for overlay in overlays if f"yours, {overlay.label}" in row), "published")
            for row in picture.values["row"]
        ]
        points = picture.values.assign(figure=name, whose=whose)
        parts.append(
            points.assign(
                source=points["whose"].map(lambda who, source=picture.source: source if who == "published" else "")
            )
        )
    return pd.concat(parts, ignore_index=True)[["figure", "whose", "source", *parts[0].columns[:6]]]


class Published(Command[Config]):
    """The analysis that needs no model: its figures come first, and its table holds what is in them."""

    def check(self, config: Config) -> list[Overlay]:
        """Return the overlays; raises for all bad input."""
        return check(config)

    def run(self, **options: object) -> Results:
        """Draw from Python; options have the names of the command line's. Without `out` nothing is left on disk.

        published.run(overlay="figures/layer_strength/table.parquet", where="strength=0.4").figures
        """
        return self.call(options)

    def execute(self, config: Config, argv: Sequence[str], *, keep: bool = True) -> Results:
        """Draw all figures, and write them with their values and a record if they are to be kept."""
        import mechint as mi
        from mechint.figures.markup import DrawableFigures

        clock, directory = Clock(), config.out / NAME
        overlays = check(config)
        check_place(directory, config, None)
        drawn = pictures(overlays)
        table = values(drawn, overlays)
        figures = {name: picture.figure for name, picture in drawn.items()}
        files = [{"label": overlay.label, "path": overlay.path, "sha256": overlay.sha256} for overlay in overlays]
        record = {"overlays": as_json(files)}
        paths: list[Path] = []
        if keep:
            paths = [*write_table(table, directory), *mi.figures.save_all(figures, directory, script_in=config.out)]
            paths = write_record(directory, paths, config=config, argv=argv, clock=clock, record=record)
        return Results({"table": table}, DrawableFigures(figures), record, paths)


ANALYSIS = Published(NAME, f"{__doc__} Needs no model.", Config)
main = ANALYSIS.main
run = ANALYSIS.run
