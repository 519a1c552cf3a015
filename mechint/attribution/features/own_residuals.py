"""Residuals of one layer over texts, each distinct token once, and the loss of texts whose residuals are replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.models.backends.blocks import BlockPass
from mechint.models.model import Model
from mechint.models.row_memory import fitting_rows

# Turns the residuals of the positions that are kept into those which are read on from.
Replace = Callable[[Float[Tensor, "token d_model"]], Float[Tensor, "token d_model"]]

_ROWS = 32
# Sinks of attention have norms of hundreds of others'; an SAE would spend itself on them.
_OUTLIER = 10.0
_POSITIONS = 128  # whose logits are held at once


@torch.no_grad()
def residuals_of(model: Model, rows: Sequence[Sequence[int]], layer: int) -> Float[Tensor, "token d_model"]:
    """Return `resid_post` of a layer, float32, at the tokens of some rows of token ids.

    A token that several rows share, with all that stands before it, is there once. First tokens are left out, and those
    whose norm is more than ten times the median: sinks of attention.
    """
    parts = []
    ordered = sorted(set(map(tuple, rows)))
    starts = [1, *(max(1, _n_shared(*pair)) for pair in pairwise(ordered))]
    for batch in _by_length(model, ordered):
        tokens = _padded([ordered[row] for row in batch])
        resid = _to(model.blocks.begin(tokens, torch.zeros(len(batch), dtype=torch.long)), layer)
        for row, place in zip(resid, batch, strict=True):
            parts.append(row[starts[place] : len(ordered[place])].float())
    residuals = torch.cat(parts)
    norms = residuals.norm(dim=1)
    return residuals[norms <= _OUTLIER * norms.median()]


@torch.no_grad()
def losses_with(
    model: Model, rows: Sequence[Sequence[int]], layer: int, replacements: Sequence[Replace]
) -> list[float]:
    """Return the mean loss (nats per token) of rows whose residuals of a layer are replaced, for each replacement.

    First tokens and outliers stay as they are, as `residuals_of` has none of them.
    """
    sums, count = [0.0] * len(replacements), 0
    for batch in _by_length(model, rows):
        tokens = _padded([rows[row] for row in batch])
        lengths = torch.tensor([len(rows[row]) for row in batch])
        prepared = model.blocks.begin(tokens, torch.zeros(len(batch), dtype=torch.long))
        resid = _to(prepared, layer)
        real = torch.arange(tokens.shape[1])[None, :] < lengths[:, None]
        replaced = _replaceable(resid, real)
        for number, replace in enumerate(replacements):
            stream = resid.clone()
            stream[replaced] = replace(resid[replaced].float()).to(resid.dtype)
            last = _to(prepared, model.n_layers - 1, stream, layer + 1)
            sums[number] += _loss_sum(model, last, tokens, real)
        count += int((lengths - 1).sum())
    return [total / count for total in sums]


def _replaceable(resid: Float[Tensor, "row pos d_model"], real: Bool[Tensor, "row pos"]) -> Bool[Tensor, "row pos"]:
    norms = resid.float().norm(dim=-1)
    usual = norms <= _OUTLIER * norms[real.to(norms.device)].median()
    usual[:, 0] = False
    both: Tensor = usual & real.to(usual.device)
    return both


def _loss_sum(
    model: Model, resid: Float[Tensor, "row pos d_model"], tokens: Int[Tensor, "row pos"], real: Bool[Tensor, "row pos"]
) -> float:
    predicted = real[:, 1:].to(resid.device)
    before, targets = resid[:, :-1][predicted], tokens[:, 1:].to(resid.device)[predicted]
    total = 0.0
    for chunk, target in zip(torch.split(before, _POSITIONS), torch.split(targets, _POSITIONS), strict=True):
        logits = model.readout.logits(chunk)
        total += torch.nn.functional.cross_entropy(logits, target.to(logits.device), reduction="sum").item()
    return total


def _to(prepared: BlockPass, layer: int, stream: Tensor | None = None, first: int = 0) -> Float[Tensor, "row pos d"]:
    """Return `resid_post` of a layer, from the embedding on or from a stream before block `first`."""
    resid = prepared.resid if stream is None else stream
    rows = torch.arange(len(resid))
    for block in range(first, layer + 1):
        following, _ = prepared.block(block, resid, rows, None)
        assert following is not None  # a block gives none only if it is asked for keys alone
        resid = following
    return resid


def _by_length(model: Model, rows: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield places of rows that are read together, alike in length."""
    places = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    at_once = fitting_rows(model, None, max(map(len, rows)), _ROWS, "texts", n_logits=_POSITIONS)
    for start in range(0, len(places), at_once):
        yield places[start : start + at_once]


def _padded(rows: Sequence[Sequence[int]]) -> Int[Tensor, "row pos"]:
    tensors = [torch.tensor(list(row), dtype=torch.long) for row in rows]
    padded: Tensor = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    return padded


def _n_shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Return with how many equal tokens two rows begin."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (left, right) in enumerate(pairs) if left != right), min(len(first), len(second)))
