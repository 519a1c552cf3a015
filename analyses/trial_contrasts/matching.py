"""Cells that groups have in common: what figures compare is compared on these, and what is dropped is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

CELL = ("prompt", "concept", "layers", "strength", "steer")
_SAME_DEPTH = 0.02  # of layers of two models with the same number


@dataclass(frozen=True)
class Matched:
    """Steered rows in cells that all groups have, and how many cells these are, and are not."""

    rows: pd.DataFrame
    kept: int
    dropped: int

    @property
    def words(self) -> str:
        """The numbers of cells as captions have them."""
        return f"{self.kept} matched cells, {self.dropped} dropped"


def matched(rows: pd.DataFrame, groups: Sequence[str], cells: Sequence[str]) -> Matched:
    """Return the rows in cells (values of some columns) that every group (values of others) has."""
    keys = pd.MultiIndex.from_frame(rows[list(cells)])
    sets = [set(keys[chosen]) for chosen in rows.groupby(list(groups), sort=False).indices.values()]
    common = set.intersection(*sets) if sets else set()
    return Matched(rows[keys.isin(list(common))], len(common), len(set().union(*sets)) - len(common))


def shared_columns(steered: pd.DataFrame, models: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of a cell in which several models can agree; none where they cannot be compared.

    Layers of one number are the same only where they are as deep in each model. Where models have no layers in common,
    and each was steered at one place of its own, that place stands for the others'.
    """
    rows = steered[steered["model"].isin(models)]
    depths = rows.groupby(["layers", "model"])["depth"].mean().unstack("model").reindex(columns=list(models))
    layers = rows.groupby(["layers", "model"]).size().unstack("model").reindex(columns=list(models)).notna()
    common = depths[layers.all(axis=1)]
    # Depths that are not recorded (of imported trials) cannot differ.
    is_same = len(common) > 0 and not (common.max(axis=1) - common.min(axis=1) > _SAME_DEPTH).any()
    if is_same:
        return CELL
    one_each = (layers.sum() == 1).all()
    return tuple(name for name in CELL if name != "layers") if one_each else ()
