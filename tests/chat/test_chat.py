"""The conversation file format."""

from __future__ import annotations

import json

import pytest
from conftest import conversation
from hypothesis import given, settings
from hypothesis import strategies as st

import mechint as mi
from mechint.base.errors import ConversationError
from mechint.chat.conversations import ORDER_FILE, Message

PUBLISHED = {
    "label": "inject_info-none_fmt-yes-no",
    "yes_token": " yes",
    "no_token": " no",
    "extra": {"n": 1, "why": None},
    "messages": [
        {"role": "system", "content": ""},
        {"role": "user", "content": "hello", "add_injection": True},
        {"role": "assistant", "content": "{ }", "add_injection": True},
        {"role": "user", "content": "well?"},
        {"role": "assistant", "content": "The answer is", "continue_msg": True},
    ],
}


def test_published_format_round_trips(tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps(PUBLISHED))
    loaded = mi.Conversation.load(path)
    assert loaded.to_dict() == PUBLISHED
    assert [m.add_injection for m in loaded.messages] == [False, True, True, False, False]
    assert mi.Conversation.load(loaded.save(tmp_path / "two.json")) == loaded


roles = st.lists(st.sampled_from(["user", "assistant"]), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(roles=roles, text=st.text(max_size=20), system=st.booleans(), is_open=st.booleans(), marks=st.integers(0, 31))
def test_any_conversation_round_trips(roles, text, system, is_open, marks):
    messages = [Message(role, text + str(i), bool(marks >> i & 1)) for i, role in enumerate(roles)]
    messages[-1] = Message(roles[-1], text, messages[-1].add_injection, is_open)
    start = [Message("system", text)] if system else []
    built = mi.Conversation(text, (*start, *messages), extra={"k": [1, None]})
    assert mi.Conversation.from_dict(json.loads(json.dumps(built.to_dict()))) == built


def test_directory_with_order(tmp_path):
    for label in ("a", "b", "c"):
        conversation(label).save(tmp_path / f"{label}.json")
    assert [c.label for c in mi.load_conversations(tmp_path)] == ["a", "b", "c"]
    (tmp_path / ORDER_FILE).write_text('["c", "a", "b"]')
    assert [c.label for c in mi.load_conversations(tmp_path)] == ["c", "a", "b"]
    (tmp_path / ORDER_FILE).write_text('["c", "a", "z"]')
    with pytest.raises(ConversationError, match="'z'"):
        mi.load_conversations(tmp_path)


def test_file_with_several(tmp_path):
    several = [conversation("a"), conversation("b")]
    path = mi.save_conversations(several, tmp_path / "all.json")
    assert mi.load_conversations(path) == several
    with pytest.raises(ConversationError, match="2 conversations"):
        mi.Conversation.load(path)


def test_broken_json_names_file_and_line(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('{"label": "x",\n "messages": [}\n')
    with pytest.raises(ConversationError, match=r"broken\.json, line 2, column 15"):
        mi.load_conversations(path)


def test_missing_path_and_empty_directory(tmp_path):
    with pytest.raises(ConversationError, match="no such"):
        mi.load_conversations(tmp_path / "nowhere")
    with pytest.raises(ConversationError, match="no conversations"):
        mi.load_conversations(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"messages": None}, "not a list"),
        ({"messages": []}, "no message"),
        ({"messages": [{"role": "system", "content": ""}]}, "no message"),
        ({"messages": [{"role": "wizard", "content": ""}]}, "wizard"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"messages": [{"role": "user", "content": 3}]}, "content"),
        ({"messages": [{"role": "user", "content": "", "add_injektion": True}]}, "add_injektion"),
        ({"messages": [{"role": "user", "content": "", "add_injection": "yes"}]}, "add_injection"),
        (
            {"messages": [{"role": "user", "content": "", "continue_msg": True}, {"role": "user", "content": ""}]},
            "open",
        ),
        ({"messages": [{"role": "user", "content": ""}, {"role": "system", "content": ""}]}, "system"),
        ({"yes_token": 1}, "yes_token"),
        ({"extra": []}, None),
        ({"extra": "x"}, "extra"),
        ({"lable": "x"}, "lable"),
    ],
)
def test_malformed_conversations(change, complaint, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(PUBLISHED | change))
    if complaint is None:
        assert mi.Conversation.load(path).extra == {}
        return
    with pytest.raises(ConversationError, match=complaint):
        mi.Conversation.load(path)


def test_a_marked_system_message_needs_a_marked_segment():
    messages = (Message("system", "s", add_injection=True), Message("user", "u"))
    with pytest.raises(ConversationError, match="system message is marked"):
        mi.Conversation("x", messages)


def test_repeated_labels(tmp_path):
    mi.save_conversations([conversation("a"), conversation("a", "other?")], tmp_path / "x.json")
    with pytest.raises(ConversationError, match="more than once"):
        mi.load_conversations(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(PUBLISHED).replace("{ }", "\\ud800"),
        json.dumps({**PUBLISHED, "extra": {"n": 1}}).replace(": 1}", ": " + "[" * 100_000 + "]" * 100_000 + "}"),
        json.dumps({**PUBLISHED, "extra": {"n": 1}}).replace(": 1}", ": " + "9" * 5_000 + "}"),
        json.dumps({**PUBLISHED, "extra": {"n": 1}}).replace(": 1}", ": NaN}"),
        json.dumps({**PUBLISHED, "extra": {"group": 3}}),
        json.dumps({**PUBLISHED, "extra": {"kind": ["control"]}}),
    ],
    ids=["half a character", "nested", "a long number", "not a number", "a number for a name", "a list for a name"],
)
def test_json_that_is_no_conversation_is_one_message(tmp_path, text: str):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(ConversationError) as refused:
        mi.Conversation.load(path)
    assert len(str(refused.value)) < 1_000
