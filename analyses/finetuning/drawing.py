"""All figures of trainings and their evaluations, as far as there are tables for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from analyses.finetuning.options import Facts


def drawn(frames: Mapping[str, pd.DataFrame], rows: Mapping[str, pd.DataFrame], facts: Facts) -> dict[str, go.Figure]:
    """Return the figures by file name: `frames` are tables of what runs come to, `rows` those of evaluations."""
    from analyses.finetuning import detected, reported, said, self_knowledge, stated, steered_talk
    from analyses.finetuning.figures import figures
    from analyses.finetuning.overview import overview

    training = figures(frames["table"], frames["means"], facts) if "table" in frames else {}
    if not rows:
        return training
    units, effects = frames["units"], frames["effects"]
    drawn_figures = {"finetuning_overview": overview(units, facts), **training}
    if "detection" in rows:
        drawn_figures["finetuning_cells"] = detected.cells(rows["detection"], units, facts)
        drawn_figures["finetuning_roc"] = detected.curves_of_hits(rows["detection"], units, facts)
    if "first_tokens" in rows:
        drawn_figures["finetuning_first_tokens"] = said.first_tokens(rows["first_tokens"], facts)
    if "transfer" in rows:
        drawn_figures["finetuning_transfer"] = detected.transferred(units, facts)
    if "battery" in rows:
        drawn_figures["finetuning_battery"] = stated.forest(units, facts)
        drawn_figures["finetuning_compression"] = stated.compression(rows["battery"], units, facts)
    if "multiturn" in rows:
        drawn_figures["finetuning_multiturn"] = steered_talk.turns(units, facts)
    if "realtime" in rows:
        drawn_figures["finetuning_naming"] = steered_talk.naming(units, facts)
    if "talk" in rows:
        drawn_figures["finetuning_talk"] = stated.free_replies(rows["talk"], units, facts)
    if "self_prediction" in rows:
        drawn_figures["finetuning_self_prediction"] = self_knowledge.answers(units, facts)
    if "calibration" in rows:
        drawn_figures["finetuning_calibration"] = self_knowledge.odds(units, facts)
        drawn_figures["finetuning_reported"] = reported.reported(rows["calibration"], facts)
    if "lengths" in rows:
        drawn_figures["finetuning_lengths"] = self_knowledge.guesses(units, facts)
    if len(effects):
        drawn_figures["finetuning_effects"] = steered_talk.factors(effects, units, facts)
    return drawn_figures
