"""Running a sweep of trials: every row that is not there yet is sampled, and kept as soon as it has ended.

    design = TrialDesign(concepts=("oceans", "fear"), layers=("10:20",), strengths=(0.02,))
    trials = run_trials(model, design, mi.extract.extract(model, design.names), store="trials")

Rows are found again by their ids, which are hashes of all that a reply depends on. So a sweep that was interrupted goes
on, a larger one takes what a smaller one has sampled, and rows of another model or prompt are never taken for these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from mechint.base.files import sha256
from mechint.base.progress import Progress
from mechint.base.signatures import Count, checked
from mechint.chat.render import render
from mechint.chat.tokens import Answers
from mechint.engine.explain_replies import AT_ONCE, ReplyExplanation
from mechint.engine.replies import ReplyRequest
from mechint.interventions.specifications import key_for
from mechint.models.model import Model
from mechint.models.surroundings import surroundings
from mechint.readouts.generate import replies
from mechint.trials.cells import BEGUN, Cell, TrialVectors, cells, conversation, norms
from mechint.trials.design import TrialDesign
from mechint.trials.kept_replies import COLUMNS as KEPT
from mechint.trials.kept_replies import KeptReplies
from mechint.trials.pilot import Place as CellPlace
from mechint.trials.pilot import dropped_of, dropped_places, pilot_note, read_pilot, with_pilot
from mechint.trials.prompts import TrialPrompts
from mechint.trials.records import TrialKey, checked_trials
from mechint.vectors.concept_vectors import ConceptVector

# Read at the first token of a reply: the model's yes against its no, however it writes them.
ANSWERS = Answers.variants()
# The floors whose code a reply depends on: kept replies of other code are sampled again.
FLOORS = ("models", "interventions", "engine", "readouts")
_VERDICTS = "pilot-verdicts"  # the folder of them in a store


@checked
def run_trials(
    model: Model,
    design: TrialDesign,
    vectors: Mapping[str, ConceptVector],
    *,
    prompts: TrialPrompts | None = None,
    store: str | Path | None = None,
    batch_size: Count = AT_ONCE,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
) -> pd.DataFrame:
    """Return the trials of a design (columns of `records`), one row for each reply, in the order of its cells.

    `vectors` are by concept, `prompts` the packaged ones unless given. With `store`, a folder, replies are kept there
    as they end, and those that are there are not sampled again. `batch_size`, `max_memory` and `progress` are those of
    `mi.generate`. `attrs["prefills"]` holds every prompt that was filled, `attrs["design"]` the design.

    Cells that a design's pilot drops are not in the table but counted in `attrs["pilot"]`, with their replies in
    `mi.trials.dropped_trials(table)`; cells that stay have the rows that they have without one.

    Raises UsageError for a design that cannot be run on the model, a prompt that names a concept it is to find, a pilot
    that drops every cell, and concepts without a vector; StaleArtefactError for a damaged store; and what
    `mi.generate` raises.
    """
    sweep = Sweep.of(model, design, vectors, prompts)
    kept = KeptReplies(None if store is None else Path(store))
    sampling = _Sampling(sweep, kept, batch_size, max_memory, progress)
    if design.pilot is None:
        return sampling.described(sampling.table(sweep.rows))
    first = sampling.table(sweep.pilot_rows)
    record = read_pilot(first, sweep.texts, design.pilot, None if store is None else Path(store) / _VERDICTS)
    table = sampling.table(sweep.rows_without(dropped_places(record)))
    return with_pilot(sampling.described(table), record, dropped_of(first, record))


@dataclass(frozen=True)
class _Sampling:
    """How rows of a sweep are sampled that are not kept yet; `prefills` are those so far."""

    sweep: Sweep
    kept: KeptReplies
    batch_size: int
    max_memory: int | str | None
    progress: Progress | bool | None
    prefills: list[object] = field(default_factory=list)

    def table(self, rows: Sequence[Row]) -> pd.DataFrame:
        """Return the trials of some rows, after those that are missing were sampled."""
        wanted = [row.id for row in rows]
        there = set(self.kept.rows(wanted).index)
        if missing := [row for row in rows if row.id not in there]:
            self._sample(missing)
        return checked_trials(self.sweep.table(rows, self.kept.rows(wanted)))

    def described(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table with its design, and with the prompts that were filled for it."""
        table.attrs |= {"design": self.sweep.design.to_dict(), "prefills": self.prefills}
        return table

    def _sample(self, rows: Sequence[Row]) -> None:
        ids = {row.place: row.id for row in rows}
        try:
            sampled = replies(
                self.sweep.model,
                list(self.sweep.requests(rows)),
                batch_size=self.batch_size,
                max_memory=self.max_memory,
                progress=self.progress,
                ended=lambda ended: self.kept.add(_with_ids(ended, ids)),
            )
        finally:
            self.kept.write()
        self.prefills.extend(sampled.attrs["prefills"])


@checked
def explain_trials(
    model: Model,
    design: TrialDesign,
    vectors: Mapping[str, ConceptVector],
    *,
    prompts: TrialPrompts | None = None,
    batch_size: Count = AT_ONCE,
    max_memory: int | str | None = None,
) -> ReplyExplanation:
    """Return what a design takes (`mi.explain` of its replies), before anything is sampled; raises what it would.

    With a pilot it is what is taken if no cell is dropped; `explain_pilot` says what that may be.
    """
    from mechint.engine.explain import explain

    sweep = Sweep.of(model, design, vectors, prompts)
    return explain(model, list(sweep.requests(sweep.rows)), batch_size=batch_size, max_memory=max_memory)


@checked
def explain_pilot(
    model: Model,
    design: TrialDesign,
    vectors: Mapping[str, ConceptVector],
    *,
    prompts: TrialPrompts | None = None,
    store: str | Path | None = None,
) -> str:
    """Return what a design's pilot may save, and, of one whose replies `store` has, which cells it drops; "" for none.

    Samples nothing; raises what `run_trials` would.
    """
    if design.pilot is None:
        return ""
    sweep = Sweep.of(model, design, vectors, prompts)
    first = sweep.pilot_rows
    said = KeptReplies(None if store is None else Path(store)).rows([row.id for row in first])
    if len(said) == len(first):
        record = read_pilot(sweep.table(first, said), sweep.texts, design.pilot)
        left = len(sweep.rows_without(dropped_places(record)))
        return f"{pilot_note(record)}; {left:,} replies left of {len(sweep.rows):,}"
    at_risk = sum(not row.cell.is_control for row in sweep.rows) - len(first)
    return (
        f"pilot: {len(first):,} replies, the first {design.pilot.samples} of {design.samples} to each prompt, read by "
        f"{design.pilot.judge}; a concept at a place with less than {design.pilot.coherence:.0%} coherent is dropped, "
        f"so that up to {at_risk:,} of {len(sweep.rows):,} replies are saved"
    )


@dataclass(frozen=True)
class Row:
    """One reply of a cell."""

    cell: Cell
    sample: int
    key: TrialKey

    @property
    def id(self) -> str:
        """The trial's id."""
        return self.key.id

    @property
    def place(self) -> tuple[str, str, str, int]:
        """What tells it apart in a table of replies: conversation, intervention, mode and sample."""
        return self.cell.prompt.name, self.cell.intervention.name, str(self.cell.steer), self.sample

    @property
    def cell_place(self) -> CellPlace:
        """What a pilot drops: concept, layers, strength and mode, under all prompts."""
        place = self.cell.place
        assert place is not None
        return self.cell.concept, place.layers_text, place.strength, place.steer


@dataclass(frozen=True)
class Sweep:
    """A design on a model: its cells, and a row for each reply."""

    model: Model
    design: TrialDesign
    vectors: TrialVectors
    prompts: TrialPrompts
    rows: list[Row] = field(init=False)

    @classmethod
    def of(
        cls,
        model: Model,
        design: TrialDesign,
        vectors: Mapping[str, ConceptVector],
        prompts: TrialPrompts | None = None,
    ) -> Sweep:
        """Return a design's sweep with random vectors; raises what `run_trials` does."""
        return cls(model, design, TrialVectors.of(model, design, vectors), prompts or TrialPrompts.load())

    def __post_init__(self) -> None:
        of_design = cells(self.model, self.design, self.vectors, self.prompts)
        rows = [Row(cell, sample, key) for cell in of_design for sample, key in enumerate(self._keys(cell))]
        object.__setattr__(self, "rows", rows)

    @property
    def ids(self) -> list[str]:
        """The ids of all rows, in order."""
        return [row.id for row in self.rows]

    @property
    def pilot_rows(self) -> list[Row]:
        """The rows of the design's pilot: the first samples of every cell that is no control; none without one."""
        n = 0 if self.design.pilot is None else self.design.pilot.samples
        return [row for row in self.rows if not row.cell.is_control and row.sample < n]

    @property
    def texts(self) -> dict[str, str]:
        """The prompts as texts, by their names."""
        return {row.cell.prompt.name: row.cell.prompt.text for row in self.rows}

    def rows_without(self, dropped: Collection[CellPlace]) -> list[Row]:
        """Return all rows but those of concepts at places that were dropped; controls stay."""
        return [row for row in self.rows if row.cell.is_control or row.cell_place not in dropped]

    def requests(self, rows: Sequence[Row]) -> Iterator[ReplyRequest]:
        """Yield requests for some rows: one for each cell, with the samples that are wanted of it."""
        wanted: dict[tuple[str, str, str], list[Row]] = {}
        for row in rows:
            wanted.setdefault(row.place[:3], []).append(row)
        for of_cell in wanted.values():
            cell = of_cell[0].cell
            yield ReplyRequest(
                conversations=conversation(cell, self.design.reply_start),
                interventions=cell.intervention,
                n=[row.sample for row in of_cell],
                max_new_tokens=self.design.max_new_tokens,
                temperature=self.design.temperature,
                seed=self.design.seed,
                steer=cell.steer,
                answers=ANSWERS,
            )

    def table(self, rows: Sequence[Row], said: pd.DataFrame) -> pd.DataFrame:
        """Return the table of some rows, given what was said in each (columns of `kept_replies`)."""
        table = pd.DataFrame([self._columns(row) for row in rows])
        table = table.merge(said.reset_index(names="id"), on="id", validate="one_to_one")
        begun = table["question"].isin(BEGUN)
        table.loc[begun, "reply"] = self.design.reply_start + table.loc[begun, "reply"]
        return table

    def _columns(self, row: Row) -> dict[str, object]:
        """Return what a row says besides its reply."""
        cell, place = row.cell, row.cell.place
        norm, ratio = self._norms[cell.intervention.name]
        return {
            "id": row.id,
            "model": self.model.name,
            "weights_hash": row.key.weights_hash,
            "prompt": cell.prompt.name,
            "prompt_hash": row.key.prompt_hash,
            "question": cell.prompt.question,
            "series": cell.series,
            "concept": cell.concept,
            "category": cell.category,
            "layers": "" if place is None else place.layers_text,
            "steer": "" if place is None else place.steer,
            "depth": np.nan if place is None else place.depth(self.model.n_layers),
            "strength": 0.0 if place is None else place.strength,
            "relative": self.design.relative,
            "norm": norm,
            "norm_ratio": ratio,
            "seed": self.design.seed,
            "sample": row.sample,
        }

    @cached_property
    def _norms(self) -> dict[str, tuple[float, float]]:
        interventions = {row.cell.intervention.name: row.cell.intervention for row in self.rows}
        return {name: norms(self.model, intervention) for name, intervention in interventions.items()}

    @cached_property
    def _identity(self) -> str:
        """Hash of the model's weights, which is not looked up anew for each cell."""
        return self.model.identity

    @cached_property
    def _surroundings(self) -> str:
        return surroundings(self.model, self._identity, FLOORS)

    @cached_property
    def _prompt_hashes(self) -> dict[str, str]:
        """Hashes of the tokens that a model is given, by the name of a prompt; filled as they are needed."""
        return {}

    def _keys(self, cell: Cell) -> list[TrialKey]:
        place = cell.place
        first = TrialKey(
            weights_hash=self._identity,
            prompt_hash=self._prompt_hash(cell),
            vector_hash="" if place is None else key_for(self.model, cell.intervention),
            layers=() if place is None else place.layers,
            strength=0.0 if place is None else place.strength,
            steer="" if place is None else str(cell.steer),
            temperature=self.design.temperature,
            max_new_tokens=self.design.max_new_tokens,
            seed=self.design.seed,
            sample=0,
            draw=f"{cell.prompt.name}/{cell.intervention.name}",
            surroundings=self._surroundings,
        )
        return [replace(first, sample=sample) for sample in range(cell.samples)]

    def _prompt_hash(self, cell: Cell) -> str:
        name = cell.prompt.name
        if name not in self._prompt_hashes:
            tokens = render(self.model, conversation(cell, self.design.reply_start)).tokens
            self._prompt_hashes[name] = sha256(repr(list(tokens)).encode())
        return self._prompt_hashes[name]


def _with_ids(rows: pd.DataFrame, ids: Mapping[tuple[str, str, str, int], str]) -> pd.DataFrame:
    """Return rows of `replies` as those that are kept: by id, with what was said."""
    places = zip(rows["conversation"], rows["intervention"], rows["steer"], rows["sample"], strict=True)
    renamed = rows.rename(columns={"text": "reply", "first_logit_diff": "first_token_logit_diff"})
    return renamed.assign(id=[ids[place] for place in places])[["id", *KEPT]].set_index("id")
