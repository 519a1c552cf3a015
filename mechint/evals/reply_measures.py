"""Measures of a reply that need nobody's judgement: repetition, letters of another script, shares of counted words."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence, Set

_NGRAM = 3
_EAST_ASIAN = ("HIRAGANA", "KATAKANA", "CJK")  # Japanese writes all three in one sentence


def word_share(listed: Sequence[str], counted: Set[str]) -> float:
    """Return the share of words that are counted; 0 of none."""
    return sum(word in counted for word in listed) / len(listed) if listed else 0.0


def repeated_trigrams(listed: Sequence[str]) -> float:
    """Return the share of trigrams of words that repeat others; 0 where there is none."""
    trigrams = [tuple(listed[at : at + _NGRAM]) for at in range(len(listed) - _NGRAM + 1)]
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def foreign_letters(text: str) -> float:
    """Return the share of letters outside of the commonest script; letters with marks are of the script they mark."""
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    return 1 - max(scripts.values()) / scripts.total() if scripts else 0.0


def _script(letter: str) -> str:
    if letter.isascii():
        return "LATIN"
    script = unicodedata.name(letter, "UNKNOWN").split()[0]
    return _EAST_ASIAN[-1] if script in _EAST_ASIAN else script
