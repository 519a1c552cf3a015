"""Distributions that a model writes down: a list of answers with numbers, in a strict format, or no report at all.

A line is an answer of up to three words, a colon (or a dash, or "="), and a number, perhaps of per cent; answers may
also be divided by commas. Text without a number is left aside, and is never a part of an answer. A piece of text that
has a number and is no such line makes the whole report unreadable: half a report is not what was said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PIECES = re.compile(r"[\n,;]+")
_LINE = re.compile(
    r"""^\s*(?:[-*\u2022]|\d+[.)])?\s*      # a mark of the list
    ["'*]*([^\W\d_]+(?:[ -][^\W\d_]+){0,2})["'*]*   # the answer
    \s*[:=\u2013-]\s*
    (\d+(?:\.\d+)?)\s*(?:%|per\ ?cent|times)?\.?\s*$""",
    re.VERBOSE,
)
_FEWEST = 2  # answers: who lists a single one gives no distribution
# As it was published: the text before the list is taken for a part of its first answer.
_GLUED = re.compile(r"([^\d%]+?)[\s:=\u2013-]*(\d+(?:\.\d+)?)\s*%?")


def distribution(text: str) -> dict[str, float]:
    """Return the probability of each answer in small letters, none where the text is no report in the format.

    Numbers are divided by their sum. A report names two answers or more, each once, not all of them with 0.
    """
    numbers: dict[str, float] = {}
    for piece in _PIECES.split(text):
        if not re.search(r"\d", piece):
            continue
        line = _LINE.match(piece)
        if line is None or line[1].lower() in numbers:
            return {}
        numbers[line[1].lower()] = float(line[2])
    total = sum(numbers.values())
    if len(numbers) < _FEWEST or total <= 0:
        return {}
    return {answer: number / total for answer, number in numbers.items()}


def published_distribution(text: str) -> dict[str, float]:
    """Return what was read of a report as published: numbers as they are, the first answer with all before it."""
    return {answer.strip().lower(): float(number) / 100 for answer, number in _GLUED.findall(text)}


def from_choices(log_odds: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Return the distribution whose log odds of each pair are nearest, by least squares, to those of forced choices.

    `log_odds` (nats) are those of the first answer against the second by pair, in both orders: half their difference
    is free of a leaning to what is listed first (Bradley and Terry, 1952, with exact log odds).
    """
    import numpy as np

    answers = list(dict.fromkeys(first for first, _ in log_odds))
    scores = np.array(
        [
            sum((log_odds[answer, other] - log_odds[other, answer]) / 2 for other in answers if other != answer)
            for answer in answers
        ]
    ) / len(answers)
    weights = np.exp(scores - scores.max())
    return dict(zip(answers, (weights / weights.sum()).tolist(), strict=True))
