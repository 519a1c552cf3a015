"""At which layers and strengths is an injection detected, is it more than noise, and is text still coherent there?"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analyses.kit import checks, cli, option_types, plain_text
from analyses.kit import compute as tables
from analyses.kit import dose as injected
from analyses.kit import questions as asked
from analyses.kit import record as run
from analyses.kit import resume
from analyses.kit import study as experiment
from analyses.kit.dose import Dose
from analyses.kit.study import Condition, Group, Setup

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation

NAME = "layer_strength"
# Multiples of the dose's strength where none are given: from next to nothing to far beyond what leaves text readable.
FACTORS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
PLACES = 16  # about how many windows start in a deep model, and how many layers ranges can begin at
CLEAN = {"sweep": "", "injected_layers": "", "strength": "0"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(asked.Options):
    """All options of this analysis."""

    window: int | None
    step: int | None
    strengths: tuple[float, ...] | None
    absolute: bool
    ranges: bool
    uncorrected: bool


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group("layers and strengths")
    group.add_argument(
        "--window", type=option_types.whole_number(1), help="layers per window (default: a third of the depth)"
    )
    group.add_argument(
        "--step", type=option_types.whole_number(1), help=f"layers between windows (default: about {PLACES} of them)"
    )
    group.add_argument(
        "--strengths",
        type=option_types.numbers(
            "different numbers above 0 (0 is clean): 0.1,0.3,1", lambda strengths: min(strengths) >= 0 < max(strengths)
        ),
        help="a,b,c, relative to the clean residual at each layer (default: 0.1 to 16 times the dose's, in its unit)",
    )
    group.add_argument("--absolute", action="store_true", help="--strengths are factors on the vectors as they are")
    group.add_argument(
        "--ranges", action="store_true", help="also inject at all ranges of layers, at the dose's strength"
    )
    asked.add_options(group)
    cli.add_marks(group)
    return options


def check(config: Config) -> None:
    """Raise for all bad input that can be known without a model, and for options that would have no effect."""
    checks.check_effect(config.conversations is not None, "--conversations", config, asked.WORDED)
    checks.check_effect(config.strengths is None, "no --strengths, which it is said of", config, ("absolute",))
    checkpoint = checks.check_common(config, NAME)
    asked.conversations(config, config.wording, checkpoint.prompts)
    if config.window is not None and checkpoint.n_layers is not None:
        injected.check_window(config.window, checkpoint.n_layers)


def doses(config: Config, usual: Dose) -> list[Dose]:
    """Return the strengths of the grid, ascending, each as a dose at the usual layers."""
    absolute = usual.strength is not None if config.strengths is None else config.absolute
    values = [usual.amount * factor for factor in FACTORS] if config.strengths is None else config.strengths
    return [
        Dose(usual.layers, value if absolute else None, None if absolute else value, usual.source) for value in values
    ]


def windows(config: Config, setup: Setup) -> list[tuple[int, ...]]:
    """Return the layers of the grid's rows: sliding windows, and those of the dose."""
    n_layers = setup.model.n_layers
    sweep = injected.sweep_placements(config.window, injected.common_layers(setup.concepts), n_layers)
    sliding = [placement.layers for placement in sweep if placement.sweep == "window"]
    step = max(1, round(len(sliding) / PLACES)) if config.step is None else config.step
    return sorted({*sliding[::step], setup.dose.layers})


def ranges(config: Config, setup: Setup) -> list[tuple[int, ...]]:
    """Return the layers of every range for which all vectors have directions; its ends are `step` layers apart."""
    n_layers = setup.model.n_layers
    step = max(1, round(n_layers / PLACES)) if config.step is None else config.step
    available = set(injected.common_layers(setup.concepts))
    starts = range(0, n_layers, step)
    every = [tuple(range(start, stop)) for start in starts for stop in [*starts[1:], n_layers] if stop > start]
    return [layers for layers in every if set(layers) <= available]


def conditions(config: Config, setup: Setup) -> list[Condition]:
    """Return every vector at every place of the grid, and at all ranges if these are asked for."""
    places = [("grid", layers, dose) for layers in windows(config, setup) for dose in doses(config, setup.dose)]
    if config.ranges:
        places += [("range", layers, setup.dose) for layers in ranges(config, setup)]
    steered = []
    for sweep, layers, dose in places:
        columns = {"sweep": sweep, "injected_layers": cli.format_layers(layers), "strength": amount(dose)}
        steered += dataclasses.replace(setup, dose=dose).conditions(layers=layers, **columns)
    return steered


def amount(dose: Dose) -> str:
    """Return a dose's strength as tables have it: a text, as layers are."""
    return f"{dose.strength if dose.strength is not None else dose.relative_strength:g}"


def groups(chats: Sequence[Conversation], steered: Sequence[Condition]) -> list[Group]:
    """Return conversations with their conditions: concepts for all, random vectors for the introspection questions."""
    introspection = [chat for chat in chats if asked.kind_of(chat) == "introspection"]
    return [
        Group(chats, [condition for condition in steered if condition.series == "injected"]),
        Group(introspection, [condition for condition in steered if condition.series == "random"]),
    ]


def read(setup: Setup, steered: Sequence[Condition]) -> list[Condition]:
    """Return under which conditions texts are read: concepts everywhere, random vectors at the dose's layers."""
    usual = cli.format_layers(setup.dose.layers)
    at_dose = [
        condition
        for condition in steered
        if (condition.columns["sweep"], condition.columns["injected_layers"]) == ("grid", usual)
    ]
    return [condition for condition in steered if condition.series == "injected" or condition in at_dose]


def compute(config: Config) -> tuple[pd.DataFrame, Mapping[str, JSON]]:
    """Return the rows of every question and of plain text at every place, clean and under every vector."""
    setup = Setup.of(config, NAME)
    chats = asked.for_sweep(config, asked.conversations(config, config.wording, setup.model.prompts))
    steered = conditions(config, setup)
    of = experiment.ask(setup.model, groups(chats, steered), clean=CLEAN)
    cells = tables.compute(config, NAME, [of])
    texts = plain_text.Texts.of(setup)
    text = plain_text.rows(setup, NAME, texts, read(setup, steered), clean=CLEAN)
    record: dict[str, JSON] = {"relative": doses(config, setup.dose)[0].strength is None, "replies": texts.record()}
    return resume.joined(resume.with_ratio(cells), text, len(of.requests)), {**setup.record(chats), **record}


def draw(
    table: pd.DataFrame, config: Config, record: Mapping[str, JSON]
) -> tuple[Mapping[str, go.Figure], Mapping[str, JSON]]:
    """Return the figures of a finished table, and where detection exceeds control for the record."""
    from analyses.layer_strength.figures import Subject, figures, verdict
    from mechint.stats.bands import Marks

    dose = Dose.of(record["dose"])
    caption = f"{run.short_name(record)}, {config.conversations.name if config.conversations else config.wording}"
    subject = Subject(caption, dose, bool(record["relative"]), Marks(config.uncorrected))
    return figures(table, subject), {"verdict": verdict(table, subject)}


ANALYSIS = experiment.Analysis(NAME, Config, parser, check, compute, draw, frozenset({"uncorrected"}))
main = ANALYSIS.main
