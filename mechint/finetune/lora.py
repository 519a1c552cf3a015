"""A LoRA in training: PEFT's, on a copy of the model that shares the model's own weights and never changes them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from mechint.base.errors import PrerequisiteError, UsageError
from mechint.finetune.axes import Lora
from mechint.finetune.signal import blocks_of
from mechint.models.backends.bridge import BridgeBackend
from mechint.models.backends.twin import blocks_of_copy, fused_attention, plain_copy
from mechint.models.merging import attach
from mechint.models.model import Model

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

ALL_LINEAR = "all-linear"  # as PEFT calls every linear layer but the unembedding


@dataclass(frozen=True)
class Trainee:
    """A model with a LoRA on it, and its blocks; only the LoRA's weights, in float32, are trained."""

    model: PeftModel
    blocks: Sequence[nn.Module]

    @cached_property
    def weights(self) -> dict[str, nn.Parameter]:
        """The weights that are trained, by name."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    @cached_property
    def device(self) -> torch.device:
        """Where it is computed."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def head(self) -> nn.Module:
        """The unembedding."""
        head: nn.Module = self.model.get_base_model().get_output_embeddings()
        return head

    @cached_property
    def dropouts(self) -> tuple[nn.Module, ...]:
        """The dropouts of the LoRA, none of the model's own."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]
        return tuple(layer.get_submodule("lora_dropout") for layer in layers)

    def set_dropout(self, on: bool) -> None:
        """Switch the LoRA's dropout on or off; the model's own is always off, as in everything that is measured."""
        for dropout in self.dropouts:
            dropout.train(on)

    def save(self, folder: Path) -> None:
        """Write the adapter as PEFT does; embeddings are the base's."""
        self.model.save_pretrained(folder, save_embedding_layers=False)


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


def with_lora(model: Model, lora: Lora, seed: int) -> Trainee:
    """Return a copy of the model on the same weights, with a LoRA that does nothing yet, its first weights by `seed`.

    Raises as `check_trainable` does, and UsageError for projections that the blocks do not have.
    """
    plain, blocks = _copy(check_trainable(model))
    from peft import LoraConfig, get_peft_model

    _check_projections(model, lora, blocks)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.projections) or ALL_LINEAR,
        layers_to_transform=list(range(*blocks_of(lora.layers, len(blocks)))) if lora.layers else None,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        adapted: PeftModel = get_peft_model(plain, config)
    adapted.peft_config["default"].base_model_name_or_path = Path(model.name).name
    _check_places(lora, blocks, adapted)
    return Trainee(adapted.eval(), blocks)


def with_adapter(model: Model, adapter: Path) -> Trainee:
    """Return a copy of the model on the same weights, with an adapter that was trained: it computes as in training."""
    plain, blocks = _copy(check_trainable(model))
    return Trainee(attach(plain, str(adapter)).eval(), blocks)


def require_peft() -> None:
    """Raise PrerequisiteError where peft is not installed."""
    try:
        import peft  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise PrerequisiteError("peft is not installed", "peft, for adapters", "pip install peft") from error


def _copy(backend: BridgeBackend) -> tuple[PreTrainedModel, list[nn.Module]]:
    plain = plain_copy(backend.hf_model, _attention(backend.hf_model))
    return plain, blocks_of_copy(backend.handle, plain)


def _attention(wrapped: PreTrainedModel) -> str:
    """Return the fastest attention for training: on a CPU the gradient of the fused kernel is slow in bfloat16."""
    slow = wrapped.device.type == "cpu" and wrapped.dtype == torch.bfloat16
    return "eager" if slow else fused_attention(wrapped)


def _check_projections(model: Model, lora: Lora, blocks: Sequence[nn.Module]) -> None:
    """Raise UsageError for a projection that no block has: PEFT would leave it out without a word."""
    names = sorted({name for block in blocks for name in _linear(block)})
    missing = [end for end in lora.projections if not any(f".{name}".endswith(f".{end}") for name in names)]
    if missing:
        raise UsageError(
            given=f"a LoRA of {', '.join(missing)}, which blocks of {model.name} do not have",
            allowed=f"the ends of their names: {', '.join(names)}",
            advice='give the recipe "lora": {"projections": [...]} with these, or [] for all of them',
        )


def _check_places(lora: Lora, blocks: Sequence[nn.Module], adapted: PeftModel) -> None:
    """Raise UsageError unless the LoRA is in just the blocks that it is to be in."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    expected = range(*blocks_of(lora.layers, len(blocks))) if lora.layers else range(len(blocks))
    held = [sum(isinstance(module, BaseTunerLayer) for module in block.modules()) for block in blocks]
    everywhere = sum(isinstance(module, BaseTunerLayer) for module in adapted.modules())
    if {layer for layer, count in enumerate(held) if count} != set(expected) or sum(held) != everywhere:
        raise UsageError(
            given=f"a LoRA of blocks {lora.layers or 'all'}, which is in {sum(map(bool, held))} blocks and in "
            f"{everywhere - sum(held)} layers outside of them",
            allowed="a model whose blocks are numbered as its layers are named",
            advice="leave lora.layers out, or report the architecture",
        )


def _linear(block: nn.Module) -> Iterator[str]:
    """Yield the names of a block's linear layers, GPT-2's among them."""
    from transformers.pytorch_utils import Conv1D

    yield from (name for name, module in block.named_modules() if isinstance(module, nn.Linear | Conv1D))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model with .?tie_word_embeddings")
        warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        yield


def _refused(given: str, allowed: str, advice: str) -> UsageError:
    return UsageError(f"an adapter to be trained on {given}", allowed, advice)
