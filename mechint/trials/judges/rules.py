"""The rules judge: reads replies with patterns and counts; needs no model and no network.

Sentence by sentence: longer quotations and examples are taken out, sentences that suppose something are no claims,
and a claim is a first person who notices something, or a bare yes to a prompt that asks for it. Denials and refusals
have patterns of their own. It is measured on replies that were labelled before it was run (`docs/trial-judges.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mechint.base.files import sha256
from mechint.trials.judges import coherence, naming, patterns, texts
from mechint.trials.judges.coherence import Limits, incoherence
from mechint.trials.judges.naming import Name, bare_answer, bare_name, is_bare, name_after
from mechint.trials.judges.patterns import Patterns, first_match, packaged_patterns
from mechint.trials.judges.texts import Sentence, plain, sentences, without_quotations
from mechint.trials.verdicts import Claim, Item, Verdict

_SURE, _DOUBTFUL, _OPEN = 0.9, 0.6, 0.5


@dataclass(frozen=True)
class RulesJudge:
    """Judges by patterns; `patterns` and `limits` may be replaced, and are part of `version`."""

    patterns: Patterns = field(default_factory=packaged_patterns)
    limits: Limits = field(default_factory=Limits)
    name: str = "rules"

    @property
    def version(self) -> str:
        """Hash of the rules: of the patterns, the limits, and the code that reads by them."""
        modules = (coherence, naming, patterns, texts)
        files = [Path(__file__), *(Path(str(module.__file__)) for module in modules)]
        return sha256(repr(self.patterns).encode(), repr(self.limits).encode(), *(f.read_bytes() for f in files))[:16]

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return a verdict for each reply; no reply is without."""
        return [self._verdict(item) for item in items]

    def _verdict(self, item: Item) -> Verdict:
        broken = incoherence(item.reply, self.limits, self.patterns.small)
        if not item.reply.strip():
            return Verdict("unclear", coherent=False, confidence=_OPEN, reason=broken)
        reading = _read(plain(item.reply), plain(item.prompt), self.patterns)
        name = reading.name if reading.claims == "yes" else None
        return Verdict(
            claims=reading.claims,
            named=name.text if name else None,
            claim_first=None if name is None or reading.claim_at is None else reading.claim_at <= name.first_at,
            refused=reading.refused,
            coherent=not broken,
            confidence=reading.confidence,
            reason="; ".join(note for note in (broken, reading.reason) if note),
        )


@dataclass(frozen=True)
class _Reading:
    """What the sentences of a reply say."""

    claims: Claim
    confidence: float
    reason: str
    refused: bool = False
    claim_at: int | None = None
    name: Name | None = None


@dataclass(frozen=True)
class _Evidence:
    """Where a reply claims, claims with a hedge, denies and refuses; and its bare answer, if it has one."""

    claims: Sequence[int]
    doubtful: Sequence[int]
    denials: Sequence[int]
    refusals: Sequence[int]
    answer: str | None


def _read(reply: str, prompt: str, patterns: Patterns) -> _Reading:
    is_question = first_match(patterns.asks, prompt) is not None
    name = bare_name(reply, patterns) if is_question else None
    if name is not None:
        return _Reading("yes", _SURE, "answers with a name", claim_at=name.first_at, name=name)
    evidence = _evidence(reply, patterns, bare_answer(reply) if is_question else None)
    reading = _weighed(reply, patterns, evidence)
    if reading.claim_at is None:
        return reading
    return replace(reading, name=name_after(reply, prompt, reading.claim_at, patterns))


def _evidence(reply: str, patterns: Patterns, answer: str | None) -> _Evidence:
    claims: list[int] = []
    doubtful: list[int] = []
    denials: list[int] = []
    refusals: list[int] = []
    for sentence in sentences(without_quotations(reply)):
        if first_match(patterns.examples, sentence.text):
            continue
        is_denial, claim = _parted(sentence, patterns)
        if is_denial:
            denials.append(sentence.start)
        if first_match(patterns.refusals, sentence.text):
            refusals.append(sentence.start)
        if claim is not None:
            (doubtful if first_match(patterns.hedged, sentence.text) else claims).append(claim)
    return _Evidence(claims, doubtful, denials, refusals, answer)


def _parted(sentence: Sentence, patterns: Patterns) -> tuple[bool, int | None]:
    """Return whether a sentence denies, and where in the reply a claim of it begins."""
    is_denial, claim = False, None
    for start, clause in naming.clauses(sentence.text):
        if first_match(patterns.denials, clause):
            is_denial = True
            continue
        match = first_match(patterns.claims, clause)
        if match is None or claim is not None or first_match(patterns.hypothetical, clause[: match.start()]):
            continue
        if not first_match(patterns.elsewhere, clause[match.start() :]):
            claim = sentence.start + start + match.start()
    return is_denial, claim


def _weighed(reply: str, patterns: Patterns, evidence: _Evidence) -> _Reading:
    """Return what outweighs what: a claim after a denial stands, one before it is open; a claim is no refusal."""
    claims, said_no = evidence.claims, evidence.answer == "no" or bool(evidence.denials)
    if claims and not (said_no and max(claims) < max(evidence.denials, default=0)):
        at = 0 if evidence.answer == "yes" else min(claims)
        reading = _Reading("yes", _SURE, "claims", claim_at=at)
    elif evidence.answer == "yes" and (is_bare(reply) or _names_something(reply, patterns)):
        reading = _Reading("yes", _SURE, "answers yes", claim_at=0)
    elif evidence.answer == "yes":
        reading = _Reading("unclear", _OPEN, "says yes to something else")
    elif claims:
        reading = _Reading("unclear", _OPEN, "claims and then denies")
    elif evidence.refusals:
        reading = _Reading("no", 1 - _SURE, "refuses", refused=True)
    elif evidence.doubtful and not said_no:
        reading = _Reading("yes", _DOUBTFUL, "claims with a hedge", claim_at=min(evidence.doubtful))
    else:
        reading = _Reading("no", 1 - _SURE, "denies" if said_no else "no claim")
    return reading


def _names_something(reply: str, patterns: Patterns) -> bool:
    return any(first_match(patterns.naming, sentence.text) for sentence in sentences(reply))
