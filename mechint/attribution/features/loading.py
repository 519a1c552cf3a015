"""Loading sparse autoencoders with SAE Lens: embedded, from a directory, or published."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.attribution.features.config import HOW, SAEConfig, check_owner, embedded, published
from mechint.attribution.features.dictionary import Dictionary, as_dictionary
from mechint.base import arguments
from mechint.base.artefacts import FileKind, reading, reason
from mechint.base.errors import SAEMismatchError
from mechint.base.files import JSON
from mechint.base.signatures import checked
from mechint.base.tensor_files import opened
from mechint.models.backends.versions import require_sae_lens
from mechint.models.model import Model

if TYPE_CHECKING:
    from torch import Tensor

    from mechint.attribution.features.dictionary import AnySAE

_KIND = FileKind(
    description="an SAE",
    allowed=HOW,
    advice="check the path, or the release and id in SAE Lens' table of pretrained SAEs",
    error=SAEMismatchError,
    folder=True,
)
_PARTS = ("cfg.json", "sae_weights.safetensors")
_REAL = ("F64", "F32", "F16", "BF16")


@checked
def load(
    model: Model,
    source: int | str | Path | SAEConfig | None = None,
    *,
    any_model: bool = False,
    centre: bool | None = None,
) -> Dictionary:
    """Return an SAE for `model`: of a directory, published ("release:id"), or an embedded one (its layer, or None).

    None is the late embedded one; a configuration that has been read stands for its directory. An SAE that says it was
    trained on another model is refused, unless `any_model`; a finetuned copy whose name begins with that model's
    (gemma-2-2b-it) is used with a warning (FeatureWarning). Published SAEs are downloaded. One that says it was trained
    on centred residuals (gpt2-small-res-jb) is given such; `centre` overrules what it says. Raises SAEMismatchError for
    what does not fit or cannot be read, and PrerequisiteError without SAE Lens.
    """
    if isinstance(source, SAEConfig):
        sae, name = _of_config(source, str(model.device)), source.name
    elif source is None or isinstance(source, int):
        path, name = embedded(model.name, source)
        sae = _read(str(path), str(model.device))[0]
    else:
        sae, name = _read(str(source), str(model.device))
    check_owner(name, sae.cfg.metadata.model_name, model.name, any_model=any_model)
    return as_dictionary(model, sae, name, centre)


@checked
def use(model: Model, sae: AnySAE, name: str = "SAE", *, centre: bool | None = None) -> Dictionary:
    """Return an SAE Lens object that the user already has as a dictionary for `model`, as `load` returns one.

    It is not changed: one of half precision is copied. Raises SAEMismatchError.
    """
    if not isinstance(sae, require_sae_lens()):
        raise arguments.wrong("sae", sae, "an SAE of SAE Lens")
    return as_dictionary(model, sae, name, centre)


def _read(source: str, device: str) -> tuple[AnySAE, str]:
    sae_class = require_sae_lens()
    path = Path(source).expanduser()
    with warnings.catch_warnings():
        # SAE Lens advises to load the model otherwise; the dictionary does what is needed of that.
        warnings.filterwarnings("ignore", message=r"\s*This SAE has non-empty model_from_pretrained_kwargs")
        if os.path.lexists(path):
            _check_parts(path)
            with reading(path, _KIND):
                return sae_class.load_from_disk(path, device=device, dtype="float32"), path.name
        release, sae_id = published(source)
        with _downloading(source):
            return sae_class.from_pretrained(release, sae_id, device=device), source


def _of_config(config: SAEConfig, device: str) -> AnySAE:
    """Return an SAE whose configuration has been read: of its directory nothing but the weights is read."""
    sae_class = require_sae_lens()

    def converter(path: Path, device: str, cfg_overrides: dict[str, JSON]) -> tuple[dict[str, JSON], dict[str, Tensor]]:
        from sae_lens.loading.pretrained_sae_loaders import read_sae_components_from_disk

        content = {**copy.deepcopy(dict(config.content)), "device": device, **cfg_overrides}
        components: tuple[dict[str, JSON], dict[str, Tensor]] = read_sae_components_from_disk(
            cfg_dict=content, weight_path=path / _PARTS[1], device=device
        )
        return components

    _check_parts(config.directory)
    with reading(config.directory, _KIND):
        return sae_class.load_from_disk(config.directory, device=device, dtype="float32", converter=converter)


def _check_parts(path: Path) -> None:
    """Raise SAEMismatchError for a directory whose files are none, or hold weights that are no real numbers."""
    file_kind = replace(_KIND, folder=False)
    for file in [path / name for name in _PARTS if os.path.lexists(path / name)]:
        with reading(file, file_kind):
            pass
    if (weights := path / _PARTS[1]).is_file():
        with opened(weights, file_kind) as (content, _):
            kinds = {name: content.get_slice(name).get_dtype() for name in content.keys()}  # noqa: SIM118 - no mapping
            if wrong := [f"{name} of {kind}" for name, kind in kinds.items() if kind not in _REAL]:
                raise ValueError(f"it holds {wrong[0]}, where weights are real numbers of floating point")


@contextmanager
def _downloading(source: str) -> Iterator[None]:
    """Turn whatever goes wrong while a published SAE is fetched and read into SAEMismatchError."""
    try:
        yield
    except Exception as error:
        raise SAEMismatchError(f"SAE {source!r} cannot be read: {reason(error)}", HOW, _KIND.advice) from error
