"""GGUF files, opened so that a damaged header ends in an error: its counts are believed as far as the file goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, SupportsInt

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from gguf import GGUFReader


def gguf_reader(path: Path) -> GGUFReader:
    """Return a reader of a file's fields and tensors; raises ValueError where the file ends too early, and others."""
    from gguf import GGUFReader

    class Bounded(GGUFReader):  # type: ignore[misc]  # the package has no types
        """A reader that refuses values beyond the end of the file, where a damaged header may claim 2^60 of them."""

        def _get(
            self, offset: SupportsInt, dtype: npt.DTypeLike, count: SupportsInt = 1, override_order: str | None = None
        ) -> npt.NDArray[np.generic]:
            values: npt.NDArray[np.generic] = super()._get(offset, dtype, count, override_order)
            if len(values) < int(count):
                raise ValueError("it ends where its header says that more follows")
            return values

    return Bounded(str(path))
