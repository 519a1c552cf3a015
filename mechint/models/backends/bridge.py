"""TransformerBridge: any Hugging Face causal language model, its weights used where they are."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mechint.base.errors import ModelValidationError
from mechint.base.files import JSON
from mechint.models.backends.base import Hook, extended_mask
from mechint.models.backends.reasons import check_structure, refusal, refused
from mechint.models.backends.twin import TwinBlocks, make_twin
from mechint.models.backends.versions import hook_check, installed
from mechint.models.cache import KVCache
from mechint.models.readout import Readout

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import DynamicCache, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def boot(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> TransformerBridge:
    """Return a bridge around a loaded Hugging Face model; the weights are not copied.

    Nothing is loaded or installed besides. Raises ModelValidationError with the reason for what cannot be bridged.
    """
    from transformer_lens.model_bridge import TransformerBridge

    architecture = type(model).__name__
    with refused(architecture, "its configuration cannot be read"):
        check_structure(model, model.config)
    # The bridge alters its tokenizer (BOS, padding), so it gets a copy.
    altered = copy.deepcopy(tokenizer)
    if not altered.init_kwargs.get("name_or_path"):  # else it would load that of no place at all anew
        altered.init_kwargs |= {"name_or_path": "", "add_bos_token": True}
    try:
        with refused(architecture, "TransformerLens cannot bridge it"), _without_processor():
            return TransformerBridge.boot_transformers(
                name, hf_model=model, tokenizer=altered, device=model.device, dtype=model.dtype
            )
    except ModelValidationError as error:
        if "Could not determine supported architecture" not in str(error):
            raise
        reason = f"TransformerLens {installed('transformer-lens')} has no adapter for it"
        advice = "a later TransformerLens may have one; docs/models.md lists the architectures that were tried"
        raise refusal(architecture, reason, advice) from error


class _NoProcessor:
    """Stands for transformers' processors of images, which a conversation of text does not need."""

    @classmethod
    def from_pretrained(cls, *_: object, **__: object) -> None:
        """Load nothing."""


@contextmanager
def _without_processor() -> Iterator[None]:
    """Keep TransformerLens from loading a processor of images: where it cannot, it installs torchvision with pip."""
    import transformers

    before = transformers.AutoProcessor
    transformers.AutoProcessor = _NoProcessor
    try:
        yield
    finally:
        transformers.AutoProcessor = before


class BridgeBackend:
    """A TransformerBridge as a Backend."""

    kind = "bridge"

    def __init__(self, bridge: TransformerBridge) -> None:
        self.handle = bridge
        self.hf_model = bridge.original_model
        architecture = type(self.hf_model).__name__
        if getattr(bridge, "compatibility_mode", False):
            reason = "its bridge is in compatibility mode, where weights are folded and centred copies"
            raise refusal(architecture, reason, "wrap the bridge before enable_compatibility_mode(), or load it anew")
        with refused(architecture, "its configuration cannot be read"):
            check_structure(self.hf_model, self.hf_model.config)
        with refused(architecture, "it is built unlike any model that the toolkit knows"):
            self._collect()

    def _collect(self) -> None:
        """Find the parts of the model, and make its twin."""
        bridge = self.handle
        config = self.hf_model.config.get_text_config()
        for name, holder in (("num_hidden_layers", config), ("hidden_size", config), ("ln_final", bridge)):
            _require(name, getattr(holder, name, None), type(self.hf_model).__name__)
        self.n_layers, self.d_model = int(config.num_hidden_layers), int(config.hidden_size)
        self.d_mlp = int(bridge.cfg.d_mlp or 4 * self.d_model)
        head = self.hf_model.get_output_embeddings()
        _require("output embeddings", head, type(self.hf_model).__name__)
        weight = head.weight
        self.d_vocab, self.device, self.dtype = len(weight), weight.device, weight.dtype
        self.readout = _readout(bridge, self.hf_model, config)
        takes = inspect.signature(self.hf_model.forward).parameters
        self._quick = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        self.blocks = TwinBlocks(*make_twin(bridge))
        self.context = self.blocks.context
        # Collected once: the bridge resolves its aliases anew at each look.
        self._points = dict(bridge.hook_dict)
        self._names = frozenset(self._points)
        self._check_hook = hook_check(bridge)

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"],
        cache: KVCache,
        mask: Bool[Tensor, "batch pos"] | None,
        hooks: Sequence[Hook],
    ) -> KVCache:
        """Run `tokens` after `cache` and return the longer cache."""
        self.context.check(cache.n_pos + tokens.shape[1])
        tokens = tokens.to(self.device)
        native = _to_native(cache)
        attended = extended_mask(cache, tokens, mask)
        with torch.no_grad(), self._hooked(hooks):
            self.handle(
                tokens,
                return_type=None,
                attention_mask=None if attended is None else attended.long(),
                past_key_values=native,
                use_cache=True,
                **self._quick,
            )
        return _from_native(native, attended)

    @contextmanager
    def _hooked(self, hooks: Sequence[Hook]) -> Iterator[None]:
        """Set hooks for one pass, as `bridge.hooks` does, which resolves every alias anew for each of them."""
        level, points = self.handle.context_level + 1, [self._points[name] for name, _ in hooks]
        try:
            for point, (_, hook_fn) in zip(points, hooks, strict=True):
                self._check_hook(point, hook_fn)
                point.add_hook(hook_fn, level=level)
            yield
        finally:
            for point in points:
                point.remove_hooks(level=level)

    def logits(
        self, tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Return the model's own logits without a cache."""
        self.context.check(tokens.shape[1])
        mask = None if mask is None else mask.to(self.device).long()
        with torch.no_grad():
            logits: Tensor = self.handle(tokens.to(self.device), attention_mask=mask, use_cache=False)
        return logits

    def hook_names(self) -> frozenset[str]:
        """Names that a hook can be set on, aliases included."""
        return self._names

    def live_hooks(self) -> list[str]:
        """Names of hook points that carry a hook right now."""
        return [name for name, point in self._points.items() if point.fwd_hooks or point.bwd_hooks]

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every weight."""
        yield from self.hf_model.named_parameters()

    def buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every other tensor: rotary frequencies, scales."""
        yield from self.hf_model.named_buffers()

    def shared(self) -> Iterator[Tensor]:
        """Tensors of the twin, and of the readout."""
        yield from (*self.blocks.model.parameters(), *self.blocks.model.buffers(), self.readout.weight)

    def settings(self) -> dict[str, JSON]:
        """The settings of the configuration that are not its defaults."""
        return dict(self.hf_model.config.to_diff_dict())


def _require(name: str, value: object, architecture: str) -> None:
    """Raise ModelValidationError for a model that lacks what every causal language model has."""
    if value is None:
        raise ModelValidationError(
            given=f"{architecture} without {name}",
            allowed="a causal language model with layers, a hidden size, a final norm and an unembedding",
            advice="load the language model of the checkpoint, or report the architecture",
        )


def _to_native(cache: KVCache) -> DynamicCache:
    from transformers import DynamicCache

    # Without a config every layer keeps all positions, sliding-window layers too; the mask does the windowing.
    native = DynamicCache()
    for layer, (keys, values) in enumerate(zip(cache.keys, cache.values, strict=True)):
        native.update(keys, values, layer)
    return native


def _from_native(native: DynamicCache, attended: Tensor | None) -> KVCache:
    layers = native.layers
    if not all(getattr(layer, "keys", None) is not None for layer in layers):
        raise ModelValidationError(
            given="a model with layers that keep no keys and values (recurrent or hybrid)",
            allowed="models whose whole memory of earlier turns is a KV cache",
            advice="choose an attention-only model",
        )
    return KVCache(tuple(layer.keys for layer in layers), tuple(layer.values for layer in layers), attended)


def _readout(bridge: TransformerBridge, model: PreTrainedModel, config: PretrainedConfig) -> Readout:
    head = model.get_output_embeddings()
    # Component wrappers may stand in for the norm.
    norm: nn.Module = bridge.ln_final.original_component
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    soft_cap = getattr(config, "final_logit_softcapping", None)
    return Readout(
        norm=partial(_norm, norm, head.weight.device),
        weight=head.weight.detach(),
        bias=None if getattr(head, "bias", None) is None else head.bias.detach(),
        scale=scale,
        soft_cap=None if soft_cap is None else float(soft_cap),
    )


def _norm(module: nn.Module, device: torch.device, resid: Tensor) -> Tensor:
    """Return the final norm, with its weights (d_model numbers) in float32 as they are now."""
    weights = {name: weight.detach().to(device, torch.float32) for name, weight in module.named_parameters()}
    normed: Tensor = torch.func.functional_call(module, weights, (resid,))
    return normed
