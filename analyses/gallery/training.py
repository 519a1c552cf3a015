"""The work of what is trained for a model before it is analysed, in (token x block); none where it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analyses.sae_attribution import source

if TYPE_CHECKING:
    from analyses.gallery.counts import Counts
    from mechint.attribution.features.trained import Training
    from mechint.chat.conversations import Conversation

_AT_ONCE = 128  # replies
_FORWARD_AND_BACK = 3  # passes; where the model's own weights get no gradient, as under a LoRA, it is one less
_SAE_OVERHEAD = 1.5  # of a step beside its products: choosing features, the optimiser, the auxiliary loss


def of_sae(counts: Counts, named: int | str | None) -> float:
    """Return the work of an SAE that is trained: its text, residuals of that, and its steps."""
    from mechint.attribution.features.trained import Training

    training = Training.usual(counts.model, source.trained_layer(named))
    if training.is_kept:
        return 0.0
    text = training.text
    prompts = training.own_text.prompts
    spoken = 0.0
    if not training.own_text.is_kept:
        spoken = _spoken(counts, prompts, text.samples, text.max_new_tokens)
    residuals = len(prompts) * text.samples * text.max_new_tokens * (training.layer + 1)
    return spoken + residuals + _steps(training)


def of_sibling(counts: Counts) -> float:
    """Return the work of a sibling that is trained: replies that it learns, its steps, what is measured of it."""
    from mechint.finetune.sibling import Sibling

    sibling = Sibling(counts.model)
    if sibling.is_kept:
        return 0.0
    text, recipe, prompts = sibling.text, sibling.recipe, sibling.own_text.prompts
    spoken = 0.0 if sibling.own_text.is_kept else _spoken(counts, prompts, text.samples, text.max_new_tokens)
    length = counts.length(prompts) / len(prompts) + text.max_new_tokens
    steps = recipe.steps * recipe.batch * counts.passes(length) * (_FORWARD_AND_BACK - 1)
    return spoken + steps + 2 * _spoken(counts, prompts[: sibling.held_out], 1, sibling.held_out_tokens)


def _spoken(counts: Counts, prompts: Sequence[Conversation], samples: int, n_tokens: int) -> float:
    """Return the work of replies to some prompts, each of which is read by itself."""
    read = counts.decoding(len(prompts), 1, 1) + counts.passes(counts.length(prompts))
    return read + counts.decoding(len(prompts) * samples, n_tokens, _AT_ONCE)


def _steps(training: Training) -> float:
    """Return the work of the SAE's own products, by what a token takes of them and of a block."""
    model, recipe = training.model, training.recipe
    of_sample = 2 * recipe.d_sae * model.d_model * _FORWARD_AND_BACK
    of_block = 4 * model.d_model**2 + 3 * model.d_model * model.backend.d_mlp
    return _SAE_OVERHEAD * recipe.samples * of_sample / of_block
