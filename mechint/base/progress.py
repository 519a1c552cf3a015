"""How far a call has come: told to a function of the caller, or shown as a bar in a notebook or a terminal."""

from __future__ import annotations

import io
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
    """The methods of a tqdm bar that are used."""

    def update(self, n: int) -> object:
        """Move the bar on by `n` units."""

    def set_postfix_str(self, s: str, refresh: bool) -> None:
        """Show a text behind the bar."""


@runtime_checkable
class Meter(Protocol):
    """A progress that also counts the work within passes, since one pass may take minutes."""

    def work(self, done: int) -> None:
        """Count work that was just done, in (token x block)."""


def meter_of(progress: Progress | None) -> Meter | None:
    """Return the progress if it also counts the work within passes, else None."""
    return progress if isinstance(progress, Meter) else None


# Where nobody watches, a line at most so often, in seconds; eyes get more.
_LOGGED, _DRAWN = 30.0, 0.1
_LINE = "{desc}: {percentage:.0f}%, {unit} {n_fmt}/{total_fmt}, {elapsed} so far, {remaining} left"
_WORK = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
_WORK_LINE = "{desc}: {percentage:.0f}%{postfix}, {elapsed} so far, {remaining} left"
# What is done within a second needs no bar.
_DELAY = 1.0
# The time left goes by all that was done, more than by what was done last.
_SMOOTHING = 0.02


@contextmanager
def counted(progress: Progress | bool | None, name: str, total: int, unit: str) -> Iterator[Progress | None]:
    """Yield the function to report to: `progress` itself, a bar over `total` units if it is True, None if False."""
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield None
    else:
        with bar(name, total, unit, delay=_DELAY) as tqdm_bar:
            yield CountBar(tqdm_bar)


def tracked(items: Sequence[Item], name: str, unit: str, *, shown: bool) -> Iterable[Item]:
    """Return the items one by one, with a bar over them if it is to be shown."""
    return tqdm(items, desc=name, unit=unit, delay=_DELAY, **_manner(_LINE, None)) if shown else items


@contextmanager
def cell_bar(name: str, *, work: int, cells: int, known: int = 0, by_cells: bool = False) -> Iterator[CellBar]:
    """Yield a bar over the work of a table, in (token x block), or over cells where that is done elsewhere.

    `known` of the `cells` are done before it begins.
    """
    total = cells - known if by_cells else work
    with tqdm(total=total, desc=name, unit="cell", smoothing=_SMOOTHING, **_manner(_WORK_LINE, _WORK)) as tqdm_bar:
        yield CellBar(tqdm_bar, known, cells, by_cells)


@contextmanager
def bar(name: str, total: int, unit: str, *, delay: float = 0.0) -> Iterator[Bar]:
    """Yield a bar of tqdm: a widget in notebooks, a bar in terminals, lines elsewhere. `delay`: seconds."""
    with tqdm(total=total, desc=name, unit=unit, delay=delay, **_manner(_LINE, None)) as tqdm_bar:
        yield tqdm_bar


def announce(line: str) -> None:
    """Write a line above the bars, to where these are shown; a notebook would show stderr as an alarm."""
    tqdm.write(line, file=sys.stdout if _in_notebook() else sys.stderr)


@dataclass
class CountBar:
    """A progress that moves a bar on by the units that are done."""

    bar: Bar

    def __call__(self, done: int, tokens: int) -> None:
        self.bar.update(done)


@dataclass
class CellBar:
    """A progress that moves a bar on by work or by cells, and counts cells and tokens."""

    bar: Bar
    cells: int
    of_cells: int
    by_cells: bool
    tokens: int = 0

    def __call__(self, cells: int, tokens: int) -> None:
        self.cells += cells
        self.tokens += tokens
        self.bar.set_postfix_str(f"{self.cells:,}/{self.of_cells:,} cells", refresh=False)
        if self.by_cells:
            self.bar.update(cells)

    def work(self, done: int) -> None:
        if not self.by_cells:
            self.bar.update(done)


class _Lines(io.TextIOBase):
    """A stream for logs: each new state of a bar is a line of its own, where tqdm would overwrite the last one."""

    last = ""

    def write(self, text: str, /) -> int:
        line = text.replace("\r", "").strip()
        if line not in ("", self.last):
            self.last = line
            sys.stderr.write(f"{line}\n")
        return len(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _in_notebook() -> bool:
    return any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)


def _manner(line: str, bar_format: str | None) -> dict[str, object]:
    """Return tqdm's options: a bar is drawn in notebooks and terminals, else written as lines now and then."""
    if _in_notebook() or sys.stderr.isatty():
        return {"mininterval": _DRAWN, "miniters": 1, "bar_format": bar_format}
    return {"mininterval": _LOGGED, "miniters": 1, "bar_format": line, "file": _Lines(), "ncols": 120}
