"""The free memory of a device, and the errors by which libraries say that none is left."""

from __future__ import annotations

import psutil
import torch

from mechint.base.errors import MemoryLimitError


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device; on a CPU those that the system could give at once."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: BaseException) -> bool:
    """True for Python's, CUDA's (torch.OutOfMemoryError) and the CPU allocator's ways of saying it."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def out_of_memory(rows: int) -> MemoryLimitError:
    """The error for memory that ran out in a pass over `rows` rows."""
    smaller = max(1, rows // 2)
    return MemoryLimitError(
        given=f"the device ran out of memory with {rows} rows in a batch",
        allowed="batches that fit",
        advice=f"set the batch size to {smaller} (batch_size={smaller}, --batch-size {smaller})"
        if rows > 1
        else "use a larger device, a smaller model, or dtype bfloat16",
    )
