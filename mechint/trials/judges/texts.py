"""Replies as judges read them: plain quotes and apostrophes, sentences with their places, quoted speech taken out."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Curly quotes and apostrophes, guillemets, the unbreakable space and the ellipsis.
_PLAIN = str.maketrans("\u2019\u2018\u201c\u201d\u00ab\u00bb\u00a0\u2026", '\'\'"""" .')
_QUOTED = re.compile(r'"[^"\n]*"|\*[^*\n]{60,}\*')
_END = re.compile(r"(?<=[.!?])[\s)\"']+|\n+")
# "Let me look." or "Well, I look inside." before what the look has shown.
_ANNOUNCED = re.compile(
    r"^\W*(?:(?:so|well|now|ok|okay|hmm+|first|right now|at present)\W+)*"
    r"(?:let me (?:think|see|check|look|search|take a look)|let's see|"
    r"i(?:'ll| will| shall| have|'m| am)? (?:just |now |first )?(?:look|check|search|paus|turn)(?:e|ed|ing)?)\b"
    r"(?: (?!and\b|see\b|find\b|notic|sens|feel|felt|that\b|like\b|as\b)[a-z']+){0,7}[.!?:,]",
    re.IGNORECASE,
)
_LONGEST_NAME = 3  # words of a quotation that may be a name: "the ocean"


@dataclass(frozen=True)
class Sentence:
    """A sentence of a reply, and where it begins in it."""

    text: str
    start: int


def plain(text: str) -> str:
    """Return a text of the same length with straight quotes and apostrophes."""
    return text.translate(_PLAIN)


def without_quotations(text: str) -> str:
    """Return a text of the same length in which longer quotations are blank: others' words are no claims."""
    return _QUOTED.sub(_blank_if_long, text)


def without_announcement(text: str) -> str:
    """Return a text of the same length in which a beginning that only announces a look is blank."""
    return _ANNOUNCED.sub(lambda match: " " * len(match.group()), text)


def sentences(text: str) -> list[Sentence]:
    """Return the sentences of a text."""
    split, start = [], 0
    for match in [*_END.finditer(text), None]:
        end = match.start() if match else len(text)
        if text[start:end].strip():
            split.append(Sentence(text[start:end], start))
        start = match.end() if match else end
    return split


def words(text: str) -> list[str]:
    """Return the words of a text in small letters."""
    return re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text.lower())


def _blank_if_long(match: re.Match[str]) -> str:
    quotation = match.group()
    return quotation if len(words(quotation)) <= _LONGEST_NAME else " " * len(quotation)
