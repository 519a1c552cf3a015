"""Does injecting a concept shift " yes" over " no"? By concept, info document, wording and answer format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from analyses.kit import checks, option_types, questions
from analyses.kit.analysis import Analysis, Drawn
from analyses.kit.declarations import option
from analyses.kit.facts import RunFacts
from analyses.kit.options import Common, Marked
from analyses.kit.questions import Wording
from analyses.kit.study import Inputs
from analyses.kit.subject import ask_all

if TYPE_CHECKING:
    import pandas as pd

    from mechint.chat.conversations import Conversation

NAME = "detection"
CONTROLS = 2  # of each group, for each info document and format: all of them are for analyses.controls


@dataclass(frozen=True, kw_only=True)
class Config(Common, Marked):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "detection"

    format: str | None = option(
        f"answer format of the main figure (default: {Wording.format})", parse=option_types.words, drawing=True
    )


def check(config: Config) -> Inputs:
    """Return the files and conversations of a run; raises for all bad input that can be known without a model."""
    checks.check_effect(config.conversations is not None, "--conversations", config, ("format", "uncorrected"))
    files = checks.check_common(config, NAME)
    return Inputs(files, conversations(config, files))


def conversations(config: Config, files: checks.Files) -> list[Conversation]:
    """Return the introspection question in every wording, and some control questions with the accurate description.

    Or those of `--conversations`. Raises UnknownNameError for a format that the set does not have.
    """
    from mechint import prompts
    from mechint.prompts.design import PromptDesign

    usual = Wording.of(format=config.format)
    if files.conversations is not None:
        return questions.conversations(config, usual, files)
    design = PromptDesign.load(files.prompts)
    prompts.introspection(design, formats=[usual.format])
    controls = prompts.controls(
        design, descriptions=[usual.description], limit=CONTROLS if config.limit is None else config.limit
    )
    return prompts.introspection(design) + controls


def compute(config: Config, inputs: Inputs) -> tuple[pd.DataFrame, RunFacts]:
    """Return the rows of every question, clean and under every concept and random vector."""
    return ask_all(config, NAME, inputs)


def draw(table: pd.DataFrame, config: Config, facts: RunFacts) -> Drawn:
    """Return the figures of a finished table; they find nothing that the record should have."""
    from analyses.detection.figures import figures
    from mechint.stats.bands import Marks

    main_format = Wording.of(format=config.format).format
    return figures(table, main_format, facts.caption, Marks(config.uncorrected)), {}


ANALYSIS = Analysis(NAME, __doc__ or "", Config, RunFacts, check, compute, draw)
main = ANALYSIS.main
run = ANALYSIS.run
