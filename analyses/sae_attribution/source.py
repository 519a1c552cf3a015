"""Which sparse autoencoder an analysis takes, and all that is wrong with it that can be known without the model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import option_types
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    from analyses.kit.checks import Checkpoint
    from mechint.attribution.features.config import SAEConfig


def add_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that choose an SAE."""
    group.add_argument(
        "--sae", type=option_types.source, help="a directory, RELEASE:ID, or an embedded SAE's layer (default: late)"
    )
    group.add_argument(
        "--any-model-sae", action="store_true", help="take it although it says it was trained on another model"
    )


def check(
    source: int | str | None, model: str, checkpoint: Checkpoint, chosen: Sequence[int] | None, *, any_model: bool
) -> None:
    """Raise SAEMismatchError for an SAE that does not fit, UsageError for features it does not have.

    Of a published one only the form of its name is looked at here: it is downloaded after the model is loaded.
    """
    from mechint.attribution.features import config as sae_config

    declared = _config(source, model)
    if declared is None:
        return
    sae_config.check_owner(declared.name, declared.trained_on, model, any_model=any_model, warn=False)
    layer = declared.layer
    if checkpoint.n_layers is not None and checkpoint.d_model is not None:
        shape = {"n_layers": checkpoint.n_layers, "d_model": checkpoint.d_model}
        sae_config.check_shape(declared.name, layer, declared.d_in, model=model, **shape)
    if outside := sorted(feature for feature in chosen or () if feature >= declared.d_sae):
        raise UsageError(
            given=f"--features {','.join(map(str, outside))}",
            allowed=f"indices 0:{declared.d_sae} of {declared.name}",
            advice="take indices from the index column of a table of the same SAE",
        )


def _config(source: int | str | None, model: str) -> SAEConfig | None:
    """Return what an SAE on this machine says of itself."""
    from mechint.attribution.features import config as sae_config

    if source is None or isinstance(source, int):
        return sae_config.SAEConfig.read(sae_config.embedded(model, source)[0])
    path = Path(source).expanduser()
    if path.exists():
        return sae_config.SAEConfig.read(path)
    sae_config.published(source)
    return None
