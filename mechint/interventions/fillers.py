"""Who fills the marked segments of a cache in place of the model that reads it: another model, or files it has left."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import ClassVar

from mechint.base.errors import CacheMismatchError, ConversationError, StaleArtefactError, SwapError
from mechint.chat.render import Rendered
from mechint.interventions.fill_files import FillSource, Prefix, StoredPrefix
from mechint.models.cache import KVCache
from mechint.models.model import Model


@dataclass(frozen=True)
class ModelFiller:
    """A loaded model with the identity that it had when the intervention `name` was made from it."""

    name: str
    model: Model = field(compare=False)
    identity: str

    def check_fits(self, model: Model) -> None:
        """Raise StaleArtefactError if weights were edited since, SwapError or CacheMismatchError for unlike models."""
        if self.model.identity != self.identity:
            raise StaleArtefactError(
                given=f"{self.name}: the weights of {self.model.name} were edited after this swap was made",
                allowed="a swap that was made from the model as it is now",
                advice="make it again: mi.Swap(model)",
            )
        needed, present = _properties(model), _properties(self.model)
        same_tokenizer = _same_tokenizer(model, self.model)
        if present != needed or not same_tokenizer:
            another = "" if same_tokenizer else ", another tokenizer (its vocabulary or its rules)"
            raise SwapError(
                given=f"{self.name}: {present}{another}",
                allowed=f"the shapes and tokenizer of {model.name}: {needed}",
                advice="swap with a finetuned copy of the same model, loaded with the same backend and dtype",
            )
        if model.cache_shapes != self.model.cache_shapes:
            raise CacheMismatchError(
                given=f"{self.name}: caches shaped {self.model.cache_shapes[0]}",
                allowed=f"caches shaped {model.cache_shapes[0]}",
                advice="swap with a finetuned copy of the same model",
            )

    def for_conversation(self, rendered: Rendered) -> ModelFiller:
        """Return the filler of one conversation: a model fills them all."""
        return self

    def cache(self, model: Model, rendered: Rendered) -> KVCache:
        """Return the cache of a conversation's first turns, their unmarked segments filled by `model`, in order."""
        stop = rendered.prefix_length
        tokens, marked = rendered.token_tensor()[:, :stop], rendered.marked()[:stop]
        cache = KVCache()
        for is_marked, run in groupby(range(stop), lambda position: bool(marked[position])):
            positions = list(run)
            filling = self.model if is_marked else model
            cache = filling.forward(tokens[:, positions[0] : positions[-1] + 1], cache.to(filling.device))
            cache = cache.to(model.device)
        return cache


@dataclass(frozen=True)
class StoredFiller:
    """The files that `mi.fill` has left in a directory, read by the intervention `name`, with their source."""

    name: str
    directory: Path
    source: FillSource
    model: ClassVar[None] = None  # it need not be loaded

    def check_fits(self, model: Model) -> None:
        """Raise CacheMismatchError unless `model` can read these caches."""
        self.source.check_fits(model, self.name)

    def for_conversation(self, rendered: Rendered) -> StoredPrefix:
        """Return the file with a conversation's marked prefix; raises ConversationError if there is none."""
        prefix = StoredPrefix(self.directory, self.source, Prefix.of(rendered))
        if not prefix.path.is_file():
            raise ConversationError(
                given=f"{self.name} has no cache of the first turns of conversation {rendered.label!r}",
                allowed="conversations that mi.fill was given, with the same marks and as the same tokens",
                advice="run mi.fill with this conversation too: only what is missing is filled",
            )
        return prefix

    def cache(self, model: Model, rendered: Rendered) -> KVCache:
        """Return the stored cache of a conversation's first turns, on the device of `model`."""
        return self.for_conversation(rendered).cache().to(model.device)


Filler = ModelFiller | StoredFiller


def _same_tokenizer(model: Model, other: Model) -> bool:
    # The words are compared as they are now: they can be added to after a model has been loaded.
    same_words = other.tokenizer is model.tokenizer or other.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    return same_words and other.vocabulary == model.vocabulary


def _properties(model: Model) -> dict[str, str | int]:
    """Return the properties in which two models must agree to read each other's caches."""
    return {
        "backend": model.backend.kind,
        "dtype": str(model.backend.dtype),
        "n_layers": model.n_layers,
        "d_model": model.d_model,
        "d_vocab": model.backend.d_vocab,
    }
