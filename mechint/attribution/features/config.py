"""The configuration of a sparse autoencoder, checked against a model; neither of them has to be loaded."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mechint.base.errors import FeatureWarning, LayerRangeError, SAEMismatchError
from mechint.base.files import JSON, read_json
from mechint.organisms import EMBEDDED, PLANTED, sae_layers, sae_path

HOW = "a directory that SAE Lens has saved, or RELEASE:ID of a published SAE"
_FILE = "cfg.json"
_EMBED = -1  # as in mechint.models.capture, which would import torch
# Hook points that are the residual stream between two blocks, with the layer whose `resid_post` that is.
_POINTS = (
    (re.compile(r"blocks\.(\d+)\.hook_resid_post"), 0),
    (re.compile(r"blocks\.(\d+)\.hook_resid_pre"), -1),
    (re.compile(r"model\.layers\.(\d+)"), 0),
)


@dataclass(frozen=True)
class SAEConfig:
    """Shape of an SAE, what it reads and writes, and what it was trained on (None: it does not say).

    `content` is the whole of the file that a `directory` has of it.
    """

    name: str
    directory: Path
    content: Mapping[str, JSON]
    d_in: int
    d_sae: int
    hook_name: str
    hook_name_out: str | None
    trained_on: str | None

    @classmethod
    def read(cls, directory: Path, name: str | None = None) -> SAEConfig:
        """Read the configuration that SAE Lens has saved in a directory, by whose name it goes if it has no other.

        Older versions have written what is now the file's `metadata` beside the rest. Raises SAEMismatchError.
        """
        content = read_json(directory / _FILE, SAEMismatchError)
        fields = content if isinstance(content, dict) else {}
        nested = fields.get("metadata")
        metadata = nested if isinstance(nested, dict) else fields
        d_in, d_sae = fields.get("d_in"), fields.get("d_sae")
        if not isinstance(d_in, int) or not isinstance(d_sae, int):
            raise SAEMismatchError(f"SAE {str(directory)!r} without d_in or d_sae", HOW, "check the path")
        hook_name = metadata.get("hook_name") or metadata.get("hf_hook_name") or fields.get("hook_point")
        if not isinstance(hook_name, str):
            raise SAEMismatchError(f"SAE {str(directory)!r} without the name of its hook point", HOW, "check the path")
        out, trained_on = _text(metadata.get("hook_name_out")), _text(metadata.get("model_name"))
        return cls(name or directory.name, directory, fields, d_in, d_sae, hook_name, out, trained_on)

    @property
    def layer(self) -> int:
        """The layer whose `resid_post` it reads and writes; raises SAEMismatchError for any other hook point."""
        return layer_of(self.name, self.hook_name, self.hook_name_out)


def layer_of(name: str, point: str, out: str | None) -> int:
    """Return the layer whose `resid_post` a hook point is (-1: before block 0); raises SAEMismatchError."""
    for pattern, offset in _POINTS:
        if (match := pattern.fullmatch(point)) and out in (None, point):
            return int(match[1]) + offset
    raise SAEMismatchError(
        given=f"{name} reads {point}" + (f" and writes {out}" if out not in (None, point) else ""),
        allowed="SAEs of the residual stream: blocks.{layer}.hook_resid_post or hook_resid_pre",
        advice="choose a residual-stream SAE of the release",
    )


def check_shape(name: str, layer: int, d_in: int, *, model: str, n_layers: int, d_model: int) -> None:
    """Raise SAEMismatchError for an SAE at a layer that a model does not have, or of another width."""
    if not _EMBED <= layer < n_layers:
        raise SAEMismatchError(f"{name} at layer {layer}", f"layers 0:{n_layers} of {model}", "choose another")
    if d_in != d_model:
        raise SAEMismatchError(
            given=f"{name} is for d_model={d_in}",
            allowed=f"d_model={d_model} of {model}",
            advice="choose an SAE that was trained on this model",
        )


def _last_part(path: str) -> str:
    """Return the last part of a model's path, in small letters: names are compared without their owners."""
    return path.rstrip("/").split("/")[-1].lower()


def check_owner(name: str, trained_on: str | None, model: str, *, any_model: bool, warn: bool = True) -> None:
    """Compare the model that an SAE was trained on with the one at hand, by the last part of their paths.

    Raises SAEMismatchError for another one; with `warn`, warns (FeatureWarning) for a finetuned copy and `any_model`.
    """
    base_name, model_name = _last_part(str(trained_on)), _last_part(str(model))
    if trained_on is None or base_name == model_name:
        return
    if not (any_model or model_name.startswith(f"{base_name}-")):
        raise SAEMismatchError(
            given=f"{name} was trained on {trained_on}, the model is {model}",
            allowed="SAEs of the model itself, or of the base it was finetuned from",
            advice="if it is the same model by another name, say so: any_model=True (--any-model-sae)",
        )
    if warn:
        warnings.warn(
            f"{name} was trained on {trained_on} and is used on {model}: see how well it rebuilds the stream there",
            FeatureWarning,
            stacklevel=4,
        )


def embedded(model: str, layer: int | None) -> tuple[Path, str]:
    """Return directory and name of the SAE of an embedded model (None: its late one). Raises SAEMismatchError."""
    if model not in EMBEDDED:
        raise SAEMismatchError(f"no SAE for {model}", HOW, "name one (sae=, --sae)")
    # The family shares the SAEs of organism; the planted model has its own.
    owner = PLANTED if model == PLANTED else "organism"
    chosen = sae_layers(owner)[-1] if layer is None else layer
    try:
        return sae_path(chosen, owner), f"{owner} resid_post.{chosen}"
    except LayerRangeError as error:
        raise SAEMismatchError(error.given, f"layers {error.allowed}, or {HOW}", error.advice) from error


def published(source: str) -> tuple[str, str]:
    """Return release and id of "release:id"; raises SAEMismatchError for anything else."""
    release, separator, sae_id = source.partition(":")
    if not (release and separator and sae_id):
        raise SAEMismatchError(f"SAE {source!r}", HOW, "check the path")
    return release, sae_id


def _text(value: JSON) -> str | None:
    return None if value is None else str(value)
