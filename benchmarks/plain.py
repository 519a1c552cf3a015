"""Plain Hugging Face as the truth: one row, no cache, vectors added by forward hooks, nothing known of its parts.

A lens is read by the model itself: the stream of a layer is put in the place of what the last block returns, so that
whatever the model has between there and its logits (norm, scale, cap, another projection) is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAMES = ("layers", "h", "blocks", "layer")
_OTHERS = ("vision", "visual", "audio", "encoder.layer.", "image")


@dataclass(frozen=True)
class Addition:
    """Vectors by layer, added at some positions."""

    vectors: Mapping[int, Float[Tensor, " d_model"]]
    positions: Sequence[int]


NOTHING = Addition({}, ())


@dataclass(frozen=True)
class Plain:
    """A Hugging Face model that is read one row at a time."""

    model: PreTrainedModel

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks of the language model. Raises LookupError where they do not stand in one list."""
        count = int(self.model.config.get_text_config(decoder=True).num_hidden_layers)
        for name, module in self.model.named_modules():
            fits = isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in _NAMES and len(module) == count
            if fits and not any(other in name for other in _OTHERS):
                return list(module)
        raise LookupError(f"no list of {count} blocks in {type(self.model).__name__}")

    def logits(self, tokens: Sequence[int], addition: Addition = NOTHING) -> Float[Tensor, " d_vocab"]:
        """Return the logits after the last token."""
        with torch.no_grad(), self._edited(addition):
            logits: Tensor = self.model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits
        return logits[0, -1].float()

    def lens(self, tokens: Sequence[int], addition: Addition = NOTHING) -> Float[Tensor, "row d_vocab"]:
        """Return the logits after the last token, read from the stream before the first block and after each."""
        streams = self.streams(tokens, addition)
        return torch.stack([self._read(tokens, stream) for stream in streams])

    def streams(self, tokens: Sequence[int], addition: Addition = NOTHING) -> list[Float[Tensor, "1 pos d_model"]]:
        """Return the stream before the first block and after each."""
        streams: list[Tensor] = []
        first, *_ = blocks = self.blocks

        def before(_module: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> None:
            streams.append(args[0] if args else kwargs["hidden_states"])

        def after(_module: nn.Module, _args: object, out: Tensor | tuple[Tensor, ...]) -> None:
            streams.append(out if isinstance(out, Tensor) else out[0])

        with self._edited(addition):  # its hooks come first, so that what is seen has been added to
            handles = [first.register_forward_pre_hook(before, with_kwargs=True)]
            handles += [block.register_forward_hook(after) for block in blocks]
            with torch.no_grad(), _removed(handles):
                self.model(input_ids=torch.tensor([list(tokens)]), use_cache=False)
        return streams

    def _read(self, tokens: Sequence[int], stream: Tensor) -> Tensor:
        """Return the model's own logits of a stream after the last block."""
        handle = self.blocks[-1].register_forward_hook(_output(lambda _: stream))
        with _removed([handle]):
            return self.logits(tokens)

    @contextmanager
    def _edited(self, addition: Addition) -> Iterator[None]:
        def add(vector: Tensor) -> Callable[[Tensor], Tensor]:
            def edit(stream: Tensor) -> Tensor:
                stream = stream.clone()
                stream[:, list(addition.positions)] += vector.to(stream.dtype)
                return stream

            return edit

        blocks = self.blocks if addition.vectors else []
        handles = [blocks[at].register_forward_hook(_output(add(v))) for at, v in addition.vectors.items()]
        with _removed(handles):
            yield


def _output(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, object, object], object]:
    """Return a forward hook that changes the stream that a block returns, alone or first in a tuple."""

    def hook(_module: nn.Module, _args: object, out: object) -> object:
        if isinstance(out, tuple):
            return (change(out[0]), *out[1:])
        return change(out) if isinstance(out, Tensor) else out

    return hook


@contextmanager
def _removed(handles: Sequence[torch.utils.hooks.RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
