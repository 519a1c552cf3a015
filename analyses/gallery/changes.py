"""Say what has changed between two galleries, figure by figure: `python -m analyses.gallery.changes OLD NEW`.

Numbers are equal within a tolerance, in texts too, so that another machine's last digits are no change.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import cli, declarations, option_types
from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    from mechint.base.files import JSON

_MINUS = "\N{MINUS SIGN}"
_NUMBER = re.compile(rf"[-+{_MINUS}]?\d+(?:\.\d+)?")
TOLERANCE = 2e-3
_KIND = FileKind("a figure", "the json of a figure, as runs write it", "write it again")


def differences(old: JSON, new: JSON, tolerance: float = TOLERANCE, where: str = "") -> Iterator[str]:
    """Yield one line for each value that differs by more than `tolerance` (of its size, or of 1 for small numbers)."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if key not in old or key not in new:
                yield f"{where}.{key}: {'only in the new' if key in new else 'only in the old'}"
            else:
                yield from differences(old[key], new[key], tolerance, f"{where}.{key}")
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{where}: {len(old)} -> {len(new)} entries"
        for index, (before, after) in enumerate(zip(old, new, strict=False)):
            yield from differences(before, after, tolerance, f"{where}[{index}]")
    elif not _alike(old, new, tolerance):
        yield f"{where}: {old!r} -> {new!r}"


def compare(old: Path, new: Path, tolerance: float = TOLERANCE) -> list[str]:
    """Return what differs between the figures of two directories of galleries; raises UsageError if one has none."""
    figures = [_figures(directory) for directory in (old, new)]
    lines = [
        f"{name}: not in {(old, new)[name in figures[0]]}" for name in sorted(figures[0].keys() ^ figures[1].keys())
    ]
    for name in sorted(figures[0].keys() & figures[1].keys()):
        changes = differences(_content(figures[0][name]), _content(figures[1][name]), tolerance)
        lines += [f"{name}{line}" for line in changes]
    return lines


def _figures(directory: Path) -> dict[str, Path]:
    files = sorted(file for file in directory.rglob("*.json") if file.name != "run.json" and file.parent != directory)
    if not files:
        raise UsageError(f"no figures in {directory}", "a directory with <analysis>/<figure>.json", "check the path")
    return {file.relative_to(directory).as_posix(): file for file in files}


def _content(path: Path) -> JSON:
    with reading(path, _KIND):
        content: JSON = json.loads(path.read_text(encoding="utf-8"))
    return content


def _alike(old: JSON, new: JSON, tolerance: float) -> bool:
    if isinstance(old, int | float) and isinstance(new, int | float) and not isinstance(old, bool):
        return abs(old - new) <= tolerance * max(1.0, abs(old), abs(new))
    if isinstance(old, str) and isinstance(new, str):
        numbers = [[float(text.replace(_MINUS, "-")) for text in _NUMBER.findall(value)] for value in (old, new)]
        rounding = 0.011 + tolerance  # texts have two decimals at most
        same_words = _NUMBER.sub("#", old) == _NUMBER.sub("#", new)
        return same_words and all(abs(before - after) <= rounding for before, after in zip(*numbers, strict=True))
    return old == new


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = declarations.Parser(prog="python -m analyses.gallery.changes", description=__doc__, allow_abbrev=False)
    options.add_argument("old", type=option_types.path, help="directory with <analysis>/<figure>.json")
    options.add_argument("new", type=option_types.path, help="another one")
    options.add_argument(
        "--tolerance", type=option_types.not_negative, default=TOLERANCE, help="relative, or absolute below 1"
    )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code: 1 if something has changed."""
    lines: list[str] = []

    def task() -> None:
        options = parser().parse_args(sys.argv[1:] if argv is None else list(argv))
        lines.extend(compare(options.old, options.new, options.tolerance))

    if code := cli.guarded(task):
        return code
    sys.stdout.write("".join(f"{line}\n" for line in lines) or "nothing has changed\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
