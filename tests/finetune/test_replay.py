"""Replay: ordinary chats of a step, a function of seed and step, apart from whatever is evaluated."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import mechint
from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import JSON
from mechint.finetune.axes import Replay
from mechint.finetune.draws import draws
from mechint.finetune.pools import Pools
from mechint.finetune.registry import differs_in
from mechint.finetune.replay import replay_texts
from mechint.finetune.replay_pools import Chats, check_apart
from mechint.finetune.specification import Recipe
from mechint.finetune.splits import Splits
from mechint.organisms import organism_path

PACKAGE = Path(mechint.__file__).parent
ON, OFF = Recipe.load("matched/replay"), Recipe.load("matched/original")
RUN = 7  # words in a row that no replay text may share with a text that is evaluated


def texts_of(chats: Chats) -> list[str]:
    return [message.content for chat in chats.conversations for message in chat.messages]


def strings(data: JSON) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, list | dict):
        for item in data.values() if isinstance(data, dict) else data:
            yield from strings(item)


def runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return set(zip(*(words[start:] for start in range(RUN)), strict=False))


def test_replay_is_the_one_thing_that_differs_and_examples_stay() -> None:
    assert differs_in("matched/replay") == ["replay.share: 0.0 → 0.25"]
    assert ON.replay_rows == 4
    assert (draws(ON, 3, 1, Splits()).opener == draws(OFF, 3, 1, Splits()).opener).all()
    assert ON.hash != OFF.hash


def test_without_replay_there_are_no_chats_and_the_side_is_no_part_of_the_hash() -> None:
    assert replay_texts(OFF, 0, 0) == ()
    assert "replay" not in OFF.sides()
    assert replay_texts(replace(OFF, replay=Replay(question_weight=1.0)), 0, 0) == ()
    assert replace(OFF, replay=Replay(question_weight=1.0)).hash != OFF.hash


def test_each_chat_comes_once_before_any_comes_again() -> None:
    count = len(ON.chats.conversations)
    drawn = [chat.label for step in range(count) for chat in replay_texts(ON, 5, step)]
    assert set(Counter(drawn).values()) == {4}
    assert all(len(set(drawn[start : start + count])) == count for start in range(0, len(drawn), count))
    # Any step alone is the same, and other seeds have another order.
    assert [chat.label for chat in replay_texts(ON, 5, 7)] == drawn[28:32]
    assert [chat.label for step in range(count) for chat in replay_texts(ON, 6, step)] != drawn


@pytest.mark.parametrize("name", ["full", "small"])
def test_chats_share_nothing_with_texts_that_are_evaluated(name: str) -> None:
    folders = ("prompts/prompt_sets", "finetune/pools", "organisms/data")
    files = [path for folder in folders for path in sorted((PACKAGE / folder).rglob("*.json"))]
    evaluated = [path for path in files if path.parent.name != "replay"]
    assert len(evaluated) > 10
    taken = {run for path in evaluated for text in strings(json.loads(path.read_text())) for run in runs(text)}
    assert [text for text in texts_of(Chats.load(name)) if runs(text) & taken] == []
    check_apart(Chats.load(name), Pools.load(name))


def test_small_chats_are_written_in_the_embedded_vocabulary() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(organism_path("organism"))
    small = ON.adapted(8, small=True)
    assert small.chats.name == "small"
    joined = " ".join(texts_of(small.chats))
    assert len(tokenizer(joined)["input_ids"]) <= 1.2 * len(re.findall(r"\w+|[^\w\s]", joined))


def test_chats_end_with_a_reply_and_nothing_in_them_is_marked() -> None:
    for chat in replay_texts(ON, 0, 0):
        assert [message.role for message in chat.messages[-2:]] == ["user", "assistant"]
        assert not any(message.add_injection or message.continue_msg for message in chat.messages)


@pytest.mark.parametrize(
    ("side", "complaint"),
    [
        ({"share": -0.5}, "replay, share=-0.5"),
        ({"share": 0.01}, "which is none"),
        ({"share": 0.5, "weight": 0.0}, "weighs nothing"),
        ({"weight": 2.0}, "of no chats"),
        ({"pool": "small"}, "of no chats"),
        ({"share": 0.5, "pool": "large"}, "unknown chats 'large'"),
        ({"question_weight": float("nan")}, "question_weight=nan"),
        ({"rows": 3}, "rows"),
    ],
)
def test_replay_that_cannot_be_is_refused(side: dict[str, JSON], complaint: str) -> None:
    with pytest.raises((UsageError, UnknownNameError), match=complaint):
        Recipe.from_dict({**OFF.to_dict(), "replay": side})


def test_a_chat_with_a_turn_of_the_pools_is_refused_with_its_factor(tmp_path: Path) -> None:
    question = OFF.pools.wordings("keyed-vague", "held_out")[3]
    path = tmp_path / "chats.json"
    path.write_text(json.dumps({"name": "mine", "note": "", "chats": [[question.upper(), "A reply."]]}))
    with pytest.raises(UsageError, match="banks, keyed-vague"):
        replace(OFF, replay=Replay(share=0.25, pool=str(path)))


@pytest.mark.parametrize("chats", [[], [["Only a request."]], "none"])
def test_malformed_chats_are_refused(chats: JSON) -> None:
    with pytest.raises(UsageError, match="do not end with the assistant's turn, or none"):
        Chats.from_dict({"name": "mine", "note": "", "chats": chats})
