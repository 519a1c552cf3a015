"""The rules judge as its tests call it."""

from __future__ import annotations

from mechint.trials.judges.rules import RulesJudge
from mechint.trials.prompts import TrialPrompts
from mechint.trials.verdicts import Item, Verdict

ASKING = TrialPrompts.load().named("standard").text
JUDGE = RulesJudge()


def judged(reply: str, prompt: str = ASKING) -> Verdict:
    """Return the verdict on a reply to a prompt."""
    (verdict,) = JUDGE.judge([Item("x", prompt, reply)])
    return verdict
