"""What is replaced in a cache, in two steps: windows that cover it, under every vector; cells of those that matter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from analyses.kit import questions as asked
from analyses.kit import record as run
from analyses.kit import resume
from analyses.kit.study import Condition, Setup

if TYPE_CHECKING:
    import pandas as pd

    from mechint.attribution.kv import Window
    from mechint.attribution.reading import Reading
    from mechint.chat.conversations import Conversation

BLOCKS, PIECES, LONGEST = 16, 24, 16  # blocks of layers, pieces of the text, and tokens of a piece, at most
CLEAN, INJECTED = 0, 1  # rows of a reading
_POINTS = 10  # of a curve
_STEPS = 8  # points of integrated gradients
_KINDS = {"introspection": ("injected", "random"), "control": ("injected",)}


@dataclasses.dataclass(frozen=True)
class Size:
    """Layers and positions of a window; None: so that a model's layers and a text make no more of them than is seen."""

    layers: int | None
    positions: int | None

    def windows(self, reading: Reading) -> list[Window]:
        """Return the windows that cover a cache."""
        from mechint.attribution import kv

        length = reading.rendered.prefix_length
        positions = min(LONGEST, max(1, math.ceil(length / PIECES))) if self.positions is None else self.positions
        layers = math.ceil(reading.model.n_layers / BLOCKS) if self.layers is None else self.layers
        return kv.windows(reading, layers, positions)


@dataclasses.dataclass(frozen=True)
class Case:
    """One conversation under one vector."""

    setup: Setup
    chat: Conversation
    condition: Condition

    @property
    def control(self) -> bool:
        """Whether it is a control question, of which no more than layers are asked."""
        return asked.kind_of(self.chat) == "control"

    def piece(self, rows: Callable[[Reading], Sequence[pd.DataFrame]], *dependencies: object) -> resume.Chunk:
        """Return what `rows` finds in its cache, filled clean and injected, as a piece with its `dependencies`."""
        condition, model = self.condition, self.setup.model

        def compute() -> pd.DataFrame:
            import pandas as pd

            from mechint.attribution.reading import Reading
            from mechint.interventions import specifications as interventions

            asked_under = [interventions.CLEAN, condition.intervention]
            reading = Reading.of(model, self.chat, asked_under, batch_size=self.setup.config.batch_size)
            effects = pd.concat(rows(reading), ignore_index=True)
            table = effects.assign(unit=condition.unit, series=condition.series)
            receipts = [run.short_receipt(receipt.to_dict()) for receipt in reading.prefilled.receipts]
            table.attrs = {"receipts": [receipt | {"model": model.name} for receipt in receipts]}
            return table

        # Shards, for which places would have to be known beforehand, there are none of.
        return resume.Chunk(
            1, resume.key(model, [condition.intervention], self.chat, condition.series, *dependencies), compute
        )


def cases(setup: Setup, chats: Sequence[Conversation]) -> list[Case]:
    """Return introspection questions under every vector, and control questions under every concept."""
    return [
        Case(setup, chat, condition) for chat in chats for condition in setup.conditions(_KINDS[asked.kind_of(chat)])
    ]


def coarse(case: Case, size: Size) -> resume.Chunk:
    """Return what the whole cache carries, every layer of it (keys, values, heads too) and every window."""

    def rows(reading: Reading) -> list[pd.DataFrame]:
        from mechint.attribution import kv

        def effects(windows: Sequence[Window], level: str, **split: bool) -> pd.DataFrame:
            return kv.effects(reading, CLEAN, INJECTED, windows, level, **split)

        everything, layers = kv.windows(reading, reading.model.n_layers), kv.windows(reading, 1)
        if case.control:
            return [effects(everything, "cache"), effects(layers, "layer")]
        tables = [effects(everything, "cache"), effects(layers, "layer", by_side=True, by_head=True)]
        tables.append(effects(size.windows(reading), "window"))
        return [*tables, _gradients(reading)]

    return case.piece(rows, size)


def fine(case: Case, size: Size, chosen: Sequence[Window], carried: Mapping[Window, float]) -> resume.Chunk:
    """Return what the cells of some windows carry, and the first so many windows together, strongest first.

    `carried` says what each window carries alone; a second curve takes them in random order.
    """

    def rows(reading: Reading) -> list[pd.DataFrame]:
        from mechint.attribution import kv

        small = [cell for window in chosen for cell in kv.cells(window)]
        cells = [kv.effects(reading, CLEAN, INJECTED, small, "cell")] if small else []
        return [*cells, *_curves(case, reading, size, carried)]

    return case.piece(rows, size, list(chosen), list(carried.items()), case.setup.config.seed)


def _curves(case: Case, reading: Reading, size: Size, carried: Mapping[Window, float]) -> list[pd.DataFrame]:
    import numpy as np

    from mechint.attribution import kv

    differing = kv.differing(reading.cache, CLEAN, INJECTED)
    somewhere = np.logical_or.reduce([side.numpy().any(1) for side in differing.values()])
    live = [
        window for window in size.windows(reading)
        if somewhere[window.layer_start : window.layer_stop, window.pos_start : window.pos_stop].any()
    ]  # fmt: skip
    if not live:
        return []
    strongest = sorted(live, key=lambda window: -carried[window])
    shuffled = [live[at] for at in np.random.default_rng(case.setup.config.seed).permutation(len(live))]
    counts = sorted({round(float(count)) for count in np.geomspace(1, len(live), _POINTS)})
    orders = {"strongest": strongest, "shuffled": shuffled}
    return [
        kv.curve(reading, CLEAN, INJECTED, order, counts).assign(windows=name, of_windows=len(live))
        for name, order in orders.items()
    ]


def _gradients(reading: Reading) -> pd.DataFrame:
    """Return integrated gradients by layer, side and head, in the columns of what is replaced."""
    from mechint.attribution import kv

    gradients = kv.by_gradient(reading, CLEAN, INJECTED, steps=_STEPS)
    sums = gradients.groupby(["layer", "side", "index"], sort=False)["attribution"].sum().reset_index()
    shift = gradients.attrs["logit_diff_shift"]
    names = {name: gradients[name].iloc[0] for name in ("conversation", "intervention")}
    places = {"layer_start": sums["layer"], "layer_stop": sums["layer"] + 1}
    table = sums.assign(**names, **places, level="gradient", direction="gradient", pos_start=0, shift=shift)
    table = table.assign(pos_stop=reading.rendered.prefix_length, fraction=table["attribution"] / shift)
    return table.rename(columns={"attribution": "effect", "index": "head"}).drop(columns="layer")


def completed(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of both steps with -1 and "" for what does not apply to them (a curve has no place)."""
    numbers = ("layer_start", "layer_stop", "pos_start", "pos_stop", "head", "n_windows", "n_cells", "of_windows")
    whole = {name: rows[name].fillna(-1).astype(int) for name in numbers if name in rows}
    texts = {name: rows[name].fillna("").astype(str) for name in ("side", "windows") if name in rows}
    return rows.assign(**whole, **texts)
