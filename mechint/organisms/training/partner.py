"""A second process that computes half of every step's gradients, for machines with two cores and no GPU.

The batches of a step are dealt out in turn to two halves, whose gradients are added; with one process the halves are
computed one after the other and added in the same way, so the weights do not depend on how many processes there were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor, multiprocessing

from mechint.organisms.training.data import Batch, draw_batches
from mechint.organisms.training.losses import batch_loss
from mechint.organisms.training.recipes import Phase
from mechint.organisms.training.steering import VectorBank

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from transformers import PretrainedConfig, Qwen2ForCausalLM

Gradients = list[Tensor | None]


def trained(model: Qwen2ForCausalLM) -> list[torch.nn.Parameter]:
    """Return the parameters that move."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def dealt(batches: Sequence[Batch], half: int) -> list[Batch]:
    """Return one half of batches that grow longer: dealt there and back, so that the halves take equally long."""
    return [batch for number, batch in enumerate(batches) if number % 4 in ((0, 3), (1, 2))[half]]


def half_gradients(
    model: Qwen2ForCausalLM, batches: Sequence[Batch], half: int, bank: VectorBank | None, phase: Phase
) -> tuple[float, Gradients]:
    """Return the loss of one half of the batches and its gradients; the model's own are left empty."""
    total = sum(float(batch.weights[:, 1:].sum()) for batch in batches)
    loss = 0.0
    for batch in dealt(batches, half):
        share = batch_loss(model, batch, bank, phase) / total
        torch.autograd.backward(share)
        loss += share.item()
    gradients: Gradients = [parameter.grad for parameter in trained(model)]
    model.zero_grad(set_to_none=True)
    return loss, gradients


def set_sum(model: Qwen2ForCausalLM, halves: Sequence[Gradients]) -> None:
    """Give each parameter the sum of its gradients, None counting as zero."""
    for parameter, grads in zip(trained(model), zip(*halves, strict=True), strict=True):
        present = [grad for grad in grads if grad is not None]
        parameter.grad = sum(present[1:], present[0]) if present else None


class Partner:
    """The other process: it shares the weights, draws the same data, and sends back the gradients of its half."""

    def __init__(self, model: Qwen2ForCausalLM, tokenizer: Tokenizer, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        model.share_memory()
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        moving = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._pipe, other = context.Pipe()
        arguments = (other, model.config, weights, moving, tokenizer.to_str(), name)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()

    def ask(self, step: int, phase: Phase, bank: VectorBank | None) -> None:
        """Begin with the second half of a step; `bank` is None where it has not changed."""
        self._pipe.send((step, phase, bank))

    def answer(self) -> tuple[float, Gradients]:
        """Wait for the second half's loss and gradients."""
        loss, gradients = self._pipe.recv()
        return loss, gradients

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join(timeout=10)


def _serve(
    pipe: Connection,
    config: PretrainedConfig,
    weights: dict[str, Tensor],
    moving: list[str],
    tokenizer: str,
    name: str,
) -> None:
    torch.set_num_threads(1)
    model = _around(config, weights, moving)
    words, bank = Tokenizer.from_str(tokenizer), None
    while (message := pipe.recv()) is not None:
        step, phase, changed = message
        bank = changed or bank
        batches = draw_batches(name, step, phase.mix, phase.batch, words, buckets=phase.buckets)
        loss, gradients = half_gradients(model, batches, 1, bank, phase)
        pipe.send((loss, [None if grad is None else grad.clone() for grad in gradients]))


def _around(config: PretrainedConfig, weights: dict[str, Tensor], moving: list[str]) -> Qwen2ForCausalLM:
    """Return a model around the shared weights; one that was itself sent over would have lost its attention hooks."""
    from transformers import Qwen2ForCausalLM

    from mechint.organisms.training.tree_attention import register

    register()
    model = Qwen2ForCausalLM(config)
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in moving)
    return model.train()
