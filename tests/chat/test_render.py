"""Rendering on four styles of chat template, and every way in which a template can go wrong."""

from __future__ import annotations

import functools

import pytest
import tiny
from conftest import conversation, vector
from hypothesis import given, settings
from hypothesis import strategies as st

import mechint as mi
from mechint.base.errors import ChatTemplateError, ChatTemplateWarning, UsageError
from mechint.chat.conversations import Message
from mechint.chat.render import render
from mechint.chat.spans import positions_of


@pytest.fixture(scope="module", params=list(tiny.TEMPLATES))
def tokenizer(request):
    return tiny.tokenizer(request.param)


@pytest.fixture(scope="module")
def chatml():
    return tiny.tokenizer("chatml")


tiny_tokenizer = functools.cache(tiny.tokenizer)


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
    chat = mi.Conversation("q", conversation().messages[:4])
    rendered = render(tokenizer, chat)
    messages = as_dicts(chat.messages)
    if tokenizer.chat_template in (tiny.CHATML, tiny.LLAMA3):
        messages = [{"role": "system", "content": ""}, *messages]
    assert list(rendered.tokens) == hugging_face(tokenizer, messages, add_generation_prompt=True)
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


def test_a_template_that_does_not_write_a_message_is_refused_and_says_which():
    rewriting = tiny.tokenizer("chatml")
    rewriting.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
        "{% if m['role'] == 'assistant' and not loop.last %}{{ '...' }}{% else %}{{ m['content'] }}{% endif %}"
        "{{ '<|im_end|>\\n' }}{% endfor %}"
    )
    with pytest.raises(ChatTemplateError, match=r"message 2 \(assistant\).*cannot be found"):
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


SENTENCES = ("Tell me about cats.", " I notice a thought!\n\n", "Yes or no? ", "About the sea,", " or nothing at all.")


def test_sentences_have_their_own_tokens_and_together_all(tokenizer):
    rendered = render(tokenizer, conversation(setup="".join(SENTENCES)))
    positions = [positions_of(tokenizer, rendered, sentence, message=1) for sentence in SENTENCES]
    whole = positions_of(tokenizer, rendered, "".join(SENTENCES))
    assert [position for sentence in positions for position in sentence] == list(whole)
    assert list(whole) == list(range(whole[0], whole[-1] + 1))
    for sentence, inside in zip(SENTENCES, positions, strict=True):
        assert tokenizer.decode([rendered.tokens[p] for p in inside]).strip() == sentence.strip()
    segment = rendered.segments[0]
    assert segment.start < whole[0] <= whole[-1] < segment.stop
    around = [*rendered.tokens[segment.start : whole[0]], *rendered.tokens[whole[-1] + 1 : segment.stop]]
    assert "cats" not in tokenizer.decode(around)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), template=st.sampled_from(list(tiny.TEMPLATES)))
def test_a_message_cut_anywhere_is_divided(data, template):
    tok = tiny_tokenizer(template)
    text = "x" + data.draw(st.text(alphabet="a cats\n.é🐈", min_size=3, max_size=14)) + "zq"
    cut = data.draw(st.integers(1, len(text) - 1))
    rendered = render(tok, conversation(setup=text))
    last = sum(text.startswith(text[cut:], at) for at in range(len(text))) - 1
    halves = [covered(tok, rendered, text[:cut], 0), covered(tok, rendered, text[cut:], last)]
    assert (*halves[0], *halves[1]) == positions_of(tok, rendered, text, message=1)


def covered(tok, rendered, text: str, occurrence: int) -> tuple[int, ...]:
    """Positions in the first message; none for a piece that begins no token."""
    try:
        return positions_of(tok, rendered, text, message=1, occurrence=occurrence)
    except UsageError:
        return ()


def test_a_token_belongs_to_its_first_character(chatml):
    rendered = render(chatml, conversation(setup="no thought about cats"))
    tokens = {text: positions_of(chatml, rendered, text, message=1) for text in ("no thought", "no thought ", " about")}
    assert tokens["no thought"] == tokens["no thought "]  # the space is the next word's
    assert chatml.decode([rendered.tokens[p] for p in tokens[" about"]]) == " about"
    assert positions_of(chatml, rendered, "thou", message=1) == positions_of(chatml, rendered, "thought", message=1)
    with pytest.raises(UsageError, match="begins no token"):
        positions_of(chatml, rendered, "ought", message=1)


def test_occurrences_are_counted_over_messages(chatml):
    rendered = render(chatml, conversation(setup="a thought, a thought", reply="no thought"))
    matches = [positions_of(chatml, rendered, "thought", occurrence=k) for k in range(4)]  # the question has the last
    assert matches == sorted(set(matches))
    assert positions_of(chatml, rendered, "thought", message=2) == matches[2]
    for message, occurrence in ((None, 4), (None, -1), (2, 1), (0, 0)):
        with pytest.raises(UsageError, match="stands at"):
            positions_of(chatml, rendered, "thought", message=message, occurrence=occurrence)


def test_positions_of_trimmed_and_moved_messages(tokenizer):
    """Some templates cut white space off; those without a system role have its text in the first message."""
    chat = conversation(setup="  about the sea  ").with_content(0, "Be brief.")
    if "no system role" in str(tokenizer.chat_template) or "loop.last" in str(tokenizer.chat_template):
        with pytest.warns(ChatTemplateWarning):
            rendered = render(tokenizer, chat)
    else:
        rendered = render(tokenizer, chat)
    for message, text in ((0, "Be brief."), (1, "about the sea"), (4, "The answer is")):
        at = positions_of(tokenizer, rendered, text, message=message)
        assert tokenizer.decode([rendered.tokens[p] for p in at]).strip() == text


def test_positions_that_nobody_can_know(chatml):
    rendered = render(chatml, conversation())
    with pytest.raises(UsageError, match="other tokens"):
        positions_of(chatml, rendered.continued([5], "x"), "cats")
    with pytest.raises(UsageError, match="message 5"):
        positions_of(chatml, rendered, "cats", message=5)
    with pytest.raises(UsageError, match="stands at 0"):
        positions_of(chatml, rendered, "")
    with pytest.raises(UsageError, match="cannot be told"):
        positions_of(chatml, render(chatml, conversation(reply="assistant")), "assistant", message=2)


def test_an_injection_into_one_sentence_touches_it_alone(model):
    setup = "".join(SENTENCES)
    rendered = render(model.tokenizer, conversation(setup=setup))
    at = positions_of(model.tokenizer, rendered, SENTENCES[3], message=1)
    steer = mi.Injection(vector(model), layers=[1], strength=1.0, positions=at)
    receipts = mi.score(model, conversation(setup=setup), steer).attrs["receipts"]
    assert [receipt["positions"] for receipt in receipts if receipt["kind"] == "injected"] == [
        [f"{at[0]}:{at[-1] + 1}"]
    ]
