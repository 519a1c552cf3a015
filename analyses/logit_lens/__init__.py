"""At which layers can the model's knowledge of an injected concept be read? Clean against injected, with controls."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from analyses.kit import checks, cli, option_types
from analyses.kit import compute as tables
from analyses.kit import dose as injected
from analyses.kit import finetuned as swapped
from analyses.kit import questions as asked
from analyses.kit import record as run
from analyses.kit import study as experiment
from analyses.kit.study import Group, Setup
from analyses.logit_lens import conditions as lens_conditions
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation

NAME = "logit_lens"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(swapped.Options, asked.Options):
    """All options of this analysis."""

    metric: Literal["p_yes", "logit_diff"]
    layer_sweep: bool
    window: int | None
    conditions: bool
    uncorrected: bool


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group("logit lens")
    group.add_argument("--metric", choices=("p_yes", "logit_diff"), default="p_yes", help="what the figures show")
    group.add_argument("--layer-sweep", action="store_true", help="also inject at every layer, and at sliding windows")
    group.add_argument(
        "--window", type=option_types.whole_number(1), help="layers per window (default: a third of the depth)"
    )
    group.add_argument("--conditions", action="store_true", help="also a panel for each document, swap and contrast")
    asked.add_options(group)
    swapped.add_options(group)
    cli.add_marks(group)
    return options


def check(config: Config) -> None:
    """Raise for all bad input that can be known without a model, and for options that would have no effect."""
    checks.check_effect(config.conversations is not None, "--conversations", config, asked.WORDED)
    checks.check_effect(not config.layer_sweep, "no --layer-sweep", config, ("window",))
    if config.uncorrected and not config.layer_sweep:
        raise UsageError("--uncorrected without --layer-sweep", "both, or neither", "only sweeps have marked cells")
    checks.check_effect(not config.conditions, "no --conditions", config, swapped.WAYS)
    checkpoint = checks.check_common(config, NAME)
    asked.conversations(config, config.wording, checkpoint.prompts)
    if config.conditions:
        lens_conditions.check(config, checkpoint)
    if config.window is not None and checkpoint.n_layers is not None:
        injected.check_window(config.window, checkpoint.n_layers)


def groups(config: Config, setup: Setup, conversations: Sequence[Conversation]) -> list[Group]:
    """Return the conversations of each placement with their injections.

    Concepts are asked the control questions too, in a sweep a few of them; random vectors the introspection questions.
    """
    introspection = [chat for chat in conversations if asked.kind_of(chat) == "introspection"]
    few = asked.for_sweep(config, conversations)
    placed_groups = []
    for placement in _placements(config, setup):
        columns = {"sweep": placement.sweep, "injected_layers": cli.format_layers(placement.layers)}
        questions = conversations if placement.sweep == "main" else few
        placed_groups.append(Group(questions, setup.conditions(["injected"], placement.layers, **columns)))
        placed_groups.append(Group(introspection, setup.conditions(["random"], placement.layers, **columns)))
    return placed_groups


def _placements(config: Config, setup: Setup) -> list[injected.Placement]:
    main = injected.Placement("main", setup.dose.layers)
    if not config.layer_sweep:
        return [main]
    available = injected.common_layers(setup.concepts)
    return [main, *injected.sweep_placements(config.window, available, setup.model.n_layers)]


def compute(config: Config) -> tuple[pd.DataFrame, Mapping[str, JSON]]:
    """Return the rows of every cell at every layer, and what was injected where."""
    setup = Setup.of(config, NAME)
    conversations = asked.conversations(config, config.wording, setup.model.prompts)
    every_layer = range(-1, setup.model.n_layers)
    clean = {"sweep": "main", "injected_layers": ""}
    requests = [experiment.ask(setup.model, groups(config, setup, conversations), layers=every_layer, clean=clean)]
    record = setup.record(conversations)
    if config.conditions:
        more, finetuned_record = lens_conditions.asked_of(config, setup, config.wording.format)
        requests.append(more)
        record |= finetuned_record
    return tables.compute(config, NAME, requests), record


def draw(
    table: pd.DataFrame, config: Config, record: Mapping[str, JSON]
) -> tuple[Mapping[str, go.Figure], Mapping[str, JSON]]:
    """Return the figures of a finished table; nothing is added to the record."""
    from analyses.logit_lens import conditions_figures as lens_conditions_figures
    from analyses.logit_lens.figures import figures

    drawn = figures(table, config, injected.Dose.of(record["dose"]), run.model_name(record))
    if config.conditions:
        drawn["lens_conditions"] = lens_conditions_figures.conditions(table, config, record)
    return drawn, {}


ANALYSIS = experiment.Analysis(NAME, Config, parser, check, compute, draw, frozenset({"metric", "uncorrected"}))
main = ANALYSIS.main
