"""The rule that proposes a dose: the largest strength at which vectors work and text is coherent.

A vector works if the name of its own concept becomes likelier than the names of the other concepts, by more than random
vectors of equal size do to the same names. Text is coherent if its perplexity is less than twice the clean one. Both
must hold with their 95% intervals over concepts, so that a dose is neither next to nothing nor beyond all language.

Layers are those nearest to the middle of the depth, not those where names rise most: late layers are next to the
unembedding, and what is added there makes a name likelier by itself, without anything in the model that knows of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from analyses.kit import plain_text
from analyses.kit.dose_proposal import Measured
from analyses.kit.option_types import parse_layers
from mechint import stats

if TYPE_CHECKING:
    import pandas as pd

    from mechint.stats.intervals import Interval

VERSION = 1  # of the rule and of what is read for it; proposals of another version are never met
WORDS = (
    "the largest strength at which own names rise above others' and above random vectors (lower end of the interval "
    f"above 0) and text is coherent (upper end of perplexity / clean below {plain_text.COHERENT:g}), at the layers "
    "nearest to the middle where there is one, with the extraction whose own names rise most there"
)
_PLACE = ["extraction", "injected_layers", "strength"]
_LOG_P = "log_p_"


@dataclass(frozen=True)
class Places:
    """What vectors of one extraction do, layers by strengths (NaN: not tried), with intervals over concepts.

    `specific` is the rise of the own name above that of the others (nats), net of random vectors; `own_first` the share
    of concepts whose own name rises most (chance: 1 in the number of names); `perplexity` is in units of the clean one,
    of the kind of text that suffers more.
    """

    layers: tuple[tuple[int, ...], ...]
    strengths: tuple[float, ...]
    specific: Interval
    own_first: Interval
    perplexity: Interval

    @property
    def works(self) -> Bool[np.ndarray, "layers strengths"]:
        """Where the own name rises above the others."""
        return _bound(self.specific.low, self.specific.mean) > 0

    @property
    def coherent(self) -> Bool[np.ndarray, "layers strengths"]:
        """Where text is coherent, at this strength and at all smaller ones that were tried."""
        upper = _bound(self.perplexity.high, self.perplexity.mean)
        lost = np.logical_or.accumulate(upper >= plain_text.COHERENT, axis=1)
        return np.asarray(np.isfinite(upper) & ~lost)

    def largest(self, allowed: Bool[np.ndarray, "layers strengths"], row: int) -> int | None:
        """Return the number of the largest strength that is allowed at some layers."""
        columns = np.flatnonzero(allowed[row])
        return int(columns[-1]) if len(columns) else None

    def up_to(self, strength: float) -> Places:
        """Return the places of strengths up to one."""
        n = int(np.searchsorted(self.strengths, strength, side="right"))
        measures = [_columns(of, n) for of in (self.specific, self.own_first, self.perplexity)]
        return Places(self.layers, self.strengths[:n], *measures)

    def measured(self, at: tuple[int, int]) -> dict[str, Measured]:
        """Return what was measured at a place, by name."""
        values = {"specific": self.specific, "own_first": self.own_first, "perplexity": self.perplexity}
        return {name: Measured.of(of, at) for name, of in values.items()}


@dataclass(frozen=True)
class Choice:
    """What the rule chooses: an extraction, and the numbers of layers and strength in its places."""

    extraction: str
    at: tuple[int, int]
    works: bool
    coherent: bool


def choose(places: Mapping[str, Places]) -> Choice:
    """Return what the rule chooses; the first extraction is the usual one.

    Where vectors work nowhere while text is coherent, it is the largest strength with coherent text at the middle
    layers, of the usual extraction; where text is coherent nowhere, the smallest.
    """
    first = next(iter(places.values()))
    for row in from_the_middle(first.layers):
        candidates: dict[str, int] = {}
        for name, of in places.items():
            column = of.largest(of.works & of.coherent, row)
            if column is not None:
                candidates[name] = column
        if candidates:
            name = max(candidates, key=lambda way: places[way].specific.mean[row, candidates[way]])
            return Choice(name, (row, candidates[name]), works=True, coherent=True)
    usual = next(iter(places))
    for row in from_the_middle(first.layers):
        column = first.largest(first.coherent, row)
        if column is not None:
            return Choice(usual, (row, column), works=False, coherent=True)
    return Choice(usual, (from_the_middle(first.layers)[0], 0), works=False, coherent=False)


def working_range(places: Places, row: int) -> tuple[float, float] | None:
    """Return the least and the largest strength at some layers at which vectors work and text is coherent."""
    columns = np.flatnonzero((places.works & places.coherent)[row])
    return (places.strengths[columns[0]], places.strengths[columns[-1]]) if len(columns) else None


def places(effects: pd.DataFrame) -> dict[str, Places]:
    """Return what vectors of each extraction do at all layers and strengths of a table of `effects`."""
    layers = tuple(dict.fromkeys(effects["injected_layers"]))
    strengths = tuple(sorted(set(effects["strength"])))
    concepts = effects[effects["series"] == "injected"]
    return {str(name): _places(rows, layers, strengths) for name, rows in concepts.groupby("extraction", sort=False)}


def effects(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each vector at each place: extraction, injected_layers, strength, series, unit and its effects.

    These are `specific`, `own_first` (0 or 1; names that rise alike share the first place; both NaN for random vectors)
    and `rise` of the loss (nats, the kind of text that suffers more). `table` has the rows of texts, clean and steered,
    with `log_p_<name>` of every concept's name.
    """
    read = plain_text.rises(table)
    logs = [column for column in read if str(column).startswith(_LOG_P)]
    clean = table[(table["kind"] == plain_text.KIND) & (table["series"] == "clean")].set_index("conversation")
    shifts = read[logs].to_numpy() - clean.loc[read["conversation"], logs].to_numpy()
    keys = [*_PLACE, "series", "unit"]
    means = read.assign(**dict(zip(logs, shifts.T, strict=True))).groupby(keys, sort=False)[logs].mean()
    rise = plain_text.worst(read, keys[:-1]).set_index(keys)["rise"]
    rows = means.reset_index()
    net = rows[logs].to_numpy() - _of_randoms(rows, logs)
    is_own = _is_own(rows["unit"], [column.removeprefix(_LOG_P) for column in logs])
    measured = rows[keys].assign(specific=_specific(net, is_own), own_first=_first(net, is_own))
    return measured.assign(rise=rise.loc[_index(measured, keys)].to_numpy(), strength=rows["strength"].astype(float))


def _index(rows: pd.DataFrame, keys: Sequence[str]) -> list[tuple[object, ...]]:
    """Return the keys of rows, by which another table finds its rows."""
    return list(rows[list(keys)].itertuples(index=False, name=None))


def _of_randoms(rows: pd.DataFrame, logs: Sequence[str]) -> Float[np.ndarray, "rows names"]:
    """Return how much each name rises under random vectors at the place of each row; 0 without random vectors."""
    random = rows[rows["series"] == "random"]
    if random.empty:
        return np.zeros((len(rows), len(logs)))
    means = random.groupby(_PLACE[1:], sort=False)[list(logs)].mean()
    return np.asarray(means.loc[_index(rows, _PLACE[1:])])


def _is_own(units: pd.Series, names: Sequence[str]) -> Bool[np.ndarray, "rows names"]:
    """Return where a name is that of the row's own concept."""
    return np.asarray([[unit == name for name in names] for unit in units]).reshape(len(units), len(names))


def _specific(
    net: Float[np.ndarray, "rows names"], is_own: Bool[np.ndarray, "rows names"]
) -> Float[np.ndarray, " rows"]:
    of_own = np.where(is_own, net, 0.0).sum(1)
    others = np.where(is_own, 0.0, net).sum(1) / max(net.shape[1] - 1, 1)
    return np.where(is_own.any(1), of_own - others, np.nan)


def _first(net: Float[np.ndarray, "rows names"], is_own: Bool[np.ndarray, "rows names"]) -> Float[np.ndarray, " rows"]:
    highest = net == net.max(1, keepdims=True)
    return np.where(is_own.any(1), (highest & is_own).sum(1) / highest.sum(1), np.nan)


def _places(rows: pd.DataFrame, layers: Sequence[str], strengths: Sequence[float]) -> Places:
    specific = _cube(rows, "specific", layers, strengths)
    first = _cube(rows, "own_first", layers, strengths)
    rise = stats.mean_interval(_cube(rows, "rise", layers, strengths))
    perplexity = replace(
        rise, mean=plain_text.ratio(rise.mean), low=plain_text.ratio(rise.low), high=plain_text.ratio(rise.high)
    )
    return Places(
        tuple(parse_layers(text) for text in layers),
        tuple(strengths),
        stats.mean_interval(specific),
        stats.mean_interval(first, within=stats.PROBABILITY),
        perplexity,
    )


def _cube(
    rows: pd.DataFrame, value: str, layers: Sequence[str], strengths: Sequence[float]
) -> Float[np.ndarray, "layers strengths concepts"]:
    wide = stats.unit_means(rows, ["injected_layers", "strength"], value, "unit")
    every = [(text, strength) for text in layers for strength in strengths]
    return np.asarray(wide.reindex(every), dtype=np.float64).reshape(len(layers), len(strengths), -1)


def _columns(of: Interval, n: int) -> Interval:
    return replace(of, mean=of.mean[:, :n], low=of.low[:, :n], high=of.high[:, :n])


def from_the_middle(layers: Sequence[tuple[int, ...]]) -> list[int]:
    """Return the numbers of windows, those nearest to the middle of all first."""
    centres = np.array([np.mean(window) for window in layers])
    return [int(row) for row in np.argsort(np.abs(centres - np.median(centres)), kind="stable")]


def _bound(bound: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the bounds of intervals; of one concept, which has none, the mean."""
    return np.where(np.isnan(bound), mean, bound)
