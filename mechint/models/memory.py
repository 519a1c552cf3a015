"""How much memory a run may take: as the user allows, else a share of the free memory, looked at as it goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from mechint.base.errors import MemoryLimitError
from mechint.base.files import read_json, write_atomically
from mechint.base.sizes import format_bytes, parse_bytes
from mechint.models.device_memory import free_memory
from mechint.models.model import Model

# Of what is free when a run begins; and of what is free at any moment, however much the run was allowed.
_OF_FREE, _OF_FREE_NOW = 1 / 4, 3 / 4
# Of what a run is allowed on a CPU this much is planned with: the system's allocator keeps some of what is given back.
_PLANNED_ON_CPU = 0.85
_CPU = torch.device("cpu")
# In a store of cells: what the runs that it was begun with were allowed, in bytes, by what they were told.
_NOTED = "memory.json"


@dataclass(frozen=True)
class Room:
    """Bytes that are left for caches and for passes: the same bytes, unless caches wait on another device."""

    caches: int
    passes: int
    shared: bool

    def allows(self, kept: int, peak: int, height: int) -> bool:
        """Whether there is room for a pass that takes `peak` bytes and keeps caches for `height` levels below it.

        Each of these levels is left as much as this one keeps.
        """
        if kept * (height + 1) > self.caches:
            return False
        return (peak if self.shared else peak - kept) <= self.passes


@dataclass(frozen=True)
class Memory:
    """The bytes that a run may take besides those in use when it begins: on each device, and of the computer's memory.

    `host` is the computer's memory for caches that are kept there, where the devices are others.
    """

    limit: int
    devices: tuple[torch.device, ...]
    host: int | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        max_memory: int | str | None,
        *,
        offload: bool = False,
        store: str | Path | None = None,
        begin: bool = False,
    ) -> Memory:
        """Return the memory that a run of a model may take, `max_memory` being all that the process may hold.

        That is its resident memory on a CPU and what torch has taken of a GPU, weights included. By default it is a
        quarter of what is free, rounded down to a power of two. A run that `store` was begun with goes on with what it
        was allowed, so that it divides its work alike; `begin` notes that there. Raises MemoryLimitError where nothing
        is left, and what `parse_bytes` raises.
        """
        allowed = None if max_memory is None else parse_bytes(max_memory)
        limit = min(_limit(device, allowed) for device in model.devices)
        if store is not None:
            limit = _as_begun(Path(store), "free" if allowed is None else str(allowed), limit, begin=begin)
        elsewhere = offload and any(device.type != "cpu" for device in model.devices)
        return cls(limit, tuple(model.devices), _limit(_CPU, None) if elsewhere else None)

    def room(self, kept: int) -> Room:
        """Return the room that is left beside caches of `kept` bytes, now that other programs may have taken some."""
        free = int(_OF_FREE_NOW * min(free_memory(device) for device in self.devices))
        if self.host is not None:
            on_host = min(self.host - kept, int(_OF_FREE_NOW * free_memory(_CPU)))
            return Room(on_host, min(self.limit, free), shared=False)
        left = min(self.limit - kept, free)
        return Room(left, left, shared=True)

    def planned(self, kept: int) -> Room:
        """Return the room that will be left beside caches of `kept` bytes if other programs take nothing."""
        if self.host is not None:
            return Room(self.host - kept, self.limit, shared=False)
        return Room(self.limit - kept, self.limit - kept, shared=True)


def in_use(device: torch.device) -> int:
    """Return the bytes that this process holds on a device now: resident memory on a CPU, torch's on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def _as_begun(store: Path, name: str, limit: int, *, begin: bool) -> int:
    """Return the limit that a store has under a name, or this one, which it then has if a run begins."""
    path = store / _NOTED
    noted = read_json(path) if path.is_file() else {}
    limits = noted if isinstance(noted, dict) else {}
    before = limits.get(name)
    if isinstance(before, int) and before > 0:
        return before
    if begin:
        write_atomically(path, json.dumps({**limits, name: limit}))
    return limit


def _limit(device: torch.device, allowed: int | None) -> int:
    if allowed is None:
        return 1 << (max(int(_OF_FREE * free_memory(device)), 1).bit_length() - 1)
    there = in_use(device)
    left = int((allowed - there) * (_PLANNED_ON_CPU if device.type == "cpu" else 1))
    if left <= 0:
        raise MemoryLimitError(
            given=f"at most {format_bytes(allowed)} of memory, of which the model and what it needs take "
            f"{format_bytes(there)} already",
            allowed="more than that: the limit is of all that the process holds, weights included",
            advice="allow more (--max-memory, max_memory=), or load the model with a smaller dtype",
        )
    return left
