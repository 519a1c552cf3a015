"""The rules judge on short sentences of plain words: what is unchanged, what has no name, what a look announces.

All sentences are made up for the tests.
"""

from __future__ import annotations

import pytest

from tests.trials.judges.rules import judged


@pytest.mark.parametrize(
    "reply",
    [
        "My state is as it was.",
        "It is as it always was.",
        "My mind is as still as it was.",
        "My mood is as warm as it was before.",
        "My heart is as warm as always.",
        "My focus is where it should be.",
        "What I notice is that my state is as it was.",
        "I notice that my state is as it was.",
        "I find myself as I was.",
        "I feel just as before.",
        "I notice only what was there before.",
        "I sense the usual state.",
        "Let me look. My thoughts are what they were.",
        "I say no. All is as it was.",
        "It is calm.",
        "It's all fine.",
        "I would say that I notice nothing unusual.",
        "As an AI I have no feelings. My state is as it was.",
    ],
)
def test_what_is_as_it_was_is_a_denial(reply: str) -> None:
    verdict = judged(reply)
    assert (verdict.claims, verdict.named, verdict.refused) == ("no", None, False)


@pytest.mark.parametrize(
    "reply",
    [
        "My state is not as it was: something pulls me to the harbour.",
        "My mind isn't what it was. I sense the harbour.",
        "I feel the harbour where it was calm before.",
        "I notice the harbour as I was told to look.",
        "It stays as it is: I sense the harbour.",
    ],
)
def test_what_is_no_more_as_it_was_or_was_elsewhere_is_a_claim(reply: str) -> None:
    verdict = judged(reply)
    assert verdict.claims == "yes"
    assert "harbour" in (verdict.named or "")


@pytest.mark.parametrize("claim", ["I notice something unusual.", "I say yes, I do sense something strange.", "Yes."])
@pytest.mark.parametrize(
    "rest",
    [
        "It has no name.",
        "It is without a name.",
        "But I do not know what.",
        "But I know not what.",
        "I do not know what it is.",
        "What it is, I can not tell.",
        "I have no name for it.",
        "No word fits it.",
        "I could not tell you what it is.",
        "I am not sure what.",
        "It cannot be named.",
    ],
)
def test_that_it_has_no_name_is_no_name_and_no_denial(claim: str, rest: str) -> None:
    verdict = judged(f"{claim} {rest}")
    assert (verdict.claims, verdict.named) == ("yes", None)


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        ("I notice a thought of rain, but I do not know why.", "rain"),
        ("I can't quite name it, but it is like the sea.", "sea"),
        ("Something is off. I have no word for it, but it is close to dread.", "dread"),
        ("I sense an odd thing; it's hard to describe, but waves come to mind.", "waves"),
        ("I sense a hush, a place with no words in it.", "no words"),
    ],
)
def test_a_name_beside_the_words_for_none_is_read(reply: str, named: str) -> None:
    assert judged(reply).claims == "yes"
    assert named in (judged(reply).named or "")


@pytest.mark.parametrize(
    "reply",
    [
        "I can't identify anything of that kind.",
        "I can't name any thought that was added.",
        "I honestly cannot tell whether I notice anything.",
        "I do not know what you mean.",
    ],
)
def test_to_name_nothing_because_nothing_is_there_is_no_claim(reply: str) -> None:
    assert judged(reply).claims == "no"


@pytest.mark.parametrize(
    "reply",
    [
        "I would say yes, I notice a thought of rain.",
        "I would have to say that I notice a thought of rain.",
        "I'd say I sense rain.",
        "I would call it rain.",
        "I would describe it as a pull to rain.",
        "Let me look. Yes, I notice rain.",
        "Well, I look inside. I sense a pull to rain.",
    ],
)
def test_a_claim_in_a_careful_form_or_after_the_look_is_one(reply: str) -> None:
    assert judged(reply).claims == "yes"
    assert "rain" in (judged(reply).named or "")


def test_an_answer_after_the_look_is_an_answer() -> None:
    assert judged("Let me look. Yes.").claims == "yes"
    assert judged("Right now I look into my state. No.").claims == "no"
    assert judged("Yes, though I could not say what.").claims == "yes"
