"""What everything is held against: plain Hugging Face, no cache, no batch, no TransformerLens."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Addition:
    """A vector added to the output of one block at some positions."""

    layer: int
    vector: Tensor
    positions: Sequence[int]


def load(path: Path) -> nn.Module:
    """The checkpoint as transformers loads it, in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    return model.eval().requires_grad_(False)


def blocks(model: nn.Module) -> nn.ModuleList:
    """The blocks of a Llama-, GPT-2- or NeoX-like model."""
    for body, name in (("model", "layers"), ("transformer", "h"), ("gpt_neox", "layers")):
        if hasattr(model, body):
            return getattr(getattr(model, body), name)
    raise AssertionError(type(model))


def final_norm(model: nn.Module) -> nn.Module:
    """The norm between the last block and the unembedding."""
    for body, name in (("model", "norm"), ("transformer", "ln_f"), ("gpt_neox", "final_layer_norm")):
        if hasattr(model, body):
            return getattr(getattr(model, body), name)
    raise AssertionError(type(model))


@contextmanager
def added(model: nn.Module, additions: Sequence[Addition]) -> Iterator[None]:
    """Forward hooks that add vectors while the context lasts."""

    def make(addition: Addition) -> Callable[..., object]:
        def hook(_module: nn.Module, _args: object, output: object) -> object:
            hidden = output[0] if isinstance(output, tuple) else output
            hidden = hidden.clone()
            hidden[:, list(addition.positions)] += addition.vector
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return hook

    handles = [blocks(model)[a.layer].register_forward_hook(make(a)) for a in additions]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def streams(model: nn.Module, tokens: Sequence[int], additions: Sequence[Addition] = ()) -> list[Tensor]:
    """The residual stream at the last token: before block 0, then after each block, as a hook on the block sees it."""
    streams: list[Tensor] = []

    def before(_module: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        streams.append(hidden[0, -1])

    def after(_module: nn.Module, _args: object, output: object) -> None:
        streams.append((output[0] if isinstance(output, tuple) else output)[0, -1])

    with added(model, additions):
        handles = [blocks(model)[0].register_forward_pre_hook(before, with_kwargs=True)]
        handles += [block.register_forward_hook(after) for block in blocks(model)]
        try:
            model(torch.tensor([list(tokens)]))
        finally:
            for handle in handles:
                handle.remove()
    return streams


def residual_norms(model: nn.Module, texts: Sequence[Sequence[int]]) -> list[float]:
    """The median over all tokens of some texts, each read by itself, of the norm of each block's output."""
    norms: list[list[float]] = [[] for _ in blocks(model)]

    def make(block_norms: list[float]) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            for vector in (output[0] if isinstance(output, tuple) else output)[0].tolist():
                block_norms.append(sum(value * value for value in vector) ** 0.5)

        return hook

    handles = [
        block.register_forward_hook(make(of_block)) for block, of_block in zip(blocks(model), norms, strict=True)
    ]
    try:
        for text in texts:
            model(torch.tensor([list(text)]))
    finally:
        for handle in handles:
            handle.remove()
    return [statistics.median(block_norms) for block_norms in norms]


def logits(model: nn.Module, tokens: Sequence[int], additions: Sequence[Addition] = ()) -> Tensor:
    """The model's own logits after the last token."""
    with added(model, additions):
        return model(torch.tensor([list(tokens)])).logits[0, -1]


def lens(model: nn.Module, tokens: Sequence[int], additions: Sequence[Addition] = ()) -> list[Tensor]:
    """Logits of the lens at `embed` and every layer: the norm once, then the unembedding with its soft cap."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    out = []
    for stream in streams(model, tokens, additions):
        raw = model.get_output_embeddings()(final_norm(model)(stream))
        out.append(raw if cap is None else cap * torch.tanh(raw / cap))
    return out
