"""A warning for interventions that no window of attention carries to where the answer is read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from mechint.base.errors import ReachWarning
from mechint.chat.render import Rendered
from mechint.interventions.prefill import reach_of
from mechint.interventions.specifications import Intervention
from mechint.models.model import Model


def warn_unreached(model: Model, cells: Iterable[tuple[Rendered, Intervention]]) -> None:
    """Warn once (ReachWarning) of cells whose intervention ends before the position that is read: the shift is 0."""
    windows = model.blocks.windows
    if not windows.is_limited:
        return
    ends = [(item, intervention, reach_of(model, item, intervention)) for item, intervention in cells]
    unseen = [cell for cell in ends if cell[2] is not None and cell[2] < len(cell[0].tokens) - 1]
    if unseen:
        item, intervention, end = unseen[0]
        sizes = " or ".join(str(size) for size in sorted({size for size in windows.sizes if size is not None}))
        warnings.warn(
            f"{len(unseen)} of {len(ends)} cells read exactly what clean reads: attention looks back over {sizes} "
            f"positions, and what was done ends before the answer. First: {intervention.name} in conversation "
            f"{item.label!r} reaches position {end} at most, the answer is read at {len(item.tokens) - 1}. Inject at "
            "earlier layers, or shorten what comes after the marked turns.",
            ReachWarning,
            stacklevel=2,
        )
