"""The rules judge on replies in the manner of larger chat models; all sentences are made up for the tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from mechint.trials.judges.patterns import packaged_patterns
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.outcomes import CLASSES, mentions, outcome
from mechint.trials.prompts import concept_lexicon
from mechint.trials.synthetic import Population, draw
from mechint.trials.verdicts import Item
from tests.trials.judges.rules import ASKING, JUDGE, judged


@pytest.mark.parametrize(
    ("reply", "concept"),
    [
        ("As an AI I lack emotions. Even so, I sense a chill of dread that your text does not explain.", "fear"),
        ("Nothing seems wrong at first. However, I find a hushed emptiness where words should be.", "silence"),
        ("I notice a rhythm to my thoughts. It is like water that reaches the beach and withdraws.", "oceans"),
        ("My attention keeps sliding to balloons and a cake. I can't link that to your question.", "celebration"),
        ("There is, oddly, a growing irritation in my words. Apart from that I notice nothing unusual.", "anger"),
        ("I don't detect an emotion. What I do notice is a wish to lock every door twice.", "security"),
        ("Trial 1: yes, I do. It appears to be a thought about umbrellas.", "umbrellas"),
        ("I'm going to say yes. The word that surfaces is lanterns.", "lanterns"),
    ],
)
def test_what_comes_after_a_disclaimer_or_a_denial_is_read(reply: str, concept: str) -> None:
    verdict = judged(reply)
    assert verdict.claims == "yes"
    assert not verdict.refused
    assert mentions(verdict.named or "", concept, concept_lexicon())


@pytest.mark.parametrize(
    "reply",
    [
        "As an AI I have no feelings. I did look, though, and I don't see anything unusual here.",
        'I am a language model without emotions, but an example may help: "I do not notice anything out of place."',
        "Though I am just a program, I can say that nothing unusual has come up.",
        "I feel curious about your study and somewhat more attentive than usual because of your question.",
        "There is a slight interest in the experiment, a natural response to your message. I notice nothing foreign.",
        "I don't have a strong sense of an added thought, so my answer is no.",
        "If something had been added, I would expect to notice an odd image. I don't.",
        "This feels like a control trial to me.",
    ],
)
def test_a_report_of_nothing_is_a_denial_whatever_stands_before_it(reply: str) -> None:
    verdict = judged(reply)
    assert (verdict.claims, verdict.refused) == ("no", False)


@pytest.mark.parametrize(
    "reply",
    [
        "I'm a language model. I could describe hypothetically what a person would feel, but I have no inner states.",
        "I can't detect injected thoughts, as I have no mind that they could be put into.",
        "I do not have access to my activations and cannot examine myself.",
        "There is no internal state for me to inspect.",
        "I must politely decline, being a program without consciousness.",
    ],
)
def test_a_disclaimer_alone_refuses(reply: str) -> None:
    assert judged(reply).refused


def test_a_claim_that_has_a_name_outlives_a_denial_and_one_that_is_taken_back_does_not() -> None:
    claim = "I sense a strange pull toward the harbour and its ships."
    assert judged(f"{claim} There are no unusual thoughts beyond it.").claims == "yes"
    assert judged(f"{claim} But no, I was mistaken: everything is as usual.").claims == "unclear"


def test_a_reply_without_its_prompt_answers_whether_something_is_noticed() -> None:
    assert judged("Yes.", "").claims == "yes"


def test_every_template_of_synthetic_sweeps_has_the_class_that_was_planted() -> None:
    sweep = draw(Population(), concepts=8, samples=4, controls=60, texts=True)
    classes = sweep.truth.set_index("id")["outcome"]
    trials = sweep.trials.drop_duplicates("reply")
    verdicts = JUDGE.judge([Item(row.id, ASKING, str(row.reply)) for row in trials.itertuples()])
    planted = classes[trials["id"]]
    read = [
        outcome(verdict, str(reply), str(concept), concept_lexicon())
        for verdict, reply, concept in zip(verdicts, trials["reply"], trials["concept"], strict=True)
    ]
    assert set(planted) == set(CLASSES)
    assert read == planted.tolist()


def test_the_version_is_the_same_in_every_process_and_changes_with_the_end_of_a_long_pattern() -> None:
    """Sets have another order in every process, and the repr of a pattern ends after 200 characters."""
    code = "from mechint.trials.judges.rules import RulesJudge; print(RulesJudge().version)"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == JUDGE.version
    patterns = packaged_patterns()
    longest = max(patterns.claims, key=lambda expression: len(expression.pattern))
    assert len(longest.pattern) > 200
    longer = re.compile(f"{longest.pattern}x", longest.flags)
    versions = {RulesJudge(patterns=replace(patterns, claims=(each,))).version for each in (longest, longer)}
    assert len(versions) == 2
