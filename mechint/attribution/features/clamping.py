"""Setting features to other values and reading on: what the answer then is. Nothing but their directions changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechint.attribution.features.cases import check_row, clean_row
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.base.errors import UsageError
from mechint.base.progress import counted
from mechint.base.signatures import checked

Ablation = Literal["zero", "clean", "clean_mean"]
Clamp = Literal["injected", "injected_mean"]
Positions: TypeAlias = Literal["read", "answer"] | Bool[Tensor, " pos"]
Values = Float[Tensor, "pos_or_one d_sae"]
_HELD = 2**24  # values of streams that are made at once: 64 MB of float32


@checked
def ablate(
    states: FeatureReading,
    row: int,
    features: Sequence[int],
    *,
    to: Ablation = "clean",
    clean: int | None = None,
    positions: Positions = "read",
) -> float:
    """Return logit_diff of a row whose features are taken away, at all read positions, the answer's, or a mask's.

    `to`: "zero"; "clean", what they are in the clean run at the same position; or "clean_mean", their mean over the
    chosen positions there. No features at all ([]) change nothing: the row's own logit_diff. `clean` is the row to
    take values from, by default that of `mi.CLEAN`. Raises UsageError for bad rows, features, targets and positions.
    """
    mask = mask_of(states, positions)
    _check_target(to, get_args(Ablation))
    source = None if to == "zero" else (clean_row(states) if clean is None else clean)
    return _set(states, row, features, values_of(states, source, mask, mean=to == "clean_mean"), mask)


@checked
def clamp(
    states: FeatureReading,
    row: int,
    features: Sequence[int],
    *,
    injected: int,
    to: Clamp = "injected_mean",
    positions: Positions = "read",
) -> float:
    """Return logit_diff of a row whose features are set to their activations in row `injected`.

    `to`: "injected", at the same position; or "injected_mean", their mean over the chosen positions there. Else as
    `ablate`.
    """
    mask = mask_of(states, positions)
    _check_target(to, get_args(Clamp))
    return _set(states, row, features, values_of(states, injected, mask, mean=to == "injected_mean"), mask)


def values_of(states: FeatureReading, source: int | None, mask: Bool[Tensor, " pos"], *, mean: bool = False) -> Values:
    """Return the activations of row `source` (zero if None) at each position, or their mean over those of `mask`."""
    if source is None:
        return torch.zeros(1, states.dictionary.d_sae, device=states.acts.device)
    check_row(states, source)
    acts = states.acts[source]
    return acts[mask.to(acts.device)].mean(0, keepdim=True) if mean else acts


def mask_of(states: FeatureReading, positions: Positions) -> Bool[Tensor, " pos"]:
    """Return read positions as a mask; raises UsageError for an unknown name, another length, or none at all."""
    n_pos = states.resid.shape[1]
    if isinstance(positions, Tensor):
        if positions.shape != (n_pos,) or not positions.any():
            raise UsageError(
                given=f"a mask of shape {tuple(positions.shape)} with {int(positions.sum())} positions",
                allowed=f"shape ({n_pos},), one position or more",
                advice="make it for the read positions",
            )
        return positions.cpu()
    if positions not in ("read", "answer"):
        raise UsageError(f"positions={positions!r}", "read, answer, or a mask", "choose one of these")
    mask = torch.full((n_pos,), positions == "read")
    mask[-1] = True
    return mask


@torch.no_grad()
def set_features(
    states: FeatureReading, row: int, sets: Sequence[Sequence[int]], values: Values, mask: Bool[Tensor, " pos"]
) -> Float[Tensor, " set"]:
    """Return logit_diff of a row with each set of features set to `values` at the positions of `mask`, in float64.

    A set that changes nothing (no features, or features that have these values already) gives exactly the row's own
    logit_diff. Raises UsageError for bad rows and features.
    """
    check_row(states, row)
    logit_diffs = torch.full((len(sets),), float(states.logit_diffs[row]), dtype=torch.float64)
    most = 256 if states.reading.batch_size is None else states.reading.batch_size
    size = max(1, min(most, _HELD // states.resid[row].numel()))
    with counted(states.reading.progress, "features", len(sets), "set") as tell:
        for at in range(0, len(sets), size):
            batch = dict(enumerate(sets[at : at + size], at))
            tokens = _read_with(states, row, batch, values, mask, logit_diffs)
            if tell is not None:
                tell(len(batch), tokens)
    return logit_diffs


def _read_with(
    states: FeatureReading,
    row: int,
    sets: Mapping[int, Sequence[int]],
    values: Values,
    mask: Tensor,
    logit_diffs: Tensor,
) -> int:
    """Enter the answers of some sets, by number, into `logit_diffs`; returns how many tokens were read for them."""
    streams = {number: _stream(states, row, features, values, mask) for number, features in sets.items()}
    changed = {number: stream for number, stream in streams.items() if not torch.equal(stream, states.resid[row])}
    if not changed:
        return 0
    resid = torch.stack(list(changed.values()))
    diffs = states.reading.logit_diffs([row] * len(resid), resid=resid, layer=states.dictionary.layer)
    logit_diffs[list(changed)] = diffs.double().cpu()
    return len(resid) * resid.shape[1]


def _set(states: FeatureReading, row: int, features: Sequence[int], values: Values, mask: Tensor) -> float:
    return float(set_features(states, row, [features], values, mask)[0])


def _stream(states: FeatureReading, row: int, features: Sequence[int], values: Values, mask: Tensor) -> Tensor:
    if not len(features):
        return states.resid[row]
    chosen = list(features)
    states.dictionary.check_features(chosen)
    return states.with_features(row, chosen, values[:, chosen], mask)


def _check_target(to: str, allowed: Sequence[str]) -> None:
    if to not in allowed:
        raise UsageError(f"to={to!r}", ", ".join(allowed), "choose one of these")
