"""How far a change at a position can reach: attention with a sliding window looks back only so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Windows:
    """How many positions, its own among them, attention looks back over in each block; None for all."""

    sizes: tuple[int | None, ...]

    @property
    def is_limited(self) -> bool:
        """Whether there is a block that does not see everything."""
        return any(size is not None for size in self.sizes)

    def reach(self, layer: int, position: int) -> int | None:
        """Return the last position that a change of `resid_post` of a layer can change; None if there is no last.

        Each later block hands it on by its window less one. Layer -1 is the stream before the first block.
        """
        for size in self.sizes[layer + 1 :]:
            if size is None:
                return None
            position += size - 1
        return position

    def farthest(self, changes: Iterable[tuple[int, int]]) -> int | None:
        """Return the last position that any of some changes, as (layer, position), can change; None for no last."""
        reached = [self.reach(layer, position) for layer, position in changes]
        ends = [end for end in reached if end is not None]
        return max(ends) if ends and len(ends) == len(reached) else None
