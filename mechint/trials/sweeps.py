"""The rows of a sweep: a design on a model, with the id, the request and the columns of every reply.

An id is a hash of all that a reply depends on (`records.TrialKey`), so a row is the same one in every design, order,
shard and run that has it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from mechint.base.files import sha256
from mechint.chat.render import render
from mechint.chat.tokens import Answers
from mechint.engine.replies import ReplyRequest
from mechint.engine.shards import Shard
from mechint.interventions.specifications import key_for
from mechint.models.model import Model
from mechint.models.surroundings import surroundings
from mechint.trials.cells import BEGUN, Cell, TrialVectors, cells, conversation, model_of, norms
from mechint.trials.design import TrialDesign
from mechint.trials.pilot import Place as CellPlace
from mechint.trials.prompts import TrialPrompts
from mechint.trials.records import TrialKey
from mechint.vectors.concept_vectors import ConceptVector

# Read at the first token of a reply: the model's yes against its no, however it writes them.
ANSWERS = Answers.variants()
# The floors whose code a reply depends on: kept replies of other code are sampled again.
FLOORS = ("models", "interventions", "engine", "readouts")


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
        """Return a design's sweep with random vectors, on the model as the design has it; raises as `run_trials`."""
        sampled = model_of(model, design, vectors)
        return cls(sampled, design, TrialVectors.of(sampled, design, vectors), prompts or TrialPrompts.load())

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

    def rows_of(self, shard: Shard | None) -> list[Row]:
        """Return the rows of a shard's cells, or all; cells lie next to each other, so that prompts are shared."""
        if shard is None:
            return self.rows
        numbers = list(dict.fromkeys(row.place[:3] for row in self.rows))
        start, stop = len(numbers) * shard.index, len(numbers) * (shard.index + 1)
        chosen = set(numbers[start // shard.count : stop // shard.count])
        return [row for row in self.rows if row.place[:3] in chosen]

    def rows_without(self, dropped: Collection[CellPlace]) -> list[Row]:
        """Return all rows but those of concepts at places that were dropped; controls stay."""
        return [row for row in self.rows if row.cell.is_control or row.cell_place not in dropped]

    def requests(self, rows: Sequence[Row]) -> Iterator[ReplyRequest]:
        """Yield requests for some rows: one for each cell, with the samples that are wanted of it."""
        by_cell: dict[tuple[str, str, str], list[Row]] = {}
        for row in rows:
            by_cell.setdefault(row.place[:3], []).append(row)
        for of_cell in by_cell.values():
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
