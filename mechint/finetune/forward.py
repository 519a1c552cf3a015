"""The pass of a batch in training: logits at the answer, with the first turns filled in one of two ways.

`through`: one pass over the whole text, vectors added at the marked turns, gradients everywhere. `stopped`: the first
turns are passed without gradient into a cache, and what follows is passed with it, as the published training does: the
LoRA then learns to read a cache, not to write one. Both compute the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechint.base.errors import UsageError
from mechint.finetune.answer_batch import AnswerBatch, Places
from mechint.finetune.axes import Fill
from mechint.finetune.batch import Batch
from mechint.finetune.lora import Trainee
from mechint.finetune.steered_training import recomputed, steered

if TYPE_CHECKING:
    from transformers import DynamicCache

Logits = Float[Tensor, "place d_vocab"]


def check_recomputing(fill: Fill) -> None:
    """Raise UsageError for activation checkpointing where first turns are passed by themselves.

    A block that is passed again would add its keys and values to the cache a second time.
    """
    if fill.gradient == "stopped":
        raise UsageError(
            given='activation checkpointing with gradient="stopped"',
            allowed='gradient="through"; a pass without gradient keeps little anyway',
            advice='leave it out, or give the recipe "fill": {"gradient": "through"}',
        )


@contextmanager
def answer_logits(
    trainee: Trainee,
    batch: AnswerBatch,
    fill: Fill,
    places: Places | None = None,
    *,
    dropout: bool = False,
    recompute: bool = False,
) -> Iterator[Logits]:
    """Yield the logits at the answers, or at other places after the first turns, in float32.

    Gradients are to be computed before the context is left. `dropout`: the LoRA's is on; in a pass of first turns
    without gradient only if the recipe's `fill` says so.
    """
    places = batch.answer_places if places is None else places
    if fill.gradient == "stopped":
        trainee.set_dropout(dropout and fill.dropout)
        cache = _filled(trainee, batch)
        trainee.set_dropout(dropout)
        yield _logits(trainee, batch, slice(batch.trunk, None), places, cache)
        return
    trainee.set_dropout(dropout)
    with steered(trainee.blocks, batch.terms, batch.tokens.shape[1]):
        with recomputed(trainee.blocks) if recompute else nullcontext():
            logits = _logits(trainee, batch, slice(0, None), places, None)
        yield logits


def text_logits(trainee: Trainee, batch: Batch, *, dropout: bool = False) -> Logits:
    """Return the logits at every token of some texts that nothing is added to, in float32, row after row."""
    trainee.set_dropout(dropout)
    with _read_at(trainee.head, batch.real.nonzero()):
        logits: Tensor = trainee.model(input_ids=batch.tokens.to(trainee.device), use_cache=False).logits
    return logits[:, 0].float()


@contextmanager
def as_base(trainee: Trainee) -> Iterator[None]:
    """Switch the adapter off, and gradients, while the context is open: what is computed is the base's."""
    with torch.no_grad(), trainee.model.disable_adapter():
        yield


def _filled(trainee: Trainee, batch: AnswerBatch) -> DynamicCache:
    """Return the cache of the first turns, passed without gradient and with their vectors added."""
    from transformers import DynamicCache

    cache = DynamicCache()  # without a configuration all layers keep all positions; masks do the windowing
    with torch.no_grad(), steered(trainee.blocks, batch.terms, batch.trunk):
        _logits(trainee, batch, slice(0, batch.trunk), torch.zeros((1, 2), dtype=torch.long), cache)
    return cache


def _logits(trainee: Trainee, batch: AnswerBatch, columns: slice, places: Places, cache: DynamicCache | None) -> Logits:
    """Pass some columns after those of a cache, which grows by them; returns the logits at places among them."""
    device = trainee.device
    inputs: dict[str, object] = {"input_ids": batch.tokens[:, columns].to(device), "use_cache": cache is not None}
    if cache is not None:
        inputs["past_key_values"] = cache
        inputs["attention_mask"] = batch.real[:, : columns.stop].long().to(device)
        inputs["position_ids"] = batch.positions[:, columns].to(device)
    with _read_at(trainee.head, places - torch.tensor([0, columns.start])):
        logits: Tensor = trainee.model(**inputs).logits
    return logits[:, 0].float()


@contextmanager
def _read_at(head: nn.Module, places: Places) -> Iterator[None]:
    """Let an unembedding see some tokens alone, as rows of one: a vocabulary at each of them is most of the memory."""

    def taken(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        rows, columns = places.to(inputs[0].device).unbind(1)
        return (inputs[0][rows, columns][:, None], *inputs[1:])

    handle = head.register_forward_pre_hook(taken)
    try:
        yield
    finally:
        handle.remove()
