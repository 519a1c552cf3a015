"""Directional ablation: a model whose residual stream has no component along a direction, whatever it reads or says.

    refusal = mi.extract.mean_contrast(model, refused, complied, name="refusal")
    free = mi.ablate(model, refusal)
    mi.trials.run_trials(free, design, vectors)      # or a design with ablate="refusal"

The method is that of Arditi et al. (arXiv 2406.11717) for refusals: a difference of means of prompts that are refused
and prompts that are complied with, projected out of the stream at every position of prompt and reply. Injections at a
layer are added after what is removed there, so a vector keeps its part along the direction until the next block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechint.base.errors import ReceiptError, UsageError
from mechint.base.files import sha256
from mechint.base.signatures import Index, checked
from mechint.models.backends.bridge import BridgeBackend, boot
from mechint.models.backends.twin import ABLATED, TwinBlocks, plain_copy
from mechint.models.capture import check_layers, residuals
from mechint.models.model import Model
from mechint.models.validation import validate
from mechint.vectors.concept_vectors import ConceptVector, check_not_zero, unit_norm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Directions = Mapping[int, Float[Tensor, " d_model"]]
_PROBE = (3, 5, 4, 8, 6, 7)


@checked
def ablate(
    model: Model, vector: ConceptVector, layers: Sequence[int] | None = None, *, source: Index | None = None
) -> Model:
    """Return a second model on `model`'s own weights (no copy) that removes a direction from its residual stream.

    At the output of each of `layers` (default: all that the vector has) the stream x becomes x - (x.d) d, at all
    positions of all that the model reads and says; d is the vector's direction at that layer, or at layer `source`.
    Its name says so, and its identity is another than the model's, so that kept results of the two are never mixed.

    Raises UsageError for the hooked backend, an adapter on top, several devices and a model that is ablated already,
    LayerRangeError, VectorMismatchError, InvalidVectorError for a direction of zeros, and ReceiptError where
    something is left along the direction.
    """
    backend = _bridge_of(model)
    directions = _directions(model, vector, layers, source)
    of_model = Path(model.name).resolve().name if Path(model.name).is_dir() else model.name
    name = f"{of_model} without {vector.name or 'a direction'}"
    hf_model: PreTrainedModel = plain_copy(backend.hf_model, "eager")
    engine = BridgeBackend(boot(hf_model, model.tokenizer, name))
    setattr(hf_model, ABLATED, _key(directions))
    for blocks in ([block.original_component for block in engine.handle.blocks], _blocks_of(engine)):
        for layer, direction in directions.items():
            blocks[layer].register_forward_hook(_removal(direction))
    adapted_by = f"without {_key(directions)}"
    without = Model(
        engine, model.tokenizer, name, model.prompts, model.revision, None, adapted_by, model.weights.digests
    )
    without.template, without.tokenizer_source = model.template, model.tokenizer_source
    validate(without)
    check_removed(without, directions)
    return without


def ablated(model: Model, vector: ConceptVector) -> Model:
    """Return `ablate(model, vector)`, or the model itself where it is that already."""
    hf_model = model.backend.hf_model if isinstance(model.backend, BridgeBackend) else None
    removed = getattr(hf_model, ABLATED, None)
    return model if removed and removed == _key(_directions(model, vector)) else ablate(model, vector)


def _directions(
    model: Model, vector: ConceptVector, layers: Sequence[int] | None = None, source: int | None = None
) -> Directions:
    vector.check_fits(model.d_model, model.n_layers)
    chosen = tuple(vector.layers if layers is None else sorted(set(layers)))
    check_layers(chosen, model.n_layers)
    sources = {layer: vector.at([layer if source is None else source]) for layer in chosen}
    for of_layer in sources.values():
        check_not_zero(of_layer)
    return {layer: unit_norm(of_layer.vectors[of_layer.layers[0]]) for layer, of_layer in sources.items()}


def _key(directions: Directions) -> str:
    return sha256(*(f"{layer} ".encode() + unit.numpy().tobytes() for layer, unit in directions.items()))


def check_removed(model: Model, directions: Directions) -> None:
    """Raise ReceiptError if a model's stream has a component along one of `directions` (of unit norm, by layer).

    Both ways to run it are tried: as a whole, and block by block.
    """
    tokens, row = torch.tensor([_PROBE]) % model.backend.d_vocab, torch.zeros(1, dtype=torch.long)
    places = [(at,) for at in range(len(_PROBE))]
    whole = residuals(model, tokens.expand(len(places), -1), places, sorted(directions))
    for layer, stream in zip(sorted(directions), whole, strict=True):
        _check_without(model, stream, directions[layer], f"layer {layer}, run as a whole")
    blocks = model.blocks.begin(tokens, row)
    resid: Tensor | None = blocks.resid
    for layer in range(model.n_layers):
        assert resid is not None  # a block gives none only if it is asked for keys alone
        resid, _ = blocks.block(layer, resid, row, None)
        if layer in directions and resid is not None:
            _check_without(model, resid[0], directions[layer], f"layer {layer}, run block by block")


def _check_without(
    model: Model, stream: Float[Tensor, "pos d_model"], direction: Float[Tensor, " d_model"], where: str
) -> None:
    exact, most = stream.detach().float().cpu(), 4 * torch.finfo(model.backend.dtype).eps
    residue = float((exact @ direction).abs().max() / exact.norm(dim=-1).max())
    if not residue <= most:
        raise ReceiptError(
            given=f"{where}: {residue:.3g} of the stream's norm is left along the direction",
            allowed=f"at most {most:.3g}, which is rounding",
            advice="the model does not run its blocks as they are: report its architecture",
        )


def _removal(direction: Float[Tensor, " d_model"]) -> Callable[[nn.Module, object, object], object]:
    """Return a hook of a block that projects a direction out of the stream, which may come in a tuple."""

    def without(stream: Tensor) -> Tensor:
        unit = direction.to(stream.device)
        exact = stream.float()
        return (exact - (exact @ unit)[..., None] * unit).to(stream.dtype)

    def hook(_module: nn.Module, _inputs: object, out: object) -> object:
        if isinstance(out, tuple):
            return (without(out[0]), *out[1:])
        return without(out) if isinstance(out, Tensor) else out

    return hook


def _blocks_of(engine: BridgeBackend) -> Sequence[nn.Module]:
    blocks = engine.blocks
    assert isinstance(blocks, TwinBlocks)
    return blocks.blocks


def _bridge_of(model: Model) -> BridgeBackend:
    backend = model.backend
    request = f"a direction to remove from {model.name}"
    if not isinstance(backend, BridgeBackend):
        raise UsageError(f"{request}, with backend={backend.kind!r}", "backend='bridge'", "load it with the bridge")
    if getattr(backend.hf_model, "peft_config", None):
        advice = "merge it: mi.load(..., adapter=...)"
        raise UsageError(f"{request}, an adapter on top of other weights", "a model with weights of its own", advice)
    if len(model.devices) > 1:
        raise UsageError(f"{request}, which is spread over devices", "a model on one device", "load it on one device")
    return backend
