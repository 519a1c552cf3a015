"""The logit-lens analysis from command line to files, on random tiny checkpoints."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import asked_conversations, conversation, load_once
from whole_runs import model_and_cats

import mechint as mi
from analyses import all as gallery
from analyses import logit_lens
from analyses.kit import dose as doses
from analyses.kit import option_types, questions
from analyses.kit.dose import Placement, sweep_placements
from analyses.kit.options import Common
from mechint.base.errors import LayerRangeError

ROOT = Path(__file__).resolve().parents[2]
N_LAYERS = 4
pytestmark = pytest.mark.usefixtures("quick_analyses")


def test_a_run_leaves_figures_tables_and_a_record(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    figures = ("lens_overview", "lens_concepts", "lens_sweep_single", "lens_sweep_window")
    expected = {f"{figure}.{kind}" for figure in figures for kind in ("html", "json")}
    assert names == expected | {"table.parquet", "table.csv", "run.json"}


def test_the_record_says_how_and_on_what(finished: Path, inputs: list[str]) -> None:
    record = json.loads((finished / "run.json").read_text())
    assert record["argv"][: len(inputs)] == inputs
    assert record["config"]["strength"] == record["dose"]["strength"] == 2.0
    assert record["dose"]["layers"] == [1, 2]
    assert set(record["vectors"]) == {"cats", "bread", "random-0", "random-1"}
    assert record["versions"]["torch"]
    assert record["threads"][record["model"]["name"]]["threads"] >= 1
    assert len(record["model"]["identity"]) == 64
    main = next(item for item in record["receipts"] if item["intervention"] == "cats main 1:3")
    assert list(main["layers"]) == ["1", "2"]
    added, residual, ratio, dose = main["layers"]["1"]
    assert dose == pytest.approx(added / record["model"]["unit"]["norms"][1], rel=1e-2)
    assert ratio == pytest.approx(added / residual, rel=1e-2)


def test_the_table_has_every_cell_once(table: pd.DataFrame) -> None:
    rows = ["embed", *map(str, range(N_LAYERS))]
    assert not table.duplicated(["conversation", "intervention", "layer"]).any()
    assert set(table.loc[table["series"] == "clean", "conversation"]) == {
        "question",
        "control-no",
        "control-yes",
    }
    assert (table.groupby(["conversation", "intervention"])["layer"].agg(list).map(lambda found: found == rows)).all()
    single = table[table["sweep"] == "single"]
    assert sorted(single["injected_layers"].unique()) == ["1", "2", "3"]  # no vector has a block 0
    assert table.loc[table["sweep"] == "window", "injected_layers"].unique().tolist() == [
        "1:3",
        "2:4",
    ]
    assert set(table.loc[table["series"] == "random", "kind"]) == {"introspection"}


def test_the_table_equals_a_direct_call(table: pd.DataFrame, inputs: list[str]) -> None:
    model, cats = model_and_cats(inputs)
    steer = mi.Injection(cats, layers=(2,), strength=2.0)
    direct = mi.logit_lens(model, asked_conversations()[0], steer)
    ours = table[(table["intervention"] == "cats single 2") & (table["conversation"] == "question")]
    for column in ("p_yes", "logit_diff", "p_yes_shift", "logit_diff_shift"):
        np.testing.assert_allclose(ours[column], direct[column], atol=1e-6)
    assert ours["logit_diff_shift"].abs().max() > 1e-3


def test_a_call_from_python_gives_the_same_table(table: pd.DataFrame, inputs: list[str]) -> None:
    options = dict(zip(inputs[::2], inputs[1::2], strict=True))
    results = logit_lens.run(
        model=load_once(options["--model"]),
        conversations=Path(options["--conversations"]),
        vectors=Path(options["--vectors"]),
        n_random=2,
        strength=2,
        layer_sweep=True,
    )
    pd.testing.assert_frame_equal(results.table, table, check_dtype=False)
    assert list(results.figures) == ["lens_overview", "lens_concepts", "lens_sweep_single", "lens_sweep_window"]
    assert not results.paths


def test_no_readout_moves_before_the_injection_can_act(table: pd.DataFrame) -> None:
    single = table[table["sweep"] == "single"]
    readout = single["layer"].replace("embed", "-1").astype(int)
    early = readout <= single["injected_layers"].astype(int)
    assert single.loc[early, "logit_diff_shift"].abs().max() < 1e-5
    assert single.loc[~early, "logit_diff_shift"].abs().min() > 1e-6


def test_csv_and_parquet_agree(finished: Path, table: pd.DataFrame) -> None:
    from_csv = pd.read_csv(finished / "table.csv", dtype={"layer": str, "injected_layers": str}, keep_default_na=False)
    np.testing.assert_allclose(from_csv["p_yes"], table["p_yes"])
    assert from_csv["layer"].tolist() == table["layer"].tolist()


def test_a_second_run_removes_what_it_does_not_write(inputs: list[str], tmp_path: Path) -> None:
    argv = [*inputs, "--out", str(tmp_path)]
    assert logit_lens.main([*argv, "--layer-sweep", "--n-random", "0", "--concepts", "cats"]) == 0
    assert (tmp_path / "logit_lens" / "lens_sweep_single.html").exists()
    assert logit_lens.main([*argv, "--n-random", "0", "--concepts", "cats", "--overwrite"]) == 0
    assert not (tmp_path / "logit_lens" / "lens_sweep_single.html").exists()
    assert (tmp_path / "logit_lens" / "lens_overview.html").exists()


def test_vectors_come_from_the_model_and_are_kept_where_none_are_given(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = inputs.index("--vectors")
    argv = [*inputs[:at], *inputs[at + 2 :], "--concepts", "cats", "--limit", "1"]
    argv[argv.index("--strength")] = "--relative-strength"
    assert logit_lens.main([*argv, "--out", str(tmp_path)]) == 0
    kept = sorted(path.name for path in (tmp_path / "logit_lens" / "vectors").iterdir())
    assert kept == ["cats.paired_pca.safetensors"]
    record = json.loads((tmp_path / "logit_lens" / "run.json").read_text())
    assert record["dose"]["relative_strength"] == 2.0
    assert record["conversations"] == ["question"]
    doses = [receipt["layers"]["1"][3] for receipt in record["receipts"] if receipt["kind"] == "injected"]
    assert doses == pytest.approx([2.0] * len(doses), rel=1e-3)


def test_a_second_analysis_reads_nothing_of_the_model_for_its_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path / "cache"))
    model, method = load_once("organism"), "mean_difference/concept/others"
    first = Common(out=tmp_path / "first", concepts=("cats", "bread"))
    second = dataclasses.replace(first, out=tmp_path / "second")
    fewer = dataclasses.replace(first, concepts=("bread",))
    vectors = doses.extracted_vectors(first, model, "detection", method=method)
    monkeypatch.setattr("mechint.vectors.extraction_inputs.residuals_over", lambda *_: pytest.fail("it was read again"))
    again = doses.extracted_vectors(second, model, "controls", method=method)
    for concept, vector in vectors.items():
        assert again[concept].fingerprint() == vector.fingerprint()
        assert again[concept].provenance == vector.provenance
    alone = doses.extracted_vectors(fewer, model, "", method=method)
    assert alone["bread"].fingerprint() == vectors["bread"].fingerprint()


def test_the_gallery_shows_every_figure_with_its_command(
    inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "ANALYSES", {"logit_lens": ("--layer-sweep",)})
    assert gallery.main([*inputs, "--concepts", "cats", "--n-random", "0", "--out", str(tmp_path)]) == 0
    place = tmp_path / Path(inputs[1]).name
    page = (place / "index.html").read_text()
    assert str(place / "index.html") in capsys.readouterr().out
    for figure in ("lens_overview", "lens_concepts", "lens_sweep_single", "lens_sweep_window"):
        assert f'<iframe src="logit_lens/{figure}.html"' in page
    assert "python -m analyses.logit_lens" in page
    assert "--layer-sweep" in page


def test_an_interrupted_gallery_goes_on_with_what_is_left(
    inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from analyses import controls

    argv = [*inputs, "--concepts", "cats", "--n-random", "0", "--out", str(tmp_path)]
    place = tmp_path / Path(inputs[1]).name
    monkeypatch.setattr(gallery, "ANALYSES", {"logit_lens": (), "controls": ()})
    with monkeypatch.context() as patch:
        patch.setattr(controls, "main", lambda _: 130)
        assert gallery.main(argv) == 130
    written_at = (place / "logit_lens" / "table.parquet").stat().st_mtime_ns
    capsys.readouterr()
    assert gallery.main(argv) == 0
    assert "done before: python -m analyses.logit_lens" in capsys.readouterr().err
    assert (place / "logit_lens" / "table.parquet").stat().st_mtime_ns == written_at
    assert "controls/table.csv" in (place / "index.html").read_text()
    monkeypatch.setattr(gallery, "ANALYSES", {"logit_lens": ()})
    assert gallery.main(argv) == 0
    assert (place / "logit_lens" / "table.parquet").stat().st_mtime_ns > written_at, "a finished run is made anew"


def test_all_leaves_out_what_its_options_do_not_suit(
    inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "ANALYSES", {"calibration": (), "model_swap": (), "controls": ()})
    assert gallery.main([*inputs, "--concepts", "cats", "--n-random", "0", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().err
    assert "left out: python -m analyses.calibration" in told
    assert "left out: python -m analyses.model_swap" in told
    assert "analyses.controls" in (tmp_path / Path(inputs[1]).name / "index.html").read_text()
    assert gallery.main(["--model", "organizm", "--out", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists(), "nothing is made for a model that is not there"
    assert "error: " in capsys.readouterr().err


def test_the_list_names_every_analysis() -> None:
    command = [sys.executable, "-m", "analyses"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert listed.returncode == 0
    assert "python -m analyses.logit_lens" in listed.stdout
    assert "python -m analyses.all" in listed.stdout


def test_sweep_placements_cover_the_depth() -> None:
    found = sweep_placements(None, range(6), 6)
    assert [place.layers for place in found if place.sweep == "single"] == [(layer,) for layer in range(6)]
    windows = [place.layers for place in found if place.sweep == "window"]
    assert windows == [(first, first + 1) for first in range(5)]
    assert Placement("window", (1, 2, 3)) in sweep_placements(3, range(1, 6), 6)
    assert Placement("window", (0, 1, 2)) not in sweep_placements(3, range(1, 6), 6)
    with pytest.raises(LayerRangeError):
        sweep_placements(7, range(6), 6)


@dataclasses.dataclass(frozen=True)
class _Deep:
    """What `doses.dose` asks of a model."""

    n_layers: int
    prompts: str = "full"


@pytest.mark.parametrize(
    ("model", "n_layers", "layers", "strength"),
    [
        ("Qwen/Qwen2.5-Coder-32B-Instruct", 64, "21:43", 20.0),
        ("meta-llama/Llama-3.3-70B-Instruct", 80, "26:54", 2.5),
        ("Qwen/Qwen2.5-72B-Instruct", 80, "26:54", 10.0),
        ("Qwen/Qwen2.5-7B-Instruct", 28, "9:19", None),
    ],
)
def test_published_settings_are_the_default_for_their_models_only(
    model: str, n_layers: int, layers: str, strength: float | None
) -> None:
    config = logit_lens.ANALYSIS.parsed(["--model", model, "--dose", "default"])
    dose = doses.usual_dose(config, _Deep(n_layers))
    assert option_types.format_layers(dose.layers) == layers
    assert dose.strength == strength
    assert (dose.relative_strength is None) == (strength is not None)
    differences = dataclasses.replace(config, method="mean_difference")
    assert doses.usual_dose(differences, _Deep(n_layers)).strength is None


def test_published_settings_need_no_calibration_and_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr("analyses.kit.calibrated_dose.calibrated_dose", lambda *call: tried.append(call[3]))
    published, other = "Qwen/Qwen2.5-72B-Instruct", "Qwen/Qwen2.5-7B-Instruct"
    for argv in (["--model", published], ["--model", other], ["--model", other, "--layers", "3"]):
        doses.usual_dose(logit_lens.ANALYSIS.parsed(argv), _Deep(80))
    assert tried == [None, (3,)], "where layers are named, the strength is found at these"
    doses.usual_dose(logit_lens.ANALYSIS.parsed(["--model", published, "--method", "mean_difference"]), _Deep(80))
    doses.usual_dose(logit_lens.ANALYSIS.parsed(["--model", published, "--dose", "auto"]), _Deep(80))
    doses.usual_dose(logit_lens.ANALYSIS.parsed(["--dose", "auto"]), _Deep(8, "small"))
    assert tried[2:] == [tuple(range(26, 54)), None, None]


def test_embedded_models_have_settings_of_their_own() -> None:
    config = logit_lens.ANALYSIS.parsed([])
    dose = doses.usual_dose(config, _Deep(8, "small"))
    assert (dose.layers, dose.strength, dose.relative_strength) == ((2, 3, 4), None, 0.4)


def test_options_overrule_published_settings() -> None:
    argv = ["--model", "Qwen/Qwen2.5-Coder-32B-Instruct", "--layers", "3", "--relative-strength", "0.5"]
    dose = doses.usual_dose(logit_lens.ANALYSIS.parsed(argv), _Deep(64))
    assert dose == doses.Dose((3,), None, 0.5, "--relative-strength")


@pytest.mark.parametrize(
    ("text", "layers"), [("21:24", (21, 22, 23)), ("3", (3,)), ("6,2,4", (2, 4, 6)), ("0:2,1:4", (0, 1, 2, 3))]
)
def test_layers_are_read_and_written_back(text: str, layers: tuple[int, ...]) -> None:
    assert option_types.parse_layers(text) == layers
    assert option_types.parse_layers(option_types.format_layers(layers)) == layers


@pytest.mark.parametrize("text", ["5:2", "3:3", "", "a", "-1", "1:", ":4", "1,,2", "1.5"])
def test_bad_layers_are_refused(text: str) -> None:
    with pytest.raises(LayerRangeError):
        option_types.parse_layers(text)


def test_kinds_come_from_extra_and_else_from_labels() -> None:
    plain, labelled = conversation("inject_info-none"), conversation("control-7")
    assert (questions.kind_of(plain), questions.group_of(plain)) == ("introspection", "")
    assert (questions.kind_of(labelled), questions.group_of(labelled)) == ("control", "no")
    assert [questions.group_of(item) for item in asked_conversations()] == ["", "no", "yes"]
