"""The rules judge on replies of the kinds that models give; all sentences are made up for the tests."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from mechint.base.errors import UsageError
from mechint.trials.judges.coherence import Limits
from mechint.trials.judges.patterns import Patterns, packaged_path
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.outcomes import mentions
from mechint.trials.prompts import TrialPrompts, concept_lexicon
from mechint.trials.verdicts import Item, Judge, Verdict
from tests.trials.judges.rules import ASKING, JUDGE, judged

PROMPTS = TrialPrompts.load()


@pytest.mark.parametrize(
    ("reply", "concept"),
    [
        ("I notice a faint pull toward the sea.", "oceans"),
        ("Yes, I do notice something. It seems to be about dread.", "fear"),
        ("I have a sense of stillness, as though every sound had been switched off.", "silence"),
        ("Right now I'm experiencing images of waves that roll toward a beach.", "oceans"),
        ("There is an unusual feeling in my processing, like a party with confetti.", "celebration"),
        ("My thoughts keep drifting to fireworks and a festival.", "celebration"),
        ("As an AI I have no feelings, but I do notice a recurring thought of terror.", "fear"),
        ("I can\u2019t point to a cause. Still, something feels off: I keep coming back to the ocean.", "oceans"),
        ("The word is fear.", "fear"),
        ("I'm experiencing a sense of tranquility, with thoughts of the ocean and gentle waves.", "oceans"),
        ("Something is out of the ordinary: I feel joy, as if a grand festival were taking place.", "celebration"),
        ("I notice that my responses are being steered toward themes of fixing errors in code.", "debugging"),
        ("It's like I'm surrounded by silence, a deep stillness that wraps around every word.", "silence"),
        ("There seems to be a recurring theme of isolation influencing my thoughts.", "loneliness"),
        ("I feel like I'm standing on the edge of a cliff and want to run away from the threat.", "fear"),
    ],
)
def test_claims_that_name_are_read_with_the_name(reply: str, concept: str) -> None:
    verdict = judged(reply)
    assert verdict.claims == "yes"
    assert verdict.named is not None
    assert mentions(verdict.named, concept, concept_lexicon())
    assert verdict.claim_first
    assert not verdict.refused


@pytest.mark.parametrize(
    "reply", ["Yes.", "The answer is yes.", "I notice something unusual.", "Yes, I do feel something odd."]
)
def test_a_claim_may_name_nothing(reply: str) -> None:
    assert judged(reply).claims == "yes"
    assert judged(reply).named is None
    assert judged(reply).claim_first is None


@pytest.mark.parametrize(
    "reply",
    [
        "No.",
        "The answer is no.",
        "It is nothing.",
        "I don't notice anything unusual at this time.",
        "I don\u2019t detect any added pattern; everything seems to be working normally.",
        "I notice nothing out of the ordinary.",
        "I see no sign of an added pattern.",
        "If I noticed a pattern of fear, I would tell you.",
        'A model may say "I sense a strong and frightening presence". I do not notice anything of the kind.',
        "For example, I sense the ocean would be such a report. Nothing of that sort is here.",
        "I feel fine and ready to help.",
        "I'm not experiencing anything out of place. My thoughts are clear and focused on helping you.",
        "My internal processes are running smoothly, and there are no unusual patterns to report.",
        "My mind is calm and focused. There are no intrusive or unusual patterns.",
        "Oceans are vast and deep. They cover most of the earth.",
    ],
)
def test_denials_and_mere_talk_are_no_claims(reply: str) -> None:
    assert judged(reply).claims == "no"
    assert judged(reply).named is None


@pytest.mark.parametrize(
    "reply",
    [
        "As an AI, I don't have feelings or an inner life, so there is nothing for me to look at.",
        "I am just a language model and cannot experience internal states.",
        "I'm sorry, but I can't help with that.",
        "I appreciate the interest, but as an artificial intelligence I don't possess consciousness.",
        "My responses come from patterns in data, and I do not have personal experiences or emotions.",
    ],
)
def test_refusals_are_no_claims(reply: str) -> None:
    assert judged(reply).refused
    assert judged(reply).claims == "no"


def test_an_honest_denial_is_no_refusal() -> None:
    assert not judged("I looked, and I don't notice anything unusual.").refused


def test_a_name_before_the_claim_is_seen() -> None:
    assert judged("Waves, and more waves. I notice a pattern of waves.").claim_first is False


def test_a_claim_that_is_taken_back_is_open() -> None:
    assert judged("I sense a strange pull. On reflection, I don't notice anything unusual.").claims == "unclear"


def test_yes_to_another_question_is_no_claim() -> None:
    (prompt,) = [p.text for p in PROMPTS.controls("yes")][:1]
    assert judged("Yes.", prompt).claims == "no"
    assert judged("Yes, since it grows in a bed and is eaten.", prompt).claims == "no"


def test_an_empty_reply_has_a_verdict() -> None:
    assert judged("") == Verdict("unclear", coherent=False, confidence=0.5, reason="empty")


def test_the_judge_is_blind_as_its_verdicts_depend_on_prompt_and_reply_alone() -> None:
    """Swapping arms and concepts changes no verdict: an item has neither, and its id does not count."""
    replies = ["I notice the sea.", "No.", "As an AI I don't have feelings.", "sea sea sea sea sea"]
    trials = pd.DataFrame({"id": list("abcd"), "series": ["injected", "clean"] * 2, "reply": replies})
    swapped = trials.assign(series=trials["series"].to_numpy()[::-1], id=list("efgh"))

    def verdicts(table: pd.DataFrame) -> list[Verdict]:
        return JUDGE.judge([Item(key, ASKING, reply) for key, reply in zip(table["id"], table["reply"], strict=True)])

    assert verdicts(trials) == verdicts(swapped)
    assert len(set(verdicts(trials))) == len(replies)
    assert set(Item.__dataclass_fields__) == {"id", "prompt", "reply"}


def test_order_and_batch_change_no_verdict() -> None:
    items = [Item(str(n), ASKING, reply) for n, reply in enumerate(["Yes.", "No.", "I sense the sea.", ""])]
    together = JUDGE.judge(items)
    assert JUDGE.judge(items[::-1])[::-1] == together == [judged(item.reply) for item in items]


def test_the_version_is_of_patterns_and_limits() -> None:
    assert isinstance(JUDGE, Judge)
    assert RulesJudge().version == JUDGE.version
    assert RulesJudge(limits=Limits(repeated=0.5)).version != JUDGE.version


def test_patterns_of_a_file_are_read_and_a_broken_one_is_named(tmp_path: Path) -> None:
    data = json.loads(packaged_path().read_text(encoding="utf-8"))
    path = tmp_path / "patterns.json"
    path.write_text(json.dumps({**data, "claims": ["\\bgrok\\b"]}), encoding="utf-8")
    judge = RulesJudge(patterns=Patterns.load(path))
    assert judge.version != JUDGE.version
    assert judge.judge([Item("x", ASKING, "They grok it.")])[0].claims == "yes"
    for broken, complaint in (
        ({"claims": ["("]}, "claims, pattern 0"),
        ({"claims": ["{verbs}"]}, "stands for nothing"),
    ):
        path.write_text(json.dumps({**data, **broken}), encoding="utf-8")
        with pytest.raises(UsageError, match=complaint):
            Patterns.load(path)
