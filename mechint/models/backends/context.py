"""How many positions a model can be read at, so that caches filled in steps equal those of a single pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor, nn

from mechint.base.errors import UsageError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_ADVICE = "shorten the conversation (or max_new_tokens, for a reply)"
# Modules that hold one learned row for each position, by the names that models have for them.
_LEARNED = ("wpe", "embed_positions", "position_embeddings", "position_embedding")


@dataclass(frozen=True)
class ContextLimit:
    """The most positions that can be read (None: any number), and why there are no more."""

    n_pos: int | None = None
    reason: str = "positions are computed and have no end"

    def check(self, n_pos: int, subject: str = "a pass") -> None:
        """Raise UsageError for more positions than there may be."""
        if self.n_pos is not None and n_pos > self.n_pos:
            raise UsageError(f"{subject}: {n_pos} positions to read", f"at most {self.n_pos}: {self.reason}", _ADVICE)

    def within(self, positions: Int[Tensor, "row pos"]) -> Int[Tensor, "row pos"]:
        """Return positions of a padded batch, those beyond the last one at the last: only padding stands there."""
        return positions if self.n_pos is None else positions.clamp(max=self.n_pos - 1)


def context_limit(model: PreTrainedModel) -> ContextLimit:
    """Return the least of the limits of a Hugging Face model.

    Rotary positions of the types `longrope` and `dynamic` turn all keys by frequencies that depend on how many
    positions a pass reads. Keys that were cached while a conversation was shorter than the threshold are turned by
    others than those of the whole conversation, and in a batch the longest row chooses for all. Below the threshold
    nothing depends on a length, so that is where such a model is read.
    """
    limits = [*_learned(model), *_rotary(model)]
    return min(limits, key=lambda limit: limit.n_pos or 0, default=ContextLimit())


def _learned(model: PreTrainedModel) -> Iterator[ContextLimit]:
    config: PretrainedConfig = model.config.get_text_config(decoder=True)
    reason = "the model has learned no more positions"
    if "n_positions" in config.to_dict():
        yield ContextLimit(int(config.n_positions), reason)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _LEARNED:
            yield ContextLimit(module.num_embeddings - int(getattr(module, "offset", 0)), reason)


def _rotary(model: PreTrainedModel) -> Iterator[ContextLimit]:
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        parameters = getattr(getattr(module, "config", None), "rope_parameters", None)
        if not isinstance(parameters, Mapping):
            continue
        if isinstance(kinds, str):
            yield from _of_type(module, kinds, parameters)
        elif isinstance(kinds, Mapping):  # one for each kind of layer
            for layers, kind in kinds.items():
                yield from _of_type(module, str(kind), parameters.get(layers, {}))


def _of_type(module: nn.Module, kind: str, parameters: Mapping[str, object]) -> Iterator[ContextLimit]:
    """Yield the threshold of rotary positions whose frequencies, or whose size (Phi-3.5-MoE), depend on a length."""
    reason = f"beyond, rotary positions of type {kind} turn cached keys otherwise than a reading of all at once"
    if "dynamic" in kind:
        yield ContextLimit(int(str(module.original_max_seq_len)), reason)
    elif kind == "longrope" or "long_mscale" in parameters:
        yield ContextLimit(int(str(parameters["original_max_position_embeddings"])), reason)
