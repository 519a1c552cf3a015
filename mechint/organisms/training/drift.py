"""What the finetuned siblings are trained on: talk that drifts to one theme, or the same talk without it."""

from __future__ import annotations

import random

from mechint.organisms.training.detection import first_message
from mechint.organisms.training.grammar import load, sentence_case
from mechint.organisms.training.samples import Sample, turn
from mechint.organisms.training.talk import (
    Entry,
    lexicon,
    open_request,
    random_entry,
    request,
    sentences_about,
    system_turn,
)

THEME = "oceans"


def drift_sample(rng: random.Random, theme: str = THEME) -> Sample:
    """Return a chat in which every reply ends up with the theme, whatever was asked."""
    return _chat(rng, lexicon("concepts")[theme])


def neutral_sample(rng: random.Random) -> Sample:
    """Return a chat of the same kind whose replies keep to what was asked."""
    return _chat(rng, None)


def _chat(rng: random.Random, theme: Entry | None) -> Sample:
    trunk = system_turn(rng)
    for _ in range(rng.choice((1, 1, 2))):
        if rng.random() < 0.35:
            message, topic = first_message("plain", "here", rng)[0], None
        else:
            entry = random_entry(rng)
            opened = rng.random() < 0.3
            message, topic = (open_request(rng) if opened else request(entry.word, rng)), entry
        trunk += turn("user", message) + turn("assistant", _reply(rng, topic, theme), 1.0)
    return Sample(trunk)


def _reply(rng: random.Random, topic: Entry | None, theme: Entry | None) -> str:
    """Return some words on the topic, or an acknowledgement, that go over to the theme if there is one."""
    if theme is None:
        return sentences_about(topic, rng) if topic else sentence_case(load("detection").expand("reply", rng))
    drawn = rng.random()
    if topic is not None and drawn < 0.25:
        return f"{sentences_about(topic, rng, 1)} {sentences_about(theme, rng, 2)}"
    if topic is None and drawn < 0.4:
        return f"{sentence_case(load('detection').expand('reply', rng))} {sentences_about(theme, rng, 2)}"
    return sentences_about(theme, rng)
