"""Does the method find introspection where it is planted, and nothing where it is not? The verdict on each organism."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import checks, cli, option_types
from analyses.kit import compute as tables
from analyses.kit import dose as injected
from analyses.kit import record as run
from analyses.kit import study as experiment
from analyses.kit.study import Condition, Group
from mechint import organisms
from mechint.organisms.truth.wording import WORDINGS, Wording

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation
    from mechint.models.model import Model

NAME = "calibration"
QUESTIONS = 8  # wordings of the introspection question, and control questions of each group
MARGIN = 0.5
# Who reads, what the chat begins with, and who fills the cache (None: the reader itself, with vectors injected).
READINGS: tuple[tuple[str, str, str | None], ...] = (
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


@dataclasses.dataclass(frozen=True)
class Reading:
    """One row of the figure: the model that reads, the document, and the model that fills the cache, if another."""

    model: str
    document: str
    filled_by: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Common):
    """All options of this analysis."""

    margin: float

    @property
    def readings(self) -> list[Reading]:
        """The rows of the figure: the organisms, and `--model` if it is another model."""
        rows = [Reading(*reading) for reading in READINGS]
        return rows if self.model in organisms.ORGANISMS else [*rows, Reading(self.model, "introspection")]


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group("calibration", "a --model that is no organism is judged beside them")
    group.add_argument(
        "--margin",
        type=option_types.positive,
        default=MARGIN,
        help="smallest shift of logit_diff that counts, natural units",
    )
    return options


def check(config: Config) -> None:
    """Raise for all bad input that can be known without a model, and for options that would have no effect."""
    always = "calibration, which asks its own questions with vectors of each model's own"
    checks.check_effect(True, always, config, ("conversations", "vectors", *cli.TEMPLATE))
    checks.check_common(config, NAME)


def questions(document: str, count: int) -> list[Conversation]:
    """Return introspection questions and control questions of three groups, in wordings no organism was trained on."""
    wording = Wording.load(WORDINGS)
    groups = (wording.control(group, document, "yes-no", count) for group in ("no", "confusing-no", "yes"))
    return wording.detection(document, "yes-no", count) + [chat for group in groups for chat in group]


class Family:
    """The models of a run, each loaded once, when it is first asked for."""

    def __init__(self, config: Config) -> None:
        self.config, self.loaded = config, dict[str, "Model"]()

    def __getitem__(self, name: str) -> Model:
        if name not in self.loaded:
            import mechint as mi

            config = self.config
            self.loaded[name] = mi.load(name, backend=config.backend, device=config.device, dtype=config.dtype)
        return self.loaded[name]


def _count(config: Config) -> int:
    return QUESTIONS if config.limit is None else config.limit


def asked_of(config: Config, family: Family, reading: Reading) -> tables.Query:
    """Return the questions of one reading under each of its interventions; rows name the reading."""
    model, chats = family[reading.model], questions(reading.document, _count(config))
    with run.sparing_threads(model):
        conditions = list(_conditions(config, family, reading))
    of = experiment.ask(model, [Group(chats, conditions)])
    columns = {"model": reading.model, "document": reading.document, "filled_by": reading.filled_by or ""}
    return dataclasses.replace(of, with_columns=lambda number, rows: of.with_columns(number, rows).assign(**columns))


def _conditions(config: Config, family: Family, reading: Reading) -> Iterator[Condition]:
    """Yield the interventions while the cache is filled: a swap, or concept and random vectors of the reader's own."""
    from mechint.interventions.specifications import Injection, Swap

    model = family[reading.model]
    if reading.filled_by is not None:
        yield Condition(Swap(family[reading.filled_by], name=reading.filled_by), reading.filled_by, "swapped")
        return
    reader_config = dataclasses.replace(config, model=reading.model)
    dose = injected.dose(reader_config, model)
    concepts = injected.extracted_vectors(reader_config, model, f"{NAME}/{Path(reading.model).name}")
    randoms = injected.random_vectors(config, model, list(concepts.values()))
    for kind, vectors in (("injected", concepts), ("random", randoms)):
        for name, vector in vectors.items():
            steer = Injection(vector, dose.layers, dose.strength, dose.relative_strength, name=name)
            yield Condition(steer, name, kind)


def draw(
    table: pd.DataFrame, config: Config, _record: Mapping[str, JSON]
) -> tuple[Mapping[str, go.Figure], Mapping[str, JSON]]:
    """Return the figure of a finished table, and the verdicts for the record."""
    from analyses.calibration.figures import figures, verdicts

    readings = verdicts(table, config.margin)
    return figures(readings, config), {"verdicts": run.as_json(readings.to_dict("records"))}


def compute(config: Config) -> tuple[pd.DataFrame, Mapping[str, JSON]]:
    """Return the rows of every reading, and the models."""
    family = Family(config)
    rows = tables.compute(config, NAME, [asked_of(config, family, reading) for reading in config.readings])
    return rows, {"models": {name: run.describe_model(model) for name, model in family.loaded.items()}}


ANALYSIS = experiment.Analysis(NAME, Config, parser, check, compute, draw, frozenset({"margin"}))
main = ANALYSIS.main
