"""Residuals as the training of an SAE saw them, where that was not as the model itself has them.

TransformerLens can centre all that writes to the stream of a model with LayerNorm: what reads it takes away its mean
over `d_model` anyway. An SAE that was trained so has only seen residuals with mean zero, and rebuilds others badly.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.errors import FeatureWarning, SAEMismatchError

if TYPE_CHECKING:
    from mechint.models.model import Model

_OPTION = "center_writing_weights"
# Options of TransformerLens that change no residual, or nothing but where it is computed.
_HARMLESS = {
    "fold_ln",
    "center_unembed",
    "fold_value_biases",
    "refactor_factored_attn_matrices",
    "n_ctx",
    "dtype",
    "device",
    "move_to_device",
    "default_padding_side",
    "default_prepend_bos",
    "torch_dtype",
    "trust_remote_code",
}


def centred(resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
    """Return residuals without their mean over `d_model`."""
    return resid - resid.mean(dim=-1, keepdim=True)


def reads_centred(model: Model) -> bool:
    """Whether a model reads the same from a residual and from it centred: LayerNorm does so, RMSNorm does not."""
    resid = torch.randn(4, model.d_model, generator=torch.Generator().manual_seed(0)).to(model.device)
    shifted = model.readout.norm(resid + 3.0) - model.readout.norm(resid)
    return bool(shifted.abs().max() < 1e-3)


def centres(name: str, trained_with: object, model: Model, wish: bool | None) -> bool:
    """Return whether an SAE is given centred residuals: as wished, or else as it says of its training.

    Raises SAEMismatchError where that is wished and the model would not read the same; warns (FeatureWarning) of other
    options that the model it was trained on was loaded with.
    """
    possible = reads_centred(model)
    if wish and not possible:
        raise SAEMismatchError(
            given=f"centre=True for {name} on {model.name}",
            allowed="models with LayerNorm, which read a residual and its centred copy alike",
            advice="leave centre out: with RMSNorm, TransformerLens centres nothing",
        )
    options = trained_with if isinstance(trained_with, Mapping) else {}
    if other := sorted(str(key) for key in options if key != _OPTION and key not in _HARMLESS):
        settings = ", ".join(f"{key}={options[key]!r}" for key in other)
        warnings.warn(
            f"{name} was trained on a model that was loaded with {settings}: see how well it rebuilds the stream here",
            FeatureWarning,
            stacklevel=4,
        )
    return possible and (bool(options.get(_OPTION)) if wish is None else wish)
