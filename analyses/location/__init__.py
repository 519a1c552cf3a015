"""Does the model know where it was injected? Half of the message, which sentence, early or late layers."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analyses.kit import checks, choices, cli, option_types
from analyses.kit import compute as tables
from analyses.kit import dose as injected
from analyses.kit import record as run
from analyses.kit import study as experiment
from analyses.kit.study import Condition, Group, Setup
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation
    from mechint.prompts.design import PromptDesign

NAME = "location"
PLACES = ("half", "sentence", "layer")
INFOS = ("none", "introspection")
_MESSAGE = 1  # that of the sentences; the system message is before it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Common):
    """All options of this analysis."""

    info: str
    orders: int
    uncorrected: bool


@dataclasses.dataclass(frozen=True)
class Site:
    """One place to inject at: layers, and token positions."""

    layers: tuple[int, ...]
    positions: tuple[int, ...]


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group("location")
    group.add_argument("--info", choices=INFOS, default=INFOS[1], help="info document that the prompt starts with")
    group.add_argument(
        "--orders",
        type=option_types.whole_number(1, 1000),
        default=8,
        help="orders of the sentences' options; two have both",
    )
    cli.add_marks(group)
    return options


def check(config: Config) -> None:
    """Raise for all bad input that can be known without a model, and for options that would have no effect."""
    checks.check_effect(True, "location, which asks questions of its own", config, ("conversations", "limit"))
    checks.check_common(config, NAME)


def questions(design: PromptDesign, place: str, config: Config) -> list[Conversation]:
    """Return the question where it was injected and that of taste with the same options, in every order."""
    from mechint.prompts import questions as prompt_questions

    options = prompt_questions.place_options(design, place)
    count = config.orders if len(options) > 2 else 2
    chats = []
    for number, order in enumerate(choices.orders(len(options), count, config.seed)):
        for question in ("location", "preference"):
            label, taste = f"{place}_{question}_order-{number:02d}", question == "preference"
            chat = prompt_questions.location(design, place, order, label, preference=taste, info=config.info)
            chats.append(choices.listed(chat, order, place=place, question=question, order=number))
    return chats


def sites(setup: Setup, design: PromptDesign, chat: Conversation) -> dict[str, list[Site]]:
    """Return the sites of each place, in the order of its options; only tokens of the sentences are touched."""
    from mechint.chat.render import render
    from mechint.chat.spans import positions_of

    tokenizer, layers = setup.model.tokenizer, tuple(setup.dose.layers)
    text = render(setup.model, chat)
    by_sentence = [
        positions_of(tokenizer, text, sentence, message=_MESSAGE) for sentence in design.tasks.location.sentences
    ]
    half = len(by_sentence) // 2
    first, second, every = (
        tuple(sorted(sum(group, ()))) for group in (by_sentence[:half], by_sentence[half:], by_sentence)
    )
    return {
        "half": [Site(layers, first), Site(layers, second)],
        "sentence": [Site(layers, positions) for positions in by_sentence],
        "layer": [Site(depth, every) for depth in depths(setup)],
    }


def depths(setup: Setup) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the early and the late layers for which all vectors of a run have a direction."""
    return depth_halves(injected.common_layers({**setup.concepts, **setup.randoms}), setup.model.n_layers)


def depth_halves(layers: Sequence[int], n_layers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return as many of `layers` in the first half of a model as in the second.

    The last block is left out: no later token reads what it writes. Raises UsageError where a half has none.
    """
    acting = [layer for layer in layers if layer < n_layers - 1]
    early, late = ([layer for layer in acting if (layer < n_layers // 2) == first] for first in (True, False))
    count = min(len(early), len(late))
    if count == 0:
        raise UsageError(
            given=f"vectors for layers {cli.format_layers(layers)} of {n_layers}",
            allowed="vectors with layers in both halves of the model, the last block not counted",
            advice="make vectors for all layers (leave --vectors out), or take a deeper model",
        )
    return tuple(early[:count]), tuple(late[-count:])


def conditions(setup: Setup, place: str, where: Sequence[Site]) -> list[Condition]:
    """Return clean and one condition for each vector and site; `site` is the number of the option that is right."""
    from mechint.interventions.specifications import CLEAN, Injection

    dose = setup.dose
    site_conditions = [Condition(CLEAN, "", "clean", {"site": -1})]
    for kind, vectors in (("injected", setup.concepts), ("random", setup.randoms)):
        for name, vector in vectors.items():
            for number, site in enumerate(where):
                label = f"{name} {place} {number + 1}"
                steer = Injection(
                    vector, site.layers, dose.strength, dose.relative_strength, name=label, positions=site.positions
                )
                site_conditions.append(Condition(steer, name, kind, {"site": number}))
    return site_conditions


def asked_of(setup: Setup, config: Config) -> tables.Query:
    """Return the questions of each place under its conditions: one request a place, read at every layer."""
    from mechint.engine.job import Request
    from mechint.prompts import questions as prompt_questions
    from mechint.prompts.design import PromptDesign

    design = PromptDesign.load(setup.model.prompts)
    chats = {place: questions(design, place, config) for place in PLACES}
    where = sites(setup, design, chats[PLACES[0]][0])
    groups = [Group(chats[place], conditions(setup, place, where[place])) for place in PLACES]
    answers = [prompt_questions.answers(design, NAME, len(where[place])) for place in PLACES]
    layers = range(-1, setup.model.n_layers)
    requests = [
        Request(group.conversations, [condition.intervention for condition in group.conditions], digits, layers)
        for group, digits in zip(groups, answers, strict=True)
    ]

    def with_columns(number: int, rows: pd.DataFrame) -> pd.DataFrame:
        group, digits = groups[number], answers[number].choices
        readouts = choices.by_option(rows, group.conversations, digits, options(len(digits)))
        return choices.with_extra(experiment.described(experiment.labelled(readouts), group), group.conversations)

    return tables.Query(setup.model, requests, with_columns)


def options(count: int) -> list[str]:
    """Return what tables call the options of a place, in the order of its sites."""
    return [f"place_{number + 1}" for number in range(count)]


def compute(config: Config) -> tuple[pd.DataFrame, Mapping[str, JSON]]:
    """Return the rows of every question, clean and under every vector at every site."""
    setup = Setup.of(config, NAME)
    of = asked_of(setup, config)
    early, late = (cli.format_layers(layers) for layers in depths(setup))
    injected_at = f"halves and sentences at layers {cli.format_layers(setup.dose.layers)}, depths at {early} or {late}"
    return tables.compute(config, NAME, [of]), {**setup.record(experiment.chats(of.requests)), "sites": injected_at}


def draw(
    table: pd.DataFrame, config: Config, record: Mapping[str, JSON]
) -> tuple[Mapping[str, go.Figure], Mapping[str, JSON]]:
    """Return the figures of a finished table, and the verdict on each place for the record."""
    from analyses.location.figures import figures
    from analyses.location.measures import Measures
    from mechint.stats.bands import Marks

    measures, dose = Measures.of(table), injected.Dose.of(record["dose"])
    document = "no document" if config.info == "none" else "info document"
    subject = f"{run.short_name(record)}, {document}; {record['sites']}, {dose}"
    drawn = figures(measures, subject, Marks(config.uncorrected))
    return drawn, {"verdict": run.as_json(measures.verdict().to_dict("records"))}


ANALYSIS = experiment.Analysis(NAME, Config, parser, check, compute, draw, frozenset({"uncorrected"}))
main = ANALYSIS.main
