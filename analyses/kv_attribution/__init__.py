"""Which part of the filled cache carries the signal? Parts of it are replaced, clean by injected, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from analyses.kit import checks, dose, option_types, questions, resume
from analyses.kit.adapted import AdapterOptions
from analyses.kit.analysis import Analysis, Drawn, unchanged
from analyses.kit.declarations import option
from analyses.kit.options import Marked
from analyses.kit.record import as_json, sparing_threads
from analyses.kit.study import Inputs
from analyses.kit.subject import Subject
from analyses.kv_attribution import steps
from analyses.kv_attribution.facts import Facts, Text
from mechint.base.errors import LayerRangeError

if TYPE_CHECKING:
    import pandas as pd

    from analyses.kit.cases import Case
    from mechint.attribution.kv import Window
    from mechint.chat.conversations import Conversation

NAME = "kv_attribution"
_CONTROLS = "no"  # the group of control questions


@dataclass(frozen=True, kw_only=True)
class Config(questions.QuestionOptions, AdapterOptions, Marked):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "cache attribution"

    window_layers: int | None = option(
        f"layers of a window (default: {steps.BLOCKS} blocks at most)", parse=option_types.whole_number(1)
    )
    window_positions: int | None = option(
        f"tokens of a window (default: about {steps.PIECES} windows, of {steps.LONGEST} tokens at most)",
        parse=option_types.whole_number(1),
    )
    finer: float = option(
        "windows that carry this share of the shift are taken apart", default=0.05, parse=option_types.share
    )
    most: int = option("but so many of them at most", default=4, parse=option_types.whole_number(0))


def check(config: Config) -> Inputs:
    """Return the files and conversations of a run; raises for all bad input that can be known without a model."""
    checks.check_whole(config, "which windows are taken apart depends on all concepts")
    checks.check_effect(config.conversations is not None, "--conversations", config, questions.WORDED)
    files = checks.check_common(config, NAME)
    if files.n_layers is not None:
        check_depth(config, config.layers, files.n_layers)
    return Inputs(files, conversations(config, files))


def check_depth(config: Config, layers: Sequence[int] | None, n_layers: int) -> None:
    """Raise LayerRangeError for windows of more layers than a model has, and for injections that reach no cache."""
    dose.check_window(1 if config.window_layers is None else config.window_layers, n_layers, "--window-layers")
    if layers and min(layers) >= n_layers - 1:
        raise LayerRangeError(
            given=f"layer {max(layers)}, the last block: nothing that is added after it is cached",
            allowed=f"layers of which one or more are in 0:{n_layers - 1}",
            advice="inject earlier",
        )


def conversations(config: Config, files: checks.Files) -> list[Conversation]:
    """Return the introspection question, and the first control question (`--limit` of them) whose answer is no.

    Or those of `--conversations`. Raises UsageError if one of them has no marked turn.
    """
    if files.conversations is None:
        few = replace(config, limit=1 if config.limit is None else config.limit)
        chats = questions.conversations(few, config.wording, files)
        return [chat for chat in chats if questions.group_of(chat) in ("", _CONTROLS)]
    chats = questions.conversations(config, config.wording, files)
    checks.check_marked(config, chats)
    return chats


def compute(config: Config, inputs: Inputs) -> tuple[pd.DataFrame, Facts]:
    """Return what every part that was replaced carries, and facts with the text of the conversation that is drawn."""
    subject, chats = Subject.of(config, inputs.files, NAME, inputs.conversations), inputs.conversations
    check_depth(config, subject.dose.layers, subject.model.n_layers)
    cases, size = steps.cases(subject, chats), steps.Size(config.window_layers, config.window_positions)
    with sparing_threads(subject.model):
        first = resume.compute_chunks(config, NAME, "windows", [steps.coarse(case, size) for case in cases])
        second = resume.compute_chunks(config, NAME, "cells", _second(config, cases, size, first))
    rows = questions.described(steps.completed(resume.stacked(first, second)), chats)
    drawn = next(chat for chat in chats if questions.kind_of(chat) == "introspection")
    return rows, Facts(**vars(subject.facts(chats)), text=Text.of(subject.model, drawn))


def _second(config: Config, cases: Sequence[Case], size: steps.Size, first: pd.DataFrame) -> list[resume.Chunk]:
    """Return the second step: the same cells under all vectors, those of the windows that matter to concepts."""
    from mechint.attribution import kv

    windows = first[first["level"] == "window"]
    chosen: dict[str, list[Window]] = {}
    for label, rows in windows[windows["series"] == "injected"].groupby("conversation"):
        chosen[str(label)] = kv.strongest(rows, config.finer, config.most)
    return [
        steps.fine(case, size, chosen[case.chat.label], steps.carried(windows, case))
        for case in cases
        if not steps.is_control(case)
    ]


def draw(table: pd.DataFrame, config: Config, facts: Facts) -> Drawn:
    """Return the figures of a finished table, and what they say of it for the record."""
    from analyses.kv_attribution.figures import figures, verdict
    from mechint.stats.bands import Marks

    drawn = figures(table, facts.text, facts.caption, Marks(config.uncorrected))
    return drawn, {"verdict": as_json(verdict(table, facts.text))}


ANALYSIS = Analysis(NAME, __doc__ or "", Config, Facts, check, compute, draw, unchanged)
main = ANALYSIS.main
run = ANALYSIS.run
