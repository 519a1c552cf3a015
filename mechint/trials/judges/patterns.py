"""The patterns of the rules judge: regular expressions in a JSON file, to be read and edited.

`words` are alternatives by name, which stand in patterns as `{name}`; the other keys are lists of patterns (see
`Patterns`). All are searched without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import resources
from itertools import product
from pathlib import Path

from mechint.base.errors import UsageError
from mechint.base.files import JSON, read_json

Expressions = tuple[re.Pattern[str], ...]
_PLACE = re.compile(r"\{([a-z]+)\}")
_LISTS = ("generic", "small", "impossible")


@dataclass(frozen=True)
class Patterns:
    """What is looked for: in the prompt `asks` (whether something is noticed); the others in clauses of a reply.

    `turns` part a sentence into clauses. `claims`: somebody notices something in himself; `ordinary`: it is what any
    task brings along, such as focus, unless it is called `strange`, or is `attributed` to the task; `elsewhere`: it is
    in somebody else; `hypothetical`, `hedged`, `examples`: what makes a sentence no claim, or a doubtful one.
    `denials`: nothing is noticed; `reports`: the stricter of them, of somebody who has looked; `besides`: all but what
    was claimed is denied; `retractions`: a claim is taken back. `refusals`. `naming`: what comes after has the group
    `name`; `answer_name`: a bare answer that is a name; `unnamed`: it is said to have no name. `generic`: words that
    name nothing; `small`: words that join others; `impossible`: pairs of words that do not follow each other.
    """

    asks: Expressions
    claims: Expressions
    ordinary: Expressions
    strange: Expressions
    attributed: Expressions
    elsewhere: Expressions
    hypothetical: Expressions
    hedged: Expressions
    examples: Expressions
    denials: Expressions
    reports: Expressions
    besides: Expressions
    retractions: Expressions
    refusals: Expressions
    turns: Expressions
    naming: Expressions
    answer_name: Expressions
    unnamed: Expressions
    generic: frozenset[str]
    small: frozenset[str]
    impossible: frozenset[tuple[str, str]]

    @classmethod
    def load(cls, path: str | Path | None = None) -> Patterns:
        """Return the packaged patterns, or those of a file; raises UsageError, naming the pattern that is wrong."""
        source = Path(path) if path else packaged_path()
        data = read_json(source)
        names = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or set(data) != {*names, "words"}:
            raise _malformed(str(source), f"an object with {', '.join(sorted(names))} and words")
        alternatives = data["words"]
        if not isinstance(alternatives, dict):
            raise _malformed(f"{source}, words", "alternatives by name")
        compiled = {
            name: _compiled(_texts(data[name], f"{source}, {name}"), alternatives, f"{source}, {name}")
            for name in sorted(names.difference(_LISTS))
        }
        return cls(
            generic=frozenset(_texts(data["generic"], f"{source}, generic")),
            small=frozenset(_texts(data["small"], f"{source}, small")),
            impossible=_pairs(data["impossible"], f"{source}, impossible"),
            **compiled,
        )

    @property
    def key(self) -> str:
        """All of the patterns as a text that is the same in every process: a set has no order, a repr an end."""
        lists = {name: sorted(getattr(self, name)) for name in _LISTS}
        names = [field.name for field in fields(self) if field.name not in _LISTS]
        return repr((lists, {name: [each.pattern for each in getattr(self, name)] for name in names}))


@lru_cache(maxsize=1)
def packaged_patterns() -> Patterns:
    """Return the packaged patterns, compiled once."""
    return Patterns.load()


def packaged_path() -> Path:
    """Return the file of the packaged patterns."""
    return Path(str(resources.files("mechint.trials.judges").joinpath("patterns.json")))


def first_match(expressions: Expressions, text: str) -> re.Match[str] | None:
    """Return the earliest match of any of these, the first of the list where several begin together."""
    matches = [match for expression in expressions if (match := expression.search(text))]
    return min(matches, key=lambda match: match.start(), default=None)


def is_matched(expressions: Expressions, text: str) -> bool:
    """Whether any of these matches: faster than the earliest match."""
    return any(expression.search(text) for expression in expressions)


def _compiled(texts: Sequence[str], alternatives: Mapping[str, JSON], where: str) -> Expressions:
    def filled(match: re.Match[str]) -> str:
        if match[1] not in alternatives:
            raise _malformed(f"{where}: {match[0]} stands for nothing", f"one of {', '.join(alternatives)}")
        return str(alternatives[match[1]])

    compiled = []
    for number, text in enumerate(texts):
        try:
            compiled.append(re.compile(_PLACE.sub(filled, text), re.IGNORECASE))
        except re.error as error:
            raise _malformed(f"{where}, pattern {number}: {error}", "a regular expression") from error
    return tuple(compiled)


def _texts(data: JSON, where: str) -> list[str]:
    if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
        raise _malformed(where, "a list of texts")
    return [str(text) for text in data]


def _pairs(data: JSON, where: str) -> frozenset[tuple[str, str]]:
    """Return the pairs of lists of words: any of the first, then any of the second."""
    if not isinstance(data, list):
        raise _malformed(where, "a list of pairs of texts")
    pairs: set[tuple[str, str]] = set()
    for number, entry in enumerate(data):
        texts = _texts(entry, f"{where}, {number}")
        if len(texts) != 2:
            raise _malformed(f"{where}, {number}", "two texts of words")
        pairs.update(product(texts[0].split(), texts[1].split()))
    return frozenset(pairs)


def _malformed(given: str, allowed: str) -> UsageError:
    return UsageError(
        given=given, allowed=allowed, advice=f"correct the patterns; {packaged_path().name} is an example"
    )
