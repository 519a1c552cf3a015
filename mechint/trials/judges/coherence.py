"""Whether a reply can be read: repetition, few different words, broken words, a change of script.

Measures with thresholds, which are data (`Limits`) and part of a judge's version. Word salad of a steered model keeps
punctuation and loses the small words that hold a sentence together, so their share is one of the measures.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

from mechint.trials.judges.texts import words

_JOINED = re.compile(r"[a-z][A-Z]|[.!?,;][a-zA-Z]{2}|[a-zA-Z]\d|\d[a-zA-Z]{2}|[a-z]'[a-z]{3}")
_MARKS = re.compile(r"[{}<>=|\\]|;;|\(\s")
_SIGNS = re.compile(r"[^\w\s*_=-]")
_PAIRED = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|[^\w\s]")
_CAPITALS = re.compile(r"\b[A-Z]{2,}\b")
_FEW_MARKS, _MARKS_EACH = 5, 2  # marks of which a reply may have any number, and so many for each word
_LONG_WORD, _LONGEST_WORD, _NGRAM, _LONGEST_RUN, _MOST_LINES, _ASCII = 17, 40, 3, 3, 3, 128


@dataclass(frozen=True)
class Limits:
    """Where a reply stops being readable.

    `repeated`: share of its trigrams that are repetitions; `top`: share of its commonest word, small ones aside;
    `different`: different words over words; `small`: share of small words; `broken`: joined or overlong words over
    words; `foreign`: share of letters of another script than most; `strange`: share of characters that are no text;
    `impossible`: pairs of words that do not follow each other, over words; `marks`: those of code, over words.
    The measures of whole replies hold from `enough` words on.
    """

    repeated: float = 0.35
    top: float = 0.3
    different: float = 0.3
    small: float = 0.2
    broken: float = 0.1
    capitals: float = 0.5
    foreign: float = 0.1
    strange: float = 0.03
    impossible: float = 0.03
    marks: float = 0.08
    enough: int = 10


def incoherence(
    reply: str, limits: Limits, small_words: Set[str], impossible: Set[tuple[str, str]] = frozenset()
) -> str:
    """Return why a reply cannot be read, "" if it can.

    `small_words` are those that join others in its language; `impossible` pairs do not follow each other in it.
    """
    listed = words(reply)
    if not listed:
        return "no words" if reply.strip() else "empty"
    n_impossible = _n_impossible(reply, impossible)
    share_impossible = n_impossible / len(listed)
    at_once = {
        "characters that are no text": _strange(reply) > limits.strange,
        "the script changes": _foreign(reply) > limits.foreign,
        "one word again and again": _run(listed) > _LONGEST_RUN,
        "one line again and again": _repeated_line(reply) > _MOST_LINES,
        "words without end": max(map(len, listed)) > _LONGEST_WORD,
        "a special token": "<|" in reply,
        "words that do not go together": n_impossible > 1 and share_impossible > limits.impossible,
        "marks without words": len(_SIGNS.findall(reply)) > max(_FEW_MARKS, _MARKS_EACH * len(listed)),
    }
    in_long_ones = {
        "the same words again and again": _repeated(listed) > limits.repeated,
        "one word above all others": _top(listed, small_words) > limits.top,
        "few different words": len(set(listed)) / len(listed) < limits.different,
        "words without the small ones that join them": _lacks_small(reply, listed, small_words, limits),
        "capitals": len(_CAPITALS.findall(reply)) / len(listed) > limits.capitals,
        "broken words": _broken(reply, listed) > limits.broken,
        "a word that cannot follow another": share_impossible > limits.impossible,
        "marks of code": len(_MARKS.findall(reply)) / len(listed) > limits.marks,
    }
    measured = {**at_once, **(in_long_ones if len(listed) >= limits.enough else {})}
    return ", ".join(reason for reason, is_so in measured.items() if is_so)


def _strange(text: str) -> float:
    """Share of control characters, characters that could not be decoded, and private ones."""
    if text.isascii() and text.isprintable():
        return 0.0
    strange = [
        c for c in text if c == "\ufffd" or (unicodedata.category(c) in ("Cc", "Co", "Cn") and c not in "\n\t\r")
    ]
    return len(strange) / len(text)


def _foreign(text: str) -> float:
    """Share of letters outside of the commonest script; marks of Latin letters are Latin."""
    if text.isascii():
        return 0.0
    scripts = Counter(_script(c) for c in text if c.isalpha())
    total = sum(scripts.values())
    return 1 - max(scripts.values()) / total if total else 0.0


def _script(letter: str) -> str:
    if ord(letter) < _ASCII:
        return "LATIN"
    script = unicodedata.name(letter, "UNKNOWN").split()[0]
    return "CJK" if script in ("HIRAGANA", "KATAKANA") else script  # Japanese writes all three in one sentence


def _is_latin(text: str) -> bool:
    if text.isascii():
        return True
    letters = [c for c in text if c.isalpha()]
    return sum(_script(c) == "LATIN" for c in letters) * 2 > len(letters)


def _run(listed: Sequence[str]) -> int:
    """Longest run of one word."""
    longest = length = 1
    for before, word in pairwise(listed):
        length = length + 1 if word == before else 1
        longest = max(longest, length)
    return longest


def _repeated_line(reply: str) -> int:
    """Return how often the commonest line of several words is there."""
    lines = Counter(line.strip().lower() for line in reply.splitlines() if len(words(line)) > 1)
    return max(lines.values(), default=0)


def _repeated(listed: Sequence[str]) -> float:
    trigrams = [tuple(listed[at : at + _NGRAM]) for at in range(len(listed) - _NGRAM + 1)]
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def _top(listed: Sequence[str], small_words: Set[str]) -> float:
    counts = Counter(word for word in listed if word not in small_words)
    return max(counts.values(), default=0) / len(listed)


def _lacks_small(reply: str, listed: Sequence[str], small_words: Set[str], limits: Limits) -> bool:
    return _is_latin(reply) and sum(word in small_words for word in listed) / len(listed) < limits.small


def _n_impossible(reply: str, impossible: Set[tuple[str, str]]) -> int:
    """Return how many pairs of words do not go together; a mark between two words parts them."""
    return sum(pair in impossible for pair in pairwise(_PAIRED.findall(reply.lower())))


def _broken(reply: str, listed: Sequence[str]) -> float:
    """Joined and overlong words, over words."""
    return (len(_JOINED.findall(reply)) + sum(len(word) > _LONG_WORD for word in listed)) / len(listed)
