"""The training of an adapter on replies, every token of which is learned: the sibling's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from mechint.base.errors import NumericalError, UsageError
from mechint.base.files import sha256
from mechint.base.progress import Progress
from mechint.finetune.batch import Batch, Example, rows_of_step
from mechint.finetune.loop import Loop, Measures
from mechint.finetune.lora import Trainee, with_lora
from mechint.finetune.recipe import LoraRecipe
from mechint.models.model import Model


def train_adapter(
    model: Model,
    examples: Sequence[Example],
    recipe: LoraRecipe,
    folder: Path,
    state: Path,
    progress: Progress | bool | None = None,
) -> list[float]:
    """Train an adapter on examples, write it to `folder` as PEFT does, and return the losses of the steps made now.

    `state` is the file of the checkpoint: a training that was killed goes on from there and ends with the same weights,
    to the bit on a CPU with as many threads. Raises as `check_trainable` does, UsageError without examples,
    NumericalError for a loss that is no number.
    """
    trainee = with_lora(model, recipe.lora, recipe.seed)
    if not examples:
        raise UsageError(
            "an adapter to be trained on no examples", "one or more", "give conversations that end with a reply"
        )
    content = json.dumps([asdict(recipe), [[*example.tokens, example.start] for example in examples]])
    key = sha256(model.identity.encode(), content.encode())
    losses: list[float] = []

    def backward(step: int) -> Measures:
        rows = rows_of_step(recipe.seed, step, len(examples), recipe.batch)
        return _reply_loss(trainee, Batch.of([examples[row] for row in rows]), step)

    loop = Loop(trainee, recipe.budget, state, key, recipe.checkpoint)
    loop.run(backward, lambda _, measures: losses.append(measures["loss"]), progress, f"{model.name}: adapter")
    trainee.save(folder)
    return losses


def _reply_loss(trainee: Trainee, batch: Batch, step: int) -> Measures:
    """Compute the gradients of the mean loss of a batch's learned tokens, and return it."""
    device = trainee.device
    logits = trainee.model(
        input_ids=batch.tokens.to(device), attention_mask=batch.real.long().to(device), use_cache=False
    ).logits
    labels = batch.labels[:, 1:].to(device)
    learned = labels >= 0
    loss = torch.nn.functional.cross_entropy(logits[:, :-1][learned].float(), labels[learned])
    if not loss.isfinite():
        raise NumericalError(
            given=f"a loss of {loss.item()} in step {step} of a training",
            allowed="a finite loss",
            advice="lower the learning rate, or load the model in float32",
        )
    torch.autograd.backward(loss)
    return {"loss": float(loss.detach()), "tokens": float(batch.real.sum())}
