"""Which conversations share their first turns, and how (conversation x intervention) cells are cut into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mechint.render import Rendered

DEFAULT_BATCH_SIZE = 32


@dataclass(frozen=True)
class Group:
    """Indices of conversations with the same prefill: equal tokens and segments up to the last marked one."""

    conversations: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Interventions that are filled together, and the conversations that are then read from those caches together."""

    interventions: tuple[int, ...]
    reads: tuple[tuple[int, ...], ...]


def group_by_prefix(rendered: Sequence[Rendered]) -> list[Group]:
    """Return groups of conversations that share their prefill, in the order of their first member."""
    groups: dict[tuple[tuple[int, ...], tuple[tuple[int, bool], ...]], list[int]] = {}
    for index, item in enumerate(rendered):
        n_pos = item.prefix_length
        segments = tuple((s.stop, s.add_injection) for s in item.segments if s.stop <= n_pos)
        groups.setdefault((item.tokens[:n_pos], segments), []).append(index)
    return [Group(tuple(members)) for members in groups.values()]


def batches(group: Group, n_interventions: int, batch_size: int) -> Iterator[Batch]:
    """Cut a group into batches of at most `batch_size` rows: interventions first, then conversations read from them."""
    for fill in _chunks(range(n_interventions), batch_size):
        reads = _chunks(group.conversations, max(1, batch_size // len(fill)))
        yield Batch(tuple(fill), tuple(tuple(read) for read in reads))


def _chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
