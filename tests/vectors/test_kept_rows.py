"""Rows that are kept: the vectors are the same bit for bit, nothing is read twice, and no file is believed unseen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mechint.base.tensor_files import save_tensors
from mechint.models import surroundings
from mechint.prompts.design import PromptDesign
from mechint.vectors import extract, extraction_inputs, kept_rows
from mechint.vectors.extraction import EXTRACTIONS, Extraction
from mechint.vectors.extraction_inputs import Inputs

CONCEPTS = ["cats", "bread", "rain"]
OTHERS = ["sea", "snow"]


@pytest.fixture(scope="module")
def design() -> PromptDesign:
    """Fewer beginnings than usual."""
    small = PromptDesign.load("small")
    return replace(small, extraction=replace(small.extraction, beginnings=small.extraction.beginnings[:2]))


@pytest.fixture
def prompts_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The prompts that are read of a model, as tokens."""
    rows: list[tuple[int, ...]] = []
    usual = extraction_inputs.residuals_over

    def counted(model, tokens, positions):
        rows.extend(tokens)
        return usual(model, tokens, positions)

    monkeypatch.setattr(extraction_inputs, "residuals_over", counted)
    return rows


def others_of(extraction: Extraction) -> list[str] | None:
    return OTHERS if extraction.against == "others" else None


def prints(vectors) -> dict[str, str]:
    return {name: vector.fingerprint() for name, vector in vectors.items()}


@pytest.mark.parametrize("extraction", EXTRACTIONS, ids=str)
def test_kept_vectors_are_the_same_bit_for_bit_and_nothing_is_read_twice(
    extraction, model, design, tmp_path, prompts_read
):
    others = others_of(extraction)
    plain = extract.extract(model, CONCEPTS, extraction, design, others=others)
    prompts_read.clear()
    first = extract.extract(model, CONCEPTS, extraction, design, others=others, cache=tmp_path)
    assert len(prompts_read) == len(set(prompts_read)) > 0
    prompts_read.clear()
    again = extract.extract(model, CONCEPTS[::-1], extraction, design, others=others, cache=tmp_path)
    assert prompts_read == []
    assert prints(plain) == prints(first) == prints(again)
    assert {name: v.provenance for name, v in plain.items()} == {name: v.provenance for name, v in again.items()}


@pytest.mark.parametrize("method", ["paired_pca", "mean_difference"])
def test_a_concept_more_and_other_concepts_to_compare_with_cost_what_is_new(
    method, model, design, tmp_path, prompts_read
):
    extract.extract(model, CONCEPTS, method, design, cache=tmp_path)
    prompts_read.clear()
    extract.extract(model, [*CONCEPTS, "forests"], method, design, cache=tmp_path)
    inputs = Inputs(model, design, Extraction(method), ())
    new = [inputs._reading(prompt).tokens for prompt in inputs.concept_prompts(["forests"])]
    baseline = [inputs._reading(prompt).tokens for prompt in inputs.paired_prompts()] if method == "paired_pca" else []
    assert sorted(prompts_read) == sorted(new + baseline)
    prompts_read.clear()
    extract.extract(model, CONCEPTS, f"{method}/reply/others", design, cache=tmp_path)
    assert prompts_read == [], "each is compared with concepts that were read"


def keys(model, design, extraction: Extraction | None = None, concept: str = "cats") -> set[str]:
    inputs = Inputs(model, design, extraction or Extraction(), ())
    return {inputs._rows_key(prompts) for prompts in inputs.prompts_of_rows(concept)}


def test_whatever_rows_depend_on_is_in_their_key(model, tiny_model, design, monkeypatch):
    usual = keys(model, design)
    assert usual == keys(model, design)
    assert len(usual) == 1
    texts = design.extraction
    others = {
        "weights": keys(tiny_model("qwen2", seed=1), design),
        "template": keys(tiny_model("qwen2", template="llama3"), design),
        "prompts": keys(model, replace(design, extraction=replace(texts, beginnings=texts.beginnings[:1]))),
        "where": keys(model, design, Extraction(read="message")),
        "method": keys(model, design, Extraction("mean_difference")),
        "concept": keys(model, design, concept="bread"),
        "backend": keys(tiny_model("qwen2", backend="hooked"), design),
    }
    with monkeypatch.context() as patch:
        patch.setattr(extraction_inputs, "FLOORS", ("vectors",))
        others["code"] = keys(model, design)
    with monkeypatch.context() as patch:
        patch.setattr(surroundings, "versions", lambda: {"torch": "0"})
        others["versions"] = keys(model, design)
    for name, of_other in others.items():
        assert not usual & of_other, name
    assert keys(model, design) == usual


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def _shift(path: Path) -> None:
    """Rows of other prompts, sealed and whole, under this name."""
    rows = torch.zeros(4, 32)
    save_tensors(path, {"rows": rows}, {"key": "0" * 64})


def _unsealed(path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(str(path), framework="pt") as file:
        key = file.metadata()["key"]
    save_file({"rows": torch.zeros(4, 32)}, path, metadata={"key": key})


def _of_another_shape(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        key = file.metadata()["key"]
    save_tensors(path, {"rows": torch.zeros(5, 32)}, {"key": key})


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        _shift,
        _unsealed,
        _of_another_shape,
    ],
)
def test_a_file_that_does_not_agree_is_made_again(damage, model, design, tmp_path, prompts_read):
    expected = prints(extract.extract(model, ["cats"], "paired_pca", design, cache=tmp_path))
    (path,) = tmp_path.iterdir()
    (key,) = keys(model, design)
    assert kept_rows.KeptRows(tmp_path).holds(model, key)
    damage(path)
    assert not kept_rows.KeptRows(tmp_path).holds(model, key)
    prompts_read.clear()
    assert prints(extract.extract(model, ["cats"], "paired_pca", design, cache=tmp_path)) == expected
    assert prompts_read
    assert kept_rows.KeptRows(tmp_path).holds(model, key)


def test_a_folder_that_cannot_be_written_costs_time_alone(model, design, tmp_path):
    (tmp_path / "file").write_text("no folder")
    vectors = extract.extract(model, ["cats"], "paired_pca", design, cache=tmp_path / "file" / "cache")
    assert prints(vectors) == prints(extract.extract(model, ["cats"], "paired_pca", design))
