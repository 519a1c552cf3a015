"""At which layers and strengths is an injection detected, is it more than noise, and is text still coherent there?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from analyses.kit import checks, option_types, plain_text, questions, resume
from analyses.kit.analysis import Analysis, Drawn
from analyses.kit.compute import compute_rows
from analyses.kit.declarations import option
from analyses.kit.dose import Dose, check_window, common_layers, sweep_placements
from analyses.kit.option_types import format_layers
from analyses.kit.options import Marked
from analyses.kit.study import Condition, Group, Inputs, ask
from analyses.kit.subject import Subject

if TYPE_CHECKING:
    import pandas as pd

    from mechint.chat.conversations import Conversation

NAME = "layer_strength"
# Multiples of the dose's strength where none are given: from next to nothing to far beyond what leaves text readable.
FACTORS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
PLACES = 16  # about how many windows start in a deep model, and how many layers ranges can begin at
CLEAN = {"sweep": "", "injected_layers": "", "strength": "0"}
_STRENGTHS = option_types.numbers(
    "different numbers above 0 (0 is clean): 0.1,0.3,1", lambda strengths: min(strengths) >= 0 < max(strengths)
)


@dataclass(frozen=True, kw_only=True)
class Config(questions.QuestionOptions, Marked):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "layers and strengths"

    window: int | None = option("layers per window (default: a third of the depth)", parse=option_types.whole_number(1))
    step: int | None = option(
        f"layers between windows (default: about {PLACES} of them)", parse=option_types.whole_number(1)
    )
    strengths: tuple[float, ...] | None = option(
        "a,b,c, relative to the clean residual at each layer (default: 0.1 to 16 times the dose's, in its unit)",
        parse=_STRENGTHS,
    )
    absolute: bool = option("--strengths are factors on the vectors as they are", default=False)
    ranges: bool = option("also inject at all ranges of layers, at the dose's strength", default=False)


@dataclass(frozen=True, kw_only=True)
class Facts(plain_text.TextFacts):
    """A run; `relative` says whether the strengths of its grid are in units of the model's median residual norm."""

    relative: bool


def check(config: Config) -> Inputs:
    """Return the files and conversations of a run.

    Raises for all bad input that can be known without a model, and for options that would have no effect.
    """
    checks.check_effect(config.conversations is not None, "--conversations", config, questions.WORDED)
    checks.check_effect(config.strengths is None, "no --strengths, which it is said of", config, ("absolute",))
    files = checks.check_common(config, NAME)
    chats = questions.conversations(config, config.wording, files)
    if config.window is not None and files.n_layers is not None:
        check_window(config.window, files.n_layers)
    return Inputs(files, questions.for_sweep(config, chats))


def doses(config: Config, usual: Dose) -> list[Dose]:
    """Return the strengths of the grid, ascending, each as a dose at the usual layers."""
    if config.strengths is None:
        return [usual.times(factor) for factor in FACTORS]
    if config.absolute:
        return [Dose(usual.layers, strength, None, usual.source) for strength in config.strengths]
    return [Dose(usual.layers, None, strength, usual.source) for strength in config.strengths]


def windows(config: Config, subject: Subject) -> list[tuple[int, ...]]:
    """Return the layers of the grid's rows: sliding windows, and those of the dose."""
    sweep = sweep_placements(config.window, common_layers(subject.concepts), subject.model.n_layers)
    sliding = [placement.layers for placement in sweep if placement.sweep == "window"]
    step = max(1, round(len(sliding) / PLACES)) if config.step is None else config.step
    return sorted({*sliding[::step], subject.dose.layers})


def ranges(config: Config, subject: Subject) -> list[tuple[int, ...]]:
    """Return the layers of every range for which all vectors have directions; its ends are `step` layers apart."""
    n_layers = subject.model.n_layers
    step = max(1, round(n_layers / PLACES)) if config.step is None else config.step
    available = set(common_layers(subject.concepts))
    starts = range(0, n_layers, step)
    every = [tuple(range(start, stop)) for start in starts for stop in [*starts[1:], n_layers] if stop > start]
    return [layers for layers in every if set(layers) <= available]


def conditions(config: Config, subject: Subject) -> list[Condition]:
    """Return every vector at every place of the grid, and at all ranges if the options say so."""
    strengths = doses(config, subject.dose)
    places = [("grid", layers, dose) for layers in windows(config, subject) for dose in strengths]
    if config.ranges:
        places += [("range", layers, subject.dose) for layers in ranges(config, subject)]
    steered = []
    for sweep, layers, dose in places:
        columns = {"sweep": sweep, "injected_layers": format_layers(layers), "strength": f"{dose.amount:g}"}
        steered += subject.conditions(layers=layers, dose=dose, **columns)
    return steered


def groups(chats: Sequence[Conversation], steered: Sequence[Condition]) -> list[Group]:
    """Return conversations with their conditions: concepts for all, random vectors for the introspection questions."""
    introspection = [chat for chat in chats if questions.kind_of(chat) == "introspection"]
    return [
        Group(chats, [condition for condition in steered if condition.series == "injected"]),
        Group(introspection, [condition for condition in steered if condition.series == "random"]),
    ]


def text_conditions(dose: Dose, steered: Sequence[Condition]) -> list[Condition]:
    """Return the conditions under which texts are read: concepts everywhere, random vectors at the dose's layers."""
    at_dose = ("grid", format_layers(dose.layers))
    return [
        condition
        for condition in steered
        if condition.series == "injected"
        or (condition.columns["sweep"], condition.columns["injected_layers"]) == at_dose
    ]


def compute(config: Config, inputs: Inputs) -> tuple[pd.DataFrame, Facts]:
    """Return the rows of every question and of plain text at every place, clean and under every vector."""
    subject, chats = Subject.of(config, inputs.files, NAME, inputs.conversations), inputs.conversations
    steered = conditions(config, subject)
    query = ask(subject.model, groups(chats, steered), clean=CLEAN)
    cells = resume.with_ratio(compute_rows(config, NAME, [query]))
    texts = plain_text.Texts.of(subject)
    text = plain_text.rows(subject, NAME, texts, text_conditions(subject.dose, steered), clean=CLEAN)
    relative = doses(config, subject.dose)[0].is_relative
    facts = Facts(**vars(subject.facts(chats)), replies=texts.replies, relative=relative)
    return resume.joined(cells, text, len(query.requests)), facts


def draw(table: pd.DataFrame, config: Config, facts: Facts) -> Drawn:
    """Return the figures of a finished table, and where detection exceeds control."""
    from analyses.layer_strength.figures import Setting, figures, verdict
    from mechint.stats.bands import Marks

    conversations = config.conversations.name if config.conversations else config.wording
    caption = f"{facts.model.short_name}, {conversations}"
    setting = Setting(caption, facts.dose, facts.relative, Marks(config.uncorrected))
    return figures(table, setting), {"verdict": verdict(table, setting)}


ANALYSIS = Analysis(NAME, __doc__ or "", Config, Facts, check, compute, draw)
main = ANALYSIS.main
run = ANALYSIS.run
