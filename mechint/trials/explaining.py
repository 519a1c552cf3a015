"""What a sweep of trials takes, and what its pilot may save, before anything is sampled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mechint.base.signatures import Count, checked
from mechint.engine.explain import explain
from mechint.engine.explain_replies import AT_ONCE, ReplyExplanation
from mechint.models.model import Model
from mechint.trials.design import TrialDesign
from mechint.trials.kept_replies import KeptReplies
from mechint.trials.pilot import dropped_places, pilot_note, read_pilot
from mechint.trials.prompts import TrialPrompts
from mechint.trials.sweeps import Sweep
from mechint.vectors.concept_vectors import ConceptVector


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
    sweep = Sweep.of(model, design, vectors, prompts)
    return explain(sweep.model, list(sweep.requests(sweep.rows)), batch_size=batch_size, max_memory=max_memory)


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
        n_rows = len(sweep.rows_without(dropped_places(record)))
        return f"{pilot_note(record)}; {n_rows:,} replies left of {len(sweep.rows):,}"
    at_risk = sum(not row.cell.is_control for row in sweep.rows) - len(first)
    return (
        f"pilot: {len(first):,} replies, the first {design.pilot.samples} of {design.samples} to each prompt, read by "
        f"{design.pilot.judge}; a concept at a place with less than {design.pilot.coherence:.0%} coherent is dropped, "
        f"so that up to {at_risk:,} of {len(sweep.rows):,} replies are saved"
    )
