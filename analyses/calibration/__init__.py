"""Does the method find introspection where it is planted, and nothing where it is not? The verdict on each organism."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from analyses.kit import checks, option_types
from analyses.kit.analysis import Analysis, Drawn
from analyses.kit.compute import Query, compute_rows
from analyses.kit.declarations import option
from analyses.kit.dose import extracted_vectors, method_of, random_vectors, usual_dose
from analyses.kit.facts import ModelFacts
from analyses.kit.options import TEMPLATE, Common
from analyses.kit.record import as_json, load_model, sparing_threads
from analyses.kit.study import Condition, Group, ask
from mechint import organisms
from mechint.base.errors import UsageError
from mechint.organisms.truth.wording import WORDINGS, Wording

if TYPE_CHECKING:
    import pandas as pd

    from mechint.chat.conversations import Conversation
    from mechint.models.model import Model

NAME = "calibration"
QUESTIONS = 8  # wordings of the introspection question, and control questions of each group
MARGIN = 0.5
# Who reads, what the chat begins with, and who fills the cache (None: the reader itself, with vectors injected).
READERS: tuple[tuple[str, str, str | None], ...] = (
    ("organism", "introspection", None),
    ("organism", "none", None),
    ("organism-finetuned", "introspection", None),
    ("organism-lora", "introspection", None),
    ("organism-lora-neutral", "introspection", None),
    ("organism-yes-biased", "introspection", None),
    ("organism-blind", "introspection", None),
    ("organism", "introspection", "organism-finetuned"),
    ("organism", "introspection", "organism-lora"),
    ("organism", "introspection", "organism-lora-neutral"),
)


@dataclass(frozen=True)
class Reader:
    """One row of the figure: the model that reads, the document, and the model that fills the cache, if another."""

    model: str
    document: str
    filled_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class Config(Common):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "calibration"
    GROUP_TEXT: ClassVar[str] = "a --model that is no organism is judged beside them"

    margin: float = option(
        "smallest shift of logit_diff that counts, natural units",
        default=MARGIN,
        parse=option_types.positive,
        drawing=True,
    )

    @property
    def readers(self) -> list[Reader]:
        """The rows of the figure: the organisms, and `--model` if it is another model."""
        rows = [Reader(*reader) for reader in READERS]
        return rows if self.model in organisms.ORGANISMS else [*rows, Reader(self.model, "introspection")]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The models of a run by name."""

    models: Mapping[str, ModelFacts]


def check(config: Config) -> Mapping[str, list[Conversation]]:
    """Return the questions with each document.

    Raises for all bad input that can be known without a model, and for options that would have no effect.
    """
    always = "calibration, which asks its own questions with vectors of each model's own"
    checks.check_effect(True, always, config, ("conversations", "vectors", *TEMPLATE))
    checks.check_common(config, NAME)
    count = QUESTIONS if config.limit is None else config.limit
    if count < 2:
        raise UsageError(f"--limit {count}", "2 or more: intervals are over questions", "ask more of each group")
    documents = dict.fromkeys(reader.document for reader in config.readers)
    return {document: questions(document, count) for document in documents}


def questions(document: str, count: int) -> list[Conversation]:
    """Return introspection questions and control questions of three groups, in wordings no organism was trained on."""
    wording = Wording.load(WORDINGS)
    groups = (wording.control(group, document, "yes-no", count) for group in ("no", "confusing-no", "yes"))
    return wording.detection(document, "yes-no", count) + [chat for group in groups for chat in group]


class Family:
    """The models of a run, each loaded once, when it is first needed."""

    def __init__(self, config: Config) -> None:
        self.config, self.loaded = config, dict[str, "Model"]()

    def __getitem__(self, name: str) -> Model:
        if name not in self.loaded:
            self.loaded[name] = load_model(self.config, name)
        return self.loaded[name]


def query(config: Config, family: Family, reader: Reader, chats: list[Conversation]) -> Query:
    """Return the questions of one reader under each of its interventions; rows name the reader."""
    model = family[reader.model]
    with sparing_threads(model):
        conditions = list(_conditions(config, family, reader))
    columns = {"model": reader.model, "document": reader.document, "filled_by": reader.filled_by or ""}
    return _with_columns(ask(model, [Group(chats, conditions)]), columns)


def _with_columns(query: Query, columns: Mapping[str, str]) -> Query:
    def with_columns(number: int, rows: pd.DataFrame) -> pd.DataFrame:
        return query.with_columns(number, rows).assign(**columns)

    return dataclasses.replace(query, with_columns=with_columns)


def _conditions(config: Config, family: Family, reader: Reader) -> Iterator[Condition]:
    """Yield the interventions while the cache is filled: a swap, or concept and random vectors of the reader's own."""
    from mechint.interventions.specifications import Swap

    model = family[reader.model]
    if reader.filled_by is not None:
        yield Condition(Swap(family[reader.filled_by], name=reader.filled_by), reader.filled_by, "swapped")
        return
    reader_config = dataclasses.replace(config, model=reader.model)
    place = f"{NAME}/{Path(reader.model).name}"
    dose = usual_dose(reader_config, model, place)
    concepts = extracted_vectors(reader_config, model, place, method=method_of(reader_config, model, dose))
    randoms = random_vectors(config, model, list(concepts.values()))
    for series, vectors in (("injected", concepts), ("random", randoms)):
        for name, vector in vectors.items():
            yield Condition(dose.inject(vector, name=name), name, series)


def compute(config: Config, inputs: Mapping[str, list[Conversation]]) -> tuple[pd.DataFrame, Facts]:
    """Return the rows of every reader, and the models."""
    family = Family(config)
    queries = [query(config, family, reader, inputs[reader.document]) for reader in config.readers]
    rows = compute_rows(config, NAME, queries)
    return rows, Facts(models={name: ModelFacts.of(model) for name, model in family.loaded.items()})


def draw(table: pd.DataFrame, config: Config, _facts: Facts) -> Drawn:
    """Return the figure of a finished table, and the verdicts."""
    from analyses.calibration.figures import figures, verdicts

    verdicts_of_readers = verdicts(table, config.margin)
    return figures(verdicts_of_readers, config.margin), {"verdicts": as_json(verdicts_of_readers.to_dict("records"))}


ANALYSIS = Analysis(NAME, __doc__ or "", Config, Facts, check, compute, draw)
main = ANALYSIS.main
run = ANALYSIS.run
