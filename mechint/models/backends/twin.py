"""A plain Hugging Face model on a bridge's own weights, run block by block with the fused attention kernel."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mechint.base.errors import ModelValidationError, UsageError
from mechint.models.backends.blocks import KeysFound, attended, moved, packed_mask, packed_positions, taken, tracked
from mechint.models.backends.context import context_limit
from mechint.models.backends.past import KeyValues, Past, Piece
from mechint.models.backends.shared_prompts import shares_prompts
from mechint.models.backends.windows import Windows

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import Cache, PreTrainedModel

# Positions that attention looks back over while its masks are looked at.
_SHORT = 4
# Blocks that are tried with several continuations in a row.
_TRIED = 2
_WRAPPER = "_original_component."
ABLATED = "mechint_ablated"  # marks a model whose blocks remove a direction, which a copy of its weights would not
Call = tuple[tuple[object, ...], dict[str, object]]


def make_twin(bridge: TransformerBridge) -> tuple[PreTrainedModel, list[nn.Module]]:
    """Return the model that a bridge wraps, unwrapped, and its blocks; it shares the bridge's weights.

    The bridge's own modules compute attention step by step, so that patterns can be hooked. Where nobody looks at
    them, the kernel of the plain model is faster. Models that cap attention scores keep the slow one: the kernel
    would leave out the cap. Raises ModelValidationError for a model that cannot be made again from its configuration.
    """
    wrapped = bridge.original_model
    try:
        twin = plain_copy(wrapped, _attention(wrapped))
        blocks = blocks_of_copy(bridge, twin)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelValidationError(
            given=f"{type(wrapped).__name__}: its blocks cannot be run one by one: {str(error)[:200]}",
            allowed="models that transformers makes from their configuration, with one module for each block",
            advice="try backend='hooked', or report the architecture with this message",
        ) from error
    return twin, blocks


def blocks_of_copy(bridge: TransformerBridge, plain: PreTrainedModel) -> list[nn.Module]:
    """Return the blocks of a plain copy of the model that a bridge wraps, in order."""
    names = {id(module): name for name, module in bridge.original_model.named_modules()}
    return [plain.get_submodule(unwrapped(names[id(block.original_component)])) for block in bridge.blocks]


def plain_copy(wrapped: PreTrainedModel, attention: str) -> PreTrainedModel:
    """Return the model that a bridge wraps, unwrapped and on the same weights, with the adapters that it carries.

    Raises UsageError for a model whose blocks remove a direction, which its weights do not say.
    """
    if getattr(wrapped, ABLATED, False):
        raise UsageError(
            given="a model with a direction removed from its stream, to be copied, saved, adapted or trained",
            allowed="a model whose weights say all that it does",
            advice="start from the model that it was made of",
        )
    config = copy.deepcopy(wrapped.config)
    config._attn_implementation = attention
    with torch.device("meta"):
        plain: PreTrainedModel = type(wrapped)(config)
        for name, adapter in getattr(wrapped, "peft_config", {}).items():
            from peft import inject_adapter_in_model

            inject_adapter_in_model(copy.deepcopy(adapter), plain, name, low_cpu_mem_usage=True)
    _share(wrapped, plain)
    return plain.eval().requires_grad_(False)


def fused_attention(wrapped: PreTrainedModel) -> str:
    """Return the fastest attention of transformers that computes what the model's own does."""
    capped = getattr(wrapped.config.get_text_config(), "attn_logit_softcapping", None) is not None
    return "eager" if capped or not wrapped._supports_sdpa else "sdpa"


def _attention(wrapped: PreTrainedModel) -> str:
    from mechint.models.backends.attention import register

    if fused_attention(wrapped) == "eager":
        return "eager"
    return register() if wrapped.device.type == "cpu" and wrapped._supports_attention_backend else "sdpa"


def unwrapped(name: str) -> str:
    """Return the name that a module or weight has in the plain model."""
    return f"{name}.".replace(_WRAPPER, "").removesuffix(".")


def _share(wrapped: nn.Module, twin: nn.Module) -> None:
    """Let every weight and buffer of `twin` be the tensor of the same name in `wrapped`."""
    originals: dict[str, Tensor] = {}
    for name, tensor in _tensors(wrapped):
        originals.setdefault(unwrapped(name), tensor)
    for name, _ in [*twin.named_parameters(remove_duplicate=False)]:
        module, leaf = _leaf(twin, name)
        setattr(module, leaf, nn.Parameter(originals[name].detach(), requires_grad=False))
    for name, _ in [*twin.named_buffers(remove_duplicate=False)]:
        module, leaf = _leaf(twin, name)
        module._buffers[leaf] = originals[name]


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield weights and buffers under each of their names: the bridge lets attention hold the model's rotation too."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _leaf(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return root.get_submodule(path), leaf


class TwinBlocks:
    """Runs the blocks of a twin; the model itself prepares their inputs (masks, rotations)."""

    def __init__(self, model: PreTrainedModel, blocks: Sequence[nn.Module]) -> None:
        self.model, self.blocks, self.context = model, list(blocks), context_limit(model)
        self._tuples = _returns_tuple(model, blocks[0])

    @cached_property
    def windows(self) -> Windows:
        """How far attention of each block looks back, from the masks that the model makes for a short window."""
        config = self.model.config.get_text_config(decoder=True)
        if config.model_type == "gpt_neo":  # its windows are no masks but buffers of its attention
            return Windows(tuple(config.window_size if kind == "local" else None for kind in config.attention_layers))
        size = getattr(config, "sliding_window", None)
        if not isinstance(size, int):
            return Windows((None,) * len(self.blocks))
        with _short_window(self.model):
            prepared = self.begin(torch.zeros((1, 2 * _SHORT), dtype=torch.long), torch.zeros(1, dtype=torch.long))
        return Windows(tuple(None if _sees_first(call) else size for call in prepared.calls))

    @cached_property
    def packs(self) -> bool:
        """Whether the model takes positions and masks as they are given, tried on a few tokens.

        Windows have masks of their own. Where positions are no input, or the model makes its masks or biases itself,
        continuations in one row would come out otherwise than each by itself.
        """
        return not self.windows.is_limited and not _chunked(self.model) and packs_exactly(self)

    @cached_property
    def shares_prompts(self) -> bool:
        """Whether rows may share a prompt: not with windows, nor with attention of another kind."""
        from mechint.models.backends.attention import NAME

        if self.model.config._attn_implementation != NAME or self.windows.is_limited:
            return False
        return shares_prompts(self, len(self.blocks))

    def begin(self, tokens: Int[Tensor, "row pos"], past: Int[Tensor, " row"]) -> TwinPass:
        """Let the model's own forward prepare a pass, with blocks that only record how they are called."""
        mask = attended(tokens, past)
        positions = self.context.within(past[:, None] + torch.arange(tokens.shape[1])[None, :])
        return self._prepared(tokens, positions, None if mask is None else mask.long(), int(past.max()))

    def packed(self, continuations: Sequence[Sequence[int]], past: int) -> TwinPass:
        """Prepare a pass over one row of several continuations of one past."""
        lengths = [len(tokens) for tokens in continuations]
        tokens = torch.tensor([[token for continuation in continuations for token in continuation]])
        mask = packed_mask(lengths, past, self.model.dtype)
        return self._prepared(tokens, packed_positions(lengths, past), mask, past)

    def _prepared(
        self, tokens: Int[Tensor, "row pos"], positions: Int[Tensor, "row pos"], mask: Tensor | None, n_past: int
    ) -> TwinPass:
        from mechint.models.backends.hf_cache import pretended

        device = self.model.get_input_embeddings().weight.device
        with torch.no_grad(), _recorded(self.blocks, self._tuples) as calls:
            self.model.base_model(
                input_ids=tokens.to(device),
                attention_mask=None if mask is None else mask.to(device),
                position_ids=positions.to(device),
                past_key_values=pretended(n_past, len(self.blocks)),
                use_cache=True,
            )
        return TwinPass(_split(calls[0])[0], self.blocks, [_split(call)[1] for call in calls])


def packs_exactly(blocks: TwinBlocks) -> bool:
    """Whether two continuations of a past, packed in a row, come out of the first blocks as each by itself."""
    past, continuations = [3, 5, 4], [[6, 7], [8, 3, 9]]
    try:
        before = _run(blocks.begin(torch.tensor([past]), torch.tensor([0])), None)
        pasts = [Past(len(past), [Piece(cached, [0], slice(1), 0)]) for _, cached in before]
        alone = [
            _run(blocks.begin(torch.tensor([tokens]), torch.tensor([len(past)])), pasts)[-1][0]
            for tokens in continuations
        ]
        together = _run(blocks.packed(continuations, len(past)), pasts)[-1][0]
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # masks of four axes are not for all
        return False
    expected = torch.cat(alone, dim=1)
    worst = (together - expected).abs().max() / expected.abs().max()
    return bool(worst <= 16 * torch.finfo(expected.dtype).eps)


def _run(prepared: TwinPass, pasts: Sequence[Past] | None) -> list[tuple[Tensor, KeyValues]]:
    """Return the stream after each of the first blocks, with its keys and values."""
    resid, results = prepared.resid, []
    for layer in range(min(_TRIED, len(prepared.blocks))):
        out, cached = prepared.block(layer, resid, torch.tensor([0]), None if pasts is None else pasts[layer])
        assert out is not None  # a block gives none only if it is asked for keys alone
        resid = out
        results.append((out, cached))
    return results


def _chunked(model: PreTrainedModel) -> bool:
    """Whether attention of some blocks sees only its own stretch of the text."""
    return getattr(model.config.get_text_config(decoder=True), "attention_chunk_size", None) is not None


@contextmanager
def _short_window(model: PreTrainedModel) -> Iterator[None]:
    """Let a model make masks for a window of a few positions."""
    configs = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    changed = [(config, size) for config in configs.values() if (size := getattr(config, "sliding_window", None))]
    try:
        for config, _ in changed:
            config.sliding_window = _SHORT
        yield
    finally:
        for config, size in changed:
            config.sliding_window = size


def _sees_first(call: Call) -> bool:
    """Whether a block, by the mask it is called with, lets the last position attend to the first."""
    args, kwargs = call
    masks = [value for value in (kwargs.get("attention_mask"), *args) if isinstance(value, Tensor) and value.ndim == 4]
    if not masks:
        return True
    first = masks[0][0, 0, -1, 0]
    return bool(first) if masks[0].dtype == torch.bool else bool(first == 0)


@dataclass
class TwinPass:
    """One pass of a twin: the stream before its first block, and each block's other inputs."""

    resid: Float[Tensor, "row pos d_model"]
    blocks: Sequence[nn.Module]
    calls: Sequence[Call]

    def block(
        self,
        layer: int,
        resid: Float[Tensor, "out pos d_model"],
        rows: Int[Tensor, " out"],
        past: Past | None,
        *,
        keys_only: bool = False,
    ) -> tuple[Float[Tensor, "out pos d_model"] | None, KeyValues]:
        """Return `resid_post` of a block (None if `keys_only`), and the keys and values of the new positions.

        Both are on the block's own device: a large model may be spread over several.
        """
        from mechint.models.backends.hf_cache import Appending

        device = next(self.blocks[layer].parameters()).device
        cache = Appending(past, keys_only=keys_only)
        args, kwargs = self.calls[layer]
        prepared = partial(_prepared, cache=cache, rows=rows, count=len(self.resid), device=device)
        named = {key: prepared(value) for key, value in kwargs.items()}
        if isinstance(biases := kwargs.get("alibi"), Tensor):
            named["alibi"] = _alibi(biases, rows, len(self.resid)).to(device)
        if past is not None and past.shared is not None:
            named["shared_prompts"] = past.shared
        out: Tensor | tuple[Tensor, ...] | None = None
        with torch.set_grad_enabled(tracked(resid, past)), suppress(KeysFound):
            out = self.blocks[layer](resid.to(device), *(prepared(value) for value in args), **named)
        if cache.new is None:
            raise ModelValidationError(
                given=f"block {layer} keeps no keys and values (recurrent or hybrid)",
                allowed="models whose whole memory of earlier turns is a KV cache",
                advice="choose an attention-only model",
            )
        return (out[0] if isinstance(out, tuple) else out), cache.new


def _prepared(value: object, *, cache: Cache, rows: Int[Tensor, " out"], count: int, device: torch.device) -> object:
    """Return an input of a block for some rows of a pass on the block's device, `cache` in the place of any cache."""
    return cache if _is_cache(value) else moved(taken(value, rows, count), device)


def _alibi(value: Tensor, rows: Int[Tensor, " out"], count: int) -> Tensor:
    """Return the biases of distance (`row*head 1 pos`, BLOOM and Falcon) of some rows of a pass."""
    by_row = value.reshape(count, -1, *value.shape[1:])
    return by_row.index_select(0, rows.to(value.device)).flatten(0, 1)


def _is_cache(value: object) -> bool:
    from transformers import Cache

    return isinstance(value, Cache)


def _split(call: Call) -> tuple[Tensor, Call]:
    """Return the stream that a block was called with, and everything else."""
    args, kwargs = call
    resid, rest = (args[0], args[1:]) if args else (kwargs["hidden_states"], ())
    if not isinstance(resid, Tensor):
        raise ModelValidationError(
            f"a block that is called with {type(resid).__name__}", "blocks that take the stream first", "report it"
        )
    return resid, (rest, {key: value for key, value in kwargs.items() if key != "hidden_states"})


@contextmanager
def _recorded(blocks: Sequence[nn.Module], tuples: bool) -> Iterator[list[Call]]:
    """Let blocks record their calls and do nothing else, while the context is open."""
    calls: list[Call] = []
    record = partial(_record, calls, tuples)
    before = [vars(block).get("forward") for block in blocks]
    for block in blocks:
        block.forward = record
    try:
        yield calls
    finally:
        for block, forward in zip(blocks, before, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward


def _record(calls: list[Call], tuples: bool, /, *args: object, **kwargs: object) -> object:
    """Note a call and return the stream as it came."""
    calls.append((args, kwargs))
    resid = args[0] if args else kwargs["hidden_states"]
    return (resid,) if tuples else resid


def _returns_tuple(model: PreTrainedModel, block: nn.Module) -> bool:
    """Whether blocks return the stream in a tuple, found out by running the first on one token."""
    tuple_outputs: list[bool] = []

    def look(_module: nn.Module, _args: tuple[object, ...], out: object) -> None:
        tuple_outputs.append(isinstance(out, tuple))
        raise KeysFound

    handle = block.register_forward_hook(look)
    token = torch.zeros((1, 1), dtype=torch.long, device=model.get_input_embeddings().weight.device)
    try:
        with torch.no_grad(), suppress(KeysFound):
            model.base_model(input_ids=token, use_cache=False)
    finally:
        handle.remove()
    return tuple_outputs[0]
