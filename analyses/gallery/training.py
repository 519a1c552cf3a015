"""The work of what is trained for a model before it is analysed, in (token x block); none where it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analyses.sae_attribution import source

if TYPE_CHECKING:
    from analyses.gallery.counts import Counts
    from mechint.attribution.features.trained import Training

_AT_ONCE = 128  # replies
_FORWARD_AND_BACK = 3  # passes
_SAE_OVERHEAD = 1.5  # of a step beside its products: choosing features, the optimiser, the auxiliary loss


def of_sae(counts: Counts, named: int | str | None) -> float:
    """Return the work of an SAE that is trained: its text, residuals of that, and its steps."""
    from mechint.attribution.features.trained import Training

    training = Training.usual(counts.model, source.trained_layer(named))
    if training.is_kept:
        return 0.0
    text = training.text
    n_replies = text.prompts * text.samples
    spoken = 0.0
    if not training.own_text.is_kept:
        prompts = training.own_text.prompts
        spoken = counts.decoding(n_replies, text.max_new_tokens, _AT_ONCE)
        spoken += counts.decoding(len(prompts), 1, 1) + counts.passes(counts.length(prompts))
    residuals = n_replies * text.max_new_tokens * (training.layer + 1)
    return spoken + residuals + _steps(training)


def _steps(training: Training) -> float:
    """Return the work of the SAE's own products, by what a token takes of them and of a block."""
    model, recipe = training.model, training.recipe
    of_sample = 2 * recipe.d_sae * model.d_model * _FORWARD_AND_BACK
    of_block = 4 * model.d_model**2 + 3 * model.d_model * model.backend.d_mlp
    return _SAE_OVERHEAD * recipe.samples * of_sample / of_block
