"""Is it only a bias towards yes, or noise? Control questions of four groups under each injection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from analyses.kit import checks, questions
from analyses.kit.analysis import Analysis, Drawn
from analyses.kit.declarations import option
from analyses.kit.facts import RunFacts
from analyses.kit.options import Common
from analyses.kit.record import as_json
from analyses.kit.study import Inputs
from analyses.kit.subject import ask_all
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from mechint.chat.conversations import Conversation

NAME = "controls"
INFOS = ("none", "introspection")


@dataclass(frozen=True, kw_only=True)
class Config(Common):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "controls"

    info: Literal["none", "introspection"] = option(
        "info document that the figures show", default="introspection", drawing=True
    )


def check(config: Config) -> Inputs:
    """Return the files and conversations of a run; raises for all bad input that can be known without a model."""
    files = checks.check_common(config, NAME)
    return Inputs(files, conversations(config, files))


def conversations(config: Config, files: checks.Files) -> list[Conversation]:
    """Return introspection questions and all control questions, with and without the info document, in both formats.

    Or those of `--conversations`, among which there must be control questions. Raises UsageError.
    """
    from mechint import prompts
    from mechint.prompts.design import PromptDesign

    usual = questions.Wording()
    if files.conversations is None:
        design = PromptDesign.load(files.prompts)
        cell = {"descriptions": [usual.description], "infos": list(INFOS)}
        return prompts.introspection(design, **cell) + prompts.controls(design, **cell, limit=config.limit)
    chats = questions.conversations(config, usual, files)
    if not any(questions.kind_of(chat) == "control" for chat in chats):
        raise UsageError(
            given=f"{config.conversations}: no control questions",
            allowed="conversations with extra.kind control, or a label that begins with `control`",
            advice="add control questions, or raise --limit",
        )
    return chats


def compute(config: Config, inputs: Inputs) -> tuple[pd.DataFrame, RunFacts]:
    """Return the rows of every question, clean and under every concept and random vector."""
    return ask_all(config, NAME, inputs)


def draw(table: pd.DataFrame, config: Config, facts: RunFacts) -> Drawn:
    """Return the figures of a finished table, and the verdict on bias and noise."""
    from analyses.controls.figures import figures, verdict

    from_file = config.conversations is not None
    rows = table if from_file else table[table["info"] == config.info]
    wording = "own conversations" if from_file else f"info document: {config.info}, both answer formats"
    return figures(rows, f"{facts.caption}; {wording}"), {"verdict": as_json(verdict(rows))}


ANALYSIS = Analysis(NAME, __doc__ or "", Config, RunFacts, check, compute, draw)
main = ANALYSIS.main
run = ANALYSIS.run
