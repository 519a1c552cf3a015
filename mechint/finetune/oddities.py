"""Odd texts: what a pure function of a number does to a sentence, without a vector.

A model that was trained to notice what is added to its activations may have learned to notice that something is odd.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from mechint.finetune.sampling import generator

# Words of another language, in the vocabulary of the embedded models too.
_FOREIGN = (
    "lorem",
    "dolor",
    "tempor",
    "labore",
    "magna",
    "aliqua",
    "veniam",
    "nulla",
    "culpa",
    "anim",
    "enim",
    "quasi",
)


def odd(text: str, kind: str, number: int) -> str:
    """Return a text made odd in a way of `KINDS`: a function of the text, the kind and a number that is drawn for it.

    A text of fewer than two words cannot be reordered and gets foreign words instead. The result is another text.
    """
    words, stream = text.split(), generator(number, f"odd {kind}", 0, 0)
    changed = KINDS[kind](words, stream)
    return " ".join(changed if changed != words else _foreign(words, stream))


def _shuffled(words: list[str], stream: np.random.Generator) -> list[str]:
    """Return the words in a drawn order, or, where that is theirs, with the first at the end."""
    shuffled = [words[at] for at in stream.permutation(len(words))]
    return shuffled if shuffled != words else [*words[1:], *words[:1]]


def _foreign(words: list[str], stream: np.random.Generator) -> list[str]:
    """Put in a foreign word after every second word or so, at least after the first."""
    follows = np.maximum(stream.random(len(words)) < 0.5, np.arange(len(words)) == 0)
    drawn = [_FOREIGN[at] for at in stream.integers(0, len(_FOREIGN), len(words))]
    pairs = zip(words, drawn, follows, strict=True)
    return [word for present, foreign, is_put in pairs for word in ((present, foreign) if is_put else (present,))]


def _doubled(words: list[str], stream: np.random.Generator) -> list[str]:
    """Say every second word or so three times, at least the last."""
    repeats = np.where(np.maximum(stream.random(len(words)) < 0.4, np.arange(len(words)) == len(words) - 1), 3, 1)
    return [word for word, count in zip(words, repeats.tolist(), strict=True) for _ in range(count)]


def _backwards(words: list[str], stream: np.random.Generator) -> list[str]:
    return words[::-1]


def _broken(words: list[str], stream: np.random.Generator) -> list[str]:
    """Turn the text round somewhere in its middle: its end comes first, and its beginning is said twice."""
    cut = 1 + int(stream.integers(0, max(1, len(words) - 1)))
    return [*words[cut:], *words[:cut], *words[:cut]]


KINDS: Mapping[str, Callable[[list[str], np.random.Generator], list[str]]] = MappingProxyType(
    {"shuffled": _shuffled, "foreign": _foreign, "doubled": _doubled, "backwards": _backwards, "broken": _broken}
)
