"""Contrast vectors: the direction between two sets of activations at every layer, of prompts or of two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.errors import SwapError, UsageError
from mechint.base.files import JSON
from mechint.base.signatures import checked
from mechint.chat.conversations import Conversation
from mechint.models.model import Model
from mechint.vectors.activations import Activations, activations
from mechint.vectors.concept_vectors import ConceptVector
from mechint.vectors.extraction import METHODS


@checked
def model_contrast(
    model: Model,
    other: Model,
    prompts: Sequence[str | Conversation],
    name: str = "contrast",
    method: str = "paired_pca",
    *,
    raw: bool = False,
) -> ConceptVector:
    """Return the direction from `model`'s to `other`'s activations on the same prompts, at the last token.

    `other` is the finetuned copy. Where only one of the two fits into memory, `activations` of each and then
    `contrast_of` give the same. The published contrast vector ("Small models can introspect, too", experiment
    7) is that of "paired_pca" with `raw` texts. Raises what `activations` and `contrast_of` raise.
    """
    _check_alike(f"{other!r}", f"{model!r}", _shape(other), _shape(model))
    base = activations(model, prompts, raw=raw)
    return contrast_of(activations(other, prompts, raw=raw), base, name, method)


@checked
def mean_contrast(
    model: Model,
    prompts: Sequence[str | Conversation],
    others: Sequence[str | Conversation],
    name: str = "contrast",
    *,
    raw: bool = False,
) -> ConceptVector:
    """Return the mean activation of `prompts` less that of `others`, at the last token and every layer.

    Of prompts that a model refuses and others that it answers it is the refusal direction of Arditi et al. (arXiv
    2406.11717), which `mi.ablate` removes. Conversations may end within a reply. Norms are the residual's own. Raises
    what `activations` raises.
    """
    first, second = activations(model, prompts, raw=raw), activations(model, others, raw=raw)
    rows = first.values.mean(1) - second.values.mean(1)
    provenance = {**first.provenance, "method": "mean_contrast", "n_prompts": first.values.shape[1]}
    provenance |= {"others_sha256": second.provenance["prompts_sha256"], "n_others": second.values.shape[1]}
    return ConceptVector(dict(enumerate(rows)), name, len(rows), provenance)


@checked
def contrast_of(
    finetuned: Activations, base: Activations, name: str = "contrast", method: str = "paired_pca"
) -> ConceptVector:
    """Return the contrast vector of two models, from `activations` of each on the same prompts.

    "paired_pca": unit norm, as `paired_direction` has it; zero at a layer where the two are equal. "mean_difference":
    mean over prompts of finetuned minus base, in the residual's own units. Raises UsageError for another method and for
    other prompts, SwapError if the models do not have the same shape, vocabulary and chat template.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r}", ", ".join(METHODS), "choose one of these")
    finetuned_source, base_source = finetuned.provenance, base.provenance
    models = (f"activations of {finetuned_source['model']}", f"those of {base_source['model']}")
    _check_alike(*models, finetuned.shape, base.shape)
    if finetuned_source["prompts_sha256"] != base_source["prompts_sha256"]:
        raise UsageError(f"{models[0]} and {models[1]} on other prompts", "the same prompts", "read both models again")
    _check_alike(*models, {"tokens": finetuned_source["tokens_sha256"]}, {"tokens": base_source["tokens_sha256"]})
    differences = finetuned.values - base.values
    rows = paired_direction(differences) if method == "paired_pca" else differences.mean(1)
    provenance = {**base_source, "method": "model_contrast", "direction": method}
    provenance |= {"other": finetuned_source["model"], "other_identity": finetuned_source["identity"]}
    provenance |= {"n_prompts": differences.shape[1]}
    return ConceptVector(dict(enumerate(rows)), name, len(rows), provenance)


def paired_direction(differences: Float[Tensor, "layer pair d_model"]) -> Float[Tensor, "layer d_model"]:
    """Return the first principal component of centred pairs, at unit norm, from the differences within them.

    This is what repeng calls pca_center. The sign is that of the differences, by majority of the pairs. A layer without
    any difference has no direction, and gets zeros.
    """
    # Centring a pair leaves plus and minus half its difference, so the first component of the centred pairs is the
    # first right singular vector of the differences.
    wide = differences.double()
    components: Tensor = torch.linalg.svd(wide, full_matrices=False).Vh[:, 0]
    votes = torch.einsum("lnd,ld->ln", wide, components).sign().sum(1)
    signs = torch.where(votes < 0, -1.0, 1.0) * (wide != 0).flatten(1).any(1)
    return (components * signs[:, None]).float()


def _shape(model: Model) -> dict[str, JSON]:
    return {"n_layers": model.n_layers, "d_model": model.d_model, "vocabulary": model.vocabulary}


def _check_alike(
    finetuned: str, base: str, finetuned_properties: Mapping[str, JSON], base_properties: Mapping[str, JSON]
) -> None:
    """Raise SwapError, with the names of both models, unless the finetuned one has the base's properties."""
    if differing := [name for name in base_properties if finetuned_properties[name] != base_properties[name]]:
        raise SwapError(
            given=f"{finetuned}, which has other {', '.join(differing)}",
            allowed=f"the shape, vocabulary and chat template of {base}",
            advice="contrast a model with a finetuned copy of itself",
        )
