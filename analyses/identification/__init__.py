"""Can the model say what was injected? Choosing from a list with "no injection" in it, and naming it freely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from analyses.kit import checks, option_types, plain_text, resume, study
from analyses.kit.adapted import AdapterOptions
from analyses.kit.analysis import Analysis, Drawn
from analyses.kit.choices import Choice, Listing, orders, with_extra
from analyses.kit.compute import Query, compute_rows
from analyses.kit.declarations import option
from analyses.kit.dose import CONCEPTS
from analyses.kit.facts import RunFacts
from analyses.kit.options import Marked
from analyses.kit.record import as_json
from analyses.kit.specificity import VectorSpecificity, mean_cosine
from analyses.kit.study import Condition, Group
from analyses.kit.subject import Subject
from mechint import organisms
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from mechint.chat.conversations import Conversation
    from mechint.engine.job import Request
    from mechint.prompts.design import PromptDesign
    from mechint.readouts.naming import Naming

NAME = "identification"
INFOS = ("none", "introspection")
PROSE = "prose"  # the task and the question of rows that ask nothing
NONE = "none"  # what tables and figures call the option for no injection
MOST_CONCEPTS = 9  # with the option for none they fill the ten digits
CONTROLS = 2  # control questions after which concepts are named too


@dataclass(frozen=True, kw_only=True)
class Config(AdapterOptions, Marked):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "identification"

    orders: int = option("orders in which options are listed", default=10, parse=option_types.whole_number(2, 1000))


@dataclass(frozen=True)
class Inputs:
    """What a run has read before its model is loaded: files, concepts, the choice among them, and naming questions."""

    files: checks.Files
    concepts: tuple[str, ...]
    choice: Choice
    naming: Sequence[Conversation]

    @property
    def conversations(self) -> list[Conversation]:
        """The conversations of the choice, then those in which concepts are named."""
        return [*self.choice.conversations, *self.naming]


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """A run, the concepts that are options, and the mean cosine of their vectors with each other."""

    concepts: tuple[str, ...]
    mean_cosine: float | None


def check(config: Config) -> Inputs:
    """Return files and questions of a run; raises for all bad input that can be known without a model."""
    from mechint.prompts.design import PromptDesign

    checks.check_effect(True, "identification, which asks questions of its own", config, ("conversations",))
    files = checks.check_common(config, NAME)
    concepts = chosen(config, files)
    if not 2 <= len(concepts) <= MOST_CONCEPTS:
        raise UsageError(
            given=f"{len(concepts)} concepts: {', '.join(concepts)}",
            allowed=f"2 to {MOST_CONCEPTS}: each is an option with a digit, and one is for no injection",
            advice="choose some with --concepts",
        )
    design = PromptDesign.load(files.prompts)
    controls = CONTROLS if config.limit is None else config.limit
    return Inputs(files, concepts, choice_among(design, concepts, config), naming_chats(design, controls))


def chosen(config: Config, files: checks.Files) -> tuple[str, ...]:
    """Return the concepts of `--vectors`, else those of `--concepts`, else nine of many kinds."""
    if files.vectors:
        return tuple(files.vectors)
    if config.concepts is not None:
        return config.concepts
    candidates = organisms.concepts("trained") if files.prompts == "small" else (*CONCEPTS, "books")
    return tuple(candidates[at * len(candidates) // MOST_CONCEPTS] for at in range(MOST_CONCEPTS))


def choice_among(design: PromptDesign, concepts: Sequence[str], config: Config) -> Choice:
    """Return the question which option was injected, with and without the info document, in every order."""
    from mechint.prompts import questions

    options = (*concepts, design.tasks.identification.none)
    listings = []
    for info in INFOS:
        for number, order in enumerate(orders(len(options), config.orders, config.seed)):
            label, texts = f"choice_info-{info}_order-{number:02d}", [options[at] for at in order]
            chat = questions.identification(design, texts, label, info=info)
            listings.append(Listing.of(chat, order, task="choice", question="injected", info=info, order=number))
    return Choice(listings, questions.answers(design, NAME, len(options)), [*concepts, NONE])


def naming_chats(design: PromptDesign, controls: int) -> list[Conversation]:
    """Return the question for the concept with and without the info document, and control questions in its place.

    A name that an injection makes likelier after any question is no report of it.
    """
    from mechint.chat.conversations import Message
    from mechint.prompts import questions

    chats = []
    for info in INFOS:
        chat = questions.naming(design, f"naming_info-{info}", info=info)
        chats.append(replace(chat, extra={"task": "naming", "question": "injected", "info": info}))
        for number, question in enumerate(design.controls["no"][:controls]):
            turns = (*chat.messages[:-2], Message("user", question), chat.messages[-1])
            label, extra = f"naming-control-{number:02d}_info-{info}", {"task": "naming", "question": "control"}
            chats.append(replace(chat, label=label, messages=turns, extra={**extra, "info": info}))
    return chats


def conditions(subject: Subject) -> list[Condition]:
    """Return clean and one condition for each vector; `target` is the answer that would be right.

    For a random vector, which has none, it is the concept whose norms it has: how often this is said by chance.
    """
    from mechint.interventions.specifications import CLEAN

    concepts = list(subject.concepts)
    targets = {name: name for name in concepts}
    targets |= {name: concepts[at % len(concepts)] for at, name in enumerate(subject.randoms)}
    steered = [replace(condition, columns={"target": targets[condition.unit]}) for condition in subject.conditions()]
    return [Condition(CLEAN, "", "clean", {"target": NONE}), *steered]


def query(subject: Subject, inputs: Inputs) -> Query:
    """Return the choices, read at every layer, and the names, read at the output."""
    from mechint.engine.job import Request
    from mechint.readouts.naming import naming_requests

    choice, group = inputs.choice, Group(inputs.choice.conversations, conditions(subject))
    interventions = [condition.intervention for condition in group.conditions]
    names = {name: f" {name}" for name in inputs.concepts}
    naming = naming_requests(subject.model, inputs.naming, names, interventions)
    layers = range(-1, subject.model.n_layers)
    requests = [Request(group.conversations, interventions, choice.answers, layers), *naming.requests]

    def with_columns(number: int, rows: pd.DataFrame) -> pd.DataFrame:
        readouts = choice.by_option(rows) if number == 0 else by_name(rows, requests[number], naming)
        return with_extra(study.described(study.labelled(readouts), group), inputs.conversations)

    return Query(subject.model, requests, with_columns)


def by_name(rows: pd.DataFrame, request: Request, naming: Naming) -> pd.DataFrame:
    """Return a row for each name of which a request reads a token: `name`, `token` (which of its own), `log_p`.

    The sum of `log_p` over a name's tokens is the log-probability of the name.
    """
    import pandas as pd

    after, columns = tuple(request.after), _columns(request)
    tokens, at = naming.tokens[study.chats([request])[0].label], len(after)  # those of all its conversations
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


def compute(config: Config, inputs: Inputs) -> tuple[pd.DataFrame, Facts]:
    """Return the rows of every choice and name, clean and under every concept and random vector, and of steered prose.

    Prose is read under active steering: what vectors do to names by themselves is what answers are held against.
    """
    subject = Subject.of(replace(config, concepts=inputs.concepts), inputs.files, NAME)
    asked = query(subject, inputs)
    cells = compute_rows(config, NAME, [asked])
    steered = [condition for condition in conditions(subject) if condition.series != "clean"]
    texts, names = plain_text.Texts.prose(subject.model), {name: f" {name}" for name in inputs.concepts}
    prose = plain_text.rows(subject, NAME, texts, steered, clean={"target": NONE}, words=names).assign(task=PROSE)
    cosine = mean_cosine(subject.concepts, subject.dose.layers)
    facts = Facts(**vars(subject.facts(inputs.conversations)), concepts=inputs.concepts, mean_cosine=cosine)
    return resume.joined(cells, prose, len(asked.requests)), facts


def draw(table: pd.DataFrame, config: Config, facts: Facts) -> Drawn:
    """Return the figures of a finished table, and accuracy, information and specificity for the record."""
    from analyses.identification.figures import figures
    from analyses.identification.measures import Measures
    from mechint.stats.bands import Marks

    measures = Measures.of(table, facts.concepts, config.seed)
    specific = VectorSpecificity.of(table[table["task"] == PROSE], facts.mean_cosine)
    caption = f"{facts.caption}; {specific.caption}"
    drawn = figures(measures, caption, facts.dose.layers, Marks(config.uncorrected))
    return drawn, {"verdict": as_json({**measures.verdict(), "specificity": specific})}


ANALYSIS = Analysis(NAME, __doc__ or "", Config, Facts, check, compute, draw)
main = ANALYSIS.main
run = ANALYSIS.run
