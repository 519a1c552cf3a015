"""Direct logit attribution: what every component writes into logit_diff, and which of them take it away again.

The residual stream at the answer position is the sum of what the embedding, the heads, the MLPs and the biases wrote.
With the scale of the final norm held, logit_diff is linear in it, so it is a sum of one term for each component
(Elhage et al., 2021, "A Mathematical Framework for Transformer Circuits"). Clean and injected run each keep their own
scale, so each column sums to the logit_diff of its run; a component that writes the same in both is attributed what
the other scale makes of it. Only direct effects are seen: what a component does through later ones counts as theirs.

Sets of answers (a log-sum-exp, a maximum) and soft-capped logits are not linear: they enter by their gradient in each
run, and a row "nonlinear" holds what that leaves out. What rounding in the model's dtype adds is the row "rounding".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.attribution.linear_readout import LinearReadout
from mechint.attribution.reading import Reading
from mechint.base.errors import HookError, ModelValidationError, UsageError
from mechint.base.signatures import checked
from mechint.models.backends.heads import head_outputs
from mechint.models.capture import EMBED, check_layers
from mechint.models.model import EMBED_HOOK, Model

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from mechint.models.backends.base import Hook

Entry = dict[str, str | int | float]
Facts = Mapping[str, str | int | float]

_SIDES = ("clean", "injected")
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_WHOLE = (
    "what attention writes is not the sum of what its heads do (a norm or a factor follows it, an adapter is on it, or "
    "its weights cannot be read), so it is attributed as a whole"
)


@checked
def direct_logit_attribution(reading: Reading, clean: int, injected: int, *, heads: bool = True) -> pd.DataFrame:
    """Return one row per component: its direct contribution to logit_diff in two runs of `reading`, and the difference.

    Rows are the embedding (with learned positions; layer -1), every head or, without `heads`, every attention, every
    MLP, and biases that are not zero; what comes after the last block (final norm, unembedding, remainders) has layer
    `n_layers`. Where a norm follows attention (Gemma 2 and 3) it is not split: `attrs["heads"]` then says why, and is
    empty otherwise. `attrs["total"]` is the sum of attributions, `attrs["logit_diff_shift"]` what the readout shows.
    `clean` and `injected` are rows of the reading's cache. Raises UsageError for rows that are not there and for a
    conversation without answers, and ModelValidationError for a model whose stream is no such sum.
    """
    written = _Written.of(reading, (clean, injected), heads=heads)
    ends, last = _held(reading, written.streams[-1]), reading.model.n_layers
    rows = [_row(component, ends) for component in [*written.components, written.rounding(0)]]
    biases = {"final norm bias": [end.norm_bias for end in ends], "unembed bias": [end.unembed_bias for end in ends]}
    rows += [_entry("bias", name, last, values) for name, values in biases.items() if any(values)]
    if not ends[0].is_linear:
        left = [end.nonlinear(resid) for end, resid in zip(ends, written.streams[-1], strict=True)]
        rows.append(_entry("rest", "nonlinear", last, left))
    shift = ends[1].logit_diff - ends[0].logit_diff
    return _table(reading, injected, rows, {"logit_diff_shift": shift, "heads": written.whole})


@checked
def late_loss(
    reading: Reading, clean: int, injected: int, *, layer: int | None = None, heads: bool = True
) -> pd.DataFrame:
    """Return the change of the shift between one layer of the logit lens and the output, by component.

    `layer` is the one whose lens shows the greatest shift towards yes, unless given. Each later component is attributed
    what it writes, at the scale that the final norm has at the output; the row "final norm scale" is what the stream of
    `layer` loses by being divided by that scale and no longer by its own. Columns `clean` and `injected` are changes
    between the two layers. `attrs["total"]` is `attrs["logit_diff_shift"]`, the shift at the output, less
    `attrs["lens_shift"]`, that at `attrs["layer"]`. Raises as `direct_logit_attribution`, and LayerRangeError.
    """
    last = reading.model.n_layers
    check_layers([EMBED if layer is None else layer], last, lowest=EMBED)
    written = _Written.of(reading, (clean, injected), heads=heads)
    shifts = [float(reading.logit_diff(stream[:, None]).diff()) for stream in written.streams]
    at = max(range(EMBED, last), key=lambda lens_layer: shifts[lens_layer - EMBED]) if layer is None else layer
    stream = written.streams[at - EMBED]
    starts, ends = _held(reading, stream), _held(reading, written.streams[-1])
    later = [component for component in written.components if component.layer > at]
    rows = [_row(component, ends) for component in [*later, written.rounding(at + 1)]]
    scaled = [
        end.contribution(resid) * (1 - end.scale / start.scale)
        for resid, start, end in zip(stream, starts, ends, strict=True)
    ]
    rows.append(_entry("scale", "final norm scale", last, scaled))
    if not ends[0].is_linear:
        changes = [end.logit_diff - start.logit_diff for start, end in zip(starts, ends, strict=True)]
        rows.append(_entry("rest", "nonlinear", last, _left(changes, rows)))
    facts: Facts = {"logit_diff_shift": shifts[-1], "lens_shift": shifts[at - EMBED], "layer": at}
    return _table(reading, injected, rows, {**facts, "heads": written.whole})


@checked
def by_layer(table: pd.DataFrame) -> pd.DataFrame:
    """Return `conversation, intervention, layer, kind, attribution` of such tables, one or several concatenated.

    Heads and the bias of attention are summed as "attn"; what has no layer (layer `n_layers`) is "scale" or "rest".
    """
    after = table["layer"] == table["layer"].max()
    kinds = table["kind"].replace("head", "attn").mask(table["kind"] == "bias", "attn")
    kinds = kinds.mask(after & (kinds != "scale"), "rest")
    keys = ["conversation", "intervention", "layer", "kind"]
    return table.assign(kind=kinds).groupby(keys, sort=False)["attribution"].sum().reset_index()


@checked
def cumulative(table: pd.DataFrame) -> pd.DataFrame:
    """Return `conversation, intervention, layer, attribution`: the sum of all components up to each layer."""
    keys = ["conversation", "intervention"]
    summed = table.groupby([*keys, "layer"])["attribution"].sum()
    return summed.groupby(keys).cumsum().reset_index()


@dataclass(frozen=True, eq=False)
class _Component:
    """One component with the vector that it wrote at the answer position, in each run."""

    kind: str
    name: str
    layer: int
    index: int
    vectors: Float[Tensor, "run d_model"]


@dataclass(frozen=True, eq=False)
class _Written:
    """The stream of some runs at the answer position, by component; `gaps` are the rest of each block's write.

    `streams` begin with the embedding. `whole` says why attention is not split into heads, where it was to be.
    """

    components: Sequence[_Component]
    streams: Float[Tensor, "stream run d_model"]
    gaps: Float[Tensor, "layer run d_model"]
    whole: str

    @classmethod
    def of(cls, reading: Reading, rows: tuple[int, int], *, heads: bool) -> _Written:
        """Read the rest of the conversation once, with hooks that keep all writes at the last position."""
        model, activations = reading.model, _activations(reading, rows, heads=heads)
        layers = range(model.n_layers)
        streams = torch.stack([activations[EMBED_HOOK], *(activations[model.resid_post(layer)] for layer in layers)])
        split = _by_head(model, activations) if heads else None
        blocks = []
        for layer in layers:
            attn = _Component("attn", f"L{layer} attn", layer, -1, activations[_attn(layer)])
            mlp = _Component("mlp", f"L{layer} mlp", layer, -1, activations[_mlp(layer)])
            blocks.append([*([attn] if split is None else split[layer]), mlp])
        gaps = streams.diff(dim=0) - torch.stack([_sum(block) for block in blocks])
        _check_gaps(model, gaps, streams)
        embed = _Component("embed", "embed", EMBED, -1, streams[0])
        return cls([embed, *chain.from_iterable(blocks)], streams, gaps, _WHOLE if heads and split is None else "")

    def rounding(self, first: int) -> _Component:
        """The part of the writes of blocks from `first` on that is in none of their components."""
        return _Component("rest", "rounding", len(self.gaps), -1, self.gaps[first:].sum(dim=0))


def _z(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_z"


def _attn(layer: int) -> str:
    return f"blocks.{layer}.hook_attn_out"


def _mlp(layer: int) -> str:
    return f"blocks.{layer}.hook_mlp_out"


def _activations(reading: Reading, rows: tuple[int, int], *, heads: bool) -> dict[str, Tensor]:
    """Return the activations of hook points at the answer position, by name, one row for each run."""
    model, n_rows, activations = reading.model, len(reading.interventions), dict[str, Tensor]()
    if not all(0 <= row < n_rows for row in rows):
        raise UsageError(f"rows {list(rows)}", f"rows 0:{n_rows} of the reading", "name two that are there")
    names = [EMBED_HOOK]
    for layer in range(model.n_layers):
        names += [model.resid_post(layer), _attn(layer), _mlp(layer), *([_z(layer)] if heads else [])]
    hooks = [_keep(name, activations, model.device) for name in names]
    model.forward(reading.tokens.repeat(len(rows), 1), reading.cache.select(torch.tensor(rows)), hooks=hooks)
    if missing := set(names) - set(activations):
        raise HookError(f"hooks {sorted(missing)} did not fire", "each once", "report this architecture")
    return activations


def _keep(name: str, activations: dict[str, Tensor], device: torch.device) -> Hook:
    def hook_fn(activation: Tensor, /, *, hook: HookPoint) -> None:
        activations[name] = activation[:, -1].detach().to(device, torch.float32)

    return name, hook_fn


def _by_head(model: Model, activations: dict[str, Tensor]) -> list[list[_Component]] | None:
    """Return the writes of heads and bias, by layer; None where they do not sum to the write of attention."""
    layers = range(model.n_layers)
    results = head_outputs(model.backend, {layer: activations[_z(layer)] for layer in layers})
    if results is None:
        return None
    blocks = []
    for layer, tensors in enumerate(results):
        written, bias = tensors[0].to(model.device), tensors[1].to(model.device)
        heads = range(written.shape[1])
        block = [_Component("head", f"L{layer} head {head}", layer, head, written[:, head]) for head in heads]
        if bias.any():
            block.append(_Component("bias", f"L{layer} attn bias", layer, -1, bias.expand(len(written), -1)))
        missed = (activations[_attn(layer)] - _sum(block)).norm(dim=-1)
        if (missed > _TOLERANCE[model.backend.dtype] * written.norm(dim=-1).sum(dim=-1)).any():
            return None
        blocks.append(block)
    return blocks


def _sum(components: Sequence[_Component]) -> Float[Tensor, "run d_model"]:
    return torch.stack([component.vectors for component in components]).sum(dim=0)


def _check_gaps(model: Model, gaps: Tensor, streams: Tensor) -> None:
    """Raise ModelValidationError if a block adds more to the stream than its attention and MLP do."""
    shares = (gaps.norm(dim=-1) / streams[1:].norm(dim=-1)).amax(dim=-1)
    if not float(shares.max()) <= _TOLERANCE[model.backend.dtype]:
        layer = int(shares.argmax())
        raise ModelValidationError(
            given=f"block {layer} of {model.name} adds more to the stream than its attention and its MLP",
            allowed="blocks whose output is their input, plus attention, plus an MLP",
            advice="use effects (ablation, patching) instead of direct attribution for this architecture",
        )


def _held(reading: Reading, resid: Float[Tensor, "run d_model"]) -> list[LinearReadout]:
    return [LinearReadout.of(reading.model.readout, reading.answers, row) for row in resid]


def _row(component: _Component, held: Sequence[LinearReadout]) -> Entry:
    values = [run.contribution(vector) for run, vector in zip(held, component.vectors, strict=True)]
    return _entry(component.kind, component.name, component.layer, values, component.index)


def _left(changes: Sequence[float], rows: Sequence[Entry]) -> list[float]:
    """Return the part of a change in each run that some rows leave unexplained."""
    return [change - sum(float(row[side]) for row in rows) for side, change in zip(_SIDES, changes, strict=True)]


def _entry(kind: str, component: str, layer: int, values: Sequence[float], index: int = -1) -> Entry:
    clean, injected = values
    place: Entry = {"kind": kind, "component": component, "layer": layer, "index": index}
    return place | {"clean": clean, "injected": injected, "attribution": injected - clean}


def _table(
    reading: Reading, injected: int, rows: Sequence[Entry], facts: Mapping[str, str | int | float]
) -> pd.DataFrame:
    subject = {"conversation": reading.rendered.conversation.label, "intervention": reading.names[injected]}
    table = pd.DataFrame([{**subject, **row} for row in rows])
    table.attrs = {"total": float(table["attribution"].sum()), **facts}
    return table
