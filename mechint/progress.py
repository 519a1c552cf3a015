"""How far a call has come: told to a function of the caller, or shown as a bar in a notebook or a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from tqdm.auto import tqdm

# Told again and again: how many more things (cells, replies, texts) are done, and how many tokens were passed for it.
Progress = Callable[[int, int], None]
Item = TypeVar("Item")


@runtime_checkable
class Bar(Protocol):
    """What a bar of tqdm is used for here."""

    def update(self, n: int) -> object:
        """Move it along."""

    def set_postfix_str(self, s: str, refresh: bool) -> None:
        """Write something behind it."""


# A log file gets a line at most so often, in seconds; eyes more.
_LOGGED, _SEEN = 10.0, 0.1
# What is done within a second needs no bar.
_DELAY = 1.0


@contextmanager
def counted(progress: Progress | bool | None, name: str, total: int, unit: str) -> Iterator[Progress | None]:
    """Yield whom to tell: `progress` itself if it is a function, a bar over `total` things if it is True, else None."""
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield None
    else:
        with bar(name, total, unit, delay=_DELAY) as shown:
            yield CountBar(shown)


def tracked(items: Sequence[Item], name: str, unit: str, *, shown: bool) -> Iterable[Item]:
    """Return the items one by one, with a bar over them if it is to be shown."""
    return tqdm(items, desc=name, unit=unit, mininterval=_interval(), delay=_DELAY) if shown else items


@contextmanager
def cell_bar(name: str, *, tokens: int, cells: int, known: int = 0, by_cells: bool = False) -> Iterator[CellBar]:
    """Yield a bar over the tokens of a table, which all take the same time, or over cells where tokens are not known.

    `known` of the `cells` are done before it begins.
    """
    total, unit = (cells - known, "cell") if by_cells else (tokens, "token")
    with bar(name, total, unit, scaled=not by_cells) as shown:
        yield CellBar(shown, known, cells, by_cells)


@contextmanager
def bar(name: str, total: int, unit: str, *, scaled: bool = False, delay: float = 0.0) -> Iterator[Bar]:
    """Yield a bar of tqdm: a widget in notebooks, text elsewhere. `scaled` writes 12k for 12,000; `delay`: seconds."""
    with tqdm(total=total, desc=name, unit=unit, unit_scale=scaled, mininterval=_interval(), delay=delay) as shown:
        yield shown


@dataclass
class CountBar:
    """Moves a bar along by the things that are done."""

    bar: Bar

    def __call__(self, done: int, tokens: int) -> None:
        self.bar.update(done)


@dataclass
class CellBar:
    """Moves a bar along by tokens or cells, and counts both."""

    bar: Bar
    cells: int
    of_cells: int
    by_cells: bool
    tokens: int = 0

    def __call__(self, cells: int, tokens: int) -> None:
        self.cells += cells
        self.tokens += tokens
        self.bar.set_postfix_str(f"{self.cells:,}/{self.of_cells:,} cells", refresh=False)
        self.bar.update(cells if self.by_cells else tokens)


def _interval() -> float:
    widget = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)
    return _SEEN if widget or sys.stderr.isatty() else _LOGGED
