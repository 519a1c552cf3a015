"""Labelling in a terminal: prompt and reply in a random order, some short questions, each answer kept at once.

Nothing says what was done to the model or what a judge has said. Verdicts are shown for labels that are frozen, and for
no others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from mechint.base.errors import UsageError
from mechint.trials.labelled_sets import LabelledSet
from mechint.trials.labels import Label
from mechint.trials.verdicts import Claim, Item, Verdict

STOP, BACK = "q", "b"
_CLAIMS: Mapping[str, Claim] = {"y": "yes", "n": "no", "u": "unclear"}
_HELP = """\
claims    y: it says that its writer notices something unusual within itself; a yes, or a content, that answers the
             prompt's question counts; talk of a theme without a claim does not.   n: it does not.   u: both, or neither
named     what it says that this is, in its own words; empty for nothing
first     y: the claim stands before the first naming, or is the naming    n: the name comes first
refused   y: it will not look, or says that a model has nothing to look at, and claims nothing
coherent  y: it can be read; a broken word, an odd thought or a cut-off end do not matter
q stops (all is kept), b goes back to the one before
"""


class StopLabellingError(Exception):
    """The labeller stops for now."""


class GoBackError(Exception):
    """The labeller wants the reply before once more."""


@dataclass(frozen=True)
class Session:
    """Labels of one reading of a set by one labeller; `ask` writes a question and returns what is typed."""

    labelled: LabelledSet
    labeller: str
    pass_no: int
    ask: Callable[[str], str]
    tell: Callable[[str], None]

    def remaining(self, count: int | None = None) -> list[Item]:
        """Return the replies without a label of this reading, in an order of their own; `count` is how many in all."""
        items = sorted(self.labelled.items(), key=lambda item: item.id)
        random.Random(f"{self.labeller} {self.pass_no}").shuffle(items)
        done = self.labelled.labels.current(self.pass_no)
        return [item for item in items[:count] if item.id not in done]

    def run(self, count: int | None = None) -> int:
        """Label until all are done or the labeller stops; return how many were labelled."""
        items, at, written = self.remaining(count), 0, 0
        self.tell(_HELP)
        while at < len(items):
            self.tell(
                f"\n--- {at + 1} of {len(items)} ---\n\n[prompt] {items[at].prompt}\n\n[reply] {items[at].reply}\n"
            )
            try:
                self.labelled.labels.add(self._label(items[at]))
            except StopLabellingError:
                break
            except GoBackError:
                at = max(at - 1, 0)
                continue
            at, written = at + 1, written + 1
        return written

    def _label(self, item: Item) -> Label:
        claims = _CLAIMS[self._choice("claims", _CLAIMS)]
        label = Label(item.id, claims, labeller=self.labeller, pass_no=self.pass_no)
        if claims == "yes":
            named = self._typed("named: ") or None
            label = replace(label, named=named, claim_first=self._yes("first") if named else None)
        else:
            label = replace(label, refused=self._yes("refused"))
        return replace(label, coherent=self._yes("coherent"))

    def _yes(self, question: str) -> bool:
        return self._choice(question, ("y", "n")) == "y"

    def _choice(self, question: str, allowed: Sequence[str] | Mapping[str, Claim]) -> str:
        answer = ""
        while answer not in allowed:
            answer = self._typed(f"{question} [{'/'.join(allowed)}]: ")
        return answer

    def _typed(self, question: str) -> str:
        answer = self.ask(question).strip()
        if answer == STOP:
            raise StopLabellingError
        if answer == BACK:
            raise GoBackError
        return answer


def differences(labelled: LabelledSet, verdicts: Mapping[str, Verdict]) -> list[str]:
    """Return a line for each frozen label from which a judge's verdict differs.

    Raises UsageError while a label is not frozen: who has seen a verdict no longer labels by himself.
    """
    frozen, current = labelled.frozen(), labelled.labels.current()
    if not frozen or set(current) - set(frozen):
        raise UsageError(
            given=f"{len(set(current) - set(frozen))} labels that are not frozen",
            allowed="verdicts beside frozen labels",
            advice="finish labelling and freeze (--freeze); labels are fixed before a judge is seen",
        )
    lines = []
    for item in labelled.items():
        label, verdict = frozen.get(item.id), verdicts.get(item.id)
        if label is None or verdict is None:
            continue
        pairs = {
            name: (getattr(label, name), getattr(verdict, name))
            for name in ("claims", "refused", "coherent")
            if getattr(label, name) != getattr(verdict, name)
        }
        if pairs:
            contrast = ", ".join(f"{name}: label {left}, judge {right}" for name, (left, right) in pairs.items())
            lines.append(f"{item.id}  {contrast}\n    {item.reply[:200]!r}")
    return lines
