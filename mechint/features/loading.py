"""Loading sparse autoencoders with SAE Lens: embedded, from a directory, or published."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.errors import FeatureWarning, LayerRangeError, SAEMismatchError
from mechint.features.dictionary import Dictionary, as_dictionary
from mechint.organisms import ORGANISMS, SAE_LAYERS, sae_path

if TYPE_CHECKING:
    from mechint.features.dictionary import AnySAE
    from mechint.model import Model

_HOW = "a directory that SAE Lens has saved, or RELEASE:ID of a published SAE"


def load(model: Model, source: int | str | Path | None = None, *, any_model: bool = False) -> Dictionary:
    """Return an SAE for `model`: of a directory, published ("release:id"), or an embedded one (its layer, or None).

    None is the late embedded one. An SAE that says it was trained on another model is refused, unless `any_model`;
    a finetuned copy whose name begins with that model's (gemma-2-2b-it) is used with a warning (FeatureWarning).
    Published SAEs are downloaded. Raises SAEMismatchError for what does not fit or cannot be read.
    """
    if source is None or isinstance(source, int):
        sae, name = _embedded(model, source)
    else:
        sae, name = _read(str(source), str(model.device))
    _check_name(sae, model, name, any_model=any_model)
    return as_dictionary(model, sae, name)


def use(model: Model, sae: AnySAE, name: str = "SAE") -> Dictionary:
    """Return an SAE Lens object that the user already has as a dictionary for `model`. Raises SAEMismatchError."""
    return as_dictionary(model, sae, name)


def _embedded(model: Model, layer: int | None) -> tuple[AnySAE, str]:
    if model.name not in ORGANISMS:
        raise SAEMismatchError(f"no SAE for {model.name}", _HOW, "name one (sae=, --sae)")
    chosen = SAE_LAYERS[-1] if layer is None else layer
    try:
        path = sae_path(chosen)
    except LayerRangeError as error:
        raise SAEMismatchError(error.given, f"layers {error.allowed}, or {_HOW}", error.advice) from error
    return _read(str(path), str(model.device))[0], f"organism resid_post.{chosen}"


def _read(source: str, device: str) -> tuple[AnySAE, str]:
    from sae_lens import SAE

    path = Path(source).expanduser()
    try:
        if path.exists():
            return SAE.load_from_disk(path, device=device), path.name
        release, separator, sae_id = source.partition(":")
        if not separator:
            raise SAEMismatchError(f"SAE {source!r}", _HOW, "check the path")
        return SAE.from_pretrained(release, sae_id, device=device), source
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()
        raise SAEMismatchError(
            given=f"SAE {source!r} cannot be read: {reason[0] if reason else type(error).__name__}",
            allowed=_HOW,
            advice="check the path, or the release and id in SAE Lens' table of pretrained SAEs",
        ) from error


def _check_name(sae: AnySAE, model: Model, name: str, *, any_model: bool) -> None:
    """Compare the model that an SAE names with the one at hand, by the last part of their paths."""
    trained_on = sae.cfg.metadata.model_name
    theirs, ours = (str(text).rstrip("/").split("/")[-1].lower() for text in (trained_on, model.name))
    if trained_on is None or theirs == ours:
        return
    if not (any_model or ours.startswith(f"{theirs}-")):
        raise SAEMismatchError(
            given=f"{name} was trained on {trained_on}, the model is {model.name}",
            allowed="SAEs of the model itself, or of the base it was finetuned from",
            advice="if it is the same model by another name, say so: any_model=True (--any-model-sae)",
        )
    warnings.warn(
        f"{name} was trained on {trained_on} and is used on {model.name}: see how well it rebuilds the stream there",
        FeatureWarning,
        stacklevel=3,
    )
