"""The command line's options of chat templates, and the text that it shows."""

from __future__ import annotations

import pytest
import tiny
from conftest import conversation

from analyses import logit_lens, rendering
from analyses.kit import record as run
from analyses.kit.facts import ModelFacts
from benchmarks import chat_templates
from mechint.chat.conversations import save_conversations


@pytest.fixture
def thinking_checkpoint(tmp_path):
    path = tmp_path / "thinking"
    tok = tiny.tokenizer()
    tok.chat_template = chat_templates.sources()["qwen3"]
    tiny.hf_model("qwen2", len(tok) + 3).save_pretrained(path)
    tok.save_pretrained(path)
    return path


def test_texts_are_shown_with_marked_turns(tmp_path, thinking_checkpoint, capsys):
    chats = save_conversations([conversation("one"), conversation("two")], tmp_path / "chats.json")
    assert rendering.main([str(chats), "--model", str(thinking_checkpoint), "--limit", "1"]) == 0
    off = capsys.readouterr().out
    assert "one: " in off
    assert "two: " not in off
    assert "▌ Tell me about cats." in off
    assert "  <think>" in off.splitlines()
    assert rendering.main([str(chats), "--model", str(thinking_checkpoint), "--thinking", "on"]) == 0
    assert "  <think>" not in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--thinking", "on"], "no switch for thinking"),
        (["--template-variables", '{"effort": 1}'], "does not read them"),
    ],
)
def test_what_a_template_does_not_have_is_one_message(tmp_path, options: list[str], why: str, capsys):
    chats = save_conversations([conversation()], tmp_path / "chats.json")
    assert rendering.main([str(chats), *options]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "why"), [(["--template-variables", "3"], "a JSON object"), (["--date", "soon"], "a date as")]
)
def test_what_no_template_takes_is_refused(options: list[str], why: str, capsys):
    with pytest.raises(SystemExit) as ending:
        rendering.main(["chats.json", *options])
    assert ending.value.code == 2
    assert why in capsys.readouterr().err


def test_a_run_says_and_records_how_the_template_is_used(thinking_checkpoint, caplog):
    config = logit_lens.ANALYSIS.parsed(["--model", str(thinking_checkpoint), "--thinking", "on"])
    model = run.load_model(config)
    assert ModelFacts.of(model).template["thinking"] is True
    assert [record.message for record in caplog.records] == ["thinking: on (by enable_thinking)"]
    run.load_model(config, str(thinking_checkpoint))  # a second model of the run says nothing more
    assert len(caplog.records) == 1


def test_what_a_run_asks_of_a_template_is_part_of_its_key():
    off = logit_lens.ANALYSIS.parsed([])
    on = logit_lens.ANALYSIS.parsed(["--thinking", "on"])
    assert run.run_key(off, {}) != run.run_key(on, {})
