"""Which cells a pilot drops: concepts at places where hardly any of the first replies can be read.

    trials = run_trials(model, replace(design, pilot=Pilot(samples=4, coherence=0.2)), vectors)
    trials.attrs["pilot"]["cells"]      # every cell: coherent replies of so many, and whether it was dropped
    dropped_trials(trials)              # the replies of those that were: they are no part of the table

Dropping is a choice by an outcome, so it is told wherever rates of such a table are: they are of the cells left, and
say nothing of strengths at which a model only babbles. The pilot's replies are the first samples of the design, and no
others are drawn for cells that stay: these have the replies that they have without a pilot.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mechint.base.errors import UsageError
from mechint.trials.design import Pilot
from mechint.trials.judges import open_judge
from mechint.trials.judges.store import VerdictStore, judge_all
from mechint.trials.storage import from_json_lines, json_lines
from mechint.trials.verdicts import Item

CELL = ("concept", "layers", "strength", "steer")
PILOT, DROPPED = "pilot", "dropped_trials"  # names in the attrs of a table
COHERENCE = 0.2  # share below which a cell is dropped, unless a design says otherwise
OF_PILOT = "cells that a pilot left"
_NAMED = 4  # cells in a note
Place = tuple[str, str, float, str]  # the values of `CELL`


def read_pilot(
    trials: pd.DataFrame, texts: Mapping[str, str], pilot: Pilot, verdicts: str | Path | None = None
) -> dict[str, object]:
    """Return the record of a pilot, as JSON: `samples`, `coherence`, `judge`, its `version`, and a list `cells`.

    `trials` are the pilot's replies, `texts` their prompts by name. A cell has `CELL`, `n` replies that the judge could
    read or not, how many were `coherent`, and whether it is `dropped`; one without any verdict stays. `verdicts` is a
    folder that keeps them. Raises UsageError where every cell would be dropped.
    """
    judge = open_judge(pilot.judge)
    columns = trials[["id", "prompt", "reply"]].itertuples(index=False, name=None)
    items = [Item(key, texts[prompt], reply) for key, prompt, reply in columns]
    store = None if verdicts is None else VerdictStore(Path(verdicts))
    judged = judge_all(judge, items, store).set_index("id")
    is_read = judged["error"] == ""
    flags = pd.DataFrame({"n": is_read, "coherent": is_read & judged["coherent"].astype(bool)}).loc[trials["id"]]
    grouped = flags.set_axis(trials.index).groupby([trials[name] for name in CELL], sort=False)
    cells = [_cell(place, int(of["n"].sum()), int(of["coherent"].sum()), pilot.coherence) for place, of in grouped]
    if all(cell["dropped"] for cell in cells):
        raise UsageError(
            given=f"a pilot in which all {len(cells)} cells have less than {pilot.coherence:.0%} coherent replies",
            allowed="a design with concepts whose replies can be read",
            advice="take weaker strengths or other layers, lower the pilot's coherence, or leave the pilot out",
        )
    record = {"samples": pilot.samples, "coherence": pilot.coherence, "judge": pilot.judge, "version": judge.version}
    return {**record, "cells": cells}


def dropped_places(record: Mapping[str, object]) -> set[Place]:
    """Return the cells that a pilot has dropped."""
    return {_place(cell) for cell in cells_of(record) if cell["dropped"]}


def dropped_of(trials: pd.DataFrame, record: Mapping[str, object]) -> pd.DataFrame:
    """Return those of the pilot's replies whose cells were dropped."""
    dropped = dropped_places(record)
    places = [_place(dict(zip(CELL, values, strict=True))) for values in trials[list(CELL)].itertuples(index=False)]
    return trials[[place in dropped for place in places]].reset_index(drop=True)


def with_pilot(table: pd.DataFrame, record: Mapping[str, object], dropped: pd.DataFrame) -> pd.DataFrame:
    """Return a table that knows its pilot, and holds the replies of dropped cells beside its own."""
    # As text: pandas copies `attrs` with every step.
    table.attrs |= {PILOT: dict(record), DROPPED: json_lines(dropped) if len(dropped) else ""}
    return table


def dropped_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the replies of cells that a pilot has dropped (columns of `records`), none without a pilot.

    Raises UsageError for a damaged record of them.
    """
    text = str(trials.attrs.get(DROPPED, ""))
    return from_json_lines(text, "the replies of dropped cells") if text else trials.iloc[:0].copy()


def pilot_cells(trials: pd.DataFrame) -> pd.DataFrame:
    """Return what a table's pilot has found: a row for each cell (`CELL`, `n`, `coherent`, `dropped`)."""
    record = trials.attrs.get(PILOT)
    return pd.DataFrame([] if record is None else cells_of(record), columns=[*CELL, "n", "coherent", "dropped"])


def pilot_note(record: Mapping[str, object] | None) -> str:
    """Return what stands beside rates: which cells were dropped, how coherent they were; "" without a pilot."""
    if record is None:
        return ""
    cells = cells_of(record)
    dropped = [cell for cell in cells if cell["dropped"]]
    rule = f"pilot of {record['samples']} replies to each prompt, read by {record['judge']}"
    if not dropped:
        return f"{rule}: none of {len(cells)} cells dropped"
    modes = len({cell["steer"] for cell in cells}) > 1
    named = [_named(cell, with_mode=modes) for cell in dropped[:_NAMED]]
    named += [f"{len(dropped) - _NAMED} more"] if len(dropped) > _NAMED else []
    return (
        f"{rule}: {len(dropped)} of {len(cells)} cells dropped, less than {float(str(record['coherence'])):.0%} "
        f"coherent ({'; '.join(named)}); rates of concepts are of the {len(cells) - len(dropped)} left, controls keep "
        "all"
    )


def left_by_pilot(trials: pd.DataFrame) -> str:
    """Return what rates of concepts in a table must say: of which cells they are; "" where a pilot dropped none."""
    record = trials.attrs.get(PILOT)
    if record is None or not (dropped := dropped_places(record)):
        return ""
    n = len(cells_of(record))
    return f"of the {n - len(dropped)} of {n} {OF_PILOT}"


def cells_of(record: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the cells of a record. Raises UsageError for one that has none."""
    cells = record.get("cells")
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise UsageError("a pilot's record without cells", "one of run_trials", "sample the design again")
    return cells


def _cell(place: tuple[object, ...], n: int, coherent: int, least: float) -> dict[str, object]:
    counts = {"n": n, "coherent": coherent, "dropped": n > 0 and coherent / n < least}
    concept, layers, strength, steer = place
    return {"concept": concept, "layers": layers, "strength": float(str(strength)), "steer": steer, **counts}


def _place(cell: Mapping[str, object]) -> Place:
    return str(cell["concept"]), str(cell["layers"]), float(str(cell["strength"])), str(cell["steer"])


def _named(cell: Mapping[str, object], *, with_mode: bool) -> str:
    mode = f" {cell['steer']}" if with_mode else ""
    strength = float(str(cell["strength"]))
    return f"{cell['concept']}, layers {cell['layers']}, {strength:g}{mode}: {cell['coherent']} of {cell['n']}"
