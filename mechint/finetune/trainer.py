"""The loop that trains a LoRA adapter with PEFT on a model's own weights, which it shares and never changes."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mechint.base.errors import NumericalError, PrerequisiteError, UsageError
from mechint.base.files import sha256
from mechint.base.progress import Progress, counted
from mechint.finetune import checkpoint
from mechint.finetune.batch import Batch, Example, rows_of_step
from mechint.finetune.recipe import LoraRecipe
from mechint.models.backends.bridge import BridgeBackend
from mechint.models.backends.twin import plain_copy
from mechint.models.model import Model

if TYPE_CHECKING:
    from peft import PeftModel


def check_trainable(model: Model) -> BridgeBackend:
    """Return the backend of a model that an adapter can be trained on.

    Raises PrerequisiteError without peft, and UsageError for other backends, several devices, weights that are no
    floating-point numbers, and a model that an adapter is on already.
    """
    require_peft()
    backend = model.backend
    if not isinstance(backend, BridgeBackend):
        raise _refused(f"{model.name} with backend={backend.kind!r}", "backend='bridge'", "load it with the bridge")
    if len(model.devices) > 1:
        raise _refused(f"{model.name}, spread over {len(model.devices)} devices", "one device", "name one device")
    if getattr(backend.hf_model, "peft_config", None):
        raise _refused(f"{model.name}, which has an adapter", "a model without one", "start from its base")
    if any(not weight.is_floating_point() for _, weight in backend.parameters()):
        raise _refused(f"{model.name}, which is quantised", "floating-point weights", "load it unquantised")
    return backend


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
    backend = check_trainable(model)
    if not examples:
        raise _refused("no examples to train on", "one or more", "give conversations that end with a reply")
    adapter = _with_lora(backend, recipe, Path(model.name).name)
    weights = {name: weight for name, weight in adapter.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(weights.values(), lr=recipe.learning_rate, weight_decay=0.0)
    content = json.dumps([asdict(recipe), [[*example.tokens, example.start] for example in examples]])
    key = sha256(model.identity.encode(), content.encode())
    done = checkpoint.resume(state, key, weights, optimizer)
    losses = []
    with counted(progress, f"{model.name}: adapter", recipe.steps - done, "step") as tell, _training(adapter):
        for step in range(done, recipe.steps):
            rows = rows_of_step(recipe.seed, step, len(examples), recipe.batch)
            batch = Batch.of([examples[row] for row in rows])
            losses.append(_step(adapter, optimizer, batch, recipe, step))
            if (step + 1) % recipe.checkpoint == 0:
                checkpoint.save(state, key, step + 1, weights, optimizer)
            if tell is not None:
                tell(1, int(batch.real.sum()))
    adapter.save_pretrained(folder, save_embedding_layers=False)  # they are the base's
    return losses


def _step(adapter: PeftModel, optimizer: torch.optim.AdamW, batch: Batch, recipe: LoraRecipe, step: int) -> float:
    device = next(adapter.parameters()).device
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate * rate(recipe, step)
    logits = adapter(
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
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_([weight for weight in adapter.parameters() if weight.requires_grad], recipe.clip)
    optimizer.step()
    return float(loss.detach())


def rate(recipe: LoraRecipe, step: int) -> float:
    """Return the learning rate of a step as a share of the recipe's: up to one, then down to none along a cosine."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    left = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return 0.5 * (1 + math.cos(math.pi * left))


def _with_lora(backend: BridgeBackend, recipe: LoraRecipe, base: str) -> PeftModel:
    """Return a copy of the model on the same weights, with a LoRA that does nothing yet."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    attention = "sdpa" if backend.hf_model._supports_sdpa else "eager"
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model with .?tie_word_embeddings")
        torch.manual_seed(recipe.seed)
        adapter: PeftModel = get_peft_model(plain_copy(backend.hf_model, attention), config)
    adapter.peft_config["default"].base_model_name_or_path = base
    return adapter


@contextmanager
def _training(adapter: PeftModel) -> Iterator[None]:
    """Record gradients, whatever the caller has switched off; dropout stays off, as steps are functions of data."""
    adapter.eval()
    with torch.enable_grad():
        yield


def require_peft() -> None:
    """Raise PrerequisiteError where peft is not installed."""
    try:
        import peft  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise PrerequisiteError("peft is not installed", "peft, for adapters", "pip install peft") from error


def _refused(given: str, allowed: str, advice: str) -> UsageError:
    return UsageError(f"an adapter to be trained on {given}", allowed, advice)
