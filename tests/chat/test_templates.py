"""Chat templates as programs: they come to an end, fail by their true reason, and know no clock."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import tiny
from conftest import conversation
from transformers.utils import chat_template_utils

import mechint as mi
from benchmarks import chat_templates
from mechint.base.errors import ChatTemplateError, UsageError
from mechint.chat import sandbox
from mechint.chat.conversations import Message
from mechint.chat.render import render
from mechint.chat.templates import DATE, TemplateOptions

SOURCES = chat_templates.sources()


def with_template(source: str):
    tok = tiny.tokenizer()
    tok.chat_template = source
    return tok


ENDLESS = {
    "nested ranges": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "a long range": "{% for a in range(10 ** 9) %}{% endfor %}",
    "a huge power": "{{ 9 ** (9 ** 9) }}",
    "powers of powers": "{% set ns = namespace(n=9) %}{% for a in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "macros that double": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "texts that double": "{% set ns = namespace(s='a') %}{% for a in range(90) %}{% set ns.s=ns.s~ns.s %}{% endfor %}",
    "a sum that doubles": "{% set ns = namespace(s='a') %}{% for a in range(90) %}{% set ns.s=ns.s+ns.s %}{% endfor %}",
    "a block that doubles": "{% set ns = namespace(s='a') %}{% for a in range(90) %}{% set x %}{{ ns.s }}{{ ns.s }}"
    "{% endset %}{% set ns.s = x %}{% endfor %}",
    "a replacement that grows": "{% set ns = namespace(s='aa') %}{% for a in range(90) %}"
    "{% set ns.s = ns.s.replace('a', ns.s) %}{% endfor %}",
    "a filter that grows": "{% set ns = namespace(s='aa') %}{% for a in range(90) %}"
    "{% set ns.s = ns.s | replace('a', ns.s) %}{% endfor %}",
    "a wide text": "{{ 'a' * 10 ** 10 }}",
    "a wide form": "{{ '%099999999999d' % 1 }}",
    "a wide format": "{{ '{:>99999999999}'.format('a') }}",
    "a wide filter": "{{ 'a' | center(10 ** 10) }}",
    "a wide method": "{{ 'a'.center(10 ** 10) }}",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_that_does_not_end_is_stopped(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "MAX_STEPS", 20_000)
    begun = time.monotonic()
    with pytest.raises(ChatTemplateError, match="does not come to an end"):
        render(with_template(ENDLESS[name]), conversation())
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ 1 / 0 }}", "fails in line 1: ZeroDivisionError"),
        ("\n\n{{ 'a' + 1 }}", "fails in line 3: TypeError"),
        ("{{ unheard_of() }}", "reads something that is not there.*'unheard_of' is undefined"),
        ("{% for m in messages %}{{ m.content.name.text }}{% endfor %}", "reads something that is not there"),
        ("{% if %}", "is no valid Jinja .line 1"),
        (
            "{{ raise_exception('roles must alternate') }}",
            "refuses a conversation with the roles.*roles must alternate",
        ),
        ("{{ messages.append(1) }}", "does what no template may"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails.*RecursionError"),
        ("{% include 'other' %}", "fails|no loader"),
    ],
)
def test_a_template_that_fails_says_why(source: str, why: str):
    with pytest.raises(ChatTemplateError, match=why) as failed:
        render(with_template(source), conversation())
    assert "refuses the roles" not in str(failed.value)
    if "raise_exception" not in source:
        assert "refuses" not in str(failed.value)


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_written_is_what_transformers_writes(name: str, at_a_day: Callable[[str], None]):
    at_a_day(DATE)
    tok, messages = with_template(SOURCES[name]), chat_templates.STANDARD.messages[:3]
    standard = replace(chat_templates.STANDARD, messages=messages)
    ours = render(tok, standard, TemplateOptions(thinking=None)).text
    chat = [{"role": message.role, "content": message.content} for message in messages]
    assert ours == tok.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


@pytest.fixture
def at_a_day(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set transformers' clock."""

    def set_day(day: str) -> None:
        class Fixed(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return cls.fromisoformat(day)

        monkeypatch.setattr(chat_template_utils, "datetime", Fixed)

    return set_day


@pytest.mark.parametrize("name", ["llama32", "gpt-oss", "granite"])
def test_no_clock_is_read(name: str, at_a_day: Callable[[str], None]):
    """The same conversation is the same tokens on every day; another date is a choice, and recorded."""
    tok, calls = with_template(SOURCES[name]), []
    for day in ("2024-02-29", "2031-12-31"):
        at_a_day(day)
        calls.append(render(tok, chat_templates.STANDARD))
    assert calls[0] == calls[1]
    assert any(DATE in note for note in calls[0].notes)
    other = render(tok, chat_templates.STANDARD, TemplateOptions(date="2026-11-29"))
    assert other.tokens != calls[0].tokens
    assert "2026" in other.text
    assert other.options.to_dict()["date"] == "2026-11-29"


def test_a_date_that_is_a_variable_is_set_only_if_asked_for():
    tok = with_template("{{ date_string if date_string is defined else '26 Jul 2024' }}" + tiny.CHATML)
    assert "26 Jul 2024" in render(tok, conversation()).text
    assert "05 Mar 2026" in render(tok, conversation(), TemplateOptions(date="2026-03-05")).text


def test_options_without_effect_are_refused():
    tok = tiny.tokenizer("chatml")
    for options in (TemplateOptions(date="2026-01-01"), TemplateOptions(variables={"effort": "low"})):
        with pytest.raises(ChatTemplateError, match=r"writes no date|does not read"):
            render(tok, conversation(), options)
    with pytest.raises(UsageError, match="a date as"):
        TemplateOptions(date="yesterday")


def test_variables_of_a_templates_own_are_passed():
    tok = with_template(SOURCES["gpt-oss"])
    low = render(tok, chat_templates.STANDARD, TemplateOptions(variables={"reasoning_effort": "low"}))
    assert "Reasoning: low" in low.text
    assert "Reasoning: medium" in render(tok, chat_templates.STANDARD).text


def test_a_marked_message_that_is_not_written_is_refused():
    source = "{% for m in messages %}{% if m.content %}<turn>{{ m.content }}</turn>{% endif %}{% endfor %}"
    chat = mi.Conversation("c", [Message("user", "one", True), Message("assistant", "", True), Message("user", "two")])
    with pytest.raises(ChatTemplateError, match=r"message 1 .assistant. is marked add_injection"):
        render(with_template(source), chat)


def test_a_models_own_options_are_part_of_what_is_asked(tiny_checkpoint):
    model = mi.load(tiny_checkpoint("llama"))
    model.tokenizer.chat_template = SOURCES["qwen3"]
    off = mi.score(model, chat_templates.STANDARD, mi.CLEAN)
    model.template = mi.TemplateOptions(thinking=True)
    on = mi.score(model, chat_templates.STANDARD, mi.CLEAN)
    assert off["logit_diff"].item() != on["logit_diff"].item()
    assert mi.render(model, chat_templates.STANDARD).options.thinking is True
