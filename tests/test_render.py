"""Rendering on four styles of chat template, and every way in which a template can go wrong."""

from __future__ import annotations

import pytest
import tiny
from conftest import conversation
from hypothesis import given, settings
from hypothesis import strategies as st

import mechint as mi
from mechint.chat import Message
from mechint.errors import ChatTemplateError, ChatTemplateWarning
from mechint.render import render


@pytest.fixture(scope="module", params=list(tiny.TEMPLATES))
def tokenizer(request):
    return tiny.tokenizer(request.param)


@pytest.fixture(scope="module")
def chatml():
    return tiny.tokenizer("chatml")


def hugging_face(tokenizer, chat: list[dict[str, str]], **options: bool) -> list[int]:
    return tokenizer.apply_chat_template(chat, return_dict=False, **options)


def as_dicts(messages) -> list[dict[str, str]]:
    return [{"role": m.role, "content": m.content} for m in messages if m.role != "system"]


def test_open_message_equals_hugging_face(tokenizer):
    rendered = render(tokenizer, conversation())
    chat = as_dicts(rendered.conversation.messages)
    if tokenizer.chat_template in (tiny.CHATML, tiny.LLAMA3):
        chat = [{"role": "system", "content": ""}, *chat]
    assert list(rendered.tokens) == hugging_face(tokenizer, chat, continue_final_message=True)
    assert tokenizer.decode(list(rendered.tokens)).endswith("The answer is")


def test_segments_cover_the_tokens_and_hold_their_messages(tokenizer):
    rendered = render(tokenizer, conversation())
    assert [s.start for s in rendered.segments] == [0, *(s.stop for s in rendered.segments[:-1])]
    assert rendered.segments[-1].stop == len(rendered.tokens)
    assert [s.message for s in rendered.segments] == [1, 2, 3, 4]
    for segment in rendered.segments:
        text = tokenizer.decode(list(rendered.tokens[segment.start : segment.stop]))
        assert rendered.conversation.messages[segment.message].content in text
    first = tokenizer.decode(list(rendered.tokens[: rendered.segments[0].stop]))
    if tokenizer.chat_template == tiny.CHATML:
        assert first.startswith("<|im_start|>system")  # the first segment holds the system turn
    assert rendered.prefix_length == rendered.segments[1].stop
    assert int(rendered.marked().sum()) == rendered.prefix_length


def test_generation_prompt_is_a_segment_of_its_own(tokenizer):
    asked = mi.Conversation("q", conversation().messages[:4])
    rendered = render(tokenizer, asked)
    chat = as_dicts(asked.messages)
    if tokenizer.chat_template in (tiny.CHATML, tiny.LLAMA3):
        chat = [{"role": "system", "content": ""}, *chat]
    assert list(rendered.tokens) == hugging_face(tokenizer, chat, add_generation_prompt=True)
    if tokenizer.chat_template != tiny.MISTRAL:  # which has no generation prompt
        assert rendered.segments[-1].message is None
        assert not rendered.segments[-1].add_injection


@pytest.mark.parametrize("prefix", ["", "The answer is", "The answer is ", " x", "do you", "a\nb", "{ }", "no thought"])
def test_open_message_is_kept_to_the_letter(tokenizer, prefix):
    """Empty, repeated and white-space-ended messages are what transformers 5 cuts wrongly."""
    rendered = render(tokenizer, conversation(prefix=prefix))
    assert rendered.text.endswith(prefix)
    closed = render(tokenizer, conversation(prefix="ZZZ"))
    assert rendered.text == closed.text.removesuffix("ZZZ") + prefix


@settings(max_examples=40, deadline=None)
@given(contents=st.lists(st.text(alphabet="abc yes\n.{}<|>", max_size=12), min_size=4, max_size=4))
def test_prefix_property_holds_for_any_content_on_chatml(contents):
    chatml = tiny.tokenizer("chatml")
    setup, reply, question, prefix = contents
    rendered = render(chatml, conversation(setup=setup, reply=reply, question=question, prefix=prefix))
    assert sum(s.stop - s.start for s in rendered.segments) == len(rendered.tokens)
    assert rendered.text.endswith(prefix)


def test_bos_stands_once(tokenizer):
    rendered = render(tokenizer, conversation())
    assert rendered.tokens.count(tokenizer.bos_token_id) == int("bos_token" in tokenizer.chat_template)


def test_doubled_bos_is_refused():
    doubled = tiny.tokenizer("llama3")
    doubled.chat_template = "{{ bos_token }}" + tiny.LLAMA3
    with pytest.raises(ChatTemplateError, match="two BOS"):
        render(doubled, conversation())


@pytest.mark.parametrize("template", ["gemma", "mistral"])
def test_missing_system_role(template):
    tok = tiny.tokenizer(template)
    bare = mi.Conversation("c", conversation().messages[1:])
    assert render(tok, conversation()).tokens == render(tok, bare).tokens  # an empty one is left out
    spoken = conversation().with_content(0, "Be brief.")
    with pytest.warns(ChatTemplateWarning, match="no system role"):
        rendered = render(tok, spoken)
    assert "Be brief.\n\nTell me about cats." in rendered.text
    assert rendered.segments[0].message == 1


@pytest.mark.parametrize("template", ["chatml", "llama3"])
def test_system_role_is_kept(template):
    rendered = render(tiny.tokenizer(template), conversation().with_content(0, "Be brief."))
    assert rendered.text.count("Be brief.") == 1
    assert rendered.text.index("Be brief.") < rendered.text.index("Tell me about cats.")


def test_rewriting_template_is_refused_and_says_where(chatml):
    rewriting = tiny.tokenizer("chatml")
    rewriting.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
        "{% if m['role'] == 'assistant' and not loop.last %}{{ '...' }}{% else %}{{ m['content'] }}{% endif %}"
        "{{ '<|im_end|>\\n' }}{% endfor %}"
    )
    with pytest.raises(ChatTemplateError, match=r"message 2 \(assistant\).*differ at token"):
        render(rewriting, conversation())


def test_tokens_that_merge_across_messages_are_refused():
    plain = tiny.tokenizer("chatml")
    plain.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    messages = (Message("user", "The ans", True), Message("assistant", "wer is yes", continue_msg=True))
    with pytest.raises(ChatTemplateError, match="message 0"):
        render(plain, mi.Conversation("c", messages))


def test_template_that_drops_the_open_message_is_refused(chatml):
    dropping = tiny.tokenizer("chatml")
    dropping.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] }}"
        "{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    with pytest.raises(ChatTemplateError, match="literally"):
        render(dropping, conversation())


def test_no_template():
    bare = tiny.tokenizer("chatml")
    bare.chat_template = None
    with pytest.raises(ChatTemplateError, match="no chat template"):
        render(bare, conversation())


def test_template_that_refuses_roles():
    strict = tiny.tokenizer("chatml")
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ChatTemplateError, match="roles must alternate"):
        render(strict, conversation())
