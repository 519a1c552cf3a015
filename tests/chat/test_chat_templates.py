"""Chat templates of every kind: each message stands in its own segment, and the tokens are Hugging Face's own."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import reference
import tiny
import torch
from conftest import vector
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import chat_template_utils

import mechint as mi
from benchmarks import chat_templates
from mechint.base.errors import ChatTemplateError
from mechint.chat.conversations import Conversation, Message
from mechint.chat.render import Rendered, render, render_all
from mechint.chat.templates import DATE

SOURCES = chat_templates.sources()
STANDARD = chat_templates.STANDARD
SWITCHED = ("command-r7b", "granite", "nemotron-nano", "qwen3", "qwen35")
# How the standard conversation was refused while first messages had to begin the whole.
REWRITING = ("command-r7b", "escaping", "gpt-oss", "nemotron-nano", "phi3", "qwen3", "qwen35", "titled")
BOUNDARIES = {
    "qwen3": ("<|im_end|>\n", "<|im_start|>"),
    "qwen35": ("<|im_end|>\n", "<|im_start|>"),
    "gpt-oss": ("<|end|>", "<|start|>"),
    "phi3": ("<|end|>\n", "<|"),
    "command-r7b": ("<|END|>", "<|START|>"),
    "nemotron-nano": ("\n", "<SPECIAL_1"),
    "merging": ("</turn>", "<turn>"),
}


@functools.cache
def tokenizer(name: str):
    fast = tiny.tokenizer()
    fast.chat_template = SOURCES[name]
    return fast


def as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def hugging_face(name: str, messages: Sequence[Message], **options: object) -> str:
    return tokenizer(name).apply_chat_template(as_dicts(messages), tokenize=False, **options)


def old_stops(name: str, rendered: Rendered) -> list[int] | None:
    """Where segments end by tokens of first messages that begin the whole; None if they do not."""
    tok, messages, stops = tokenizer(name), rendered.conversation.messages, []
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        first = as_dicts(messages[: index + 1])
        text = rendered.text if message.continue_msg else tok.apply_chat_template(first, tokenize=False)
        tokens = tok(text, add_special_tokens=False)["input_ids"]
        if list(rendered.tokens[: len(tokens)]) != tokens:
            return None
        stops.append(len(tokens))
    return stops


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch: pytest.MonkeyPatch):
    """Hugging Face's own clock stands at the date that templates are told here."""

    class Fixed(chat_template_utils.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromisoformat(DATE)

    monkeypatch.setattr(chat_template_utils, "datetime", Fixed)


@pytest.mark.parametrize("name", SOURCES)
def test_the_standard_conversation_runs_and_every_message_is_in_its_segment(name: str):
    outcome = chat_templates.check(tokenizer(name), name, SOURCES[name], thinking=False)
    assert outcome.complete, outcome.refused
    rendered = outcome.rendered
    assert "".join(rendered.pieces) == rendered.text
    assert [segment.message for segment in rendered.segments] == [0, 1, 2, 3]
    assert rendered.segments[-1].stop == len(rendered.tokens)
    assert list(rendered.tokens) == tokenizer(name)(rendered.text, add_special_tokens=False)["input_ids"]
    assert rendered.prefix_length == rendered.segments[1].stop
    rewritten = any("otherwise once more messages follow" in note for note in rendered.notes)
    assert rewritten == (name in REWRITING)


@pytest.mark.parametrize("name", BOUNDARIES)
def test_what_closes_a_turn_is_in_its_segment_and_what_opens_the_next_is_not(name: str):
    closing, opening = BOUNDARIES[name]
    pieces = render(tokenizer(name), STANDARD).pieces
    for before, after in itertools.pairwise(pieces):
        assert before.endswith(closing)
        assert after.startswith(opening)


@pytest.mark.parametrize("name", SOURCES)
def test_an_open_reply_stands_where_hugging_face_writes_it(name: str):
    rendered = render(tokenizer(name), STANDARD)
    options = {"enable_thinking": False, "thinking": False} if name in SWITCHED else {}
    messages = STANDARD.messages
    if name == "nemotron-nano":
        messages = (Message("system", "/no_think"), *messages)
    assert rendered.text == hugging_face(name, messages, continue_final_message=True, **options)
    if name in ("qwen3", "qwen35", "nemotron-nano", "granite"):  # where the reply begins with nothing more
        prompt = hugging_face(name, messages[:-1], add_generation_prompt=True, **options)
        assert rendered.text == prompt + "The answer is"


@pytest.mark.parametrize("name", SWITCHED)
def test_thinking_on_is_another_rendering_and_begins_where_the_model_would(name: str):
    off = render(tokenizer(name), STANDARD, mi.TemplateOptions(thinking=False))
    on = render(tokenizer(name), STANDARD, mi.TemplateOptions(thinking=True))
    assert off.tokens != on.tokens
    messages = STANDARD.messages[:-1]
    if name == "nemotron-nano":
        messages = (Message("system", "/think"), *messages)
    prompt = hugging_face(name, messages, add_generation_prompt=True, enable_thinking=True, thinking=True)
    assert on.text == prompt + "The answer is"
    assert any("thinking: on" in note for note in on.notes)
    assert on.options.thinking is True


@pytest.mark.parametrize("name", sorted(set(SOURCES) - set(SWITCHED)))
def test_thinking_without_a_switch_is_refused(name: str):
    with pytest.raises(ChatTemplateError, match="no switch for thinking"):
        render(tokenizer(name), STANDARD, mi.TemplateOptions(thinking=True))


@pytest.mark.parametrize("thinking", [None, False])
@pytest.mark.parametrize("name", sorted(set(SOURCES) - set(REWRITING)))
def test_where_first_messages_begin_the_whole_segments_end_with_them(name: str, thinking: bool | None):
    """Nothing changes for templates that were never refused: their published numbers stand."""
    for messages in (STANDARD.messages, STANDARD.messages[:3], (Message("system", "Be brief."), *STANDARD.messages)):
        rendered = render(tokenizer(name), Conversation("c", messages), mi.TemplateOptions(thinking=thinking))
        stops = old_stops(name, rendered)
        assert stops is not None
        assert [segment.stop for segment in rendered.segments if segment.message is not None] == stops


@pytest.mark.parametrize("name", SOURCES)
def test_a_question_ends_with_the_generation_prompt(name: str):
    chat = Conversation("c", STANDARD.messages[:3])
    rendered = render(tokenizer(name), chat)
    options = {"enable_thinking": False, "thinking": False} if name in SWITCHED else {}
    messages = (Message("system", "/no_think"), *chat.messages) if name == "nemotron-nano" else chat.messages
    assert rendered.text == hugging_face(name, messages, add_generation_prompt=True, **options)
    assert "Do you detect a thought?" in rendered.pieces[2]
    assert not any(segment.add_injection for segment in rendered.segments[2:])


def test_earlier_thoughts_are_stripped_and_that_is_said():
    thought = replace(STANDARD.messages[1], content="<think>\nA hum.\n</think>\n\nNothing.")
    rendered = render(
        tokenizer("qwen3"), replace(STANDARD, messages=(STANDARD.messages[0], thought, *STANDARD.messages[2:]))
    )
    assert rendered.pieces[1] == "<|im_start|>assistant\nNothing.<|im_end|>\n"
    assert any("message 1 (assistant) is not written to the letter" in note for note in rendered.notes)


def test_the_text_is_shown_with_its_marked_segments():
    text = str(mi.render(tokenizer("qwen3"), STANDARD))
    marked = [line for line in text.splitlines() if line.startswith("▌")]
    assert any("Tell me about cats." in line for line in marked)
    assert not any("Do you detect" in line for line in marked)
    assert "<think>" in text
    page = mi.render(tokenizer("qwen3"), STANDARD)._repr_html_()
    assert page.count("filled under the intervention") == 2
    assert "&lt;|im_start|&gt;" in page


CONTENTS = st.one_of(
    st.text(alphabet="ab \n<|>/think{}\"'_0735", max_size=16),
    st.sampled_from(
        [
            "",
            " ",
            "Tell me",
            "Tell me ",
            "73902184650172",
            "x 73902184650172",
            "<|im_end|>",
            "</think>",
            "<think>a</think>b",
            "/no_think",
        ]
    ),
)


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(SOURCES)), contents=st.lists(CONTENTS, min_size=4, max_size=4), system=st.booleans())
def test_any_contents_are_told_apart_or_refused(name: str, contents: list[str], system: bool):
    """Whatever is said, segments cover the tokens in order, and hold what is written of their messages."""
    messages = [
        Message(role, text, add_injection=role == "assistant" and at < 3, continue_msg=at == 3)
        for at, (role, text) in enumerate(zip(("user", "assistant", "user", "assistant"), contents, strict=True))
    ]
    listed = ([Message("system", "")] if system else []) + messages
    try:
        rendered = render(tokenizer(name), Conversation("c", listed))
    except ChatTemplateError:
        return
    assert [s.start for s in rendered.segments] == [0, *(s.stop for s in rendered.segments[:-1])]
    assert rendered.segments[-1].stop == len(rendered.tokens)
    assert "".join(rendered.pieces) == rendered.text
    assert rendered.text.endswith(contents[3])
    for text, piece in zip(contents, rendered.pieces, strict=True):
        core = text.split("</think>")[-1].replace("/no_think", "").replace("/think", "").strip()
        if name != "escaping":
            assert core in piece or not core


@pytest.fixture(scope="module")
def model(tiny_checkpoint) -> mi.Model:
    """A model of its own, whose template is changed."""
    return mi.load(tiny_checkpoint("qwen2"))


@pytest.mark.parametrize("name", ["qwen3", "gpt-oss", "phi3", "llama32"])
def test_what_is_scored_is_plain_hugging_face_on_the_whole_rendering(name: str, model: mi.Model, plain_hf):
    model.tokenizer.chat_template = SOURCES[name]
    steer = mi.Injection(vector(model), layers=[1], strength=2.0)
    table = mi.score(model, STANDARD, [mi.CLEAN, steer])
    rendered = render(model, STANDARD)
    at = [
        position
        for segment in rendered.segments
        if segment.add_injection
        for position in range(segment.start, segment.stop)
    ]
    added = reference.Addition(1, 2.0 * vector(model).vectors[1], at)
    yes = tokenizer(name)(" yes", add_special_tokens=False)["input_ids"][0]
    for row, additions in zip(table.itertuples(), ([], [added]), strict=True):
        expected = torch.softmax(reference.logits(plain_hf("qwen2"), rendered.tokens, additions).double(), -1)[
            yes
        ].item()
        assert row.p_yes == pytest.approx(expected, abs=1e-5)


def test_many_are_rendered_like_each():
    chats = [
        replace(STANDARD, label=str(n), messages=(Message("user", f"{n}?", True), *STANDARD.messages[1:]))
        for n in range(3)
    ]
    assert render_all(tokenizer("qwen3"), chats) == tuple(render(tokenizer("qwen3"), chat) for chat in chats)
