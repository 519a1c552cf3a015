"""At which layers can the model's knowledge of an injected concept be read? Clean against injected, with controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from analyses.kit import checks, finetuned, option_types, questions
from analyses.kit.analysis import Analysis, Drawn
from analyses.kit.compute import compute_rows
from analyses.kit.declarations import option
from analyses.kit.dose import Placement, check_window, common_layers, sweep_placements
from analyses.kit.facts import RunFacts
from analyses.kit.finetuned import ContrastFacts
from analyses.kit.options import Marked
from analyses.kit.study import Condition, Group, Inputs, ask
from analyses.kit.subject import Subject
from analyses.logit_lens import conditions
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from mechint.chat.conversations import Conversation

NAME = "logit_lens"


@dataclass(frozen=True, kw_only=True)
class Config(questions.QuestionOptions, finetuned.FinetunedOptions, Marked):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "logit lens"

    metric: Literal["p_yes", "logit_diff"] = option("what the figures show", default="p_yes", drawing=True)
    layer_sweep: bool = option("also inject at every layer, and at sliding windows", default=False)
    window: int | None = option("layers per window (default: a third of the depth)", parse=option_types.whole_number(1))
    conditions: bool = option("also a panel for each document, swap and contrast", default=False)


@dataclass(frozen=True)
class LensInputs(Inputs):
    """What a run has read, the conversations that it asks, and those of `--conditions`."""

    panels: conditions.Panels | None


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """A run; of `--conditions` with a finetuned model its name, and the contrast vector."""

    finetuned: str | None = None
    contrast: ContrastFacts | None = None


def check(config: Config) -> LensInputs:
    """Return what a run asks; raises for bad input that can be known without a model, and options without effect."""
    checks.check_effect(config.conversations is not None, "--conversations", config, questions.WORDED)
    checks.check_effect(not config.layer_sweep, "no --layer-sweep", config, ("window",))
    if config.uncorrected and not config.layer_sweep:
        raise UsageError("--uncorrected without --layer-sweep", "both, or neither", "only sweeps have marked cells")
    checks.check_effect(not config.conditions, "no --conditions", config, ("finetuned", "filled"))
    files = checks.check_common(config, NAME)
    chats = questions.conversations(config, config.wording, files)
    panels = conditions.check(config, files) if config.conditions else None
    if config.window is not None and files.n_layers is not None:
        check_window(config.window, files.n_layers)
    return LensInputs(files, chats, panels)


def groups(config: Config, subject: Subject, chats: Sequence[Conversation]) -> list[Group]:
    """Return the conversations of each placement with their injections.

    Concepts are asked the control questions too, in a sweep a few of them; random vectors the introspection questions.
    """
    introspection = questions.introspection(chats)
    few = questions.for_sweep(config, chats)
    placed = []
    for placement in _placements(config, subject):
        concepts = _conditions(subject, placement, "injected")
        randoms = _conditions(subject, placement, "random")
        placed.append(Group(chats if placement.sweep == "main" else few, concepts))
        placed.append(Group(introspection, randoms))
    return placed


def _conditions(subject: Subject, placement: Placement, series: str) -> list[Condition]:
    layers = option_types.format_layers(placement.layers)
    return subject.conditions([series], layers=placement.layers, sweep=placement.sweep, injected_layers=layers)


def _placements(config: Config, subject: Subject) -> list[Placement]:
    main = Placement("main", subject.dose.layers)
    if not config.layer_sweep:
        return [main]
    available = common_layers(subject.concepts)
    return [main, *sweep_placements(config.window, available, subject.model.n_layers)]


def compute(config: Config, inputs: LensInputs) -> tuple[pd.DataFrame, Facts]:
    """Return the rows of every cell at every layer, and what was injected where."""
    subject = Subject.of(config, inputs.files, NAME, inputs.conversations)
    every_layer = range(-1, subject.model.n_layers)
    clean = {"sweep": "main", "injected_layers": ""}
    queries = [ask(subject.model, groups(config, subject, inputs.conversations), layers=every_layer, clean=clean)]
    facts = Facts(**vars(subject.facts(inputs.conversations)))
    if inputs.panels is not None:
        contrast = conditions.contrast(config, subject.model, inputs.panels)
        queries.append(conditions.query(subject, inputs.panels, contrast))
        if contrast is not None:
            facts = replace(facts, finetuned=contrast.finetuned.name, contrast=ContrastFacts.of(contrast))
    return compute_rows(config, NAME, queries), facts


def draw(table: pd.DataFrame, config: Config, facts: Facts) -> Drawn:
    """Return the figures of a finished table; they find nothing that the record should have."""
    from analyses.logit_lens import conditions_figures
    from analyses.logit_lens.figures import figures

    drawn = figures(table, config, facts.dose, facts.model.short_name)
    if config.conditions:
        drawn["lens_conditions"] = conditions_figures.conditions(table, config, facts)
    return drawn, {}


ANALYSIS = Analysis(NAME, __doc__ or "", Config, Facts, check, compute, draw)
main = ANALYSIS.main
run = ANALYSIS.run
