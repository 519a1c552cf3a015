"""What a recipe adds to the residual stream.

Layers are blocks of a model that is `blocks` deep, "0:21" as Python has ranges; `recipe.adapted` scales them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from mechint.base.errors import LayerRangeError, UsageError
from mechint.finetune.checks import FORBID_UNKNOWN, at_least, distinct, within

# The largest doses that are taken for no slip: the published ones are 5 to 30, at 21 layers each.
MOST_RELATIVE, MOST_ABSOLUTE = 4.0, 1000.0
_RANGE = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What is added to the residual stream of the first turns, in which share of the examples, where and how strongly.

    `vectors`: random unit directions, `pool` of them for training; concepts' vectors; both, `pool` of each, in equal
    shares and of equal norms; or none. The one direction is
    added at each of the layers, with `single` at one block that is drawn from the range. `dose` is in units of the
    median norm of the stream if `relative`, else the length of what is added, which means something for `of_model`
    alone. It is that at each layer, or with `dose_of="sum"` of all layers together, so that one gets what many would.
    `concept_pairs`: fixed pairs, one of which is added. Concepts' vectors are read at the output of block `read_layer`
    for all layers, or at each layer.
    """

    __pydantic_config__ = FORBID_UNKNOWN

    vectors: Literal["random", "concept", "both", "none"] = "random"
    pool: int = 100
    vector_seed: int = 42
    share: float = 0.5
    layers: tuple[str, ...] = ("0:21", "21:42", "42:63")
    held_out_layers: tuple[str, ...] = ()
    blocks: int = 64
    single: bool = False
    dose: tuple[float, ...] = (5.0, 10.0, 20.0, 30.0)
    held_out_dose: tuple[float, ...] = ()
    relative: bool = False
    of_model: str = ""
    dose_of: Literal["layer", "sum"] = "layer"
    concept_pairs: int = 0
    read_layer: int | None = None

    def __post_init__(self) -> None:
        at_least("signal, pool", self.pool, 1)
        at_least("signal, vector_seed", self.vector_seed, 0)
        within("signal, share", self.share, 0, 1)
        for text in (*self.layers, *self.held_out_layers):
            if blocks_of(text, self.blocks)[0] == self.blocks - 1:
                raise LayerRangeError(
                    given=f"layers {text!r} of {self.blocks} blocks: what the last block adds reaches no cache",
                    allowed="ranges that begin before the last block",
                    advice="begin earlier",
                )
        for dose in (*self.dose, *self.held_out_dose):
            _check_dose(dose, self.relative)
        # What is held out may not be trained either, so both lists together have each once.
        distinct("signal, layers and held_out_layers", (*self.layers, *self.held_out_layers))
        distinct("signal, dose and held_out_dose", (*self.dose, *self.held_out_dose))
        self._check_vectors()

    @property
    def has_concepts(self) -> bool:
        """Whether vectors of concepts are added."""
        return self.vectors in ("concept", "both")

    def _check_vectors(self) -> None:
        if self.vectors != "none" and not (self.layers and self.dose and self.share):
            raise UsageError(
                given="vectors without layers, dose or a share of the examples",
                allowed="all three, or no vectors",
                advice='give them, or vectors="none"',
            )
        if self.vectors != "none" and not self.relative and not self.of_model:
            raise UsageError(
                given=f"doses {list(self.dose)} in absolute units without the model that they are for",
                allowed="relative=true, or of_model with a checkpoint",
                advice="give doses in median norms of the stream",
            )
        if self.concept_pairs and self.vectors != "concept":
            raise UsageError("pairs of concepts without concepts' vectors", 'vectors="concept"', "say so")
        if self.read_layer is not None and not 0 <= self.read_layer < self.blocks:
            raise LayerRangeError(f"read_layer {self.read_layer}", f"blocks 0 to {self.blocks - 1}", "give one of them")


def blocks_of(text: str, blocks: int) -> tuple[int, int]:
    """Return first and stop of "10:20". Raises LayerRangeError for no range, an empty one, and one beyond the model."""
    match = _RANGE.fullmatch(text)
    first, stop = (int(match[1]), int(match[2])) if match else (0, 0)
    if not first < stop <= blocks:
        raise LayerRangeError(
            given=f"layers {text!r} of {blocks} blocks",
            allowed=f'"first:stop" with first below stop, and stop at most {blocks}',
            advice="give a range of blocks, the stop not included",
        )
    return first, stop


def _check_dose(dose: float, relative: bool) -> None:
    most = MOST_RELATIVE if relative else MOST_ABSOLUTE
    if not 0 < dose <= most:
        unit = "median norms of the stream" if relative else "the length of what is added"
        raise UsageError(f"signal: a dose of {dose}", f"above 0, to {most:g} ({unit})", "give a dose within it")
