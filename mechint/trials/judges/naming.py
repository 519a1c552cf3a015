"""What a reply names, in its own words, and whether the name stands before the claim."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mechint.trials.judges.patterns import Patterns, first_match
from mechint.trials.judges.texts import plain, sentences, words

_CLAUSE = re.compile(
    r"\s*(?:[;:,]\s*)?\b(?:but|however|although|though|yet|nevertheless|still,|except)\b,?\s*", re.IGNORECASE
)
_FRAME = re.compile(
    r"^(?:so|well|answer|my|the|right|honest|final|best|reply|word|concept|thought|number|in one word|i|would|say|name|"
    r"think|have to|it|must be|what i see|is|a|an|to|[\s,:])*(?P<answer>yes|yeah|yep|no|nope|nothing|none)[.!]?$",
    re.IGNORECASE,
)
_FIRST = re.compile(
    r"^\W*(?P<answer>yes|yeah|yep|indeed|no|nope)\b(?! (?:one|matter|doubt|longer|idea))", re.IGNORECASE
)
_LAST = re.compile(r"\b(?:answer is|i say|reply is|word is|think|would say) (?P<answer>yes|no)[.!]?$", re.IGNORECASE)
# What a claim goes on to say of other matters; and a sentence that speaks to somebody.
_ASIDE = re.compile(
    r",? \b(?:whether|although|because|when|while|which|since|but)\b|, as\b(?! (?:if|though))", re.IGNORECASE
)
_ADDRESSED = re.compile(r"\b(?:you|your|let|please)\b|\?", re.IGNORECASE)
_LONGEST_NAME, _SHORTEST_KEY, _FEW_WORDS = 160, 3, 5
_YES = ("yes", "yeah", "yep", "indeed")


@dataclass(frozen=True)
class Name:
    """What is named, and where the first of its words stands in the reply."""

    text: str
    first_at: int


def clauses(sentence: str) -> Iterator[tuple[int, str]]:
    """Yield the parts of a sentence between words like "but", with their places."""
    start = 0
    for match in [*_CLAUSE.finditer(sentence), None]:
        end = match.start() if match else len(sentence)
        if sentence[start:end].strip():
            yield start, sentence[start:end]
        start = match.end() if match else end


def bare_answer(reply: str) -> str | None:
    """Return "yes" or "no" for a reply that is or begins with one, else None."""
    listed = sentences(plain(reply))
    match = _FIRST.match(reply) or (_FRAME.match(listed[0].text.strip()) if listed else None) or _LAST.search(reply)
    if match is None:
        return None
    return "yes" if match["answer"].lower() in _YES else "no"


def is_bare(reply: str) -> bool:
    """Whether the first sentence of a reply is little more than its yes or no."""
    listed = sentences(reply)
    return bool(listed) and (len(words(listed[0].text)) <= _FEW_WORDS or _LAST.search(reply) is not None)


def bare_name(reply: str, patterns: Patterns) -> Name | None:
    """Return the name that is all of a short reply ("The word is fear."), else None."""
    text = reply.strip()
    match = first_match(patterns.answer_name, text)
    if match is None or _FRAME.match(text) or " yes" in text.lower() or not _keys(match["name"], "", patterns):
        return None
    return Name(match["name"].strip(), reply.find(text) + match.start("name"))


def name_after(reply: str, prompt: str, claim_at: int, patterns: Patterns) -> Name | None:
    """Return what a reply with a claim names: the rest of the claim's sentence, or what later sentences say it is."""
    listed = sentences(reply)
    claiming = [s for s in listed if s.start <= claim_at < s.start + len(s.text)]
    later = [s.text for s in listed if s.start > claim_at and not first_match(patterns.denials, s.text)]
    is_answer = _FRAME.match(claiming[0].text) or _LAST.search(claiming[0].text) if claiming else True
    rest = "" if is_answer else reply[claim_at : claiming[0].start + len(claiming[0].text)]
    candidates = [_ASIDE.split(rest)[0]]
    candidates += [match["name"] for text in later if (match := first_match(patterns.naming, text))]
    if not any(_keys(text, prompt, patterns) for text in candidates):
        candidates += [text for text in later[:1] if not _ADDRESSED.search(text)]
    texts = [text.strip(" \"'.,:;") for text in candidates if _keys(text, prompt, patterns)]
    if not texts:
        return None
    named = "; ".join(texts)[:_LONGEST_NAME]
    places = [_place(reply, key) for key in _keys(texts[0], prompt, patterns)]
    return Name(named, min((place for place in places if place is not None), default=claim_at))


def _keys(text: str, prompt: str, patterns: Patterns) -> list[str]:
    """Return the words of a text that name something: no generic ones, none of the prompt."""
    ignored = patterns.generic.union(patterns.small, words(prompt))
    return [word for word in words(text) if word not in ignored and len(word) >= _SHORTEST_KEY]


def _place(reply: str, key: str) -> int | None:
    match = re.search(rf"\b{re.escape(key)}", reply, re.IGNORECASE)
    return match.start() if match else None
