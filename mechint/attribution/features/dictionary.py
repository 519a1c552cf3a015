"""A sparse autoencoder as a dictionary of directions in the residual stream, checked against its model."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechint.attribution.features.centring import centred, centres, reads_centred
from mechint.attribution.features.config import check_shape, layer_of
from mechint.attribution.features.held_out import HeldOut
from mechint.base.errors import FeatureWarning, SAEMismatchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sae_lens import SAE

    from mechint.chat.render import Rendered
    from mechint.models.model import Model

    AnySAE: TypeAlias = SAE[object]

_FOLDED = ("none", "None", None, "layer_norm", "constant_norm_rescale")
_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Dictionary:
    """The features of an SAE on `resid_post` of one `layer` (EMBED: the stream before block 0).

    Activations are given in the model's units: the stream is `feature_acts @ decoder + rest`, where `rest` holds the
    SAE's bias and all that it leaves out. For an SAE without normalisation of its input they are SAE Lens' own; one
    that normalises each position has them times that position's scale. Whatever dtype an SAE was saved in, it computes
    in float32. One that is `centred` reads residuals without their mean over `d_model` (see `centring`); `centrable`
    says that the model would allow it. `held_out` tells of one that `train` has made how well it does on other tokens.
    """

    sae: AnySAE
    layer: int
    decoder: Float[Tensor, "d_sae d_model"]
    name: str
    centred: bool = False
    centrable: bool = False
    held_out: HeldOut | None = None

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return len(self.decoder)

    @cached_property
    def neuronpedia(self) -> str | None:
        """Neuronpedia's name of the SAE (`model/source`), where its release has one."""
        neuronpedia_id = self.sae.cfg.metadata.neuronpedia_id
        return None if neuronpedia_id is None else str(neuronpedia_id)

    def link(self, feature: int) -> str | None:
        """Return the address of a feature's page on Neuronpedia, or None."""
        return None if self.neuronpedia is None else f"https://www.neuronpedia.org/{self.neuronpedia}/{feature}"

    @torch.no_grad()
    def encode(self, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_sae"]:
        """Return the feature activations of residuals, in the model's units, float32."""
        inputs = self._input(resid)
        acts = _dense(self.sae.encode(inputs)).float()
        scale = _scale(self.sae, inputs.float())
        return acts if scale is None else acts * scale.to(acts.device)

    def rest(
        self, resid: Float[Tensor, "*rows d_model"], acts: Float[Tensor, "*rows d_sae"]
    ) -> Float[Tensor, "*rows d_model"]:
        """Return the part of residuals that features do not hold: the SAE's bias and its error."""
        rest: Tensor = resid.float().to(acts.device) - acts @ self.decoder
        return rest

    @torch.no_grad()
    def reconstruct(self, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Return residuals as the SAE rebuilds them, computed by SAE Lens; with their mean where it was taken away."""
        inputs = self._input(resid)
        rebuilt: Tensor = self.sae.decode(self.sae.encode(inputs)).float()
        return rebuilt + resid.float().to(rebuilt.device).mean(dim=-1, keepdim=True) if self.centred else rebuilt

    def check_features(self, features: Sequence[int]) -> None:
        """Raise UsageError for an index out of range, an index given twice, or none at all."""
        outside = sorted({feature for feature in features if not 0 <= feature < self.d_sae})
        if outside or not features or len(set(features)) != len(features):
            raise UsageError(
                given=f"features {outside or list(features)}",
                allowed=f"indices 0:{self.d_sae} of {self.name}, each once",
                advice="take indices from the feature column of a table of the same SAE",
            )

    def _input(self, resid: Tensor) -> Tensor:
        if resid.shape[-1] != self.decoder.shape[1]:
            raise SAEMismatchError(
                f"residuals with d_model={resid.shape[-1]}", f"d_in={self.decoder.shape[1]} of {self.name}", "check it"
            )
        inputs = resid.detach().to(self.decoder.device, self.sae.dtype)
        return centred(inputs) if self.centred else inputs


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
    measured = _quality(dictionary, chosen)
    if measured.poor:
        warnings.warn(
            f"{dictionary.name} explains {measured.explained:.0%} of the variance at these positions: its error holds "
            f"more than its features do, and what is said of features is little of what happens; "
            f"{_why(dictionary, chosen)}",
            FeatureWarning,
            stacklevel=2,
        )
    return measured


def _quality(dictionary: Dictionary, chosen: Float[Tensor, "n d_model"]) -> Quality:
    missed = (chosen - dictionary.reconstruct(chosen)).norm(dim=-1)
    spread = (chosen - chosen.mean(0)).pow(2).sum().clamp_min(1e-30)
    return Quality(
        float(1 - missed.pow(2).sum() / spread),
        float((missed / chosen.norm(dim=-1).clamp_min(1e-30)).mean()),
        float((dictionary.encode(chosen) != 0).sum(-1).float().mean()),
        len(chosen),
    )


def _why(dictionary: Dictionary, chosen: Float[Tensor, "n d_model"]) -> str:
    """Return why an SAE rebuilds badly, where that can be seen: it was trained on residuals without their mean."""
    other = replace(dictionary, centred=not dictionary.centred)
    if not dictionary.centrable or (better := _quality(other, chosen)).poor:
        return "it may be of another layer, another model, or of residuals that were scaled"
    state = "centred" if other.centred else "not centred"
    return (
        f"it explains {better.explained:.0%} of residuals that are {state}, as those it was trained on must have been: "
        f"load it with centre={other.centred}"
    )


def ordinary(model: Model, rendered: Rendered, positions: Sequence[int]) -> Bool[Tensor, " pos"]:
    """True at positions that hold neither the first token nor a special one, whose residuals can be huge."""
    special = set(model.tokenizer.all_special_ids)
    return torch.tensor([position > 0 and rendered.tokens[position] not in special for position in positions])


def as_dictionary(model: Model, sae: AnySAE, name: str, centre: bool | None = None) -> Dictionary:
    """Return an SAE as a dictionary for a model; `centre` is as it says of its training if None.

    Raises SAEMismatchError if it reads or writes anything else, or holds weights that no SAE has.
    """
    metadata = sae.cfg.metadata
    layer = layer_of(name, str(metadata.hook_name or metadata.hf_hook_name), metadata.hook_name_out)
    check_shape(name, layer, sae.cfg.d_in, model=model.name, n_layers=model.n_layers, d_model=model.d_model)
    _check_normalisation(sae, name)
    _check_weights(sae, name)
    centring = centres(name, metadata.model_from_pretrained_kwargs, model, centre)
    sae = _in_float32(sae)
    dictionary = Dictionary(sae, layer, _decoder(sae), name, centring, reads_centred(model))
    _check_linear(dictionary)
    return dictionary


def _in_float32(sae: AnySAE) -> AnySAE:
    """Return an SAE of half precision as a copy in float32: rounding its sums, too, would blur its features."""
    return sae if sae.dtype.itemsize >= torch.float32.itemsize else copy.deepcopy(sae).to(dtype=torch.float32)


def _check_weights(sae: AnySAE, name: str) -> None:
    weights = {parameter: weight.detach() for parameter, weight in sae.named_parameters()}
    shapes = {
        parameter: tuple(weight.shape) for parameter, weight in weights.items() if parameter in ("W_enc", "W_dec")
    }
    expected = {"W_enc": (sae.cfg.d_in, sae.cfg.d_sae), "W_dec": (sae.cfg.d_sae, sae.cfg.d_in)}
    if any(shape != expected[parameter] for parameter, shape in shapes.items()):
        raise SAEMismatchError(f"{name} with weights shaped {shapes}", f"{expected}, as it says", "check the file")
    broken = [parameter for parameter, weight in weights.items() if not weight.isfinite().all()]
    empty = [parameter for parameter in ("W_enc", "W_dec") if parameter in weights and not weights[parameter].any()]
    if broken or empty:
        raise SAEMismatchError(
            given=f"{name}: {broken[0]} holds NaN or infinite values" if broken else f"{name}: {empty[0]} is zero",
            allowed="weights that are finite, and an encoder and a decoder with some length",
            advice="check the file, or train or download the SAE again",
        )


def _check_normalisation(sae: AnySAE, name: str) -> None:
    kind = sae.cfg.normalize_activations
    if kind not in _FOLDED:
        raise SAEMismatchError(
            given=f"{name} with normalize_activations={kind!r}",
            allowed=", ".join(str(supported) for supported in _FOLDED[2:]),
            advice="fold the scale into the weights with sae.fold_activation_norm_scaling_factor(), and save it again",
        )


def _decoder(sae: AnySAE) -> Float[Tensor, "d_sae d_model"]:
    """Return each feature's write per unit (SAEs that scale activations by the decoder's norms divide by them)."""
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
        inputs = dictionary._input(resid)
        sae_acts = _dense(dictionary.sae.encode(inputs))
        nothing = (dictionary.sae.encode(inputs), dictionary.sae.decode(torch.zeros_like(sae_acts)))[1]
        rebuilt = dictionary.sae.decode(dictionary.sae.encode(inputs)).float()
    missed = (rebuilt - nothing.float() - acts @ dictionary.decoder).norm()
    if missed > _TOLERANCE * (1 + resid.norm()):
        raise SAEMismatchError(
            given=f"{dictionary.name}: an SAE of type {type(dictionary.sae).__name__}, whose decoding is not linear",
            allowed="SAEs whose reconstruction is a sum of feature directions and a bias",
            advice="choose a standard, gated, JumpReLU or top-k SAE",
        )


def _scale(sae: AnySAE, resid: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows 1"] | None:
    """Return the factor by which an SAE that normalises each position multiplies its output there."""
    kind = sae.cfg.normalize_activations
    if kind == "layer_norm":
        return resid.std(dim=-1, keepdim=True)
    if kind == "constant_norm_rescale":
        norm: Tensor = resid.norm(dim=-1, keepdim=True)
        return norm / math.sqrt(sae.cfg.d_in)
    return None


def _dense(acts: Tensor) -> Tensor:
    return acts.to_dense() if acts.is_sparse else acts
