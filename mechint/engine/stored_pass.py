"""A pass that computes nothing: its keys and values are those of a file that another model has filled."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.interventions.fill_files import StoredPrefix
from mechint.models.backends.blocks import moved
from mechint.models.backends.past import KeyValues, Past
from mechint.models.model import Model


class StoredPass:
    """Stands for a pass over some rows: its blocks give the stored keys and values of the rows, and compute nothing."""

    def __init__(self, stored: StoredPrefix, starts: Int[Tensor, " row"], n_pos: int, model: Model) -> None:
        self.stored, self.starts, self.n_pos = stored, starts, n_pos
        nothing = torch.zeros(1, 1, 1, dtype=model.backend.dtype, device=model.device)
        self.resid: Float[Tensor, "row pos d_model"] = nothing.expand(len(starts), n_pos, model.d_model)

    def block(
        self,
        layer: int,
        resid: Float[Tensor, "out pos d_model"],
        rows: Int[Tensor, " out"],
        past: Past | None,
        *,
        keys_only: bool = False,
    ) -> tuple[Float[Tensor, "out pos d_model"] | None, KeyValues]:
        """Return `resid` as it is, since nobody reads it here, and the stored keys and values of each row."""
        starts = self.starts[rows].tolist()
        keys, values = moved(self.stored.layer(layer), resid.device)
        cached = (
            torch.cat([self._from(keys, start) for start in starts]),
            torch.cat([self._from(values, start) for start in starts]),
        )
        return None if keys_only else resid, cached

    def _from(self, side: Float[Tensor, "1 heads stored d_head"], start: int) -> Float[Tensor, "1 heads pos d_head"]:
        """Return `n_pos` positions; a row that is shorter than others of the pass is padded as theirs are."""
        stored = side[:, :, start : start + self.n_pos]
        return torch.nn.functional.pad(stored, (0, 0, 0, self.n_pos - stored.shape[2]))
