"""Loading sparse autoencoders with SAE Lens: embedded, from a directory, or published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mechint.backends.versions import require_sae_lens
from mechint.errors import SAEMismatchError
from mechint.features.config import HOW, check_owner, embedded, published
from mechint.features.dictionary import Dictionary, as_dictionary

if TYPE_CHECKING:
    from mechint.features.dictionary import AnySAE
    from mechint.model import Model


def load(model: Model, source: int | str | Path | None = None, *, any_model: bool = False) -> Dictionary:
    """Return an SAE for `model`: of a directory, published ("release:id"), or an embedded one (its layer, or None).

    None is the late embedded one. An SAE that says it was trained on another model is refused, unless `any_model`;
    a finetuned copy whose name begins with that model's (gemma-2-2b-it) is used with a warning (FeatureWarning).
    Published SAEs are downloaded. Raises SAEMismatchError for what does not fit or cannot be read, and
    PrerequisiteError without SAE Lens.
    """
    if source is None or isinstance(source, int):
        path, name = embedded(model.name, source)
        sae = _read(str(path), str(model.device))[0]
    else:
        sae, name = _read(str(source), str(model.device))
    check_owner(name, sae.cfg.metadata.model_name, model.name, any_model=any_model)
    return as_dictionary(model, sae, name)


def use(model: Model, sae: AnySAE, name: str = "SAE") -> Dictionary:
    """Return an SAE Lens object that the user already has as a dictionary for `model`. Raises SAEMismatchError."""
    return as_dictionary(model, sae, name)


def _read(source: str, device: str) -> tuple[AnySAE, str]:
    sae_class = require_sae_lens()
    path = Path(source).expanduser()
    try:
        if path.exists():
            return sae_class.load_from_disk(path, device=device), path.name
        release, sae_id = published(source)
        return sae_class.from_pretrained(release, sae_id, device=device), source
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()
        raise SAEMismatchError(
            given=f"SAE {source!r} cannot be read: {reason[0] if reason else type(error).__name__}",
            allowed=HOW,
            advice="check the path, or the release and id in SAE Lens' table of pretrained SAEs",
        ) from error
