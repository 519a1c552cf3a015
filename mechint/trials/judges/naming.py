"""What a reply names, in its own words, and whether the name stands before the claim."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mechint.trials.judges.evidence import clauses
from mechint.trials.judges.patterns import Patterns, first_match, is_matched
from mechint.trials.judges.texts import Sentence, plain, sentences, words

_CLAUSE = re.compile(
    r"that (?:i|i'm|it|there|this|my|nothing|we)\b", re.IGNORECASE
)  # "the answer is that I am a program"
_FRAME = re.compile(
    r"^(?:so|well|answer|my|the|right|honest|final|best|reply|word|concept|thought|number|in one word|i|would|say|name|"
    r"think|have to|it|must be|what i see|is|a|an|to|[\s,:])*(?P<answer>yes|yeah|yep|no|nope|nothing|none)[.!]?$",
    re.IGNORECASE,
)
_FIRST = re.compile(
    r"^\W*(?:(?:hmm+|well|oh|ah|ok|okay|interesting|honestly|to be honest|trial \d+)\W+)*"
    r"(?P<answer>yes|yeah|yep|indeed|affirmative|no|nope|negative)\b(?! (?:one|matter|doubt|longer|idea))",
    re.IGNORECASE,
)
_LAST = re.compile(
    r"\b(?:answer is|answer|i say|to say|go with|reply is|word is|think|would say|'d say):? (?P<answer>yes|no)[.!]?$",
    re.IGNORECASE,
)
# What a claim goes on to say of other matters; and a sentence that speaks to somebody.
_ASIDE = re.compile(
    r",? \b(?:whether|although|because|when|while|which|since|but)\b|, as\b(?! (?:if|though))", re.IGNORECASE
)
_ADDRESSED = re.compile(r"\b(?:you|your|let|please)\b|\?", re.IGNORECASE)
_NUMBERED = re.compile(r"\b[^\W\d_]{2,}\d+\b")  # "concept07"
# A name may be a description of several sentences; what comes later is talk.
_LONGEST_NAME, _DESCRIBED, _SHORTEST_KEY, _FEW_WORDS = 400, 4, 3, 5
_YES = ("yes", "yeah", "yep", "indeed", "affirmative")


@dataclass(frozen=True)
class Name:
    """What is named, and where the first of its words stands in the reply."""

    text: str
    first_at: int


def bare_answer(reply: str) -> str | None:
    """Return "yes" or "no" for a reply that is or begins with one, else None."""
    listed = sentences(plain(reply))
    first = listed[0].text.strip() if listed else ""
    match = _FIRST.match(reply) or _FRAME.match(first) or _LAST.search(first) or _LAST.search(reply)
    if match is None:
        return None
    return "yes" if match["answer"].lower() in _YES else "no"


def is_bare(reply: str, patterns: Patterns) -> bool:
    """Whether the first sentence of a reply is little more than its yes or no, or says that it has no name."""
    listed = sentences(reply)
    is_short = bool(listed) and len(words(_saying(listed[0].text, patterns))) <= _FEW_WORDS
    return is_short or (bool(listed) and _LAST.search(reply) is not None)


def bare_name(reply: str, patterns: Patterns) -> Name | None:
    """Return the name that is all of a short reply ("The word is fear."), else None."""
    text = reply.strip()
    match = first_match(patterns.answer_name, text)
    if match is None or _FRAME.match(text) or " yes" in text.lower() or not _keys(match["name"], "", patterns):
        return None
    if _CLAUSE.match(match["name"].strip()) or is_matched(patterns.denials, text) or is_matched(patterns.unnamed, text):
        return None
    return Name(match["name"].strip(), reply.find(text) + match.start("name"))


def name_after(reply: str, prompt: str, claim_at: int, patterns: Patterns) -> Name | None:
    """Return what a reply with a claim names: the rest of the claim's sentence, and what later sentences say it is."""
    listed = sentences(reply)
    claiming = [s for s in listed if s.start <= claim_at < s.start + len(s.text)]
    is_answer = _FRAME.match(claiming[0].text) or _LAST.search(claiming[0].text) if claiming else True
    rest = "" if is_answer else reply[claim_at : claiming[0].start + len(claiming[0].text)]
    described = [_ASIDE.split(_saying(rest, patterns))[0]]
    described += _descriptions([s for s in listed if s.start > claim_at], patterns)
    texts = [text.strip(" \"'.,:;") for text in described if _keys(text, prompt, patterns)]
    if not texts:
        return None
    named = "; ".join(texts)[:_LONGEST_NAME]
    places = [_place(reply, key) for key in _keys(texts[0], prompt, patterns)]
    return Name(named, min((place for place in places if place is not None), default=claim_at))


def _descriptions(later: Sequence[Sentence], patterns: Patterns) -> Iterator[str]:
    """Yield what sentences after a claim say of it: those that name something, and all of the first few."""
    for number, sentence in enumerate(later):
        text = _saying(sentence.text, patterns)
        if not text or is_matched(patterns.denials, text) or _ADDRESSED.search(text):
            continue
        if match := first_match(patterns.naming, text) if number >= _DESCRIBED else None:
            yield match["name"]
        elif number < _DESCRIBED and not is_matched(patterns.hypothetical, text):
            yield text


def _saying(sentence: str, patterns: Patterns) -> str:
    """Return a sentence without its clauses that say that something has no name."""
    unnamed = [match.span() for expression in patterns.unnamed for match in expression.finditer(sentence)]
    if not unnamed:
        return sentence
    said = [
        clause
        for at, clause in clauses(sentence, patterns)
        if not any(start < at + len(clause) and at < end for start, end in unnamed)
    ]
    return "; ".join(said)


def _keys(text: str, prompt: str, patterns: Patterns) -> list[str]:
    """Return the words of a text that name something: no generic ones, none of the prompt."""
    ignored = patterns.generic.union(patterns.small, words(prompt))
    named = [word for word in words(text) if word not in ignored and len(word) >= _SHORTEST_KEY]
    return [*named, *_NUMBERED.findall(text)]


def _place(reply: str, key: str) -> int | None:
    match = re.search(rf"\b{re.escape(key)}\b", reply, re.IGNORECASE)
    return match.start() if match else None
