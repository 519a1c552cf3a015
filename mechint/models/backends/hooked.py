"""HookedTransformer, the class of much existing work, as a backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.base.errors import ModelValidationError
from mechint.base.files import JSON
from mechint.models.backends.base import Hook, extended_mask
from mechint.models.backends.context import ContextLimit
from mechint.models.backends.hooked_blocks import HookedBlocks
from mechint.models.cache import KVCache
from mechint.models.readout import Readout

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache


# Where a model is from, how it was set up, and which hooks it has: none of it changes what it computes.
_NOT_COMPUTED = frozenset(
    {"checkpoint_index", "checkpoint_label_type", "checkpoint_value", "default_prepend_bos", "device", "dtype"}
    | {"from_checkpoint", "init_mode", "init_weights", "initializer_range", "model_name", "n_devices", "n_params"}
    | {"original_architecture", "seed", "tokenizer_name", "tokenizer_prepends_bos", "trust_remote_code"}
    | {"ungroup_grouped_query_attention", "use_attn_in", "use_attn_result", "use_hook_mlp_in", "use_hook_tokens"}
    | {"use_split_qkv_input"}
)


class HookedBackend:
    """A HookedTransformer as a Backend."""

    kind = "hooked"

    def __init__(self, model: HookedTransformer) -> None:
        self.handle = model
        cfg = model.cfg
        self.n_layers, self.d_model, self.d_vocab = cfg.n_layers, cfg.d_model, cfg.d_vocab_out
        self.d_mlp = int(cfg.d_mlp or 4 * cfg.d_model)
        self.context = ContextLimit(cfg.n_ctx, "n_ctx of this HookedTransformer; backend='bridge' may take more")
        self.device, self.dtype = model.W_U.device, model.W_U.dtype
        self.readout = _readout(model)
        self.blocks = HookedBlocks(model)

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
        native = self._to_native(cache, len(tokens))
        with torch.no_grad(), self.handle.hooks(fwd_hooks=list(hooks)):
            # A mask is always given: TransformerLens would otherwise guess one from the padding token.
            self.handle(tokens, return_type=None, attention_mask=_new_mask(tokens, mask), past_kv_cache=native)
        keys = tuple(entry.past_keys.transpose(1, 2) for entry in native.entries)
        values = tuple(entry.past_values.transpose(1, 2) for entry in native.entries)
        return KVCache(keys, values, extended_mask(cache, tokens, mask))

    def logits(
        self, tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Return the model's own logits without a cache."""
        self.context.check(tokens.shape[1])
        tokens = tokens.to(self.device)
        with torch.no_grad():
            logits: Tensor = self.handle(tokens, attention_mask=_new_mask(tokens, mask))
        return logits

    def hook_names(self) -> frozenset[str]:
        """Names that a hook can be set on."""
        return frozenset(self.handle.hook_dict)

    def live_hooks(self) -> list[str]:
        """Names of hook points that carry a hook right now."""
        return [name for name, point in self.handle.hook_dict.items() if point.fwd_hooks or point.bwd_hooks]

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every weight."""
        yield from self.handle.named_parameters()

    def buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every other tensor: masks, rotations."""
        yield from self.handle.named_buffers()

    def shared(self) -> Iterator[Tensor]:
        """Tensors of the readout."""
        yield self.readout.weight

    def settings(self) -> dict[str, JSON]:
        """The settings of the configuration that decide what the model computes: not its source, not its hooks."""
        return {key: value for key, value in self.handle.cfg.to_dict().items() if key not in _NOT_COMPUTED}

    def _to_native(self, cache: KVCache, batch: int) -> TransformerLensKeyValueCache:
        from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

        native = TransformerLensKeyValueCache.init_cache(self.handle.cfg, self.device, batch)
        for entry, keys, values in zip(native.entries, cache.keys, cache.values, strict=False):
            entry.past_keys, entry.past_values = keys.transpose(1, 2), values.transpose(1, 2)
        past = torch.ones((batch, cache.n_pos), device=self.device) if cache.mask is None else cache.mask
        native.previous_attention_mask = past.to(self.device, torch.int)
        return native


def _new_mask(tokens: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones_like(tokens) if mask is None else mask.to(tokens.device).long()


def _readout(model: HookedTransformer) -> Readout:
    cap = float(model.cfg.output_logits_soft_cap or -1.0)
    return Readout(
        norm=_norm(model),
        weight=model.unembed.W_U.detach().T,
        bias=model.unembed.b_U.detach(),
        soft_cap=cap if cap > 0 else None,
    )


def _norm(model: HookedTransformer) -> Callable[[Tensor], Tensor]:
    """The final norm in float32, from its weights: HookedTransformer's own module rounds to the model's dtype."""
    kind, eps = model.cfg.normalization_type, model.cfg.eps
    if kind is None:
        return lambda resid: resid
    if kind not in ("LN", "LNPre", "RMS", "RMSPre"):
        raise ModelValidationError(f"a final norm of type {kind}", "LN, LNPre, RMS, RMSPre or None", "use the bridge")
    centred = kind.startswith("LN")
    weight, bias = getattr(model.ln_final, "w", None), getattr(model.ln_final, "b", None)

    def norm(resid: Tensor) -> Tensor:
        resid = resid - resid.mean(-1, keepdim=True) if centred else resid
        resid = resid * (resid.pow(2).mean(-1, keepdim=True) + eps).rsqrt()
        resid = resid if weight is None else resid * weight.detach().float()
        return resid if bias is None else resid + bias.detach().float()

    return norm


def build(config: HookedTransformerConfig, state: dict[str, Tensor]) -> HookedTransformer:
    """Return a HookedTransformer with these weights as they are: nothing folded, nothing centred."""
    import warnings

    from transformer_lens import HookedTransformer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        model = HookedTransformer(config)
    model.load_and_process_state_dict(
        state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return model.eval()
