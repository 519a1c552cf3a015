"""Trying doses on a model: texts read, and replies given, under concept and random vectors, until the rule can choose.

Random vectors serve all extractions: what a relative strength adds depends on a vector's direction alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from analyses.kit import dose_rule, plain_text, resume
from analyses.kit.dose import Dose, default_concepts, extracted_vectors, method_of, sweep_placements
from analyses.kit.dose_proposal import Measured, Proposal
from analyses.kit.dose_rule import Places
from analyses.kit.naming import named, repeated
from analyses.kit.option_types import format_layers
from analyses.kit.record import short_receipt, sparing_threads
from analyses.kit.study import Condition, Group, described
from analyses.kit.subject import Subject
from mechint import stats
from mechint.vectors.extraction import Extraction

if TYPE_CHECKING:
    import pandas as pd

    from analyses.kit.options import Common
    from mechint.chat.conversations import Conversation
    from mechint.models.model import Model
    from mechint.vectors.concept_vectors import ConceptVector

REPLY = "reply"
FILES = "--vectors"  # in place of an extraction, for vectors that were read
STRENGTHS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.35, 0.6)
WINDOWS = 5
CLEAN = {"extraction": "", "injected_layers": "", "strength": "0"}
_FEWEST_NAMES = 4  # among which a concept's own is to stand out
_BATCH = 64  # replies given at once
_N_EDGES = 3  # layers, and strengths at each, at which extractions are compared
Layers = tuple[int, ...]
Place = tuple[Layers, float]


@dataclass(frozen=True)
class Plan:
    """What is tried, where, and how much is read.

    `n_texts` of each kind choose the dose, and so many others are read at what was chosen. Greedy replies are given to
    `n_requests`; if `thorough`, with vectors of all extractions and also at the strengths beside the proposed one.
    """

    layers: tuple[Layers, ...]
    strengths: tuple[float, ...]
    n_texts: int
    n_requests: int
    n_tokens: int
    thorough: bool


@dataclass(frozen=True)
class Trial:
    """A subject, by a plan, with concept vectors by extraction, the usual one first; `name` is that of the run."""

    subject: Subject
    name: str
    plan: Plan
    vectors: Mapping[str, Mapping[str, ConceptVector]]

    @property
    def usual(self) -> str:
        """The extraction that is tried everywhere."""
        return next(iter(self.vectors))

    @property
    def words(self) -> dict[str, str]:
        """The names that are watched: the concepts', and where these are few, others beside them."""
        names = list(self.subject.concepts)
        if len(names) < _FEWEST_NAMES:
            names = list(dict.fromkeys([*names, *default_concepts(self.subject.model)]))
        return {name: f" {name}" for name in names}


def windows(count: int, n_layers: int, available: Sequence[int]) -> tuple[Layers, ...]:
    """Return some windows of a third of the depth, spread over the layers for which there are vectors."""
    sliding = [place.layers for place in sweep_placements(None, available, n_layers) if place.sweep == "window"]
    starts = np.linspace(0, len(sliding) - 1, min(count, len(sliding)))
    return tuple(sliding[round(float(start))] for start in starts)


def extractions(
    config: Common, model: Model, name: str, files: Mapping[str, ConceptVector], listed: Sequence[str]
) -> dict[str, Mapping[str, ConceptVector]]:
    """Return vectors by extraction, the usual one first: those of files alone, else of the listed ways to extract."""
    if files:
        return {FILES: files}
    ways = dict.fromkeys([str(Extraction.parse(way)) for way in (method_of(config, model), *listed)])
    return {way: extracted_vectors(config, model, name, method=way) for way in ways}


def run_trial(trial: Trial, texts: plain_text.Texts) -> tuple[pd.DataFrame, Proposal]:
    """Return the rows of all that was read and said, and the dose that the rule proposes.

    Half of the texts choose (step `choice`): all layers and strengths under the usual extraction, and under the others
    where text begins to suffer at layers near the middle. The other half (`held out`) tell what comes of the choice:
    whether it holds there too, or only with a smaller strength. Then there are `replies`.
    """
    choosing, held_out = texts.halves(trial.plan.n_texts)
    rows = _choice_rows(trial, choosing)
    choice, layers, strength = _chosen(dose_rule.places(dose_rule.effects(rows)))
    where = {extraction: [(layers, strength)] for extraction in trial.vectors}
    where[choice.extraction] = [(layers, smaller) for smaller in trial.plan.strengths]
    rows_held_out = _read(trial, "held out", held_out, where)
    places = dose_rule.places(dose_rule.effects(rows_held_out))[choice.extraction]
    confirmed = dose_rule.choose({choice.extraction: places.up_to(strength)})
    proposed = places.strengths[confirmed.at[1]]
    spoken = replies(trial, _spoken_to(trial, choice.extraction, layers, proposed))
    proposal = Proposal(
        layers=layers,
        relative_strength=proposed,
        extraction=choice.extraction,
        works=choice.works and confirmed.works,
        coherent=choice.coherent and confirmed.coherent,
        strengths=dose_rule.working_range(places, 0),
        concepts=tuple(trial.subject.concepts),
        measured=places.measured(confirmed.at) | speech_at(spoken, choice.extraction, proposed),
        rule=dose_rule.WORDS,
    )
    return resume.stacked(rows, rows_held_out, spoken), proposal


def _choice_rows(trial: Trial, texts: plain_text.Texts) -> pd.DataFrame:
    """Return the rows by which extraction, layers and strength are chosen."""
    everywhere = [(layers, strength) for layers in trial.plan.layers for strength in trial.plan.strengths]
    grid = _read(trial, "choice", texts, {trial.usual: everywhere})
    others = [extraction for extraction in trial.vectors if extraction != trial.usual]
    if not others:
        return grid
    edges = _edges(dose_rule.places(dose_rule.effects(grid))[trial.usual])
    compared = _read(trial, "choice", texts, dict.fromkeys(others, edges), random=False)
    return resume.stacked(grid, compared[compared["series"] != "clean"])


def _edges(places: Places) -> list[Place]:
    """Return the largest strengths at which text is coherent, at the layers nearest to the middle; else the smallest.

    Vectors of one extraction do less harm to text than those of another, so there are several.
    """
    edges: list[Place] = []
    for row in sorted(dose_rule.from_the_middle(places.layers)[:_N_EDGES]):
        coherent = places.coherent[row]
        columns = np.flatnonzero(coherent)[-_N_EDGES:] if coherent.any() else [0]
        edges += [(places.layers[row], places.strengths[column]) for column in columns]
    return edges


def _chosen(places: Mapping[str, Places]) -> tuple[dose_rule.Choice, Layers, float]:
    choice = dose_rule.choose(places)
    of = places[choice.extraction]
    return choice, of.layers[choice.at[0]], of.strengths[choice.at[1]]


def _read(
    trial: Trial, step: str, texts: plain_text.Texts, where: Mapping[str, Sequence[Place]], *, random: bool = True
) -> pd.DataFrame:
    """Return the rows of texts under the vectors of some extractions at their places, and under random vectors."""
    steered = list(_conditions(trial, step, where))
    if random:
        places = dict.fromkeys(place for of in where.values() for place in of)
        steered += _steered(trial.subject, "random", step, "", list(places))
    clean = {"step": step, **CLEAN}
    rows = plain_text.rows(trial.subject, trial.name, texts, steered, clean=clean, words=trial.words)
    return rows.drop(columns=["asked", "reference"]).assign(text="", said="", prompt="", stopped="", steer="")


def _conditions(trial: Trial, step: str, where: Mapping[str, Sequence[Place]]) -> Iterator[Condition]:
    for extraction, places in where.items():
        subject = replace(trial.subject, concepts=trial.vectors[extraction])
        yield from _steered(subject, "injected", step, extraction, places)


def _steered(subject: Subject, series: str, step: str, extraction: str, places: Sequence[Place]) -> list[Condition]:
    conditions = []
    for layers, strength in places:
        conditions += subject.conditions(
            [series],
            dose=Dose(layers, None, strength, "tried"),
            step=step,
            extraction=extraction,
            injected_layers=format_layers(layers),
            strength=f"{strength:g}",
        )
    return conditions


def _spoken_to(trial: Trial, extraction: str, layers: Layers, strength: float) -> dict[str, list[Place]]:
    """Return where replies are given: the proposed place; if thorough, the strengths beside it, and all extractions."""
    if not trial.plan.thorough:
        return {extraction: [(layers, strength)]}
    at = trial.plan.strengths.index(strength)
    beside = [(layers, other) for other in trial.plan.strengths[max(0, at - 1) : at + 2]]
    return {name: beside if name == extraction else [(layers, strength)] for name in trial.vectors}


def replies(trial: Trial, where: Mapping[str, Sequence[Place]]) -> pd.DataFrame:
    """Return a row for each reply under active steering, clean and under every concept's vector."""
    from mechint.interventions.specifications import CLEAN as NOTHING
    from mechint.prompts.design import PromptDesign
    from mechint.prompts.questions import top_of_mind

    chats = top_of_mind(PromptDesign.load(trial.subject.model.prompts))[: trial.plan.n_requests]
    groups = [[Condition(NOTHING, "", "clean", {"step": "replies", **CLEAN})]]
    groups += [list(_conditions(trial, "replies", {extraction: places})) for extraction, places in where.items()]
    chunks = [_chunk(trial, chats, group) for group in groups]
    with sparing_threads(trial.subject.model):
        return resume.compute_chunks(trial.subject.config, trial.name, REPLY, chunks)


def _chunk(trial: Trial, chats: Sequence[Conversation], conditions: Sequence[Condition]) -> resume.Chunk:
    interventions = [condition.intervention for condition in conditions]
    model, config, names = trial.subject.model, trial.subject.config, list(trial.words)

    def compute() -> pd.DataFrame:
        from mechint.readouts.generate import generate

        spoken = generate(
            model,
            chats,
            interventions,
            max_new_tokens=trial.plan.n_tokens,
            steer="everything",
            batch_size=_BATCH if config.batch_size is None else config.batch_size,
            max_memory=config.max_memory,
        )
        receipts = [short_receipt(receipt) for receipt in spoken.attrs["receipts"]]
        texts = spoken["text"]
        spoken = spoken.assign(
            kind=REPLY,
            group="",
            prompt=spoken["conversation"].map({chat.label: chat.extra["prompt"] for chat in chats}),
            said=[", ".join(named(text, names)) for text in texts],
            repeated=texts.map(repeated),
        )
        table = described(spoken, Group(chats, conditions))
        table.attrs = {"receipts": receipts}
        return table

    key = resume.key(model, interventions, list(chats), names, trial.plan.n_tokens)
    return resume.Chunk(len(chats) * len(conditions), key, compute)


def speech_at(spoken: pd.DataFrame, extraction: str, strength: float) -> dict[str, Measured]:
    """Return shares of replies at a strength and clean: that name the concept, name another, and of repeated runs."""
    import pandas as pd

    steered = spoken[(spoken["extraction"] == extraction) & (spoken["strength"] == f"{strength:g}")]
    clean = spoken[spoken["series"] == "clean"]
    of_clean = pd.concat([clean.assign(unit=concept) for concept in dict.fromkeys(steered["unit"])])
    measured: dict[str, Measured] = {}
    for suffix, rows in (("", steered), ("_clean", of_clean)):
        for name, values in speech(rows).items():
            measured[f"{name}{suffix}"] = Measured.of(stats.mean_interval(values, within=stats.PROBABILITY))
    return measured


def speech(replies: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return by concept (`unit`) the share of replies that name it, that name another, and how much is repeated."""
    names = [set(text.split(", ")) - {""} for text in replies["said"]]
    measures = {
        "named": [unit in of_reply for unit, of_reply in zip(replies["unit"], names, strict=True)],
        "others_named": [bool(of_reply - {unit}) for unit, of_reply in zip(replies["unit"], names, strict=True)],
        "repeated": replies["repeated"],
    }
    units = replies["unit"].to_numpy()
    by_unit = {unit: units == unit for unit in dict.fromkeys(units)}
    return {
        name: np.array([np.asarray(values, dtype=float)[rows].mean() for rows in by_unit.values()])
        for name, values in measures.items()
    }
