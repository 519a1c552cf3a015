"""Which sparse autoencoder an analysis takes, and all that is wrong with it that can be known without the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.base.errors import UsageError

if TYPE_CHECKING:
    from analyses.kit.checks import Checkpoint
    from mechint.attribution.features.config import SAEConfig


def config_of(source: int | str | None, model: str) -> SAEConfig | None:
    """Return what an SAE says of itself: a directory, or an embedded one (its layer; None: the late one).

    Of a published one only the form of its name is looked at, and None returned: it is downloaded after the model is
    loaded. Raises SAEMismatchError.
    """
    from mechint.attribution.features import config as sae_config

    if source is None or isinstance(source, int):
        return sae_config.SAEConfig.read(*sae_config.embedded(model, source))
    path = Path(source).expanduser()
    if path.exists():
        return sae_config.SAEConfig.read(path)
    sae_config.published(source)
    return None


def check(sae: SAEConfig, model: str, checkpoint: Checkpoint, chosen: Sequence[int] | None, *, any_model: bool) -> None:
    """Raise SAEMismatchError for an SAE that does not fit, UsageError for features it does not have."""
    from mechint.attribution.features import config as sae_config

    sae_config.check_owner(sae.name, sae.trained_on, model, any_model=any_model, warn=False)
    layer = sae.layer
    if checkpoint.n_layers is not None and checkpoint.d_model is not None:
        shape = {"n_layers": checkpoint.n_layers, "d_model": checkpoint.d_model}
        sae_config.check_shape(sae.name, layer, sae.d_in, model=model, **shape)
    if outside := sorted(feature for feature in chosen or () if feature >= sae.d_sae):
        raise UsageError(
            given=f"--features {','.join(map(str, outside))}",
            allowed=f"indices 0:{sae.d_sae} of {sae.name}",
            advice="take indices from the index column of a table of the same SAE",
        )
