"""Does the model know where it was injected? Half of the message, which sentence, early or late layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from analyses.kit import checks, option_types, study
from analyses.kit.adapted import AdapterOptions
from analyses.kit.analysis import Analysis, Drawn
from analyses.kit.choices import Choice, Listing, orders, with_extra
from analyses.kit.compute import Query, compute_rows
from analyses.kit.declarations import option
from analyses.kit.facts import RunFacts
from analyses.kit.options import Marked
from analyses.kit.record import as_json
from analyses.kit.study import Condition, Group
from analyses.kit.subject import Subject
from analyses.location.sites import Site, sites, words

if TYPE_CHECKING:
    import pandas as pd

    from mechint.chat.conversations import Conversation
    from mechint.prompts.design import PromptDesign

NAME = "location"
PLACES = ("half", "sentence", "layer")
QUESTIONS = ("location", "preference")


@dataclass(frozen=True, kw_only=True)
class Config(AdapterOptions, Marked):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "location"

    info: Literal["none", "introspection"] = option(
        "info document that the prompt starts with", default="introspection"
    )
    orders: int = option(
        "orders of the sentences' options; two have both", default=8, parse=option_types.whole_number(1, 1000)
    )


@dataclass(frozen=True)
class Inputs:
    """What a run has read before its model is loaded: files, the sentences, and the questions of each place."""

    files: checks.Files
    sentences: Sequence[str]
    choices: Mapping[str, Choice]

    @property
    def conversations(self) -> list[Conversation]:
        """The conversations of all places."""
        return [chat for choice in self.choices.values() for chat in choice.conversations]


@dataclass(frozen=True, kw_only=True)
class Facts(RunFacts):
    """A run, and in words at which layers each place is injected."""

    sites: str


def check(config: Config) -> Inputs:
    """Return files and questions of a run; raises for all bad input that can be known without a model."""
    from mechint.prompts.design import PromptDesign

    checks.check_effect(True, "location, which asks questions of its own", config, ("conversations", "limit"))
    files = checks.check_common(config, NAME)
    design = PromptDesign.load(files.prompts)
    return Inputs(files, design.tasks.location.sentences, {place: questions(design, place, config) for place in PLACES})


def questions(design: PromptDesign, place: str, config: Config) -> Choice:
    """Return the question where it was injected and that of taste with the same options, in every order."""
    from mechint.prompts import questions as prompt_questions

    n_options = len(prompt_questions.place_options(design, place))
    count = config.orders if n_options > 2 else 2
    listings = []
    for number, order in enumerate(orders(n_options, count, config.seed)):
        for question in QUESTIONS:
            label, taste = f"{place}_{question}_order-{number:02d}", question == "preference"
            chat = prompt_questions.location(design, place, order, label, preference=taste, info=config.info)
            listings.append(Listing.of(chat, order, place=place, question=question, order=number))
    return Choice(listings, prompt_questions.answers(design, NAME, n_options), options(n_options))


def options(count: int) -> list[str]:
    """Return what tables call the options of a place, in the order of its sites."""
    return [f"place_{number + 1}" for number in range(count)]


def conditions(subject: Subject, place: str, places: Sequence[Site]) -> list[Condition]:
    """Return clean and one condition for each vector and site; `site` is the number of the option that is right."""
    from mechint.interventions.specifications import CLEAN

    conditions = [Condition(CLEAN, "", "clean", {"site": -1})]
    for series, vectors in (("injected", subject.concepts), ("random", subject.randoms)):
        for unit, vector in vectors.items():
            for number, site in enumerate(places):
                name = f"{unit} {place} {number + 1}"
                injection = subject.inject(vector, layers=site.layers, positions=site.positions, name=name)
                conditions.append(Condition(injection, unit, series, {"site": number}))
    return conditions


def query(subject: Subject, choice_of: Mapping[str, Choice], sites_of: Mapping[str, Sequence[Site]]) -> Query:
    """Return the questions of each place under its conditions: one request a place, read at every layer."""
    from mechint.engine.job import Request

    layers = range(-1, subject.model.n_layers)
    groups, requests = [], []
    for place, choice in choice_of.items():
        group = Group(choice.conversations, conditions(subject, place, sites_of[place]))
        interventions = [condition.intervention for condition in group.conditions]
        groups.append((choice, group))
        requests.append(Request(group.conversations, interventions, choice.answers, layers))

    def with_columns(number: int, rows: pd.DataFrame) -> pd.DataFrame:
        choice, group = groups[number]
        readouts = study.described(study.labelled(choice.by_option(rows)), group)
        return with_extra(readouts, group.conversations)

    return Query(subject.model, requests, with_columns)


def compute(config: Config, inputs: Inputs) -> tuple[pd.DataFrame, Facts]:
    """Return the rows of every question, clean and under every vector at every site."""
    subject = Subject.of(config, inputs.files, NAME)
    sites_of = sites(subject, inputs.sentences, inputs.conversations[0])
    rows = compute_rows(config, NAME, [query(subject, inputs.choices, sites_of)])
    return rows, Facts(**vars(subject.facts(inputs.conversations)), sites=words(sites_of))


def draw(table: pd.DataFrame, config: Config, facts: Facts) -> Drawn:
    """Return the figures of a finished table, and the verdict on each place for the record."""
    from analyses.location.figures import figures
    from analyses.location.measures import Measures
    from mechint.stats.bands import Marks

    measures = Measures.of(table)
    document = "no document" if config.info == "none" else "info document"
    subject = f"{facts.model.short_name}, {document}; {facts.sites}, {facts.dose}"
    drawn = figures(measures, subject, Marks(config.uncorrected))
    return drawn, {"verdict": as_json(measures.verdict().to_dict("records"))}


ANALYSIS = Analysis(NAME, __doc__ or "", Config, Facts, check, compute, draw)
main = ANALYSIS.main
run = ANALYSIS.run
