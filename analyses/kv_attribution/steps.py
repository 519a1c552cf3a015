"""What is replaced in a cache, in two steps: windows that cover it, under every vector; cells of those that matter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analyses.kit import questions
from analyses.kit.cases import CLEAN, INJECTED, Case

if TYPE_CHECKING:
    import pandas as pd

    from analyses.kit.resume import Chunk
    from analyses.kit.subject import Subject
    from mechint.attribution.kv import Window
    from mechint.attribution.reading import Reading
    from mechint.chat.conversations import Conversation

BLOCKS, PIECES, LONGEST = 16, 24, 16  # blocks of layers, pieces of the text, and tokens of a piece, at most
_POINTS = 10  # of a curve
_STEPS = 8  # points of integrated gradients
_PLACE = ("layer_start", "layer_stop", "pos_start", "pos_stop")
SERIES = {"introspection": ("injected", "random"), "control": ("injected",)}


@dataclasses.dataclass(frozen=True)
class Size:
    """Layers and positions of a window; None: so that a model's layers and a text make no more of them than is seen."""

    layers: int | None
    positions: int | None

    def windows(self, reading: Reading) -> list[Window]:
        """Return the windows that cover a cache."""
        from mechint.attribution import kv

        positions = self.positions_of(reading.rendered.prefix_length)
        return kv.windows(reading, self.layers_of(reading.model.n_layers), positions)

    def layers_of(self, n_layers: int) -> int:
        """Return the layers of a window in a model of so many."""
        return math.ceil(n_layers / BLOCKS) if self.layers is None else self.layers

    def positions_of(self, length: int) -> int:
        """Return the positions of a window in a text of so many tokens."""
        return min(LONGEST, max(1, math.ceil(length / PIECES))) if self.positions is None else self.positions


def cases(subject: Subject, chats: Sequence[Conversation]) -> list[Case]:
    """Return introspection questions under every vector, and control questions under every concept."""
    return [
        Case(subject, chat, condition)
        for chat in chats
        for condition in subject.conditions(SERIES[questions.kind_of(chat)])
    ]


def is_control(case: Case) -> bool:
    """Return whether a case is one of a control question, of which no more than layers are replaced."""
    return questions.kind_of(case.chat) == "control"


def coarse(case: Case, size: Size) -> Chunk:
    """Return what the whole cache carries, every layer of it (keys, values, heads too) and every window."""

    def rows(reading: Reading) -> pd.DataFrame:
        import pandas as pd

        from mechint.attribution import kv

        def effects(windows: Sequence[Window], level: str, **split: bool) -> pd.DataFrame:
            return kv.effects(reading, CLEAN, INJECTED, windows, level, **split)

        split = {} if is_control(case) else {"by_side": True, "by_head": True}
        tables = [effects(kv.windows(reading, reading.model.n_layers), "cache")]
        tables.append(effects(kv.windows(reading, 1), "layer", **split))
        if not is_control(case):
            tables += [effects(size.windows(reading), "window"), _gradients(reading)]
        return pd.concat(tables, ignore_index=True)

    return case.chunk(rows, size)


def carried(windows: pd.DataFrame, case: Case) -> dict[Window, float]:
    """Return what each window carries alone in a case: the mean of both directions."""
    from mechint.attribution import kv

    under = windows["intervention"] == case.condition.intervention.name
    effects = windows[under & (windows["conversation"] == case.chat.label)]
    means = effects.groupby(list(_PLACE), sort=False)["effect"].mean()
    return {kv.Window(*map(int, place)): float(value) for place, value in means.items()}


def fine(case: Case, size: Size, chosen: Sequence[Window], alone: Mapping[Window, float]) -> Chunk:
    """Return what the cells of some windows carry, and the first so many windows together, strongest first.

    `alone` says what each window carries alone; a second curve takes them in random order.
    """

    def rows(reading: Reading) -> pd.DataFrame:
        import pandas as pd

        from mechint.attribution import kv

        small = [cell for window in chosen for cell in kv.cells(window)]
        cells = [kv.effects(reading, CLEAN, INJECTED, small, "cell")] if small else []
        tables = [*cells, *_curves(reading, size, alone, case.subject.config.seed)]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    return case.chunk(rows, size, list(chosen), list(alone.items()), case.subject.config.seed)


def _curves(reading: Reading, size: Size, alone: Mapping[Window, float], seed: int) -> list[pd.DataFrame]:
    import numpy as np

    from mechint.attribution import kv

    differing = kv.differing(reading.cache, CLEAN, INJECTED)
    somewhere = np.logical_or.reduce([side.numpy().any(1) for side in differing.values()])
    live = [
        window
        for window in size.windows(reading)
        if somewhere[window.layer_start : window.layer_stop, window.pos_start : window.pos_stop].any()
    ]
    if not live:
        return []
    strongest = sorted(live, key=lambda window: -alone[window])
    shuffled = [live[at] for at in np.random.default_rng(seed).permutation(len(live))]
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
    numbers = (*_PLACE, "head", "n_windows", "n_cells", "of_windows")
    whole = {name: rows[name].fillna(-1).astype(int) for name in numbers if name in rows}
    texts = {name: rows[name].fillna("").astype(str) for name in ("side", "windows") if name in rows}
    return rows.assign(**whole, **texts)
