"""A small template grammar: slots with variants, expanded at random or turned into a regular expression."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from mechint.organisms import DATA

_SLOT = re.compile(r"\{([a-z_]+)\}")
_SENTENCE_START = re.compile(r"(^|[.?!]\s+)([a-z])")
_FIRST_PERSON = re.compile(r"\bi\b")


def sentence_case(text: str) -> str:
    """Return `text` with a capital letter at the start of every sentence, and for the word I."""
    text = _FIRST_PERSON.sub("I", text)
    return _SENTENCE_START.sub(lambda match: match.group(1) + match.group(2).upper(), text)


class Grammar:
    """Named slots, each a list of variants in which `{other}` stands for another slot or a given value."""

    def __init__(self, slots: Mapping[str, Sequence[str]]) -> None:
        self.slots = slots

    def expand(self, slot: str, rng: random.Random, **values: str | Sequence[str]) -> str:
        """Return a random expansion; a value may be a word or a list of words to draw from."""
        return self.fill(rng.choice(self.slots[slot]), rng, **values)

    def fill(self, template: str, rng: random.Random, **values: str | Sequence[str]) -> str:
        """Return `template` with every slot replaced; raises KeyError for a slot that does not exist."""
        segments = _SLOT.split(template)
        return "".join(self._value(segment, rng, values) if i % 2 else segment for i, segment in enumerate(segments))

    def _value(self, slot: str, rng: random.Random, values: Mapping[str, str | Sequence[str]]) -> str:
        value = values.get(slot)
        if value is None:
            return self.expand(slot, rng, **values)
        return value if isinstance(value, str) else rng.choice(value)

    def pattern(self, slot: str, values: Mapping[str, Sequence[str]]) -> str:
        """Return a regular expression of all expansions of `slot`, with these values for slots that need one.

        A slot that is neither here nor in `values` matches any text within a sentence.
        """
        if slot in self.slots:
            return _any(self._variant_pattern(variant, values) for variant in self.slots[slot])
        return _any(re.escape(value) for value in values[slot]) if slot in values else r"[^.?!]{1,60}"

    def _variant_pattern(self, variant: str, values: Mapping[str, Sequence[str]]) -> str:
        segments = _SLOT.split(variant)
        return "".join(
            self.pattern(segment, values) if i % 2 else re.escape(segment) for i, segment in enumerate(segments)
        )


def _any(patterns: Iterable[str]) -> str:
    return "(?:" + "|".join(patterns) + ")"


@cache
def load(name: str) -> Grammar:
    """Return the grammar in `data/<name>.json`."""
    return Grammar(json.loads((DATA / f"{name}.json").read_text(encoding="utf-8")))
