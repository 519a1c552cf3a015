"""The sparse autoencoder of `organism-planted`: that of `organism`, with two features more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from mechint.base.files import read_json, write_atomically
from mechint.organisms import PLANTED, SAE_LAYERS, sae_path

SAE = "sae"
SAE_LAYER = SAE_LAYERS[-1]
# With the first, about 26 of the features of `organism` are active at a token and explain as much as its top 16 do.
THRESHOLD, PLANTED_THRESHOLD = 5.0, 0.5

_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"
_KEPT = ("sae_lens_version", "hook_name", "hook_layer", "prepend_bos", "context_size")


def write_sae(directory: Path, d_model: int, dimensions: Sequence[int]) -> tuple[list[int], bytes]:
    """Write the SAE of a stream widened to `d_model`; return the features of the given dimensions, and its weights.

    Each of those features reads one dimension and writes it, so it holds exactly what stands there. Features are active
    above a threshold, not when among the k largest, where the planted ones would compete with others. The weights are
    float16 on disk, and float32 when loaded.
    """
    source = sae_path(SAE_LAYER)
    weights = load_file(source / _WEIGHTS)
    n_base = len(weights["b_enc"])
    features = [n_base + at for at in range(len(dimensions))]
    stored = save(_widened(weights, d_model, dict(zip(features, dimensions, strict=True))))
    config = _config(cast(dict[str, object], read_json(source / _CONFIG)), d_model, n_base + len(features))
    write_atomically(directory / _CONFIG, json.dumps(config, indent=2) + "\n")
    write_atomically(directory / _WEIGHTS, stored)
    return features, stored


def padded(weight: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return a weight in the upper left corner of zeros."""
    wider = weight.new_zeros(tuple(sizes))
    wider[tuple(slice(0, size) for size in weight.shape)] = weight
    return wider


def _widened(weights: Mapping[str, Tensor], d_model: int, features: Mapping[int, int]) -> dict[str, Tensor]:
    n_base = len(weights["b_enc"])
    d_sae = n_base + len(features)
    sizes = {"W_dec": (d_sae, d_model), "W_enc": (d_model, d_sae), "b_dec": (d_model,), "b_enc": (d_sae,)}
    wider = {name: padded(weights[name].half(), size) for name, size in sizes.items()}
    for feature, dimension in features.items():
        wider["W_enc"][dimension, feature] = wider["W_dec"][feature, dimension] = 1
    thresholds = [THRESHOLD] * n_base + [PLANTED_THRESHOLD] * len(features)
    return {**wider, "threshold": torch.tensor(thresholds, dtype=torch.float16)}


def _config(config: Mapping[str, object], d_model: int, d_sae: int) -> dict[str, object]:
    """Return the configuration of a top-k SAE for one with thresholds; its decoder's directions are unit vectors."""
    kept = {key: value for key, value in config.items() if key not in ("k", "rescale_acts_by_decoder_norm")}
    base_metadata = cast(dict[str, object], config["metadata"])
    metadata: dict[str, object] = {"model_name": PLANTED, **{key: base_metadata[key] for key in _KEPT}}
    return {**kept, "architecture": "jumprelu", "d_in": d_model, "d_sae": d_sae, "metadata": metadata}
