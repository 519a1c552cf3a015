"""The trial of doses from command line to files, and calibrated doses that other analyses use, keep and meet again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from conftest import conversation, load_once, vector
from test_dose_rule import proposal
from whole_runs import refusal, whole_run, without

import mechint as mi
from analyses import detection, dose
from analyses.dose.figures import figures
from analyses.kit import calibrated_dose as calibration
from analyses.kit import dose_rule, dose_trial
from analyses.kit.dose import CalibratedDose, method_of, usual_dose
from analyses.kit.options import Common
from mechint.chat.conversations import save_conversations
from mechint.figures.markup import literal

pytestmark = pytest.mark.usefixtures("quick_analyses")
OWN = ["--windows", "2", "--strengths", "0.02,0.5", "--extractions", "mean_difference/concept/others"]
OWN += ["--replies", "1", "--max-new-tokens", "4"]
SMALL = ["--n-random", "1", "--concepts", "cats,bread,music"]


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Callable[..., Path]) -> list[str]:
    return ["--model", str(tiny_checkpoint("qwen2"))]


@pytest.fixture(scope="module")
def whole(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(dose, [*tiny, *SMALL, *OWN], tmp_path_factory.mktemp("whole"))


def test_a_run_reads_every_place_and_leaves_a_proposal(whole: Path) -> None:
    table = pd.read_parquet(whole / "table.parquet")
    grid = table[(table["step"] == "choice") & (table["extraction"] == "paired_pca/reply/baseline")]
    assert set(grid["strength"]) == {"0.02", "0.5"}
    assert set(grid["unit"]) == {"cats", "bread", "music"}
    assert grid["injected_layers"].nunique() == 2
    chosen = set(table.loc[table["step"] == "choice", "conversation"])
    held_out = set(table.loc[table["step"] == "held out", "conversation"])
    assert chosen
    assert held_out
    assert not chosen & held_out, "the texts that choose are not those that are reported"
    record = json.loads((whole / "run.json").read_text())
    facts = dose.ANALYSIS.facts_of(record)
    assert isinstance(facts.dose, CalibratedDose)
    assert facts.dose.proposal.layers == facts.dose.layers == tuple(record["dose"]["layers"])
    assert set(facts.cosines) == {"paired_pca/reply/baseline", "mean_difference/concept/others"}
    names = {path.name for path in whole.glob("*.html")}
    assert names == {"dose_grid.html", "dose_extractions.html", "dose_replies.html"}


def test_a_run_equals_direct_calls(whole: Path, tiny: list[str]) -> None:
    table = pd.read_parquet(whole / "table.parquet")
    model = load_once(tiny[1])
    cats = mi.extract.extract(model, ["cats"], "paired_pca")["cats"]
    design = mi.prompts.PromptDesign.load(model.prompts)
    for layers, strength in (("0:2", 0.5), ("2:4", 0.02)):
        first = int(layers[0])
        steer = mi.Injection(cats, range(first, first + 2), relative_strength=strength, name="cats")
        direct = mi.text_loss(model, design.tasks.plain[0], steer, words={"cats": " cats"}).iloc[0]
        rows = table[(table["conversation"] == "prose-0") & (table["extraction"] == "paired_pca/reply/baseline")]
        row = rows[
            (rows["injected_layers"] == layers) & (rows["strength"] == f"{strength:g}") & (rows["unit"] == "cats")
        ]
        assert row["loss"].item() == pytest.approx(direct["loss"], abs=1e-5)
        assert row["log_p_cats"].item() == pytest.approx(direct["log_p_cats"], abs=1e-5)


def test_a_run_from_python_gives_the_table_of_the_command_line(whole: Path, tiny: list[str]) -> None:
    results = dose.run(
        model=tiny[1],
        concepts=("cats", "bread", "music"),
        n_random=1,
        windows=2,
        strengths=(0.02, 0.5),
        extractions=("mean_difference/concept/others",),
        replies=1,
        max_new_tokens=4,
    )
    pd.testing.assert_frame_equal(results.table, pd.read_parquet(whole / "table.parquet"), check_dtype=False)
    assert results.facts["dose"] == json.loads((whole / "run.json").read_text())["dose"]


def test_own_vectors_at_own_layers_are_tried_as_they_are(inputs: list[str], tmp_path: Path) -> None:
    argv = [*without(inputs, "--conversations", "--strength", "--n-random"), "--n-random", "0", "--layers", "1:3"]
    argv += ["--strengths", "0.05,0.4", "--replies", "1", "--max-new-tokens", "4"]
    folder = whole_run(dose, argv, tmp_path)
    table = pd.read_parquet(folder / "table.parquet")
    assert set(table["extraction"]) == {"", "--vectors"}
    assert set(table["injected_layers"]) == {"", "1:3"}
    assert {"log_p_cats", "log_p_bread", "log_p_oceans"} <= set(table), "names stand out among others"
    assert not (folder / "dose_extractions.html").exists()


def _titles(drawn: dict[str, go.Figure]) -> dict[str, str]:
    return {name: figure.layout.title.text.replace("<br>", " ") for name, figure in drawn.items()}


def test_titles_say_what_was_found_or_that_nothing_was(whole: Path) -> None:
    facts = dose.ANALYSIS.facts_of(json.loads((whole / "run.json").read_text()))
    table = literal(pd.read_parquet(whole / "table.parquet"))
    plain = replace(facts.dose.proposal, works=True, coherent=True)
    texts = {}
    for works, coherent in ((True, True), (False, True), (False, False)):
        changed = replace(plain, works=works, coherent=coherent)
        texts[works, coherent] = _titles(figures(table, replace(facts, dose=CalibratedDose.of(changed))))["dose_grid"]
    assert texts[True, True].startswith("<b>Vectors work and text is coherent at layers")
    assert "NOT FELT" in texts[False, True]
    assert "Text is coherent at no strength" in texts[False, False]


@pytest.fixture
def doses_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "doses"


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[dose_trial.Trial]:
    """Every trial that is run; none takes time, and each proposes a dose that depends on the layers alone."""
    run: list[dose_trial.Trial] = []

    def propose(trial: dose_trial.Trial, _texts: object) -> tuple[None, object]:
        run.append(trial)
        return None, proposal(layers=trial.plan.layers[0], extraction=trial.usual)

    def extracted(
        config: Common, model: mi.Model, _name: str, _files: object, listed: Sequence[str]
    ) -> dict[str, dict[str, mi.ConceptVector]]:
        return {way: {"cats": vector(model)} for way in (method_of(config, model), *listed)}

    monkeypatch.setattr(calibration, "run_trial", propose)
    monkeypatch.setattr(calibration.Texts, "of", lambda _subject: None)
    monkeypatch.setattr(calibration, "extractions", extracted)
    return run


def _dose(argv: list[str]) -> CalibratedDose:
    config = detection.ANALYSIS.parsed(argv)
    dose = usual_dose(config, load_once(config.model), "")
    assert isinstance(dose, CalibratedDose)
    return dose


def test_a_calibrated_dose_is_kept_and_met_until_something_changes(
    tiny: list[str],
    tiny_checkpoint: Callable[..., Path],
    doses_folder: Path,
    trials: list[dose_trial.Trial],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = _dose(tiny)
    assert "it is calibrated now" in capsys.readouterr().err
    assert _dose(tiny) == first
    assert len(trials) == 1
    assert "it is calibrated now" not in capsys.readouterr().err
    other = ["--model", str(tiny_checkpoint("qwen2", seed=1))]
    for changed in (other, [*tiny, "--layers", "2"], [*tiny, "--method", "mean_difference"], [*tiny, "--seed", "1"]):
        _dose(changed)
        _dose(changed)
    assert len(trials) == 5
    assert trials[2].plan.layers == ((2,),), "the strength is found at the layers that are named"
    assert list(trials[3].vectors) == ["mean_difference"]
    assert len(list(doses_folder.iterdir())) == 5


@pytest.mark.parametrize("damage", ["{", "{}", "[]", '{"layers": [1]}'])
def test_a_damaged_dose_is_found_again(
    damage: str, tiny: list[str], doses_folder: Path, trials: list[dose_trial.Trial]
) -> None:
    first = _dose(tiny)
    (file,) = doses_folder.iterdir()
    file.write_text(damage)
    assert _dose(tiny) == first
    assert len(trials) == 2
    assert _dose(tiny) == first
    assert len(trials) == 2


def test_another_version_of_the_rule_meets_no_older_dose(
    tiny: list[str], doses_folder: Path, trials: list[dose_trial.Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    _dose(tiny)
    monkeypatch.setattr(dose_rule, "VERSION", dose_rule.VERSION + 1)
    _dose(tiny)
    assert len(trials) == 2
    assert len(list(doses_folder.iterdir())) == 2


@pytest.mark.usefixtures("doses_folder")
def test_a_cache_folder_that_cannot_be_written_costs_time_alone(
    tiny: list[str], trials: list[dose_trial.Trial], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("")
    assert _dose(tiny) == _dose(tiny)
    assert len(trials) == 2


@pytest.mark.usefixtures("doses_folder")
def test_given_strengths_and_fixed_doses_need_no_trial(tiny: list[str], trials: list[dose_trial.Trial]) -> None:
    model = load_once(tiny[1])
    for argv in (["--relative-strength", "0.1"], ["--strength", "3", "--layers", "1"], ["--dose", "default"]):
        assert not isinstance(usual_dose(detection.ANALYSIS.parsed([*tiny, *argv]), model), CalibratedDose)
    assert not trials


@pytest.mark.parametrize("problem", ["answers", "layers"])
@pytest.mark.usefixtures("doses_folder")
def test_what_would_be_refused_afterwards_is_refused_before_a_calibration(
    problem: str, inputs: list[str], trials: list[dose_trial.Trial], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"answers": ["--strength", "--vectors"], "layers": ["--strength"]}[problem]
    argv = without(inputs, *options)
    if problem == "answers":
        save_conversations([replace(conversation(), yes_token=" yes and no")], tmp_path / "asked.json")
        argv[argv.index("--conversations") + 1] = str(tmp_path / "asked.json")
    else:
        argv += ["--layers", "0:2"]  # the vectors have no layer 0
    message = refusal(detection, [*argv, "--dose", "auto", "--out", str(tmp_path)], capsys)
    assert {"answers": "yes and no", "layers": "layers 0"}[problem] in message
    assert not trials


@pytest.mark.usefixtures("doses_folder")
def test_another_analysis_finds_its_dose_and_records_it(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "STRENGTHS", calibration.STRENGTHS[::2])
    monkeypatch.setattr(calibration, "EXTRACTIONS", calibration.EXTRACTIONS[:1])
    usual = calibration.Plan
    monkeypatch.setattr(calibration, "Plan", lambda *places, **counts: usual(*places, **{**counts, "n_tokens": 4}))
    argv = without(inputs, "--strength", "--vectors")
    folder = whole_run(detection, [*argv, "--concepts", "cats,bread"], tmp_path)
    record = json.loads((folder / "run.json").read_text())
    assert record["dose"]["source"].startswith("calibrated by analyses.dose")
    assert record["dose"]["proposal"]["concepts"] == ["cats", "bread", "oceans", "music"]
    facts = detection.ANALYSIS.facts_of(record)
    assert isinstance(facts.dose, CalibratedDose)
    figure = (folder / "detection_conditions.json").read_text(encoding="utf-8")
    assert facts.dose.source in figure.replace("<br>", " ")
    vectors = {path.name for path in (folder / "vectors").iterdir()}
    assert any(name.startswith("cats.") for name in vectors)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--strength", "2"], ["--strength", "finds"]),
        (["--dose", "auto"], ["--dose"]),
        (["--limit", "2"], ["--limit"]),
        (["--windows", "3", "--layers", "2:5"], ["--windows", "--layers"]),
        (["--windows", "0"], ["--windows", "1 or more"]),
        (["--strengths", "0,1"], ["--strengths", "above 0"]),
        (["--extractions", "pca"], ["--extractions", "paired_pca"]),
        (["--extractions", "paired_pca,paired_pca"], ["--extractions", "once"]),
        (["--replies", "9"], ["--replies", "3 at most"]),
        (["--engine", "ray"], ["--engine ray"]),
        (["--method", "pca"], ["--method", "mean_difference"]),
        (["--concepts", "unicorns"], ["unicorns"]),
    ],
)
def test_bad_input_is_one_error(
    argv: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(dose, [*argv, "--out", str(tmp_path)], capsys)
    assert all(word in message for word in words), message


def test_a_fixed_strength_and_a_rule_for_it_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(detection, ["--dose", "auto", "--strength", "2", "--out", str(tmp_path)], capsys)
    assert "--dose" in message
