"""How large models are, as far as their names or their records say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyses.trial_contrasts.reading import Source

_NAMED = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?) ?([BM])(?!\w)", re.IGNORECASE)
_UNITS = {"B": 1e9, "M": 1e6}
# Weights of a block, in squares of its width: 4 of attention, 8 of a feed-forward layer four times as wide.
_OF_A_BLOCK = 12


def parameters(models: Sequence[str], sources: Sequence[Source]) -> dict[str, float]:
    """Return the number of parameters by model: as its name says ("7B"), else from its blocks and width.

    Models of which neither is known are left out.
    """
    shapes = {source.model.short_name: source.model for source in sources if source.model is not None}
    sizes: dict[str, float] = {}
    for model in models:
        if named := _NAMED.search(model):
            sizes[model] = float(named[1]) * _UNITS[named[2].upper()]
        elif model in shapes:
            sizes[model] = float(_OF_A_BLOCK * shapes[model].n_layers * shapes[model].d_model ** 2)
    return sizes


def by_size(models: Sequence[str], sizes: Mapping[str, float]) -> list[str]:
    """Return models from small to large, those of unknown size last, in their order."""
    return sorted(models, key=lambda model: sizes.get(model, float("inf")))


def size_words(parameters_: float | None) -> str:
    """Return a number of parameters for a label: 7B, 360M, about 2M."""
    if parameters_ is None:
        return "size not known"
    unit, of = ("B", 1e9) if parameters_ >= 1e9 else ("M", 1e6)
    return f"{parameters_ / of:.3g}{unit}"
