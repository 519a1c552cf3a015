"""Can the model say what was injected? Choosing from a list with "no injection" in it, and naming it freely."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analyses.kit import checks, choices, cli, option_types
from analyses.kit import compute as tables
from analyses.kit import dose as injected
from analyses.kit import record as run
from analyses.kit import study as experiment
from analyses.kit.study import Condition, Group, Setup
from mechint import organisms
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation
    from mechint.engine.job import Request
    from mechint.prompts.design import PromptDesign
    from mechint.readouts.naming import Naming

NAME = "identification"
INFOS = ("none", "introspection")
NONE = "none"  # what tables and figures call the option for no injection
CONCEPTS = 9  # with the option for none they fill the ten digits
CONTROLS = 2  # control questions after which concepts are named too


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Common):
    """All options of this analysis."""

    orders: int
    uncorrected: bool


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group("identification")
    group.add_argument(
        "--orders", type=option_types.whole_number(2, 1000), default=10, help="orders in which options are listed"
    )
    cli.add_marks(group)
    return options


def check(config: Config) -> None:
    """Raise for all bad input that can be known without a model, and for options that would have no effect."""
    checks.check_effect(True, "identification, which asks questions of its own", config, ("conversations",))
    checkpoint = checks.check_common(config, NAME)
    names = chosen(config, checkpoint.prompts)
    if config.vectors is not None:
        names = tuple(checks.vector_files(config.vectors, config.concepts))
    if not 2 <= len(names) <= CONCEPTS:
        raise UsageError(
            given=f"{len(names)} concepts: {', '.join(names)}",
            allowed=f"2 to {CONCEPTS}: each is an option with a digit, and one is for no injection",
            advice="choose some with --concepts",
        )


def chosen(config: Config, prompt_set: str) -> tuple[str, ...]:
    """Return the concepts that vectors are to be made of; none where `--vectors` has them."""
    if config.concepts is not None or config.vectors is not None:
        return config.concepts or ()
    candidates = organisms.concepts("trained") if prompt_set == "small" else (*injected.CONCEPTS, "books")
    return tuple(candidates[at * len(candidates) // CONCEPTS] for at in range(CONCEPTS))


def choice_chats(design: PromptDesign, concepts: Sequence[str], config: Config) -> list[Conversation]:
    """Return the question which option was injected, with and without the info document, in every order."""
    from mechint.prompts import questions as prompt_questions

    options = (*concepts, design.tasks.identification.none)
    chats = []
    for info in INFOS:
        for number, order in enumerate(choices.orders(len(options), config.orders, config.seed)):
            label, texts = f"choice_info-{info}_order-{number:02d}", [options[at] for at in order]
            chat = prompt_questions.identification(design, texts, label, info=info)
            chats.append(choices.listed(chat, order, task="choice", question="injected", info=info, order=number))
    return chats


def naming_chats(design: PromptDesign, controls: int) -> list[Conversation]:
    """Return the question for the concept with and without the info document, and control questions in its place.

    A name that an injection makes likelier after any question is no report of it.
    """
    from mechint.chat.conversations import Message
    from mechint.prompts import questions as prompt_questions

    chats = []
    for info in INFOS:
        chat = prompt_questions.naming(design, f"naming_info-{info}", info=info)
        chats.append(dataclasses.replace(chat, extra={"task": "naming", "question": "injected", "info": info}))
        for number, question in enumerate(design.controls["no"][:controls]):
            turns = (*chat.messages[:-2], Message("user", question), chat.messages[-1])
            label, extra = f"naming-control-{number:02d}_info-{info}", {"task": "naming", "question": "control"}
            chats.append(dataclasses.replace(chat, label=label, messages=turns, extra={**extra, "info": info}))
    return chats


def conditions(setup: Setup) -> list[Condition]:
    """Return clean and one condition for each vector; `target` is the answer that would be right.

    For a random vector, which has none, it is the concept whose norms it has: how often this is said by chance.
    """
    from mechint.interventions.specifications import CLEAN

    concepts = list(setup.concepts)
    targets = {name: name for name in concepts}
    targets |= {name: concepts[at % len(concepts)] for at, name in enumerate(setup.randoms)}
    steered = [
        dataclasses.replace(condition, columns={"target": targets[condition.unit]}) for condition in setup.conditions()
    ]
    return [Condition(CLEAN, "", "clean", {"target": NONE}), *steered]


def asked_of(setup: Setup, config: Config) -> tables.Query:
    """Return the choices, read at every layer, and the names, read at the output."""
    from mechint.engine.job import Request
    from mechint.prompts import questions as prompt_questions
    from mechint.prompts.design import PromptDesign
    from mechint.readouts.naming import naming_requests

    design, concepts = PromptDesign.load(setup.model.prompts), list(setup.concepts)
    group = Group(choice_chats(design, concepts, config), conditions(setup))
    named = naming_chats(design, CONTROLS if config.limit is None else config.limit)
    steers = [condition.intervention for condition in group.conditions]
    answers = prompt_questions.answers(design, NAME, len(concepts) + 1)
    naming = naming_requests(setup.model, named, {name: f" {name}" for name in concepts}, steers)
    layers = range(-1, setup.model.n_layers)
    requests = [Request(group.conversations, steers, answers, layers), *naming.requests]

    def with_columns(number: int, rows: pd.DataFrame) -> pd.DataFrame:
        if number == 0:
            readouts = choices.by_option(rows, group.conversations, answers.choices, [*concepts, NONE])
        else:
            readouts = by_name(rows, requests[number], naming)
        return choices.with_extra(
            experiment.described(experiment.labelled(readouts), group), [*group.conversations, *named]
        )

    return tables.Query(setup.model, requests, with_columns)


def by_name(rows: pd.DataFrame, request: Request, naming: Naming) -> pd.DataFrame:
    """Return a row for each name of which a request reads a token: `name`, `token` (which of its own), `log_p`.

    The sum of `log_p` over a name's tokens is the log-probability of the name.
    """
    import pandas as pd

    after, columns = tuple(request.after), _columns(request)
    tokens, at = naming.tokens[experiment.chats([request])[0].label], len(after)  # those of all its conversations
    read = {name: columns[ids[at]] for name, ids in tokens.items() if len(ids) > at and ids[:at] == after}
    key_columns = rows.drop(columns=[name for name in rows if str(name).startswith(("p_", "logit_"))])
    key_columns.attrs = {}
    with np.errstate(divide="ignore"):
        logs = {name: np.log(rows.reindex(columns=[column])[column].astype(float)) for name, column in read.items()}
    parts = [
        key_columns.assign(name=name, token=at, log_p=log_p).set_axis(rows.index * len(read) + number)
        for number, (name, log_p) in enumerate(logs.items())
    ]
    return pd.concat(parts)


def _columns(request: Request) -> dict[int, str]:
    from mechint.engine.answers import AnswerIds

    assert isinstance(request.answers, AnswerIds)  # as naming_requests makes them
    return {token: f"p_{text}" for text, token in request.answers.choices}


def compute(config: Config) -> tuple[pd.DataFrame, Mapping[str, JSON]]:
    """Return the rows of every choice and name, clean and under every concept and random vector."""
    named = chosen(config, checks.check_common(config, NAME).prompts)
    setup = Setup.of(dataclasses.replace(config, concepts=named or config.concepts), NAME)
    of = asked_of(setup, config)
    record = setup.record(experiment.chats(of.requests))
    return tables.compute(config, NAME, [of]), {**record, "concepts": list(setup.concepts)}


def draw(
    table: pd.DataFrame, config: Config, record: Mapping[str, JSON]
) -> tuple[Mapping[str, go.Figure], Mapping[str, JSON]]:
    """Return the figures of a finished table, and accuracy and information for the record."""
    from analyses.identification.figures import figures
    from analyses.identification.measures import Measures
    from mechint.stats.bands import Marks

    names = record["concepts"]
    concepts = [str(name) for name in names] if isinstance(names, list) else []
    measures = Measures.of(table, concepts, config.seed)
    layers = injected.Dose.of(record["dose"]).layers
    drawn = figures(measures, experiment.caption(record), layers, Marks(config.uncorrected))
    return drawn, {"verdict": run.as_json(measures.verdict())}


ANALYSIS = experiment.Analysis(NAME, Config, parser, check, compute, draw, frozenset({"uncorrected"}))
main = ANALYSIS.main
