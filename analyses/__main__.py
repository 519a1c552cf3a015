"""`python -m analyses`: what there is, one line each."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from analyses import ANALYSES, BESIDE

# What shows a text before a run, and works on results: run all, join shards, look at pages, compare two galleries.
TOOLS = ("rendering", "all", "merge", "gallery.browser", "gallery.changes")


def summary(name: str) -> str:
    """Return the first line of an analysis' docstring, without importing it."""
    path = Path(__file__).parent / name.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    source = file.read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def main() -> int:
    """Write the list."""
    names = (*ANALYSES, *BESIDE, *TOOLS)
    width = max(map(len, names))
    lines = [f"  python -m analyses.{name:<{width}}  {summary(name)}" for name in names]
    sys.stdout.write("\n".join(["Analyses (--help tells each one's options):", *lines, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
