"""Feature activations as a tidy table: at the answer position and over the read positions, run by run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechint.attribution.features.attribution import feature_label
from mechint.attribution.features.cases import clean_row, concept_of, listed_states, series_of
from mechint.attribution.features.clamping import Positions, mask_of
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.base.signatures import checked

Readout = Literal["answer", "read_mean", "read_max"]
READOUTS: tuple[Readout, ...] = ("answer", "read_mean", "read_max")


@checked
def feature_table(
    states: FeatureReading | Sequence[FeatureReading],
    *,
    concepts: Mapping[str, str] | None = None,
    positions: Positions = "read",
) -> pd.DataFrame:
    """Return feature activations, one row per conversation, intervention, feature and readout.

    Readouts: "answer" (at the last position), "read_mean" and "read_max" (over the read `positions`). Only features
    that are active in some row of some conversation, at the answer or at these positions, are listed, and these in
    every row. Columns: conversation, intervention, series ("clean", "injected", "random", "swapped"), concept,
    logit_diff (of the row), kind, component, layer, index, readout, acts, clean (the conversation's clean run) and
    difference (acts - clean). Raises UsageError for states of different dictionaries or without one clean row.
    """
    listed = listed_states(states)
    chosen = _active(listed, positions)
    table = pd.concat(
        [_rows(feature_reading, chosen, positions, concepts) for feature_reading in listed], ignore_index=True
    )
    table.attrs = {"dictionary": listed[0].dictionary.name, "layer": listed[0].dictionary.layer}
    return table


def _active(listed: Sequence[FeatureReading], positions: Positions) -> list[int]:
    active = torch.zeros(listed[0].dictionary.d_sae, dtype=torch.bool)
    for states in listed:
        mask = mask_of(states, positions) | mask_of(states, "answer")
        active |= (states.acts[:, mask] != 0).flatten(0, 1).any(0).cpu()
    chosen: list[int] = active.nonzero()[:, 0].tolist()
    return chosen


def _rows(
    states: FeatureReading, chosen: Sequence[int], positions: Positions, concepts: Mapping[str, str] | None
) -> pd.DataFrame:
    values = _readouts(states.acts[:, :, list(chosen)], mask_of(states, positions))
    clean, layer = clean_row(states), states.dictionary.layer
    runs = pd.DataFrame(
        {
            "conversation": states.reading.rendered.label,
            "intervention": states.reading.names,
            "series": [series_of(intervention) for intervention in states.reading.interventions],
            "concept": [concept_of(intervention, concepts) for intervention in states.reading.interventions],
            "logit_diff": states.logit_diffs.double().cpu().numpy(),
        }
    )
    features = pd.DataFrame(
        {
            "kind": "feature",
            "component": [feature_label(layer, feature) for feature in chosen],
            "layer": layer,
            "index": list(chosen),
        }
    )
    table = runs.merge(features, how="cross").merge(pd.DataFrame({"readout": READOUTS}), how="cross")
    table["acts"] = values.ravel()
    table["clean"] = np.broadcast_to(values[clean], values.shape).ravel()
    table["difference"] = table["acts"] - table["clean"]
    return table


def _readouts(
    acts: Float[Tensor, "row pos feature"], mask: Bool[Tensor, " pos"]
) -> Float[np.ndarray, "row feature readout"]:
    """The readouts of each row, in the order of READOUTS."""
    chosen = acts[:, mask]
    stacked = torch.stack([acts[:, -1], chosen.mean(1), chosen.amax(1)], dim=-1)
    return stacked.double().cpu().numpy()
