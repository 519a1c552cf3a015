"""What is known to be wrong before a model is loaded: names that tables give, and clashing files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from conftest import asked_conversations
from whole_runs import parser_of, refusal

import mechint as mi
from analyses import ANALYSES, detection, layer_strength, logit_lens, model_swap, sae_attribution, steering, trials
from analyses.kit import checks
from analyses.kit.declarations import option
from mechint.base.errors import UsageError

TAKEN = (
    "clean",
    "none",
    "injected",
    "random",
    "random-0",
    "random-12",
    "Random-1",
    "control",
    "swap",
    "contrast",
    "swapped",
)


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """A directory of vector files, of which only the names are looked at."""
    for name in ("cats.gguf", "bread.safetensors", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("name", TAKEN)
def test_a_file_that_is_called_like_a_condition_is_refused(name: str, vectors: Path) -> None:
    assert set(checks.vector_files(vectors)) == {"cats", "bread"}
    (vectors / f"{name}.gguf").touch()
    with pytest.raises(UsageError, match=f"with the name '{name}'"):
        checks.vector_files(vectors)
    assert set(checks.vector_files(vectors, ["cats"])) == {"cats"}, "what is not used is not in the way"


@pytest.mark.parametrize("name", TAKEN)
def test_so_is_a_concept(name: str) -> None:
    with pytest.raises(UsageError, match="--concepts: a concept with the name"):
        checks.check_concepts(["cats", name], "--concepts")
    checks.check_concepts(["cats", "randomness", "control rods", "random-walk"], "--concepts")


def test_two_files_of_one_name_are_refused(vectors: Path) -> None:
    (vectors / "cats.safetensors").touch()
    with pytest.raises(UsageError, match=r"cats.gguf and cats.safetensors: two vectors of one name"):
        checks.vector_files(vectors)
    assert checks.vector_files(vectors, ["bread"]) == {"bread": vectors / "bread.safetensors"}


def test_command_lines_say_so(
    inputs: list[str], vectors: Path, tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*inputs, "--out", str(tmp_path / "out")]
    (vectors / "random-0.gguf").touch()
    assert "random-0" in refusal(steering, [*given, "--vectors", str(vectors)], capsys)
    assert "random-0" in refusal(detection, [*given, "--concepts", "cats,random-0"], capsys)


@pytest.mark.parametrize(("name", "value"), [("kind", "controls"), ("kind", 3), ("group", "noo"), ("group", "clean")])
def test_kinds_and_groups_that_no_figure_shows_are_refused(
    name: str, value: object, inputs: list[str], tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    question, control, other = asked_conversations()
    odd = dataclasses.replace(control, extra={**control.extra, name: value})
    mi.save_conversations([question, odd, other], tmp_path / "odd.json")
    argv = [*inputs, "--conversations", str(tmp_path / "odd.json"), "--out", str(tmp_path / "out")]
    assert f"extra.{name}" in refusal(logit_lens, argv, capsys)


def test_a_swap_compares_questions_and_controls_under_one_document(
    inputs: list[str], tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    question, control, other = asked_conversations()
    told = dataclasses.replace(control, extra={**control.extra, "info": "introspection"})
    mi.save_conversations([question, told, other], tmp_path / "apart.json")
    argv = ["--model", "organism", "--conversations", str(tmp_path / "apart.json"), "--out", str(tmp_path / "out")]
    assert "control questions with info 'introspection'" in refusal(model_swap, argv, capsys)


# Switches that never have no effect, but for one that guards results which may not be there.
ALWAYS = {"layer_sweep", "conditions", "ranges", "overwrite", "explain"}
NOTHING = {
    "offload": (detection, ["--offload"], "--offload with --device cpu"),
    "absolute": (layer_strength, ["--absolute"], "--absolute with no --strengths"),
    "any_model_sae": (sae_attribution, ["--any-model-sae"], "--any-model-sae with an embedded SAE"),
    "uncorrected": (logit_lens, ["--uncorrected"], "--uncorrected without --layer-sweep"),
    "as_published": (trials, ["--as-published"], "--as-published with trials that are sampled"),
    "unmatched": (trials, ["--unmatched"], "--unmatched with trials that are sampled"),
}


def test_every_switch_is_known_to_have_an_effect_or_is_refused_where_it_has_none(
    tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    parsers = [parser_of(name) for name in ANALYSES]
    switches = {one.dest for parser in parsers for one in parser._actions if one.nargs == 0 and one.dest != "help"}
    assert switches == ALWAYS | set(NOTHING)
    for analysis, options, words in NOTHING.values():
        assert words in refusal(analysis, [*options, "--out", str(tmp_path)], capsys)
    assert "--offload, --overwrite with --fill" in refusal(
        model_swap, ["--fill", str(tmp_path), "--offload", "--overwrite", "--device", "cuda"], capsys
    )


@dataclasses.dataclass(frozen=True)
class _Switches:
    plain: bool = option("plain", default=False)
    either: bool | None = option("either")
    number: int | None = option("number", parse=int)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (_Switches(), ""),
        (_Switches(plain=True), "--plain"),
        (_Switches(either=True), "--either"),
        (_Switches(either=False), "--no-either"),
        (_Switches(number=0), "--number"),
    ],
)
def test_what_was_given_is_known_of_switches_too(options: _Switches, flag: str) -> None:
    names = ("plain", "either", "number")
    checks.check_effect(False, "x", options, names)
    if not flag:
        checks.check_effect(True, "x", options, names)
        return
    with pytest.raises(UsageError, match=f"^{flag} with x"):
        checks.check_effect(True, "x", options, names)
