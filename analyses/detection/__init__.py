"""Does injecting a concept shift " yes" over " no"? By concept, info document, wording and answer format."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from analyses.kit import checks, cli, option_types
from analyses.kit import questions as asked
from analyses.kit import study as experiment

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation

NAME = "detection"
CONTROLS = 2  # of each group, for each info document and format: all of them are for analyses.controls


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Common):
    """All options of this analysis."""

    format: str | None
    uncorrected: bool


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group("detection")
    group.add_argument(
        "--format",
        type=option_types.words,
        help=f"answer format of the main figure (default: {asked.Wording().format})",
    )
    cli.add_marks(group)
    return options


def check(config: Config) -> None:
    """Raise for all bad input that can be known without a model."""
    checks.check_effect(config.conversations is not None, "--conversations", config, ("format", "uncorrected"))
    checkpoint = checks.check_common(config, NAME)
    questions(config, checkpoint.prompts)


def questions(config: Config, prompt_set: str) -> list[Conversation]:
    """Return the introspection question in every wording, and some control questions with the accurate description.

    Or those of `--conversations`. Raises UnknownNameError for a format that the set does not have.
    """
    from mechint import prompts
    from mechint.prompts.design import PromptDesign

    usual = asked.Wording.of(format=config.format)
    if config.conversations is not None:
        return asked.conversations(config, usual, prompt_set)
    design = PromptDesign.load(prompt_set)
    prompts.introspection(design, formats=[usual.format])
    controls = prompts.controls(
        design, descriptions=[usual.description], limit=CONTROLS if config.limit is None else config.limit
    )
    return prompts.introspection(design) + controls


def compute(config: Config) -> tuple[pd.DataFrame, Mapping[str, JSON]]:
    """Return the rows of every question, clean and under every concept and random vector."""
    return experiment.ask_all(config, NAME, questions)


def draw(
    table: pd.DataFrame, config: Config, record: Mapping[str, JSON]
) -> tuple[Mapping[str, go.Figure], Mapping[str, JSON]]:
    """Return the figures of a finished table; nothing is added to the record."""
    from analyses.detection.figures import figures
    from mechint.stats.bands import Marks

    main_format = asked.Wording.of(format=config.format).format
    return figures(table, main_format, experiment.caption(record), Marks(config.uncorrected)), {}


ANALYSIS = experiment.Analysis(NAME, Config, parser, check, compute, draw, frozenset({"format", "uncorrected"}))
main = ANALYSIS.main
