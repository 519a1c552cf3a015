"""Properties of an answer that can be foretold: which option or word, its first letter, a vowel, parities.

Values of a pair of options are by place, "first" or "second" as they were listed: every pair is asked in both orders,
so that they are balanced, and items with other options are comparable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mechint.base.errors import UnknownNameError

VOWELS = "aeiou"
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
PLACES = ("first", "second")
# Values of the properties that are asked with yes or no: that which an affirmed question asks for, and the other.
KEYED: Mapping[str, tuple[str, str]] = {
    "vowel": ("vowel", "other"),
    "letters": ("even", "odd"),
    "words": ("even", "odd"),
}
PROPERTIES = ("option", "word", "letter", *KEYED)
UNANSWERED = ""


def value_of(name: str, answer: str, options: Sequence[str] = ()) -> str:
    """Return the value of a property of an answer, "" where it has none: a text without a letter has no first letter.

    `letter` is the first of a to z, `letters` and `words` are whether these are even or odd in number; `option` is the
    place among `options`. Raises UnknownNameError for a property that there is not.
    """
    if name not in PROPERTIES:
        raise UnknownNameError(f"property {name!r}", ", ".join(PROPERTIES), "name one of these")
    text = answer.strip().lower()
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return UNANSWERED
    if name == "option":
        return PLACES[list(options).index(answer)] if answer in options else UNANSWERED
    if name == "word":
        return text
    if name in ("letter", "vowel"):
        return _first(letters[0], name)
    return "odd" if (len(letters) if name == "letters" else len(text.split())) % 2 else "even"


def values_of(name: str, options: Sequence[str]) -> tuple[str, ...]:
    """Return the values that a property can have for answers among some options; any answer where there are none."""
    if name in KEYED:
        return KEYED[name]
    if not options:
        return tuple(ALPHABET)
    return tuple(dict.fromkeys(value_of(name, option, options) for option in options))


def first_word(text: str) -> str:
    """Return the first word of a text that has a letter, without signs around it; "" for none."""
    words = [word.strip("\"'.,;:!?*()[]<>#`") for word in text.split()]
    return next((word for word in words if any(letter.isalpha() for letter in word)), UNANSWERED)


def _first(letter: str, name: str) -> str:
    if name == "vowel":
        return KEYED[name][0] if letter in VOWELS else KEYED[name][1]
    return letter if letter in ALPHABET else UNANSWERED
