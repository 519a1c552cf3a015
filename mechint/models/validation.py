"""The checks that a model passes before anyone trusts a number from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from mechint.base.errors import ModelValidationError
from mechint.models.backends.past import Past, Piece
from mechint.models.backends.reasons import refused
from mechint.models.backends.versions import installed
from mechint.models.rounding import ROUNDING

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint
    from transformers import PreTrainedModel

    from mechint.models.backends.base import Backend
    from mechint.models.model import Model

_PROBE_LENGTH = 24
_SPLIT = 16


def validate(model: Model) -> None:
    """Check that layers can be edited, that caches and single blocks change no logit, and the float32 readout.

    Raises ModelValidationError saying which of these does not hold.
    """
    if model.n_layers < 1 or model.d_model < 1:
        _refuse(model.name, "no layers or no hidden size in its configuration", "a causal language model")
    model.check_no_hooks("on a model that is being loaded or wrapped")
    with refused(model.name, f"backend={model.backend.kind!r} cannot run it"):
        _check_runs(model)


def _check_runs(model: Model) -> None:
    tokens = _probe(model.backend)
    logits = model.logits(tokens)[0].float()
    if not torch.isfinite(logits).all():
        _refuse(model.name, "logits that are not finite", "a model that computes in this dtype")
    _check_causal(model, tokens, logits)
    _check_readout(model, tokens, logits[-1])
    _check_blocks(model, tokens, logits[-1])
    _check_edit(model, tokens)


def check_conversion(hf_model: PreTrainedModel, converted: Backend) -> None:
    """Raise ModelValidationError unless the converted model gives the Hugging Face model's logits."""
    tokens = _probe(converted)
    with torch.no_grad():
        expected = hf_model(tokens.to(hf_model.device)).logits.float()
    _check_close(
        converted.logits(tokens).float(),
        expected,
        converted.dtype,
        "HookedTransformer and Hugging Face",
        type(hf_model).__name__,
    )


def _check_causal(model: Model, tokens: Int[Tensor, "1 pos"], logits: Tensor) -> None:
    """Logits may not depend on later positions, as those of encoders and prefix language models do."""
    before, spread = model.logits(tokens[:, :_SPLIT])[0, -1].float(), logits[-1].std().clamp_min(1e-6)
    if (before - logits[_SPLIT - 1]).abs().max() > ROUNDING[model.backend.dtype] * spread:
        fault = "a position reads what comes after it (an encoder such as BERT, or a prefix language model)"
        _refuse(model.name, fault, "a causal language model")


def _check_readout(model: Model, tokens: Int[Tensor, "1 pos"], whole: Tensor) -> None:
    """The last residual, read in float32 after a pass in two steps, must give the logits of one pass."""
    kept: list[Tensor] = []

    def keep(activation: Tensor, /, *, hook: HookPoint) -> None:
        kept.append(activation[:, -1])

    cache = model.forward(tokens[:, :_SPLIT])
    if cache.n_pos != _SPLIT or cache.n_layers != model.n_layers:
        library = f"{model.backend.kind}, transformer-lens {installed('transformer-lens')}"
        filled = f"{cache.n_pos} positions of {cache.n_layers} layers"
        _refuse(model.name, f"its KV cache holds {filled} after {_SPLIT} tokens ({library})", "a whole KV cache")
    before = cache.fingerprint()
    model.forward(tokens[:, _SPLIT:], cache, hooks=[(model.resid_post(model.n_layers - 1), keep)])
    if cache.fingerprint() != before:
        _refuse(model.name, "a KV cache that is changed by reading from it", "attention-only models")
    if len(kept) != 1:
        _refuse(model.name, f"a last resid_post hook that fired {len(kept)} times", "blocks that run once")
    _check_close(
        model.readout.logits(kept[0])[0], whole, model.backend.dtype, "a cached and an uncached run", model.name
    )


def _check_blocks(model: Model, tokens: Int[Tensor, "1 pos"], whole: Tensor) -> None:
    """Block by block, in two steps and after a past, padded or not, the model must give the logits of one pass."""
    row, past = torch.zeros(1, dtype=torch.long), torch.tensor([_SPLIT])
    first, second = tokens[:, :_SPLIT], tokens[:, _SPLIT:]
    filling = model.blocks.begin(first, torch.zeros_like(past))
    # A second row with a longer past makes the first one's be padded, as in a batch of conversations.
    reading = model.blocks.begin(second.expand(2, -1), torch.cat([past, past + 1]))
    alone = model.blocks.begin(second, past)
    before, after, after_alone = filling.resid, reading.resid[row], alone.resid
    for layer in range(model.n_layers):
        filled, cached = filling.block(layer, before, row, None)
        padded = Past(_SPLIT + 1, [Piece(cached, [0], slice(1), start=1)], [(slice(1), 1)])
        read, _ = reading.block(layer, after, row, padded)
        unpadded = Past(_SPLIT, [Piece(cached, [0], slice(1), start=0)])
        read_alone, _ = alone.block(layer, after_alone, row, unpadded)
        if filled is None or read is None or read_alone is None:
            _refuse(model.name, f"block {layer} gives no output by itself", "blocks that can be run one by one")
        else:
            before, after, after_alone = filled, read, read_alone
    bridge = f"transformer-lens {installed('transformer-lens')}"
    ways = f"running block by block as transformers does and running whole as {bridge} does"
    for stream in (after, after_alone):
        logits = model.readout.logits(stream[:, -1])[0]
        _check_close(logits, whole, model.backend.dtype, ways, model.name)


def _check_edit(model: Model, tokens: Int[Tensor, "1 pos"]) -> None:
    """A change of resid_post at any layer must arrive at the output."""
    last: list[Tensor] = []

    def keep(activation: Tensor, /, *, hook: HookPoint) -> None:
        last.append(activation[0, -1].float())

    def nudge(activation: Tensor, /, *, hook: HookPoint) -> Tensor:
        wave = torch.linspace(-1, 1, activation.shape[-1], device=activation.device, dtype=activation.dtype)
        nudged: Tensor = activation + wave * activation.norm(dim=-1, keepdim=True)
        return nudged

    output = (model.resid_post(model.n_layers - 1), keep)
    model.forward(tokens, hooks=[output])
    for layer in {0, model.n_layers // 2, model.n_layers - 1}:
        model.forward(tokens, hooks=[(model.resid_post(layer), nudge), output])
        if torch.equal(last[0], last[-1]):
            _refuse(model.name, f"an edit at resid_post of layer {layer} changes nothing", "models that can be steered")


def _probe(backend: Backend) -> Int[Tensor, "1 pos"]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, backend.d_vocab, (1, _PROBE_LENGTH), generator=generator)


def _check_close(logits: Tensor, expected: Tensor, dtype: torch.dtype, ways: str, name: str) -> None:
    expected = expected.to(logits.device)
    spread = expected.std().clamp_min(1e-6)
    worst = ((logits - expected).abs().max() / spread).item()
    if not worst <= ROUNDING[dtype]:
        _refuse(name, f"{ways} differ by {worst:.2g} of the logits' spread", f"at most {ROUNDING[dtype]:.0e}")


def _refuse(name: str, fault: str, allowed: str) -> None:
    raise ModelValidationError(
        f"{name}: {fault}", allowed, "try the other backend, or report the architecture with this message"
    )
