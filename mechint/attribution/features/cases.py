"""Cases: one conversation read clean and under one intervention, and the concept that it counts for in intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mechint.attribution.features.feature_reading import FeatureReading
from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.signatures import checked
from mechint.interventions.specifications import Intervention

Series = Literal["clean", "injected", "random", "swapped"]


@dataclass(frozen=True, eq=False)
class Case:
    """Two rows of `states`, one of them clean; cases of one `concept` are one unit of an interval."""

    states: FeatureReading
    clean: int
    injected: int
    concept: str

    def __post_init__(self) -> None:
        check_row(self.states, self.clean)
        check_row(self.states, self.injected)
        if self.clean == self.injected:
            raise UsageError(f"row {self.clean} as clean and as injected", "two different rows", "name another row")

    @property
    def conversation(self) -> str:
        """The conversation's label."""
        return str(self.states.reading.rendered.label)

    @property
    def intervention(self) -> str:
        """The intervention's name."""
        return self.states.reading.names[self.injected]

    @property
    def diffs(self) -> tuple[float, float]:
        """logit_diff of the clean and of the injected run."""
        logit_diffs = self.states.logit_diffs.double()
        return float(logit_diffs[self.clean]), float(logit_diffs[self.injected])

    @property
    def shift(self) -> float:
        """logit_diff(injected) - logit_diff(clean), in logits."""
        clean, injected = self.diffs
        return injected - clean


@checked
def cases_of(
    states: FeatureReading | Sequence[FeatureReading],
    *,
    series: Series = "injected",
    concepts: Mapping[str, str] | None = None,
) -> list[Case]:
    """Return a case for every row of a series, conversation by conversation.

    `concepts` gives the concept of each intervention by its name; by default it is the name of the injected vector.
    Raises UsageError for states of different dictionaries or without a clean row, UnknownNameError for an intervention
    without a concept.
    """
    listed = listed_states(states)
    if series not in get_args(Series):
        raise UsageError(f"series {series!r}", ", ".join(get_args(Series)), "choose one of these")
    cases = [
        Case(feature_reading, clean_row(feature_reading), row, concept_of(intervention, concepts))
        for feature_reading in listed
        for row, intervention in enumerate(feature_reading.reading.interventions)
        if series_of(intervention) == series and series != "clean"
    ]
    if not cases:
        raise UsageError(f"no {series} rows", "readings under one intervention or more", "add interventions")
    return cases


def listed_states(states: FeatureReading | Sequence[FeatureReading]) -> list[FeatureReading]:
    """Return states as a list; raises UsageError unless there are some, all of one dictionary."""
    listed = [states] if isinstance(states, FeatureReading) else list(states)
    if len({id(feature_reading.dictionary) for feature_reading in listed}) != 1:
        names = ", ".join(sorted({feature_reading.dictionary.name for feature_reading in listed})) or "none"
        raise UsageError(f"states of dictionaries {names}", "one dictionary for all", "load it once, and take one")
    return listed


def check_cases(cases: Sequence[Case]) -> None:
    """Raise UsageError unless there are cases, all of one dictionary, each of its own."""
    listed_states([case.states for case in cases])
    keys = [(case.conversation, case.intervention) for case in cases]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise UsageError(f"two cases of {twice[0]}", "one for each conversation and intervention", "give each a name")


def check_row(states: FeatureReading, row: int) -> None:
    """Raise UsageError for a row that `states` does not have."""
    if not 0 <= row < len(states.resid):
        names = ", ".join(f"{at} {name}" for at, name in enumerate(states.reading.names))
        raise UsageError(f"row {row}", f"rows of the reading: {names}", "take a row that is there")


def clean_row(states: FeatureReading) -> int:
    """Return the row that nothing was done to; raises UsageError if there is none, or more than one."""
    rows = [row for row, intervention in enumerate(states.reading.interventions) if intervention.kind == "clean"]
    if len(rows) != 1:
        raise UsageError(
            given=f"{len(rows)} clean rows among {', '.join(states.reading.names)}",
            allowed="one, to compare with",
            advice="read with [mi.CLEAN, ...], or name the row",
        )
    return rows[0]


def series_of(intervention: Intervention) -> Series:
    """Return the series of an intervention's row; random vectors are known by their provenance."""
    if intervention.kind != "injected":
        return intervention.kind
    drawn = all(term.vector.provenance.get("method") == "random" for term in intervention.terms)
    return "random" if drawn else "injected"


def concept_of(intervention: Intervention, concepts: Mapping[str, str] | None = None) -> str:
    """Return the concept an intervention counts for: as given, else the vector's name, else the intervention's."""
    if concepts is not None and intervention.kind != "clean":
        if intervention.name not in concepts:
            raise UnknownNameError(
                given=f"intervention {intervention.name!r} without a concept",
                allowed=", ".join(concepts),
                advice="add it to `concepts`",
            )
        return concepts[intervention.name]
    if len(intervention.terms) == 1 and intervention.terms[0].vector.name:
        return intervention.terms[0].vector.name
    return intervention.name
