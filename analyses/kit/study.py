"""What analyses share: a model and what is injected into it, cells that say what they are, and a run of it all."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from analyses.kit import checks, cli
from analyses.kit import compute as tables
from analyses.kit import dose as injected
from analyses.kit import questions as asked
from analyses.kit import record as run

if TYPE_CHECKING:
    import pandas as pd

    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation
    from mechint.engine.job import Request
    from mechint.interventions.specifications import Intervention
    from mechint.models.model import Model
    from mechint.vectors.concept_vectors import ConceptVector

Options = TypeVar("Options", bound=cli.Common)
Value = str | int | float


@dataclasses.dataclass(frozen=True)
class Condition:
    """One intervention and its columns in the table: series, unit, and whatever else tells it apart.

    `series` is clean, injected, random, swapped, contrast, or a word of the analysis' own; `unit` is the vector's or
    the filling model's name, "" for clean.
    """

    intervention: Intervention
    unit: str
    series: str
    columns: Mapping[str, Value] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Group:
    """Conversations, every one of which is asked under some conditions; `columns` are said of all their rows."""

    conversations: Sequence[Conversation]
    conditions: Sequence[Condition]
    columns: Mapping[str, Value] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Setup:
    """The model of a run, how strongly and where is injected, and the vectors."""

    config: cli.Common
    model: Model
    dose: injected.Dose
    concepts: Mapping[str, ConceptVector]
    randoms: Mapping[str, ConceptVector]

    @classmethod
    def of(cls, config: cli.Common, analysis: str) -> Setup:
        """Load the model and find dose and vectors; vectors in files are looked at before the model is loaded."""
        stored = injected.stored_vectors(config)
        model = run.load_model(config)
        with run.sparing_threads(model):
            dose = injected.dose(config, model)
            concepts = stored or injected.extracted_vectors(config, model, analysis)
            for vector in concepts.values():
                vector.check_fits(model.d_model, model.n_layers)
            randoms = injected.random_vectors(config, model, list(concepts.values()))
        return cls(config, model, dose, concepts, randoms)

    def conditions(
        self, series: Sequence[str] = ("injected", "random"), layers: Sequence[int] | None = None, **columns: Value
    ) -> list[Condition]:
        """Return one condition for each vector of some kinds, at the dose.

        `layers` are those of the dose where None; all have `columns`, whose values are part of their names.
        Raises UnknownNameError for a kind that is neither concept nor random.
        """
        vectors = checks.select({"injected": self.concepts, "random": self.randoms}, series, "series")
        return [
            self.condition(name, kind, self.dose, layers, **columns)
            for kind, named in vectors.items()
            for name in named
        ]

    def condition(
        self, name: str, kind: str, dose: injected.Dose, layers: Sequence[int] | None = None, **columns: Value
    ) -> Condition:
        """Return the condition of one vector at a dose."""
        from mechint.interventions.specifications import Injection

        vector = checks.select({**self.concepts, **self.randoms}, [name], "vector")[name]
        label = " ".join([name, *(str(value) for value in columns.values())])
        chosen = tuple(dose.layers if layers is None else layers)
        return Condition(
            Injection(vector, chosen, dose.strength, dose.relative_strength, name=label), name, kind, columns
        )

    def record(self, conversations: Sequence[Conversation]) -> dict[str, JSON]:
        """Return what `run.json` says of model, dose, vectors and conversations."""
        vectors = {name: vector.fingerprint() for name, vector in {**self.concepts, **self.randoms}.items()}
        return {
            "model": run.describe_model(self.model),
            "dose": run.as_json(self.dose),
            "vectors": run.as_json(vectors),
            "conversations": list(dict.fromkeys(chat.label for chat in conversations)),
        }


def ask(
    model: Model,
    groups: Sequence[Group],
    *,
    layers: Sequence[int] | None = None,
    clean: Mapping[str, Value] | None = None,
) -> tables.Query:
    """Return what is asked of a model: the clean cell of each conversation, once, and each group's cells.

    Rows get the columns `unit`, `series` and those that conditions and groups name (clean rows have there what
    `clean` says, else NaN), what `asked.described` says of conversations, and `layer` (as text) if layers are given.
    """
    from mechint.engine.job import Request
    from mechint.interventions.specifications import CLEAN

    once = {chat.label: chat for group in groups for chat in group.conversations}
    first = Group(list(once.values()), [Condition(CLEAN, "", "clean", clean or {})])
    every = [group for group in (first, *groups) if group.conditions and group.conversations]
    requests = [
        Request(group.conversations, [condition.intervention for condition in group.conditions], layers=layers)
        for group in every
    ]

    def with_columns(number: int, rows: pd.DataFrame) -> pd.DataFrame:
        named = rows.drop(columns="layer") if layers is None else labelled(rows)
        return asked.described(described(named, every[number]), list(once.values()))

    return tables.Query(model, requests, with_columns)


def ask_all(
    config: Options, name: str, questions: Callable[[Options, str], list[Conversation]]
) -> tuple[pd.DataFrame, Mapping[str, JSON]]:
    """Return the rows of every question, clean and under every concept and random vector, and what `run.json` says.

    `questions` gives those of a prompt set.
    """
    setup = Setup.of(config, name)
    chats = questions(config, setup.model.prompts)
    of = ask(setup.model, [Group(chats, setup.conditions())])
    return tables.compute(config, name, [of]), setup.record(chats)


def caption(record: Mapping[str, JSON]) -> str:
    """Return what figures say of a run: its model, and what was injected where."""
    return f"{run.short_name(record)}; {injected.Dose.of(record['dose']).caption()}"


def chats(requests: Sequence[Request]) -> list[Conversation]:
    """Return the conversations of some requests, in order."""
    from mechint.chat.conversations import Conversation

    of_requests = [request.conversations for request in requests]
    return [
        chat
        for conversations in of_requests
        for chat in ([conversations] if isinstance(conversations, Conversation) else conversations)
    ]


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Name layers, as texts: a column of a file has one type."""
    from mechint.readouts.lens import with_labels

    named = with_labels(rows)
    return named.assign(layer=named["layer"].astype(str))


def described(rows: pd.DataFrame, group: Group) -> pd.DataFrame:
    """Add what a group and its conditions say: `unit`, `series`, and whatever else they name."""
    columns_of = {
        condition.intervention.name: {"unit": condition.unit, "series": condition.series, **condition.columns}
        for condition in group.conditions
    }
    names = list(dict.fromkeys(name for row in columns_of.values() for name in row))
    # The clean cells that shifts are taken against are in every request, and are not shown again.
    cells = [columns_of.get(name, {}) for name in rows["intervention"]]
    columns = {name: [row.get(name, "") for row in cells] for name in names}
    return rows.assign(**columns, **group.columns)


@dataclasses.dataclass(frozen=True)
class Analysis(Generic[Options]):
    """One question: its options, how its rows are computed, and how they are drawn."""

    name: str
    config: type[Options]
    parser: Callable[[], argparse.ArgumentParser]
    check: Callable[[Options], None]
    compute: Callable[[Options], tuple[pd.DataFrame, Mapping[str, JSON]]]
    draw: tables.Draw[Options]
    drawing: frozenset[str] = frozenset()  # options that change figures alone

    def parsed(self, argv: Sequence[str]) -> Options:
        """Return the options of a command line."""
        return self.config(**vars(self.parser().parse_args(argv)))

    def execute(self, config: Options, argv: Sequence[str]) -> list[Path]:
        """Run the analysis and write its results; returns their paths."""
        clock = run.Clock()
        self.check(config)
        run.check_place(config.out / self.name, config, None, self.drawing)
        rows, record = self.compute(config)
        return tables.complete(self.run_of(config, argv, clock, record), rows)

    def run_of(
        self, config: Options, argv: Sequence[str], clock: run.Clock, record: Mapping[str, JSON]
    ) -> tables.Run[Options]:
        """Return a run of this analysis that has found something besides its rows."""
        return tables.Run(self.name, self.draw, config, argv, clock, record, self.drawing)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the command line; returns its exit code."""
        return cli.run_analysis(argv, self.parsed, self.execute)
