"""Which cached (layer, position, keys or values, head) carry the signal: caches mixed of a clean and an injected one.

After the first turns everything that a model can know of an injection is in its cache. `insert` puts a slice of the
injected cache into the clean one (is it sufficient?), `remove` a slice of the clean cache into the injected one (is it
necessary?): activation patching (Meng et al., 2022, arXiv 2202.05262; Zhang & Nanda, 2024, arXiv 2309.16042), of what
later tokens attend to instead of what runs through the model.
"""

from mechint.attribution.kv.gradients import by_gradient
from mechint.attribution.kv.slices import (
    DIRECTIONS,
    SIDES,
    CacheSlice,
    CacheSlices,
    Direction,
    Side,
    differing,
    patch,
    patched,
)
from mechint.attribution.kv.windows import Window, attribute, cells, curve, effects, strongest, windows

__all__ = [
    "DIRECTIONS",
    "SIDES",
    "CacheSlice",
    "CacheSlices",
    "Direction",
    "Side",
    "Window",
    "attribute",
    "by_gradient",
    "cells",
    "curve",
    "differing",
    "effects",
    "patch",
    "patched",
    "strongest",
    "windows",
]
