"""Small random sparse autoencoders for the tiny models, made with SAE Lens."""

from __future__ import annotations

import torch
from conftest import conversation, vector

import mechint as mi
from mechint.attribution.features import loading
from mechint.attribution.features.dictionary import Dictionary
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.reading import Reading


def dictionary(model: mi.Model, layer: int = 1, kind: str = "standard", d_sae: int = 48, seed: int = 0) -> Dictionary:
    """A dictionary of `kind` ("standard", "topk", "rescaled", "layer_norm") on `resid_post` of a layer (-1: embed)."""
    from sae_lens import StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    hook = f"blocks.{layer}.hook_resid_post" if layer >= 0 else "blocks.0.hook_resid_pre"
    shape = {"d_in": model.d_model, "d_sae": d_sae, "device": "cpu", "metadata": SAEMetadata(hook_name=hook)}
    if kind in ("topk", "rescaled"):
        sae = TopKSAE(TopKSAEConfig(**shape, k=12, rescale_acts_by_decoder_norm=kind == "rescaled"))
    else:
        normalised = "layer_norm" if kind == "layer_norm" else "none"
        sae = StandardSAE(StandardSAEConfig(**shape, normalize_activations=normalised))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in sae.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.3 if weight.ndim > 1 else 0.05))
    return loading.use(model, sae, f"{kind} SAE")


def states_of(model: mi.Model, layer: int = 1, kind: str = "standard", **options: object) -> FeatureReading:
    """The features of one conversation, clean and under two injections."""
    steer = mi.Injection(vector(model), range(3), 1.0, name="steer")
    other = mi.Injection(vector(model, seed=1), range(3), 0.5, name="other")
    reading = Reading.of(model, conversation(), [mi.CLEAN, steer, other], **options)
    return FeatureReading.of(reading, dictionary(model, layer, kind))
