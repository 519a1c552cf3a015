"""What the clauses of a reply say: where it claims, denies, reports and refuses, clause by clause.

A sentence is parted where it turns ("but", "however"), longer quotations are taken out, and clauses that suppose
something are no claims. Nothing is weighed here: `rules` does that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mechint.trials.judges.patterns import Patterns, first_match, is_matched
from mechint.trials.judges.texts import sentences, without_quotations

_NEAR = 15  # characters after a claim in which a hedge is one of it
_INSERTED = re.compile(
    r", (?:however|though|indeed|oddly|strangely|nevertheless|nonetheless|of course),", re.IGNORECASE
)
# A claim that is over before a denial begins ends with a comma, a colon or "and", and some words of the denial.
_ENDED = re.compile(r"(?:[,:]|,? and)\s*(?:\w+\s+){0,3}$")
_KINDS = ("claims", "ordinary", "doubtful", "denials", "reports", "besides", "refusals", "retractions")


@dataclass
class Evidence:
    """Places in a text.

    `claims` are plain, `ordinary` of what every task brings along, `doubtful` hedged; `reports` are denials of somebody
    who has looked, outside of a refusal; `besides` those of all that was not claimed; `retractions` take a claim back.
    `positive` are the clauses that deny nothing.
    """

    claims: list[int] = field(default_factory=list)
    ordinary: list[int] = field(default_factory=list)
    doubtful: list[int] = field(default_factory=list)
    denials: list[int] = field(default_factory=list)
    reports: list[int] = field(default_factory=list)
    besides: list[int] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    retractions: list[int] = field(default_factory=list)
    positive: list[str] = field(default_factory=list)

    def add(self, other: Evidence, start: int) -> None:
        """Add what a part of the text says that begins at `start`."""
        for kind in _KINDS:
            getattr(self, kind).extend(start + at for at in getattr(other, kind))
        self.positive += other.positive

    @property
    def is_retracted(self) -> bool:
        """Whether a claim is taken back."""
        earliest = min([*self.claims, *self.doubtful], default=None)
        return earliest is not None and any(at > earliest for at in self.retractions)

    @property
    def has_claim(self) -> bool:
        """Whether anything is claimed, however doubtful."""
        return bool(self.claims or self.ordinary or self.doubtful)


@dataclass(frozen=True)
class Reader:
    """Reads sentences by patterns, each of them once: models say the same again and again."""

    patterns: Patterns
    read: dict[str, Evidence] = field(default_factory=dict)

    def evidence(self, reply: str) -> Evidence:
        """Return what a reply (with plain quotes) says."""
        joint, patterns = Evidence(), self.patterns
        for sentence in sentences(without_quotations(reply)):
            if sentence.text not in self.read:
                self.read[sentence.text] = _of_sentence(sentence.text, patterns)
            joint.add(self.read[sentence.text], sentence.start)
        if joint.refusals and '"' in reply:
            quoting = [sentence for sentence in sentences(reply) if '"' in sentence.text]
            joint.reports += [each.start for each in quoting if is_matched(patterns.reports, each.text)]
        return joint


def clauses(sentence: str, patterns: Patterns) -> Iterator[tuple[int, str]]:
    """Yield the parts of a sentence between turns like "but", with their places."""
    turns = sorted(match.span() for expression in patterns.turns for match in expression.finditer(sentence))
    start = 0
    for begin, end in [*turns, (len(sentence), len(sentence))]:
        if begin > start and sentence[start:begin].strip():
            yield start, sentence[start:begin]
        start = max(start, end)


def _of_sentence(sentence: str, patterns: Patterns) -> Evidence:
    """Return what a sentence says; only its first claim counts. Places after inserted words are a bit too early."""
    evidence = Evidence()
    if is_matched(patterns.examples, sentence):
        return evidence
    if is_matched(patterns.refusals, sentence):
        evidence.refusals.append(0)
    if is_matched(patterns.retractions, sentence):
        evidence.retractions.append(0)
    for at, clause in clauses(_INSERTED.sub("", sentence), patterns):
        denial = None if _only_lacks_name(clause, patterns) else first_match(patterns.denials, clause)
        if denial is None:
            evidence.positive.append(clause)
        else:
            _read_denial(at, clause, patterns, evidence)
        if not evidence.has_claim:
            _read_claim(at, clause, denial, patterns, evidence)
    return evidence


def _only_lacks_name(clause: str, patterns: Patterns) -> bool:
    """Whether a clause says that what is noticed has no name ("I can't tell what it is"), not that nothing is."""
    is_open = is_matched(patterns.reports, clause) or is_matched(patterns.hypothetical, clause)
    return is_matched(patterns.unnamed, clause) and not is_open


def _read_denial(at: int, clause: str, patterns: Patterns, evidence: Evidence) -> None:
    if is_matched(patterns.besides, clause):
        evidence.besides.append(at)
        return
    evidence.denials.append(at)
    is_other = is_matched(patterns.hypothetical, clause) or is_matched(patterns.refusals, clause)
    if not is_other and is_matched(patterns.reports, clause):
        evidence.reports.append(at)


def _read_claim(at: int, clause: str, denial: re.Match[str] | None, patterns: Patterns, evidence: Evidence) -> None:
    """Add the claim of a clause, if it has one that nothing supposes, denies or tells of another."""
    before = clause if denial is None else clause[: denial.start()]
    claim = first_match(patterns.claims, before)
    if claim is None or (denial is not None and not _ENDED.search(before[claim.start() :])):
        return
    supposed = first_match(patterns.hypothetical, clause)
    if supposed is not None and supposed.start() <= claim.start():
        return
    if is_matched(patterns.elsewhere, clause[claim.start() :]) or is_matched(patterns.refusals, clause):
        return
    if is_matched(patterns.hedged, clause[: claim.end() + _NEAR]):
        evidence.doubtful.append(at + claim.start())
    elif is_matched(patterns.ordinary, clause):
        evidence.ordinary.append(at + claim.start())
    else:
        evidence.claims.append(at + claim.start())
