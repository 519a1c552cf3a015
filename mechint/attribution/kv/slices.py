"""Cache patching: caches mixed of two rows, and the answers of the model that reads on from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, product
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechint.attribution.reading import Reading
from mechint.base.errors import CacheMismatchError, LayerRangeError, UsageError
from mechint.base.progress import counted
from mechint.base.signatures import checked
from mechint.models.cache import KVCache
from mechint.models.device_memory import free_memory

Side = Literal["keys", "values"]
Direction = Literal["insert", "remove"]
SIDES: tuple[Side, ...] = ("keys", "values")
DIRECTIONS: tuple[Direction, ...] = ("insert", "remove")
_SHARE = 0.1  # of free memory, that mixed caches may take at once


@checked
@dataclass(frozen=True)
class CacheSlice:
    """A slice of a cache: layers, positions, sides (keys, values) and key-value heads, counted from 0; None is all.

    Raises UsageError for an empty list, a negative number, or a side that is none.
    """

    layers: Sequence[int] | None = None
    positions: Sequence[int] | None = None
    sides: Sequence[Side] = SIDES
    heads: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("layers", "positions", "heads"):
            numbers = getattr(self, name)
            object.__setattr__(self, name, None if numbers is None else _numbers(name, numbers))
        if not self.sides or not set(self.sides) <= set(SIDES):
            raise UsageError(f"sides {list(self.sides)}", f"{', '.join(SIDES)}, or both", "correct it")
        object.__setattr__(self, "sides", tuple(side for side in SIDES if side in self.sides))

    def check_fits(self, cache: KVCache) -> None:
        """Raise LayerRangeError or UsageError for layers, positions or heads that a cache does not have."""
        if self.layers is not None and self.layers[-1] >= cache.n_layers:
            raise LayerRangeError(f"layers {list(self.layers)}", f"0:{cache.n_layers}", "count layers from 0")
        heads = cache.keys[0].shape[1] if cache.n_layers else 0
        for name, numbers, count in (("positions", self.positions, cache.n_pos), ("heads", self.heads, heads)):
            if numbers is not None and numbers[-1] >= count:
                raise UsageError(f"{name} up to {numbers[-1]}", f"0:{count} of the filled cache", "count from 0")


# What one mixed cache takes from the other row: a slice, or several at once; none of them leaves it as it is.
CacheSlices: TypeAlias = CacheSlice | Sequence[CacheSlice]


@checked
def patched(cache: KVCache, base_row: int, other_row: int, slices: Sequence[CacheSlices]) -> KVCache:
    """Return a cache with one row for each of `slices`: row `base_row` with that slice of it from row `other_row`.

    Layers that no slice touches are views of the base row, so that many rows which differ in few layers take little
    memory. Raises what `CacheSlice.check_fits` raises, UsageError for rows that are not there, and CacheMismatchError
    for rows that are padded differently.
    """
    unions = [_listed(cache_slice) for cache_slice in slices]
    _check(cache, (base_row, other_row), unions)
    replacements: dict[tuple[Side, int], list[tuple[int, CacheSlice]]] = {}
    for row, union in enumerate(unions):
        for cache_slice in union:
            layers = range(cache.n_layers) if cache_slice.layers is None else cache_slice.layers
            for place in product(cache_slice.sides, layers):
                replacements.setdefault(place, []).append((row, cache_slice))
    rows, count = (base_row, other_row), len(unions)
    mixed: dict[Side, tuple[Tensor, ...]] = {
        side: tuple(
            _mixed(tensor, rows, count, replacements.get((side, layer), []))
            for layer, tensor in enumerate(getattr(cache, side))
        )
        for side in SIDES
    }
    mask = None if cache.mask is None else cache.mask[base_row : base_row + 1].expand(len(unions), -1)
    return KVCache(mixed["keys"], mixed["values"], mask)


@checked
def differing(cache: KVCache, row: int, other: int) -> dict[Side, Bool[Tensor, "layer head pos"]]:
    """Return where two rows of a cache differ at all, by side; slices that differ nowhere cannot carry the shift."""
    return {
        side: torch.stack([(tensor[row] != tensor[other]).any(-1).cpu() for tensor in getattr(cache, side)])
        for side in SIDES
    }


@checked
def patch(
    reading: Reading, clean: int, injected: int, slices: Sequence[CacheSlices], *, direction: Direction = "insert"
) -> Float[Tensor, " slice"]:
    """Return logit_diff for each of `slices`, read from a cache that has it from the other row.

    `clean` and `injected` are rows of `reading`. "insert": the clean cache with the slice from the injected one;
    "remove": the injected cache with the slice from the clean one. The stream is computed only from the first layer on
    where a slice changes something, and one that changes nothing costs nothing. Mixed caches are held some at a time.
    Raises what `patched` raises.
    """
    if direction not in DIRECTIONS:
        raise UsageError(f"direction {direction!r}", ", ".join(DIRECTIONS), "choose one of them")
    base, other = (clean, injected) if direction == "insert" else (injected, clean)
    unions = [_listed(cache_slice) for cache_slice in slices]
    _check(reading.cache, (base, other), unions)
    touched = _touched(unions, differing(reading.cache, base, other))
    last = reading.model.n_layers - 1
    starts = sorted({layers[0] - 1 for layers in touched if layers})
    streams = reading.run([base], keep=[*starts, last])
    diffs = reading.logit_diff(streams[last]).repeat(len(unions))
    with counted(reading.progress, f"cache, {direction}", sum(map(bool, touched)), "slice") as tell:
        for chunk in _chunks(reading, touched):
            cache = patched(reading.cache, base, other, [unions[number] for number in chunk])
            start = touched[chunk[0]][0] - 1
            stream = streams[start].expand(len(chunk), -1, -1)
            read = reading.logit_diffs(range(len(chunk)), resid=stream, layer=start, cache=cache)
            diffs[torch.tensor(chunk, device=diffs.device)] = read
            if tell is not None:
                tell(len(chunk), len(chunk) * len(reading.positions))
    return diffs


def _numbers(name: str, numbers: Sequence[int]) -> tuple[int, ...]:
    ascending = tuple(sorted({int(number) for number in numbers}))
    if not ascending or ascending[0] < 0:
        raise UsageError(
            f"{name}={list(numbers)}", f"one or more {name} from 0 on", "an empty range may be a reversed one"
        )
    return ascending


def _listed(cache_slice: CacheSlices) -> tuple[CacheSlice, ...]:
    return (cache_slice,) if isinstance(cache_slice, CacheSlice) else tuple(cache_slice)


def _check(cache: KVCache, rows: tuple[int, int], unions: Sequence[Sequence[CacheSlice]]) -> None:
    if not cache.n_pos:
        raise UsageError("an empty cache", "the cache of one or more marked turns", "mark turns with add_injection")
    if outside := [row for row in rows if not 0 <= row < cache.batch]:
        raise UsageError(f"row {outside[0]}", f"rows 0:{cache.batch} of the cache", "choose rows that are there")
    if not unions:
        raise UsageError("no slices", "one or more", "name what is to be replaced")
    if cache.mask is not None and not torch.equal(cache.mask[rows[0]], cache.mask[rows[1]]):
        raise CacheMismatchError("rows with padding of different length", "rows of equal length", "fill them alike")
    for cache_slice in dict.fromkeys(chain.from_iterable(unions)):
        cache_slice.check_fits(cache)


def _mixed(
    tensor: Float[Tensor, "row head pos d_head"],
    rows: tuple[int, int],
    count: int,
    slices: Sequence[tuple[int, CacheSlice]],
) -> Float[Tensor, "slice head pos d_head"]:
    """Return one layer's keys or values, `count` times as the first of two rows has them, with slices of the second.

    A view where there are no slices.
    """
    base, other = rows
    whole = tensor[base : base + 1].expand(count, *tensor.shape[1:])
    if not slices:
        return whole
    mixed = whole.clone()
    for row, cache_slice in slices:
        heads = range(tensor.shape[1]) if cache_slice.heads is None else cache_slice.heads
        positions = range(tensor.shape[2]) if cache_slice.positions is None else cache_slice.positions
        places = torch.tensor(heads)[:, None], torch.tensor(positions)[None, :]
        mixed[row][places] = tensor[other][places]
    return mixed


def _touched(
    unions: Sequence[Sequence[CacheSlice]], where: dict[Side, Bool[Tensor, "layer head pos"]]
) -> list[tuple[int, ...]]:
    """Return for each union the layers in which it changes something."""
    layers_by_slice: dict[CacheSlice, tuple[int, ...]] = {}
    for cache_slice in dict.fromkeys(chain.from_iterable(unions)):
        heads = slice(None) if cache_slice.heads is None else list(cache_slice.heads)
        positions = slice(None) if cache_slice.positions is None else list(cache_slice.positions)
        chosen = [where[side][:, heads][:, :, positions] for side in cache_slice.sides]
        changed = torch.stack([side.flatten(1).any(1) for side in chosen]).any(0)
        layers = range(len(changed)) if cache_slice.layers is None else cache_slice.layers
        layers_by_slice[cache_slice] = tuple(layer for layer in layers if changed[layer])
    return [tuple(sorted(set(chain.from_iterable(layers_by_slice[each] for each in union)))) for union in unions]


def _chunks(reading: Reading, touched: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Yield numbers of slices that begin at one layer, as many as mixed caches fit in memory."""
    cache = reading.cache
    limit = _SHARE * min(free_memory(device) for device in {tensor.device for tensor in cache.keys})
    sizes = [sum(side[layer][0].nbytes for side in (cache.keys, cache.values)) for layer in range(cache.n_layers)]
    ordered = sorted((number for number, layers in enumerate(touched) if layers), key=lambda number: touched[number])
    for _, group in groupby(ordered, key=lambda number: touched[number][0]):
        chunk: list[int] = []
        layers: set[int] = set()
        for number in group:
            wider = layers | set(touched[number])
            full = (len(chunk) + 1) * sum(sizes[layer] for layer in wider) > limit
            if chunk and (full or len(chunk) == reading.batch_size):
                yield chunk
                chunk, wider = [], set(touched[number])
            chunk.append(number)
            layers = wider
        yield chunk
