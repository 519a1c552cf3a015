"""Is it only a bias towards yes, or noise? Control questions of four groups under each injection."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from analyses.kit import checks, cli
from analyses.kit import questions as asked
from analyses.kit import record as run
from analyses.kit import study as experiment

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation

NAME = "controls"
INFOS = ("none", "introspection")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Common):
    """All options of this analysis."""

    info: str


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group("controls")
    group.add_argument("--info", choices=INFOS, default=INFOS[1], help="info document that the figures show")
    return options


def check(config: Config) -> None:
    """Raise for all bad input that can be known without a model."""
    questions(config, checks.check_common(config, NAME).prompts)


def questions(config: Config, prompt_set: str) -> list[Conversation]:
    """Return introspection questions and all control questions, with and without the info document, in both formats.

    Or those of `--conversations`, among which there must be control questions. Raises UsageError.
    """
    from mechint import prompts
    from mechint.base.errors import UsageError
    from mechint.prompts.design import PromptDesign

    if config.conversations is None:
        design, usual = PromptDesign.load(prompt_set), asked.Wording()
        cell = {"descriptions": [usual.description], "infos": list(INFOS)}
        return prompts.introspection(design, **cell) + prompts.controls(design, **cell, limit=config.limit)
    chats = asked.conversations(config, asked.Wording(), prompt_set)
    if not any(asked.kind_of(chat) == "control" for chat in chats):
        raise UsageError(
            given=f"{config.conversations}: no control questions",
            allowed="conversations with extra.kind control, or a label that begins with `control`",
            advice="add control questions, or raise --limit",
        )
    return chats


def compute(config: Config) -> tuple[pd.DataFrame, Mapping[str, JSON]]:
    """Return the rows of every question, clean and under every concept and random vector."""
    return experiment.ask_all(config, NAME, questions)


def draw(
    table: pd.DataFrame, config: Config, record: Mapping[str, JSON]
) -> tuple[Mapping[str, go.Figure], Mapping[str, JSON]]:
    """Return the figures of a finished table, and the verdict on bias and noise for the record."""
    from analyses.controls.figures import figures, verdict

    from_file = config.conversations is not None
    rows = table if from_file else table[table["info"] == config.info]
    asks = "own conversations" if from_file else f"info document: {config.info}, both answer formats"
    caption = f"{experiment.caption(record)}; {asks}"
    return figures(rows, caption), {"verdict": run.as_json(verdict(rows))}


ANALYSIS = experiment.Analysis(NAME, Config, parser, check, compute, draw, frozenset({"info"}))
main = ANALYSIS.main
