"""The processes of a training: one, or those that `accelerate launch` has started.

Each passes its share of a step's batches, and their gradients are added up: the same step, but for rounding, as one
process makes of all of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechint.base.errors import PrerequisiteError

if TYPE_CHECKING:
    from accelerate import Accelerator


class Processes:
    """This process among those of a training. Raises PrerequisiteError where there are several without accelerate."""

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator
        self.index = 0 if accelerator is None else int(accelerator.process_index)
        self.count = 1 if accelerator is None else int(accelerator.num_processes)

    @classmethod
    def started(cls) -> Processes:
        """Return those that were started, by the environment that launchers set."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return SINGLE
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise PrerequisiteError(
                "several processes without accelerate", "accelerate", "pip install 'mechint[train]'"
            ) from error
        return cls(Accelerator(cpu=not torch.cuda.is_available()))

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes files."""
        return self.index == 0

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, the same in all processes, by their sums over these."""
        if self._accelerator is None or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        summed: Tensor = self._accelerator.reduce(flat, reduction="sum")
        for tensor, total in zip(tensors, torch.split(summed, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over the processes."""
        if self._accelerator is None:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=self._accelerator.device)
        self.add([summed])
        totals: list[float] = summed.tolist()
        return totals

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any of them."""
        return bool(self.total([float(flag)])[0])

    def wait(self) -> None:
        """Wait until all have come to this point."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


SINGLE = Processes()
