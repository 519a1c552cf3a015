"""Analyses with an adapter on top: the finetuned model is asked, under what its base would be given."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import load_once
from whole_runs import refusal

from analyses.kit.adapted import with_adapter
from analyses.kit.checks import check_common
from analyses.kit.subject import Subject

NAMES = ("logit_lens", "identification", "location", "kv_attribution", "sae_attribution")
LORA = "organism-lora"
pytestmark = pytest.mark.usefixtures("quick_analyses")
every_analysis = pytest.mark.parametrize("name", NAMES)


@every_analysis
def test_the_model_with_its_adapter_is_asked_under_the_amounts_of_its_base(name: str, tmp_path: Path) -> None:
    command = import_module(f"analyses.{name}").ANALYSIS
    argv = ["--adapter", LORA, "--concepts", "cats,bread", "--n-random", "1", "--out", str(tmp_path)]
    config = command.parsed(argv)
    subject = Subject.of(config, check_common(config, name), name)
    base = load_once("organism")
    assert subject.base is not None
    assert subject.base.identity == base.identity
    assert subject.model.identity == base.with_adapter(LORA).identity != base.identity
    assert "vectors and norms are the base's" in subject.facts(()).caption
    assert subject.facts(()).base == "organism"
    alone = Subject.of(command.parsed(argv[2:]), check_common(config, name), name)
    pairs = zip(subject.conditions(), alone.conditions(), strict=True)
    for (term,), (reference,) in ((a.intervention.terms, b.intervention.terms) for a, b in pairs):
        assert term.name == reference.name
        for layer in reference.layers or ():
            assert torch.allclose(term.amount(layer, subject.model), reference.amount(layer, base), atol=1e-6)


@every_analysis
def test_what_is_no_adapter_is_refused_before_anything_is_loaded(
    name: str, no_model: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analysis = import_module(f"analyses.{name}")
    out = ["--out", str(tmp_path / "out")]
    (tmp_path / "empty").mkdir()
    assert "neither a run nor an adapter" in refusal(analysis, [*out, "--adapter", str(tmp_path / "empty")], capsys)
    hooked = [*out, "--adapter", LORA, "--backend", "hooked"]
    assert "--adapter with --backend hooked" in refusal(analysis, hooked, capsys)


def test_an_analysis_without_an_adapter_asks_the_model_itself(tmp_path: Path) -> None:
    command = import_module("analyses.location").ANALYSIS
    model = load_once("organism")
    assert with_adapter(command.parsed(["--out", str(tmp_path)]), model) is model


def test_the_lens_with_conditions_has_the_adapter_fill_caches(tmp_path: Path) -> None:
    command = import_module("analyses.logit_lens").ANALYSIS
    model = load_once("organism")
    assert with_adapter(command.parsed(["--conditions", "--adapter", LORA, "--out", str(tmp_path)]), model) is model
