"""Which sparse autoencoder an analysis takes, and all that is wrong with it that can be known without the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.base.errors import UsageError
from mechint.models.backends.versions import require_sae_lens

if TYPE_CHECKING:
    from analyses.kit.checks import Checkpoint
    from mechint.attribution.features.config import SAEConfig
    from mechint.attribution.features.dictionary import Dictionary
    from mechint.models.model import Model

TRAINED = "trained"  # or with a layer, trained:15
_TRAINED = re.compile(rf"{TRAINED}(?::(?P<layer>[0-9]{{1,4}}))?")


def is_trained(source: int | str | None) -> bool:
    """Whether an option says that an SAE is to be trained, or read where it was."""
    return isinstance(source, str) and _TRAINED.fullmatch(source) is not None


def trained_layer(source: int | str | None) -> int | None:
    """Return the layer that an option names for an SAE that is trained; None: the usual one."""
    match = _TRAINED.fullmatch(source) if isinstance(source, str) else None
    return None if match is None or match["layer"] is None else int(match["layer"])


def config_of(source: int | str | None, model: str) -> SAEConfig | None:
    """Return what an SAE says of itself: a directory, or an embedded one (its layer; None: the late one).

    None for others: of a published one only the form of its name is looked at, as it is downloaded after the model is
    loaded, and that is when one is trained. Raises SAEMismatchError.
    """
    from mechint.attribution.features import config as sae_config

    if is_trained(source):
        return None
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


def check_trained(source: int | str | None, checkpoint: Checkpoint) -> None:
    """Raise for an SAE that cannot be trained: PrerequisiteError without SAE Lens, LayerRangeError."""
    require_sae_lens()
    layer = trained_layer(source)
    if layer is not None and checkpoint.n_layers is not None:
        from mechint.attribution.features.trained import check_layer

        check_layer(layer, checkpoint.n_layers)


def load(model: Model, source: int | str | None, sae: SAEConfig | None, *, any_model: bool) -> Dictionary:
    """Return the SAE of a run, trained now if that is so and it is not kept; `sae` is what was read of it."""
    from mechint.attribution.features import loading, trained

    if is_trained(source):
        return trained.train(model, trained_layer(source), progress=True)
    return loading.load(model, source if sae is None else sae, any_model=any_model)
