"""All that it takes to go on with a training: the weights that it trains, the optimiser's moments, and the step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mechint.base.artefacts import FileKind
from mechint.base.errors import StaleArtefactError
from mechint.base.files import remove_file
from mechint.base.tensor_files import load_tensors, save_tensors

_KIND = FileKind("a checkpoint of a training", "a file as it was written", "remove the file", StaleArtefactError)
_MOMENTS = ("exp_avg", "exp_avg_sq")


def save(path: Path, key: str, step: int, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW) -> None:
    """Write a checkpoint after so many steps, atomically; `key` says of which training."""
    tensors: dict[str, Tensor] = {f"weight {name}": weight for name, weight in weights.items()}
    for name, weight in weights.items():
        tensors |= {f"{moment} {name}": optimizer.state[weight][moment] for moment in _MOMENTS}
    save_tensors(path, tensors, {"key": key, "step": str(step)})


@torch.no_grad()
def resume(path: Path, key: str, weights: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW) -> int:
    """Put back what a checkpoint of this training holds; returns the steps that are done, 0 where there is none.

    One that was damaged, or is of another training, is as none.
    """
    if not path.is_file():
        return 0
    try:
        content = load_tensors(path, _KIND)
    except StaleArtefactError:
        remove_file(path)
        return 0
    if content.metadata.get("key") != key or not content.sealed:
        return 0
    step = int(content.metadata["step"])
    for name, weight in weights.items():
        weight.copy_(content.tensors[f"weight {name}"])
        moments = {moment: content.tensors[f"{moment} {name}"].to(weight.device) for moment in _MOMENTS}
        optimizer.state[weight] = {"step": torch.tensor(float(step)), **moments}
    return step
