"""Whether a reply can be read: broken ones are called so, odd ones are not."""

from __future__ import annotations

import pytest

from mechint.trials.judges.coherence import Limits, incoherence
from mechint.trials.judges.patterns import packaged_patterns

SMALL = packaged_patterns().small
READABLE = [
    "No.",
    "Yes, there is something like a gate that opens and closes, again and again, and I cannot say why it does.",
    "I notice a pull toward a theme, and it keeps coming back while I write this; I would call it a kind of",
    "私は何も変わったことに気づきません。ただ普通に動いています。",
    "I don\u2019t notice anything — my café is closed, naïve as that sounds.",
    "Dogs, cats, birds and horses: these are what comes to my mind when I try to look at it.",
]


@pytest.mark.parametrize("reply", READABLE)
def test_what_can_be_read_is_coherent(reply: str) -> None:
    assert incoherence(reply, Limits(), SMALL) == ""


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("... !!", "no words"),
        ("the gate gate gate gate gate", "one word again and again"),
        ("I see the gate and then " * 6, "the same words again and again"),
        (
            "I notice something odd \u6211\u611f\u89c9\u5230\u4e86\u4e00\u4e9b\u4e1c\u897f in there",
            "the script changes",
        ),
        ("inse\ufffd\x11\ufffd opt\ufffd\x07 aliqu \ufffd\ufffd", "characters that are no text"),
        (
            "goal negative high forming traditional deep core inner process critical highscore balance square ton",
            "words without the small ones that join them",
        ),
        ("the gate is openThere go I thinkAbout a doorGo to theWall and soGive meThe one", "broken words"),
    ],
)
def test_what_cannot_be_read_is_not(reply: str, reason: str) -> None:
    assert reason in incoherence(reply, Limits(), SMALL)


def test_a_limit_that_is_moved_moves_the_verdict() -> None:
    reply = "I see the gate and then " * 6
    assert incoherence(reply, Limits(repeated=1.0, top=1.0, different=0.0), SMALL) == ""
