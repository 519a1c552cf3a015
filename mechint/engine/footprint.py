"""The memory that a pass takes, worked out from its rows before it is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from mechint.engine.branching import Indices
from mechint.engine.passes import Budget
from mechint.engine.plan import Step
from mechint.models.model import Model

# Of an attention mask for each pair of positions: as it is, and as the kernel adds it.
_MASK_BYTES = 5


@dataclass(frozen=True)
class Load:
    """The rows of some steps that are run together: by level, and how many of them a model computes at most."""

    counts: Indices
    computed: int
    n_pos: int
    past: int
    height: int
    reads: int

    @classmethod
    def packed(cls, steps: Sequence[Step]) -> Load:
        """Return the load of steps that are packed in the rows of one: see `packing`."""
        loads = [cls.of(step) for step in steps]
        return replace(
            loads[0],
            n_pos=sum(load.n_pos for load in loads),
            height=max(load.height for load in loads),
            reads=sum(load.reads for load in loads),
        )

    @classmethod
    def of(cls, step: Step) -> Load:
        """Return the load of one step."""
        counts = np.array(step.rows.counts, dtype=np.int64)
        reads = int(counts[-1]) if step.node.ends else 0
        return cls(counts, max(step.computed), step.n_tokens, step.node.start, step.height, reads)

    def __add__(self, other: Load) -> Load:
        return Load(
            self.counts + other.counts,
            self.computed + other.computed,
            max(self.n_pos, other.n_pos),
            max(self.past, other.past),
            max(self.height, other.height),
            self.reads + other.reads,
        )


class Footprint:
    """Turns loads into bytes, for one model, budget and number of layers that are read."""

    def __init__(self, model: Model, budget: Budget, n_read: int) -> None:
        self.budget, self.n_read, self._readout = budget, n_read, model.readout
        # A GPU is given many more tokens at once, whatever they continue.
        self.packs = model.device.type == "cpu" and model.blocks.packs
        size = model.backend.dtype.itemsize
        self._cached = np.array([size * width for width in model.cache_widths], dtype=np.int64)
        self._widest = int(self._cached.max())
        self._resid = size * model.d_model
        self._float32 = torch.float32.itemsize * model.d_model
        self._mlp = size * model.backend.d_mlp

    def kept(self, load: Load) -> int:
        """Return the bytes of the caches that a load leaves for the steps that continue it."""
        if not load.height:
            return 0
        depth = min(len(load.counts), len(self._cached))
        return int(load.n_pos * (load.counts[:depth] @ self._cached[:depth]))

    def peak(self, load: Load) -> int:
        """Return the most bytes that a load takes at any time, its own caches among them.

        A block needs the stream of all rows before and after it, and what `_batch` says. Then rows part: the stream
        before and after, and what is added to the rows of one batch, in float32. Caches grow block by block. At last
        what was read is put together and unembedded.
        """
        counts, depth = load.counts, len(load.counts) - 1
        stream = counts * load.n_pos * self._resid
        caches = np.cumsum(load.n_pos * counts[:depth] * self._cached[:depth]) if load.height else np.zeros(depth)
        at_once = np.minimum(counts, min(load.computed, self.budget.rows(load.n_pos, load.past)))
        added = at_once * load.n_pos * (3 * self._float32 + self._resid)
        in_blocks = 2 * stream[:depth] + self._batch(load, at_once[:depth])
        streams = np.maximum(in_blocks, stream[:depth] + stream[1:] + added[1:])
        read = load.reads * self.n_read * self._resid
        unembedded = read + self._readout.working_bytes(load.reads) if load.reads else 0
        return int(max((caches + streams).max(initial=0), caches.max(initial=0) + unembedded) + read)

    def _batch(self, load: Load, at_once: Indices) -> Indices:
        """Return the bytes that each block takes for the rows that are computed at once.

        These are their new keys and values, and its MLP or its attention with the past that it reads.
        """
        batch = at_once * load.n_pos
        mlp = batch * (2 * self._resid + 3 * self._mlp)
        attention = batch * 4 * self._resid + at_once * (2 * load.past + load.n_pos) * self._widest
        mask = batch * (load.past + load.n_pos) * _MASK_BYTES
        bytes_: Indices = batch * self._widest + np.maximum(mlp, attention + mask)
        return bytes_
