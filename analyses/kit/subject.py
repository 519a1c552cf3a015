"""The subject of a run: the model, how strongly and where is injected, and the vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyses.kit import checks
from analyses.kit.adapted import with_adapter
from analyses.kit.compute import compute_rows
from analyses.kit.dose import Dose, extracted_vectors, method_of, random_vectors, usual_dose
from analyses.kit.facts import ModelFacts, RunFacts
from analyses.kit.record import load_model, sparing_threads
from analyses.kit.study import Condition, Group, Inputs, Value, ask

if TYPE_CHECKING:
    import pandas as pd

    from analyses.kit.options import Common
    from mechint.chat.conversations import Conversation
    from mechint.interventions.specifications import Injection
    from mechint.models.model import Model
    from mechint.vectors.concept_vectors import ConceptVector


@dataclass(frozen=True)
class Subject:
    """The model of a run of an analysis, how strongly and where is injected, concept vectors and random ones.

    `base` is the model that vectors and doses are of, where another is asked: the same one with an adapter on top.
    """

    config: Common
    model: Model
    dose: Dose
    concepts: Mapping[str, ConceptVector]
    randoms: Mapping[str, ConceptVector]
    analysis: str = ""
    base: Model | None = None

    @classmethod
    def of(
        cls,
        config: Common,
        files: checks.Files,
        analysis: str,
        chats: Sequence[Conversation] = (),
        check: Callable[[Model], object] | None = None,
    ) -> Subject:
        """Load the model and find dose and vectors: those of files, else vectors that are made from the model.

        Before a dose is calibrated, which takes minutes, `chats` are looked at as the engine will, and `check` is
        called with the model: both raise for what would be refused afterwards.
        """
        model = load_model(config)
        files.check_prompts(model)
        asked_model = with_adapter(config, model)
        with sparing_threads(model):
            for vector in files.vectors.values():
                vector.check_fits(model.d_model, model.n_layers)
            dose = usual_dose(config, model, analysis, files.vectors, lambda: _check(model, chats, check))
            if config.vectors is not None:
                concepts = files.vectors
            else:
                concepts = extracted_vectors(config, model, analysis, method=method_of(config, model, dose))
            randoms = random_vectors(config, model, list(concepts.values()))
        base = None if asked_model is model else model
        return cls(config, asked_model, dose, concepts, randoms, analysis, base)

    def inject(
        self,
        vector: ConceptVector,
        *,
        layers: Sequence[int] | None = None,
        positions: Sequence[int] | None = None,
        dose: Dose | None = None,
        name: str = "",
    ) -> Injection:
        """Return the injection of a vector at a dose (None: the run's), its layers (None: the dose's) and positions."""
        used = self.dose if dose is None else dose
        injection = (used if layers is None else used.at(layers)).inject(vector, positions=positions, name=name)
        return injection if self.base is None else in_norms_of(injection, self.base)

    def condition(self, vector: ConceptVector, series: str, unit: str, **columns: Value) -> Condition:
        """Return the condition of any vector at the run's dose; its name is that of series, unit and `columns`."""
        label = " ".join([series, unit, *(str(value) for value in columns.values())])
        return Condition(self.inject(vector, name=label), unit, series, columns)

    def conditions(
        self,
        series: Sequence[str] = ("injected", "random"),
        *,
        layers: Sequence[int] | None = None,
        dose: Dose | None = None,
        **columns: Value,
    ) -> list[Condition]:
        """Return one condition for each vector of some series, at the run's dose and its layers where these are None.

        All have `columns`, whose values are part of their names. Raises UnknownNameError for other series.
        """
        vectors = checks.select({"injected": self.concepts, "random": self.randoms}, series, "series")
        conditions = []
        for name_of_series, named in vectors.items():
            for unit, vector in named.items():
                label = " ".join([unit, *(str(value) for value in columns.values())])
                injection = self.inject(vector, layers=layers, dose=dose, name=label)
                conditions.append(Condition(injection, unit, name_of_series, columns))
        return conditions

    def rows(self, groups: Sequence[Group]) -> pd.DataFrame:
        """Return the rows of every conversation of some groups, clean and under each of its conditions."""
        return compute_rows(self.config, self.analysis, [ask(self.model, groups)])

    def facts(self, conversations: Sequence[Conversation]) -> RunFacts:
        """Return what `run.json` says of model, dose, vectors and conversations."""
        vectors = {**self.concepts, **self.randoms}
        return RunFacts(
            model=ModelFacts.of(self.model),
            dose=self.dose,
            vectors={name: vector.fingerprint() for name, vector in vectors.items()},
            conversations=tuple(dict.fromkeys(chat.label for chat in conversations)),
            base=None if self.base is None else self.base.name,
        )


def in_norms_of(injection: Injection, base: Model) -> Injection:
    """Return an injection with the amounts that it adds to a base, whatever an adapter does to the norms."""
    from mechint.finetune.injections import fixed_dose
    from mechint.interventions.specifications import Injection

    fixed = fixed_dose(injection, base)
    assert isinstance(fixed, Injection)
    return fixed


def _check(model: Model, chats: Sequence[Conversation], check: Callable[[Model], object] | None) -> None:
    from mechint.engine.job import Job, Request
    from mechint.interventions.specifications import CLEAN

    if chats:
        Job.of(model, [Request(chats, CLEAN)])
    if check is not None:
        check(model)


def ask_all(config: Common, analysis: str, inputs: Inputs) -> tuple[pd.DataFrame, RunFacts]:
    """Return the rows of every conversation, clean and under every concept and random vector, and the run's facts."""
    subject = Subject.of(config, inputs.files, analysis, inputs.conversations)
    rows = subject.rows([Group(inputs.conversations, subject.conditions())])
    return rows, subject.facts(inputs.conversations)
