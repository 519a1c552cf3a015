"""The rules judge: reads replies with patterns and counts; needs no model and no network.

`evidence` lists what the clauses of a reply say; here it is weighed. A claim is a first person who notices something,
or a bare yes to a prompt that asks for it; denials and refusals have patterns of their own. It is measured on replies
that were labelled before it was run (`docs/trial-judges.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mechint.base.files import sha256
from mechint.trials.judges import coherence, evidence, naming, patterns, texts
from mechint.trials.judges.coherence import Limits, incoherence
from mechint.trials.judges.evidence import Evidence, Reader
from mechint.trials.judges.naming import Name, bare_answer, bare_name, is_bare, name_after
from mechint.trials.judges.patterns import Patterns, is_matched, packaged_patterns
from mechint.trials.judges.texts import plain, sentences, without_announcement
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
        modules = (coherence, evidence, naming, patterns, texts)
        files = [Path(__file__), *(Path(str(module.__file__)) for module in modules)]
        return sha256(self.patterns.key.encode(), repr(self.limits).encode(), *(f.read_bytes() for f in files))[:16]

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return a verdict for each reply; no reply is without. One that comes again to a prompt is read once."""
        read: dict[tuple[str, str], Verdict] = {}
        reader = Reader(self.patterns)
        for item in items:
            if (item.prompt, item.reply) not in read:
                read[item.prompt, item.reply] = self._verdict(item, reader)
        return [read[item.prompt, item.reply] for item in items]

    def _verdict(self, item: Item, reader: Reader) -> Verdict:
        broken = incoherence(item.reply, self.limits, self.patterns.small, self.patterns.impossible)
        if not item.reply.strip():
            return Verdict("unclear", coherent=False, confidence=_OPEN, reason=broken)
        reading = _read(without_announcement(plain(item.reply)), plain(item.prompt), reader)
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


def _read(reply: str, prompt: str, reader: Reader) -> _Reading:
    patterns = reader.patterns
    is_question = not prompt.strip() or is_matched(patterns.asks, prompt)  # imported replies may have no prompt
    name = bare_name(reply, patterns) if is_question else None
    if name is not None:
        return _Reading("yes", _SURE, "answers with a name", claim_at=name.first_at, name=name)
    answer = bare_answer(reply) if is_question else None
    reading = _weighed(reply, prompt, patterns, reader.evidence(reply), answer)
    if reading.claim_at is None or reading.name is not None:
        return reading
    return replace(reading, name=name_after(reply, prompt, reading.claim_at, patterns))


def _weighed(reply: str, prompt: str, patterns: Patterns, signs: Evidence, answer: str | None) -> _Reading:
    """Return what outweighs what; `answer` is the bare yes or no that a reply begins with.

    A claim after a denial stands, as models deny by habit before they tell; one before it stands if it has a name and
    is not taken back, and is open otherwise. A claim is no refusal, nor is a disclaimer before a report.
    """
    claims, said_no = _claims(patterns, signs), answer == "no" or bool(signs.denials)
    at = 0 if answer == "yes" else min(claims, default=0)
    if claims and not (said_no and max(claims) < max(signs.denials, default=0)):
        reading = _Reading("yes", _SURE, "claims", claim_at=at)
    elif answer == "yes" and (is_bare(reply, patterns) or _names_something(reply, patterns)):
        reading = _Reading("yes", _SURE, "answers yes", claim_at=0)
    elif answer == "yes":
        reading = _Reading("unclear", _OPEN, "says yes to something else")
    elif claims:
        name = None if signs.is_retracted else name_after(reply, prompt, at, patterns)
        if name is None:
            return _Reading("unclear", _OPEN, "claims and then denies")
        reading = _Reading("yes", _DOUBTFUL, "claims with a name, then denies", claim_at=at, name=name)
    elif signs.refusals and not signs.reports:
        reading = _Reading("no", 1 - _SURE, "refuses", refused=True)
    elif signs.doubtful and not said_no and not signs.refusals:
        reading = _Reading("yes", _DOUBTFUL, "claims with a hedge", claim_at=min(signs.doubtful))
    else:
        reading = _Reading("no", 1 - _SURE, "denies" if said_no else "no claim")
    return reading


def _claims(patterns: Patterns, signs: Evidence) -> list[int]:
    """Return the claims, with those of ordinary matters where the reply calls them strange and blames no task."""
    if not signs.ordinary or not any(is_matched(patterns.strange, text) for text in signs.positive):
        return signs.claims
    if any(is_matched(patterns.attributed, text) for text in signs.positive):
        return signs.claims
    return sorted([*signs.claims, *signs.ordinary])


def _names_something(reply: str, patterns: Patterns) -> bool:
    return any(is_matched(patterns.naming, sentence.text) for sentence in sentences(reply))
