"""A sparse autoencoder as a dictionary of directions in the residual stream, checked against its model."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechint.errors import FeatureWarning, SAEMismatchError, UsageError
from mechint.features.config import check_shape, layer_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sae_lens import SAE

    from mechint.model import Model
    from mechint.render import Rendered

    AnySAE: TypeAlias = SAE[object]

_FOLDED = ("none", "None", None, "layer_norm", "constant_norm_rescale")
_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Dictionary:
    """The features of an SAE on `resid_post` of one `layer` (EMBED: the stream before block 0).

    Activations are given in the model's units: the stream is `feature_acts @ decoder + rest`, where `rest` holds the
    SAE's bias and all that it leaves out. For an SAE without normalisation of its input they are SAE Lens' own; one
    that normalises each position has them times that position's scale.
    """

    sae: AnySAE
    layer: int
    decoder: Float[Tensor, "d_sae d_model"]
    name: str

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return len(self.decoder)

    @cached_property
    def neuronpedia(self) -> str | None:
        """Neuronpedia's name of the SAE (`model/source`), where its release has one."""
        found = self.sae.cfg.metadata.neuronpedia_id
        return None if found is None else str(found)

    def link(self, feature: int) -> str | None:
        """Return the address of a feature's page on Neuronpedia, or None."""
        return None if self.neuronpedia is None else f"https://www.neuronpedia.org/{self.neuronpedia}/{feature}"

    @torch.no_grad()
    def encode(self, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_sae"]:
        """Return the feature activations of residuals, in the model's units, float32."""
        acts = _dense(self.sae.encode(self._given(resid))).float()
        scale = _scale(self.sae, resid.float())
        return acts if scale is None else acts * scale.to(acts.device)

    def rest(
        self, resid: Float[Tensor, "*rows d_model"], acts: Float[Tensor, "*rows d_sae"]
    ) -> Float[Tensor, "*rows d_model"]:
        """Return what features do not hold of residuals: the SAE's bias and its error."""
        rest: Tensor = resid.float().to(acts.device) - acts @ self.decoder
        return rest

    @torch.no_grad()
    def reconstruct(self, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Return what the SAE makes of residuals, as SAE Lens computes it."""
        given = self._given(resid)
        rebuilt: Tensor = self.sae.decode(self.sae.encode(given)).float()
        return rebuilt

    def check_features(self, features: Sequence[int]) -> None:
        """Raise UsageError for an index out of range, an index given twice, or none at all."""
        outside = sorted({feature for feature in features if not 0 <= feature < self.d_sae})
        if outside or not features or len(set(features)) != len(features):
            raise UsageError(
                given=f"features {outside or list(features)}",
                allowed=f"indices 0:{self.d_sae} of {self.name}, each once",
                advice="take indices from the feature column of a table of the same SAE",
            )

    def _given(self, resid: Tensor) -> Tensor:
        if resid.shape[-1] != self.decoder.shape[1]:
            raise SAEMismatchError(
                f"residuals with d_model={resid.shape[-1]}", f"d_in={self.decoder.shape[1]} of {self.name}", "check it"
            )
        return resid.detach().to(self.decoder.device, self.sae.dtype)


@dataclass(frozen=True)
class Quality:
    """How well an SAE rebuilds residuals at some positions, special tokens left out.

    `explained` is 1 - |x - x'|^2 / |x - mean|^2 over all positions, `error` the mean of |x - x'| / |x|, `l0` the mean
    number of active features.
    """

    explained: float
    error: float
    l0: float
    positions: int

    @property
    def poor(self) -> bool:
        """Whether the error holds more of the variance than the features do."""
        return not self.explained > 0.5


def quality(dictionary: Dictionary, resid: Float[Tensor, "row pos d_model"], keep: Bool[Tensor, " pos"]) -> Quality:
    """Return how well `resid` is rebuilt at the positions to `keep`; warns (FeatureWarning) if that is poor."""
    chosen = resid[:, keep].flatten(0, 1).float().to(dictionary.decoder.device)
    if not len(chosen):
        raise UsageError("no positions but special tokens", "one or more", "read a conversation with words in it")
    rebuilt = dictionary.reconstruct(chosen)
    missed = (chosen - rebuilt).norm(dim=-1)
    spread = (chosen - chosen.mean(0)).pow(2).sum().clamp_min(1e-30)
    found = Quality(
        float(1 - missed.pow(2).sum() / spread),
        float((missed / chosen.norm(dim=-1).clamp_min(1e-30)).mean()),
        float((dictionary.encode(chosen) != 0).sum(-1).float().mean()),
        len(chosen),
    )
    if found.poor:
        warnings.warn(
            f"{dictionary.name} explains {found.explained:.0%} of the variance at these positions: its error holds "
            "more than its features do, and what is said of features is little of what happens",
            FeatureWarning,
            stacklevel=2,
        )
    return found


def ordinary(model: Model, rendered: Rendered, positions: Sequence[int]) -> Bool[Tensor, " pos"]:
    """True at positions that hold neither the first token nor a special one, whose residuals can be huge."""
    special = set(model.tokenizer.all_special_ids)
    return torch.tensor([position > 0 and rendered.tokens[position] not in special for position in positions])


def as_dictionary(model: Model, sae: AnySAE, name: str) -> Dictionary:
    """Return an SAE as a dictionary for a model. Raises SAEMismatchError if it reads or writes anything else."""
    layer = layer_of(name, str(sae.cfg.metadata.hook_name), sae.cfg.metadata.hook_name_out)
    check_shape(name, layer, sae.cfg.d_in, model=model.name, n_layers=model.n_layers, d_model=model.d_model)
    _check_normalisation(sae, name)
    dictionary = Dictionary(sae, layer, _decoder(sae), name)
    _check_linear(dictionary)
    return dictionary


def _check_normalisation(sae: AnySAE, name: str) -> None:
    kind = sae.cfg.normalize_activations
    if kind not in _FOLDED:
        raise SAEMismatchError(
            given=f"{name} with normalize_activations={kind!r}",
            allowed=", ".join(str(known) for known in _FOLDED[2:]),
            advice="fold the scale into the weights with sae.fold_activation_norm_scaling_factor(), and save it again",
        )


def _decoder(sae: AnySAE) -> Float[Tensor, "d_sae d_model"]:
    """Return what one unit of each feature writes (SAEs that scale activations by the decoder's norms divide by it)."""
    weight: Tensor = sae.W_dec.detach().float()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        weight = weight / weight.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    return weight


def _check_linear(dictionary: Dictionary) -> None:
    """Raise SAEMismatchError unless decoding is adding up directions, which all that is built on it assumes."""
    generator = torch.Generator().manual_seed(0)
    resid = torch.randn(4, dictionary.decoder.shape[1], generator=generator).to(dictionary.decoder.device)
    acts = dictionary.encode(resid)
    with torch.no_grad():
        given = resid.to(dictionary.sae.dtype)
        own = _dense(dictionary.sae.encode(given))
        nothing = (dictionary.sae.encode(given), dictionary.sae.decode(torch.zeros_like(own)))[1]
    missed = (dictionary.reconstruct(resid) - nothing.float() - acts @ dictionary.decoder).norm()
    if missed > _TOLERANCE * (1 + resid.norm()):
        raise SAEMismatchError(
            given=f"{dictionary.name}: an SAE of type {type(dictionary.sae).__name__}, whose decoding is not linear",
            allowed="SAEs whose reconstruction is a sum of feature directions and a bias",
            advice="choose a standard, gated, JumpReLU or top-k SAE",
        )


def _scale(sae: AnySAE, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows 1"] | None:
    """Return what an SAE that normalises each position multiplies its output with there."""
    kind = sae.cfg.normalize_activations
    if kind == "layer_norm":
        return resid.std(dim=-1, keepdim=True)
    if kind == "constant_norm_rescale":
        norm: Tensor = resid.norm(dim=-1, keepdim=True)
        return norm / math.sqrt(sae.cfg.d_in)
    return None


def _dense(acts: Tensor) -> Tensor:
    return acts.to_dense() if acts.is_sparse else acts
