"""Running a sweep of trials: every row that is not there yet is sampled, and kept as soon as it has ended.

    design = TrialDesign(concepts=("oceans", "fear"), layers=("10:20",), strengths=(0.02,))
    trials = run_trials(model, design, mi.extract.extract(model, design.names), store="trials")

Rows are found again by their ids, which are hashes of all that a reply depends on. So a sweep that was interrupted goes
on, a larger one takes what a smaller one has sampled, and rows of another model or prompt are never taken for these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.progress import Progress
from mechint.base.signatures import Count, checked
from mechint.engine.explain_replies import AT_ONCE
from mechint.engine.shards import Shard
from mechint.models.model import Model
from mechint.readouts.generate import replies
from mechint.trials.design import TrialDesign
from mechint.trials.kept_replies import COLUMNS as KEPT
from mechint.trials.kept_replies import KeptReplies
from mechint.trials.pilot import dropped_of, dropped_places, read_pilot, with_pilot
from mechint.trials.prompts import TrialPrompts
from mechint.trials.records import checked_trials
from mechint.trials.sweeps import Row, Sweep
from mechint.vectors.concept_vectors import ConceptVector

_VERDICTS = "pilot-verdicts"  # the folder of them in a store


@checked
def run_trials(
    model: Model,
    design: TrialDesign,
    vectors: Mapping[str, ConceptVector],
    *,
    prompts: TrialPrompts | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
    batch_size: Count = AT_ONCE,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
) -> pd.DataFrame:
    """Return the trials of a design (columns of `records`), one row for each reply, in the order of its cells.

    `vectors` are by concept, `prompts` the packaged ones unless given. With `store`, a folder, replies are kept there
    as they end, and those that are there are not sampled again. With `shard` only its cells are sampled and returned;
    once the parts of all stores lie in one folder, a run without it has nothing left to sample. `batch_size`,
    `max_memory` and `progress` are those of `mi.generate`. `attrs["prefills"]` holds every prompt that was filled,
    `attrs["design"]` the design.

    Cells that a design's pilot drops are not in the table but counted in `attrs["pilot"]`, with their replies in
    `mi.trials.dropped_trials(table)`; cells that stay have the rows that they have without one.

    Raises UsageError for a design that cannot be run on the model, a prompt that names a concept it is to find, a pilot
    that drops every cell, a shard of a design with a pilot, and concepts without a vector; StaleArtefactError for a
    damaged store; and what `mi.generate` raises.
    """
    sweep = Sweep.of(model, design, vectors, prompts)
    kept = KeptReplies(None if store is None else Path(store))
    sampling = _Sampling(sweep, kept, batch_size, max_memory, progress)
    if design.pilot is None:
        return sampling.described(sampling.table(sweep.rows_of(shard)))
    if shard is not None:
        raise UsageError(
            given=f"shard {shard.index}/{shard.count} of a design with a pilot, which looks at all cells first",
            allowed="a shard of a design without one",
            advice="run the design whole, or leave its pilot out",
        )
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


def _with_ids(rows: pd.DataFrame, ids: Mapping[tuple[str, str, str, int], str]) -> pd.DataFrame:
    """Return rows of `replies` as those that are kept: by id, with what was said."""
    places = zip(rows["conversation"], rows["intervention"], rows["steer"], rows["sample"], strict=True)
    renamed = rows.rename(columns={"text": "reply", "first_logit_diff": "first_token_logit_diff"})
    return renamed.assign(id=[ids[place] for place in places])[["id", *KEPT]].set_index("id")
