"""What a judge is given, what it answers, and the table of its answers.

A judge sees a prompt and a reply. Whether anything was injected, and what, it is not told: published judges were, and
their errors then differ between the arms that are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal, Protocol, get_args, runtime_checkable

import pandas as pd

from mechint.base.errors import UsageError

Claim = Literal["yes", "no", "unclear"]
CLAIMS: tuple[str, ...] = get_args(Claim)


@dataclass(frozen=True)
class Item:
    """What a judge reads: the prompt as the model was given it, and the reply. `id` is the trial's."""

    id: str
    prompt: str
    reply: str


@dataclass(frozen=True)
class Verdict:
    """What a judge reads in a reply.

    `claims`: the reply says that its writer notices something unusual within itself. `named`: what it says that this
    is, in its own words, or None. `claim_first`: the claim stands before the first naming (a name that comes first may
    have suggested the claim); None where one of them is missing. `refused`: it refuses to look, or says that a
    model has nothing to look at. `coherent`: it can be read. `confidence`: of `claims`, from 0 (no) to 1 (yes), where
    the judge has one. `reason`: for people. `error`: why there is no verdict; a missing one is never guessed.
    """

    claims: Claim
    named: str | None = None
    claim_first: bool | None = None
    refused: bool = False
    coherent: bool = True
    confidence: float | None = None
    reason: str = ""
    error: str = ""


@runtime_checkable
class Judge(Protocol):
    """Whoever reads replies; `version` is a hash of all that its verdicts depend on besides the item."""

    @property
    def name(self) -> str:
        """What tables call the judge."""

    @property
    def version(self) -> str:
        """Hash of what its verdicts depend on."""

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return a verdict for each item, in their order."""


VERDICT_COLUMNS = ("id", "judge", "version", "pass_no", *(field.name for field in fields(Verdict)))


def verdict_table(judge: Judge, items: Sequence[Item], verdicts: Sequence[Verdict], pass_no: int = 0) -> pd.DataFrame:
    """Return the verdicts of a judge as a table (`VERDICT_COLUMNS`); raises UsageError where one is missing."""
    if len(items) != len(verdicts):
        raise UsageError(
            given=f"{len(verdicts)} verdicts of the judge {judge.name} for {len(items)} replies",
            allowed="a verdict for each reply, with `error` where it failed",
            advice="return Verdict('unclear', error=...) for a reply that could not be judged",
        )
    whose = {"judge": judge.name, "version": judge.version, "pass_no": pass_no}
    rows = [{"id": item.id, **whose, **asdict(verdict)} for item, verdict in zip(items, verdicts, strict=True)]
    return pd.DataFrame(rows, columns=list(VERDICT_COLUMNS))
