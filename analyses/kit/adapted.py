"""The model that is asked, with an adapter on top: what was learned is looked for where the base is looked into.

Vectors are extracted from the base, and doses are in norms of its stream: an adapter moves both, and the same question
is to be asked of both models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import option_types
from analyses.kit.declarations import option
from analyses.kit.options import Common
from mechint.base.errors import UsageError
from mechint.models.model_names import ADAPTER_CONFIG, adapter_location, check_reachable, resolve
from mechint.organisms import EMBEDDED

if TYPE_CHECKING:
    from mechint.finetune.run import Run
    from mechint.models.model import Model

_WHOSE = " (vectors and norms are the base's)"  # what every figure says of an adapted model


@dataclass(frozen=True, kw_only=True)
class AdapterOptions(Common):
    """The option of analyses that look into a finetuned model as they look into its base."""

    adapter: str | None = option(
        "run of mechint.finetune, or LoRA adapter, that runs on top of --model's own weights while it is asked; "
        "vectors and norms of doses stay those of --model",
        parse=option_types.location,
    )


def check_adapter(config: Common) -> None:
    """Raise, before anything is loaded, for an adapter that is not to be had, or that --model cannot have on top."""
    adapter = named_adapter(config)
    if adapter is None:
        return
    if config.backend != "bridge" or config.device == "auto":
        raise UsageError(
            given=f"--adapter with --backend {config.backend} --device {config.device}",
            allowed="--backend bridge on one device: the adapter runs on top of the model's own weights",
            advice="leave them out, or merge it: --model with the folder of the adapter",
        )
    folder = Path(adapter_location(adapter))
    if _is_run(folder):
        _run(folder).adapter()
    elif folder.exists() and not (folder / ADAPTER_CONFIG).is_file():
        raise UsageError(
            given=f"--adapter {adapter}: neither a run nor an adapter",
            allowed=f"the folder of a run (run.json), or of a LoRA ({ADAPTER_CONFIG})",
            advice="name runs/<recipe>/seed-<n>, or one of its steps",
        )
    elif not folder.exists() and adapter not in EMBEDDED:
        check_reachable(resolve(adapter))


def named_adapter(config: Common) -> str | None:
    """Return the adapter with which the model of a run is asked, if there is one.

    With `--conditions` the lens has it fill caches instead (`analyses.kit.finetuned`).
    """
    return None if getattr(config, "conditions", False) is True else getattr(config, "adapter", None)


def with_adapter(config: Common, base: Model) -> Model:
    """Return the model that is asked: the base, or the base with the adapter on top, which has a name that says so."""
    adapter = named_adapter(config)
    if adapter is None:
        return base
    folder = Path(adapter_location(adapter))
    if not _is_run(folder):
        model = base.with_adapter(adapter)
        model.name = f"{folder.name or adapter} on {base.name}{_WHOSE}"
        return model
    run = _run(folder)
    model = run.model(base)
    model.name = f"{run.record.recipe['name']}, seed {run.seed}, on {base.name}{_WHOSE}"
    return model


def _is_run(folder: Path) -> bool:
    from mechint.finetune.run import RECORD

    return (folder / RECORD).is_file()


def _run(folder: Path) -> Run:
    from mechint.finetune.run import Run

    return Run(folder)
