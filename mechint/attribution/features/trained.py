"""An SAE for a model that has none: trained on the stream of the model's own text, and kept in the cache folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.attribution.features.dictionary import Dictionary, as_dictionary
from mechint.attribution.features.held_out import HeldOut
from mechint.attribution.features.own_residuals import losses_with, residuals_of
from mechint.attribution.features.training import SAERecipe, quality, train_sae
from mechint.base.cache_folder import cache_folder
from mechint.base.errors import LayerRangeError, MemoryLimitError
from mechint.base.files import JSON, check_writable, sha256
from mechint.base.kept_folders import keep_folder, kept_record
from mechint.base.progress import Progress, announce
from mechint.base.signatures import checked
from mechint.base.sizes import format_bytes
from mechint.chat.render import render_all
from mechint.models.backends.versions import installed, require_sae_lens
from mechint.models.device_memory import free_memory
from mechint.models.model import Model
from mechint.readouts.own_text import OwnText, TextRecipe

if TYPE_CHECKING:
    from sae_lens import TopKTrainingSAE

# Of the prompts one in so many is held out with all of its replies; the loss is measured on so many replies.
_HELD_OUT, _LOSS_TEXTS = 8, 32
# Copies of the weights while they are trained (gradient, two moments), and of the residuals while they are gathered.
_WEIGHTS, _RESIDUALS = 4, 2
_OF_FREE = 3 / 4


@dataclass(frozen=True)
class Training:
    """An SAE that is trained, or was: of which model's stream, at which layer, on which text, and how."""

    model: Model
    layer: int
    recipe: SAERecipe
    text: TextRecipe = field(default_factory=TextRecipe)

    @classmethod
    def usual(cls, model: Model, layer: int | None = None) -> Training:
        """Return the usual training at a layer; None: two thirds up, where the middle third has been added to.

        Raises LayerRangeError for a layer that the model has not.
        """
        chosen = usual_layer(model.n_layers) if layer is None else layer
        check_layer(chosen, model.n_layers)
        return cls(model, chosen, SAERecipe.of_width(model.d_model))

    @cached_property
    def own_text(self) -> OwnText:
        """The text that it is trained on."""
        return OwnText(self.model, self.text)

    @property
    def name(self) -> str:
        """What the SAE is called."""
        return f"trained resid_post.{self.layer}"

    @cached_property
    def folder(self) -> Path:
        """Where it is kept: named by the model's weights, and by all else that it depends on."""
        details = [asdict(self.recipe), self.layer, self.own_text.key, installed("sae-lens")]
        code = [(Path(__file__).parent / name).read_bytes() for name in ("training.py", "own_residuals.py")]
        recipe = sha256(json.dumps(details, sort_keys=True).encode(), *code)
        return cache_folder() / "saes" / f"{self.model.identity[:32]}-{recipe[:32]}"

    @property
    def is_kept(self) -> bool:
        """Whether it is in the cache folder already."""
        return kept_record(self.folder) is not None

    def check(self) -> None:
        """Raise PrerequisiteError without SAE Lens, OutputError without a folder, MemoryLimitError without room."""
        require_sae_lens()
        check_writable(self.folder.parent, "MECHINT_CACHE")
        text = self.text
        tokens, d_model = text.prompts * text.samples * text.max_new_tokens, self.model.d_model
        numbers = _RESIDUALS * tokens * d_model + _WEIGHTS * 2 * self.recipe.d_sae * d_model
        needed, free = numbers * torch.float32.itemsize, free_memory(self.model.device)
        if needed > _OF_FREE * free:
            raise MemoryLimitError(
                given=f"an SAE of {self.recipe.d_sae:,} features for {self.model.name}: its training takes about "
                f"{format_bytes(needed)}, {format_bytes(free)} are free",
                allowed=f"{_OF_FREE:.0%} of what is free",
                advice="train a narrower one, or on less text: mi.sae.train(model, recipe=, text=)",
            )

    def train(self, progress: Progress | bool | None = None) -> Dictionary:
        """Return the SAE, trained now if it is not kept."""
        self.check()
        record = kept_record(self.folder)
        if record is None:
            keep_folder(self.folder, lambda folder: self._write(folder, progress))
            record = kept_record(self.folder)
        assert record is not None  # it has just been written
        sae = require_sae_lens().load_from_disk(self.folder, device=str(self.model.device), dtype="float32")
        held_out = HeldOut.from_dict(record["held_out"])
        return replace(as_dictionary(self.model, sae, self.name), held_out=held_out)

    def _write(self, folder: Path, progress: Progress | bool | None) -> Mapping[str, JSON]:
        """Train it and write it in SAE Lens' format; returns what was measured."""
        trained_on, held_out = self._rows(progress)
        tokens = residuals_of(self.model, trained_on, self.layer)
        if progress is True:
            announce(f"{self.name}: {self.recipe.d_sae:,} features are trained on {len(tokens):,} tokens")
        sae = train_sae(tokens, self.layer, self.recipe, Path(self.model.name).name)
        sae.save_inference_model(folder)
        measured = asdict(self._measured(sae, tokens, held_out))
        return {"layer": self.layer, "recipe": asdict(self.recipe), "text": asdict(self.text), "held_out": measured}

    def _rows(self, progress: Progress | bool | None) -> tuple[list[list[int]], list[list[int]]]:
        """Return the replies that it is trained on, and those to prompts that are held out, as token ids."""
        sides: tuple[list[list[int]], list[list[int]]] = ([], [])
        replies = self.own_text.replies(progress)
        held_out = set(sorted({int(reply.label) for reply in replies})[_HELD_OUT - 1 :: _HELD_OUT])
        numbered = [replace(reply, label=f"{reply.label}/{row}") for row, reply in enumerate(replies)]
        for reply, rendered in zip(replies, render_all(self.model, numbered), strict=True):
            sides[int(reply.label) in held_out].append(list(rendered.tokens))
        return sides[0], sides[1] or sides[0][-1:]

    def _measured(
        self, sae: TopKTrainingSAE, tokens: Float[Tensor, "token d_model"], held_out: Sequence[Sequence[int]]
    ) -> HeldOut:
        """Return how well an SAE that was trained on some tokens does on texts that are held out."""
        others = residuals_of(self.model, held_out, self.layer)
        row, mean = quality(sae, others), tokens.mean(0)
        replacements = [lambda resid: resid, lambda resid: sae.decode(sae.encode(resid)), mean.expand_as]
        texts = held_out[:: math.ceil(len(held_out) / _LOSS_TEXTS)]
        own, rebuilt, flat = losses_with(self.model, texts, self.layer, replacements)
        return HeldOut(
            trained_on=len(tokens),
            tokens=len(others),
            explained=row["explained_variance"],
            l0=row["l0"],
            dead=row["dead"],
            loss=own,
            loss_recovered=1 - (rebuilt - own) / (flat - own),
        )


def usual_layer(n_layers: int) -> int:
    """Return the layer whose stream is encoded: two thirds up, the first above the middle third.

    There everything that is injected in the middle has been added, and a third of the model is left to read it.
    """
    return min(n_layers - 1, math.ceil(2 * n_layers / 3))


def check_layer(layer: int, n_layers: int) -> None:
    """Raise LayerRangeError for a layer that the model has not."""
    if not 0 <= layer < n_layers:
        raise LayerRangeError(
            given=f"an SAE at layer {layer}",
            allowed=f"0 to {n_layers - 1}, the layers of the model",
            advice="choose one in the middle or later, where injections have been added",
        )


@checked
def train(
    model: Model,
    layer: int | None = None,
    *,
    recipe: SAERecipe | None = None,
    text: TextRecipe | None = None,
    progress: Progress | bool | None = None,
) -> Dictionary:
    """Return an SAE of the model's stream at a layer (None: two thirds up), trained on text of the model's own.

    Replies to neutral prompts are sampled from the model (`text`), their residuals encoded by a top-k SAE of SAE Lens
    (`recipe`; by default a power of two up to four features per dimension). One prompt in eight is held out:
    `Dictionary.held_out` says how well the SAE does there. It is kept in the cache folder by the hash of the model's
    weights and of the recipe, so that it is trained once. Takes minutes for a small model on two cores. Raises
    LayerRangeError, PrerequisiteError without SAE Lens, MemoryLimitError, OutputError.
    """
    usual = Training.usual(model, layer)
    return replace(usual, recipe=recipe or usual.recipe, text=text or usual.text).train(progress)
