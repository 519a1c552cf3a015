"""What do the published write-ups report? Their figures redrawn from data, and your own results over them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import cli, option_types
from analyses.kit import record as run
from mechint.base.errors import UsageError
from mechint.base.files import check_writable, sha256

if TYPE_CHECKING:
    import pandas as pd

    from analyses.published.overlay import Overlay
    from analyses.published.specs import Picture

NAME = "published"


@dataclass(frozen=True, kw_only=True)
class Config:
    """All options of this analysis; as it needs no model, it has none of those that the others share but --out."""

    overlay: tuple[Path, ...]
    where: tuple[str, ...]
    out: Path
    overwrite: bool


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.Parser(
        prog=f"python -m analyses.{NAME}", description=f"{__doc__} Needs no model.", allow_abbrev=False
    )
    options.add_argument(
        "--overlay", type=option_types.path, action="append", default=[], metavar="TABLE",
        help="table.parquet of detection, controls, logit_lens or layer_strength, to be laid over the published values "
        "that measure the same; may be given several times",
    )  # fmt: skip
    options.add_argument(
        "--where", type=option_types.words, action="append", default=[], metavar="COLUMN=VALUE",
        help="take only these rows of the overlays, for example strength=0.3 of a sweep; may be given several times",
    )  # fmt: skip
    options.add_argument(
        "--out", type=option_types.path, default=Path("figures"), help="where results are written (default: figures)"
    )
    cli.add_overwrite(options)
    return options


def parsed(argv: Sequence[str]) -> Config:
    """Return the options of a command line."""
    options = parser().parse_args(argv)
    return Config(**{**vars(options), "overlay": tuple(options.overlay), "where": tuple(options.where)})


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
    from analyses.published import finetuning as published_finetuning
    from analyses.published import gap as published_gap
    from analyses.published import scaling as published_scaling
    from analyses.published import shifts as published_shifts

    return {
        **published_shifts.pictures(overlays),
        **published_scaling.pictures(),
        **published_gap.pictures(),
        **published_finetuning.pictures(),
    }


def values(drawn: dict[str, Picture], overlays: Sequence[Overlay]) -> pd.DataFrame:
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


def execute(config: Config, argv: Sequence[str]) -> list[Path]:
    """Draw all figures and write them with their values and a record; returns their paths."""
    import mechint as mi

    clock, overlays = run.Clock(), check(config)
    run.check_place(config.out / NAME, config, None)
    drawn, directory = pictures(overlays), config.out / NAME
    paths = run.write_table(values(drawn, overlays), directory)
    pictures_drawn = {name: picture.figure for name, picture in drawn.items()}
    paths += mi.figures.save_all(pictures_drawn, directory, script_in=config.out)
    files = zip(overlays, config.overlay, strict=True)
    laid_over = [
        {"label": overlay.label, "path": str(path), "sha256": sha256(path.read_bytes())} for overlay, path in files
    ]
    record = {"overlays": run.as_json(laid_over)}
    return run.finish(directory, paths, config=config, argv=argv, clock=clock, record=record)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    return cli.guarded(lambda: cli.list_figures(execute(parsed(arguments), arguments)))
