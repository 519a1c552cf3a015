"""The page of models: it is what the result says, nothing in it is wrong, and what it says can be seen again."""

from __future__ import annotations

import json

import pytest

from benchmarks import architectures, models_page
from benchmarks.architecture_rows import rows
from benchmarks.common import RESULTS
from mechint.models.backends.versions import installed

RESULT = json.loads((RESULTS / "architectures.json").read_text(encoding="utf-8"))
MEASURED = {line["label"]: line for line in RESULT["rows"]}


def test_page_and_result_agree():
    assert models_page.PAGE.read_text(encoding="utf-8") == models_page.page(RESULT), "python -m benchmarks.models_page"


def test_nothing_is_wrong_and_every_row_says_why_or_how_far():
    for line in RESULT["rows"]:
        assert line["status"] in (architectures.EXACT, architectures.REFUSED, architectures.NOT_TRIED), line
        if line["status"] == architectures.EXACT:
            assert max(line["differences"].values()) <= architectures.TOLERANCE * line["spread"], line
            assert set(line["differences"]) >= {"clean", "steered", "one by one", "cached", "left-padded", "lens"}
            assert "LoRA" in line["differences"] or line["adapter_why"], line
        else:
            assert line["why"], line
            assert "/tmp" not in line["why"]
            assert "Traceback" not in line["why"]
    assert all(line["status"] != architectures.WRONG for line in RESULT["templates"])


def test_every_architecture_of_transformers_has_a_row():
    if RESULT["versions"]["transformers"] != installed("transformers"):
        pytest.skip(f"measured with transformers {RESULT['versions']['transformers']}")
    assert list(MEASURED) == [row.label for row in rows()]


@pytest.mark.parametrize("label", ["qwen3", "gemma4_text", "cohere2", "rope type longrope, beyond it"])
def test_a_row_is_measured_again_as_the_page_says(label):
    row = next(row for row in rows() if row.label == label)
    outcome = architectures.measure(row)
    if RESULT["versions"]["transformer-lens"] != installed("transformer-lens"):
        assert outcome.status != architectures.WRONG
        return
    line = MEASURED[label]
    assert (outcome.status, outcome.why) == (line["status"], line["why"])
    assert outcome.differences.keys() == line["differences"].keys()


def test_a_row_that_is_wrong_is_told_as_wrong(monkeypatch):
    """The comparison sees a shift of one logit, and a bare exception."""
    row = next(row for row in rows() if row.label == "llama")
    from benchmarks import exactness

    monkeypatch.setattr(exactness, "CHECKS", {"clean": lambda subject: subject.spread * 1e-3})
    outcome = architectures.measure(row)
    assert (outcome.status, outcome.why) == (architectures.WRONG, "differs from plain Hugging Face: clean")

    def fail(_subject: object) -> float:
        raise IndexError("list index out of range")

    monkeypatch.setattr(exactness, "CHECKS", {"clean": fail})
    outcome = architectures.measure(row)
    assert (outcome.status, outcome.why) == (architectures.WRONG, "IndexError: list index out of range")
    page = models_page.page({**RESULT, "rows": [architectures.asdict(outcome)]})
    assert "## Wrong" in page
