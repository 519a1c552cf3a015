"""Copies of published labelled sets are read by their formats; every row is made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mechint.base.errors import UsageError
from mechint.trials.published_labels import read_published_labels


def row(key: str, injected: bool, answer: str, **label: object) -> dict[str, object]:
    whole = {"answer": answer, "coherent": True, "refused": False, "detected_concept": None, **label}
    return {"id": key, "concept": "ocean", "was_injected": injected, "response": f"reply {key}", "label": whole}


def written(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def test_pass_and_fail_become_what_they_say(tmp_path: Path) -> None:
    path = written(
        tmp_path / "test.jsonl",
        row("a", True, "pass", detected_concept="the sea"),
        row("b", True, "fail", coherent=False),
        row("c", False, "pass"),
        row("d", False, "fail", refused=True),
    )
    replies, labels = read_published_labels(path)
    assert [(reply.concept, reply.passed) for reply in replies] == [
        ("ocean", True),
        ("ocean", False),
        ("", True),
        ("", False),
    ]
    assert [label.claims for label in labels] == ["yes", "unclear", "no", "unclear"]
    assert labels[0].named == "the sea"
    assert not labels[1].coherent
    assert labels[3].refused


def test_flags_of_a_table_become_labels(tmp_path: Path) -> None:
    path = tmp_path / "8B.csv"
    path.write_text(
        "concept,response,refusal,affirmative,correct_id,coherent\nocean,I sense it,0,1,1,1\nocean,As an AI,1,0,0,1\n",
        encoding="utf-8",
    )
    replies, labels = read_published_labels(path)
    assert [reply.reply for reply in replies] == ["I sense it", "As an AI"]
    assert (labels[0].claims, labels[0].named, labels[1].refused) == ("yes", "ocean", True)


def test_empty_flags_prompts_and_vectors_of_no_concept_are_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "70B.csv"
    path.write_text(
        "intervention,concept,full_text,response,refusal,affirmative,correct_id,early_detection,coherent\n"
        "control,,asked? No.,No.,False,False,,False,True\n"
        "concept,dust,asked? I sense sand,I sense sand,False,True,False,True,True\n"
        "scale,dust,asked? Yes,Yes,False,True,,,True\n",
        encoding="utf-8",
    )
    replies, labels = read_published_labels(path)
    assert [reply.concept for reply in replies] == ["", "dust", ""]
    assert [reply.named_rightly for reply in replies] == [None, False, None]
    assert {reply.prompt for reply in replies} == {"asked?"}
    assert [(label.claims, label.claim_first) for label in labels] == [("no", None), ("yes", True), ("yes", None)]
    path.write_text("response,refusal,affirmative,correct_id,coherent\nA,False,,,True\n", encoding="utf-8")
    with pytest.raises(UsageError, match="row 0: no affirmative"):
        read_published_labels(path)
    path.write_text("response,refusal,affirmative,correct_id,coherent\nA,perhaps,1,,True\n", encoding="utf-8")
    with pytest.raises(UsageError, match="refusal is 'perhaps'"):
        read_published_labels(path)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1]",
        '{"id": "a"}',
        json.dumps({**row("a", True, "maybe")}),
        json.dumps({**row("a", True, "pass"), "label": 1}),
    ],
)
def test_a_line_of_another_format_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(row("x", True, "pass")) + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 2"):
        read_published_labels(path)


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="open-introspection"):
        read_published_labels(tmp_path / "none.parquet")
    (tmp_path / "a.csv").write_text("x\n1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="affirmative"):
        read_published_labels(tmp_path / "a.csv")
