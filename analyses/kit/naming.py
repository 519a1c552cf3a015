"""What replies name, and whether they repeat themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence

_RUN = 3  # words that make a piece, of which equal ones are counted


def named(text: str, concepts: Sequence[str]) -> list[str]:
    """Return the concepts whose name a text has as words of their own, in the singular or plural, in any case."""
    return [name for name in concepts if re.search(name_pattern(name), text, re.IGNORECASE)]


def name_pattern(name: str) -> str:
    """Return a regular expression for a name, with and without an s at its end."""
    return rf"\b{re.escape(name.removesuffix('s'))}s?\b"


def repeated(text: str) -> float:
    """Return the share of a text's runs of three words that it has had before; 0 for a text with fewer words."""
    words = text.casefold().split()
    runs = [tuple(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
