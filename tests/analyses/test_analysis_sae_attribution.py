"""Feature attribution: planted causes get their name; runs equal direct calls, go on, and refuse what does not fit."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.io
import pytest
import torch
from conftest import asked_conversations, load_once, refuse_pictures
from small_saes import dictionary
from whole_runs import Readings, leave_undrawn

import mechint as mi
from analyses import sae_attribution
from analyses.kit import cli
from analyses.kit.facts import read
from analyses.kit.record import as_json
from analyses.sae_attribution import source
from analyses.sae_attribution.facts import Facts
from analyses.sae_attribution.figures import text
from analyses.sae_attribution.measures import Measured, by_unit, plan, quality, split
from mechint.attribution.features import loading, trained
from mechint.attribution.features.attribution import attribute
from mechint.attribution.features.clamping import ablate
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.features.trained import Training
from mechint.attribution.features.training import SAERecipe
from mechint.attribution.reading import Reading
from mechint.base.errors import MechintError
from mechint.interventions import specifications as interventions
from mechint.organisms import PLANTED, organism_path
from mechint.organisms.planted.planting import Planted
from mechint.readouts.own_text import TextRecipe

pytestmark = pytest.mark.usefixtures("quick_analyses")
LAYERS = [1, 2]  # the usual ones for four blocks
KEYS = ["conversation", "intervention", "kind", "component", "layer", "index"]


@pytest.fixture(scope="module")
def sae(tiny_model: Callable[..., mi.Model], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random SAE of layer 2 as SAE Lens saves it; injections at layers 1 to 3 reach what it reads."""
    folder = tmp_path_factory.mktemp("sae")
    dictionary(tiny_model("qwen2"), layer=2).sae.save_model(str(folder))
    return folder


def _argv(inputs: list[str], sae: Path, out: Path, *more: str) -> list[str]:
    return [*inputs, "--sae", str(sae), "--top", "5", "--out", str(out), *more]


@pytest.fixture(scope="module")
def whole(inputs: list[str], sae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one whole run."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechint.figures.pictures.write_images", refuse_pictures)
        assert sae_attribution.main(_argv(inputs, sae, out)) == 0
    return out / "sae_attribution"


@pytest.fixture(scope="module")
def states(inputs: list[str], sae: Path) -> FeatureReading:
    """The question of that run, clean and under its first concept."""
    options = dict(zip(inputs[::2], inputs[1::2], strict=True))
    model = load_once(options["--model"])
    vector = mi.ConceptVector.load(Path(options["--vectors"]) / "cats.safetensors")
    injection = mi.Injection(vector, LAYERS, strength=2.0, name="cats")
    reading = Reading.of(model, asked_conversations()[0], [interventions.CLEAN, injection])
    return FeatureReading.of(reading, loading.load(model, str(sae)))


def test_a_run_leaves_tables_figures_and_a_record(whole: Path) -> None:
    record = json.loads((whole / "run.json").read_text())
    names = {"table", "features", "readouts", "single", "sets", "curves", "trials", "verdicts", "discrimination"}
    assert names <= {Path(name).stem for name in record["files"] if name.endswith(".parquet")}
    figures = {Path(name).stem for name in record["files"] if name.endswith(".html")}
    expected = {"features", "causes", "faithfulness", "text", "components", "discrimination"}
    assert figures == {f"sae_attribution_{name}" for name in expected}
    assert record["sae"]["layer"] == 2
    assert record["sae"]["d_sae"] == 48
    assert set(record["sae"]["reconstruction"]) == {"explained", "error", "l0", "positions", "poor"}
    assert record["receipts"][0]["conversation"] == "question"
    assert not (whole / ".partial").exists()


def test_a_poor_sae_is_told_in_every_figure_that_speaks_of_features(whole: Path) -> None:
    """A random SAE rebuilds nothing."""
    assert json.loads((whole / "run.json").read_text())["sae"]["reconstruction"]["poor"]
    for name in ("features", "causes", "faithfulness", "text", "discrimination"):
        figure = plotly.io.read_json(whole / f"sae_attribution_{name}.json")
        assert "<b>WARNING: the SAE's error holds" in figure.layout.title.subtitle.text.replace("<br>", " ")


@pytest.mark.filterwarnings("ignore::mechint.base.errors.FeatureWarning")
def test_a_run_equals_direct_calls(whole: Path, states: FeatureReading) -> None:
    table = pd.read_parquet(whole / "table.parquet")
    rows_of_cats = table[table["unit"] == "cats"].reset_index(drop=True)
    assert json.loads((whole / "run.json").read_text())["dose"]["layers"] == LAYERS
    direct = attribute(states, 0, 1, method="integrated")
    pd.testing.assert_frame_equal(
        rows_of_cats[direct.columns], direct, check_dtype=False, rtol=1e-4, atol=1e-6, check_like=True
    )
    assert rows_of_cats["attribution"].sum() == pytest.approx(rows_of_cats["total"].iloc[0], abs=1e-4)
    assert rows_of_cats["logit_diff_shift"].iloc[0] == pytest.approx(direct.attrs["logit_diff_shift"], abs=1e-5)
    single = pd.read_parquet(whole / "single.parquet")
    row = single[(single["unit"] == "cats") & (single["kind"] == "feature")].iloc[0]
    lost = float(states.logit_diffs[1]) - ablate(states, 1, [int(row["index"])])
    assert row["removed"] == pytest.approx(lost, abs=1e-5)


def test_parts_of_a_run_belong_together(whole: Path) -> None:
    features = pd.read_parquet(whole / "features.parquet")
    assert features["kind"].to_list() == ["feature"] * 5 + ["other", "error", "cache"]
    assert features["attribution"][:5].abs().is_monotonic_decreasing
    table = pd.read_parquet(whole / "table.parquet")
    concepts = table[table["series"] == "injected"]
    assert features["attribution"].sum() == pytest.approx(concepts.groupby("unit")["attribution"].sum().mean())
    assert set(concepts["unit"]) == {"cats", "bread"}
    assert set(table["unit"]) == {"cats", "bread", "random-0", "random-1"}
    components = pd.read_parquet(whole / "components.parquet")
    direct = components.groupby(["unit"])["attribution"].sum()
    shifts = table.groupby("unit")["logit_diff_shift"].first()
    np.testing.assert_allclose(direct.loc[shifts.index], shifts, atol=1e-3)


def test_an_interrupted_run_goes_on(
    whole: Path, inputs: list[str], sae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_undrawn(sae_attribution, monkeypatch)
    readings = Readings.counted(monkeypatch, 5)
    assert sae_attribution.main(_argv(inputs, sae, tmp_path)) == cli.INTERRUPTED
    readings.done, readings.limit = 0, 1000
    assert sae_attribution.main(_argv(inputs, sae, tmp_path)) == 0
    # Four vectors, two concepts once more, and the text: five were kept.
    assert readings.done == 4 + 2 + 1 - 5
    for name in ("table", "verdicts", "curves"):
        tables = [pd.read_parquet(at / f"{name}.parquet") for at in (tmp_path / "sae_attribution", whole)]
        pd.testing.assert_frame_equal(*tables)


def test_features_of_ones_own_get_the_verdicts(inputs: list[str], sae: Path, tmp_path: Path) -> None:
    own = [*inputs, "--sae", str(sae), "--features", "7,3", "--attribution", "patching", "--n-random", "0"]
    assert sae_attribution.main([*own, "--concepts", "cats", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "sae_attribution"
    features = pd.read_parquet(folder / "features.parquet")
    assert set(features.loc[features["kind"] == "feature", "index"]) == {3, 7}
    assert set(features["verdict"]) == {""}, "one concept has no intervals, and so no verdict"
    assert json.loads((folder / "run.json").read_text())["verdict"]["notes"]


def test_of_a_long_text_the_end_is_shown(
    inputs: list[str], sae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analyses.sae_attribution.cases.TEXT_TOKENS", 30)
    config = sae_attribution.ANALYSIS.parsed(_argv(inputs, sae, tmp_path, "--attribution", "gradient"))
    rows, facts = sae_attribution.compute(config, sae_attribution.check(config))
    text = facts.text
    assert len(text.tokens) == 30
    assert text.first > 0
    assert (text.speakers[0].start, text.speakers[-1].stop) == (0, 30)
    assert {len(acts) for feature in text.features for acts in (feature.clean, feature.injected)} == {30}
    drawn, _ = sae_attribution.draw(rows, config, facts)
    subtitle = drawn["sae_attribution_text"].layout.title.subtitle.text
    assert f"The first {text.first} tokens" in subtitle.replace("<br>", " ")


def test_a_call_from_python_gives_the_tables_of_the_command_line(whole: Path, inputs: list[str], sae: Path) -> None:
    options = dict(zip(inputs[::2], inputs[1::2], strict=True))
    results = sae_attribution.run(
        model=load_once(options["--model"]), conversations=options["--conversations"], vectors=options["--vectors"],
        n_random=2, strength=2, sae=str(sae), top=5,
    )  # fmt: skip
    assert {f"{name}.parquet" for name in results.tables} == {file.name for file in whole.glob("*.parquet")}
    for name, table in results.tables.items():
        pd.testing.assert_frame_equal(table, pd.read_parquet(whole / f"{name}.parquet"), check_dtype=False)
    assert results.table is results.tables["table"]
    written = json.loads((whole / "run.json").read_text())
    assert {name: results.facts[name] for name in ("sae", "text", "verdict")} == {
        name: written[name] for name in ("sae", "text", "verdict")
    }


def test_what_the_check_has_read_of_an_sae_is_not_read_again(inputs: list[str], sae: Path, tmp_path: Path) -> None:
    shutil.copytree(sae, tmp_path / "sae")
    config = sae_attribution.ANALYSIS.parsed(_argv(inputs, tmp_path / "sae", tmp_path))
    checked = sae_attribution.check(config)
    (tmp_path / "sae" / "cfg.json").unlink()
    model = load_once(config.model)
    assert checked.sae is not None
    loaded, by_path = loading.load(model, checked.sae), loading.load(model, str(sae))
    assert (loaded.name, loaded.layer, loaded.d_sae) == ("sae", by_path.layer, by_path.d_sae)
    assert torch.equal(loaded.decoder, by_path.decoder)


def _attributions(values: dict[str, dict[int, float]]) -> pd.DataFrame:
    rows = [
        {"unit": name, "conversation": chat, "index": index, "attribution": value, "series": "injected"}
        for name, found in values.items()
        for chat in ("a", "b")
        for index, value in found.items()
    ]
    return pd.DataFrame(rows).assign(kind="feature", component=lambda rows: [f"f{i}" for i in rows["index"]], layer=2)


def test_features_missing_in_a_case_carry_nothing_there() -> None:
    wide = by_unit(_attributions({"cats": {1: 4.0, 2: 1.0}, "bread": {2: 3.0}}))
    assert wide.loc[:, "cats"].to_list() == [4.0, 1.0]
    assert wide.loc[:, "bread"].to_list() == [0.0, 3.0]


def test_orders_leave_their_own_concept_out() -> None:
    table = _attributions({"cats": {1: 9.0, 2: 1.0, 3: 0.5}, "bread": {1: 0.1, 2: -2.0, 3: 0.5}})
    found = plan(table, None, 2, 0)
    assert found.orders["cats"] == [2, 3, 1]
    assert found.orders["bread"] == [1, 2, 3]
    assert found.candidates == [1, 2]
    assert sorted(found.measured) == [1, 2, 3]
    assert found.counts == [1, 2]
    assert plan(table, [3], 2, 0).candidates == [3]


def test_parts_come_apart_as_they_were_put_together() -> None:
    first = pd.DataFrame({"part": "a", "index": [1, -1], "x": [0.5, np.nan]})
    second = pd.DataFrame({"part": "b", "explained": [0.2, 0.4], "error": 1.0, "l0": 3.0, "positions": [10, 20]})
    parts = split(pd.concat([first, second], ignore_index=True))
    pd.testing.assert_frame_equal(parts["a"], first.drop(columns="part"))
    found = quality(parts["b"])
    assert (found.explained, found.positions, found.poor) == (pytest.approx(0.3), 30, True)


BRIEF = ["--concepts", "cats,bread,oceans,music,rain,trains", "--n-random", "0", "--format", "yes-no"]


def _rows(*options: str) -> pd.DataFrame:
    config = sae_attribution.ANALYSIS.parsed([*BRIEF, *options])
    return sae_attribution.compute(config, sae_attribution.check(config))[0]


def test_the_planted_cause_and_the_correlate_get_their_names(tmp_path: Path) -> None:
    truth = Planted.read(organism_path(PLANTED))
    features = f"{truth.cause_feature},{truth.correlate_feature}"
    measured = Measured.of(_rows("--model", PLANTED, "--features", features, "--out", str(tmp_path)))
    verdicts = measured.judged[0].set_index("index")["verdict"]
    assert verdicts[truth.cause_feature] == "cause"
    assert verdicts[truth.correlate_feature] == "correlate"
    assert measured.verdict()["verdicts"]["cause"] == [f"L6 f{truth.cause_feature}"]
    # The correlate discriminates as well as the cause does.
    known = measured.discrimination.set_index("index")["q"]
    assert known[[truth.cause_feature, truth.correlate_feature]].max() < 0.05
    assert float(measured.correlation.mean) > 0.5


@pytest.mark.filterwarnings("ignore::mechint.base.errors.FeatureWarning")
def test_on_the_blind_model_nothing_is_a_cause(tmp_path: Path) -> None:
    few = ["--concepts", "cats,bread,rain", "--top", "3", "--attribution", "gradient"]
    rows = _rows("--model", "organism-blind", *few, "--out", str(tmp_path))
    measured = Measured.of(rows)
    assert set(measured.judged[0]["verdict"]) == {"no effect to explain"}
    assert measured.nothing


@pytest.fixture
def bad(sae: Path, tiny_model: Callable[..., mi.Model], tmp_path: Path) -> dict[str, str]:
    """Directories of SAEs that do not fit, by what is wrong with them."""
    content = json.loads((sae / "cfg.json").read_text())
    changes: dict[str, dict[str, object]] = {
        "width": {"d_in": 64},
        "hook": {"metadata": {"hook_name": "blocks.2.hook_mlp_out"}},
        "layer": {"metadata": {"hook_name": "blocks.9.hook_resid_post"}},
        "owner": {"metadata": {"hook_name": "blocks.2.hook_resid_post", "model_name": "gemma-2-2b"}},
        "shapeless": {"d_in": None},
    }
    for name, change in changes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "cfg.json").write_text(json.dumps({**content, **change}))
    (tmp_path / "empty").mkdir()
    found = {name: str(tmp_path / name) for name in (*changes, "empty")}
    return {**found, "sae": str(sae), "out": str(tmp_path / "out")}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sae", "{width}"], ["d_model=64", "d_model=32"]),
        (["--sae", "{hook}"], ["hook_mlp_out", "hook_resid_post"]),
        (["--sae", "{layer}"], ["layer 9", "0:4"]),
        (["--sae", "{owner}"], ["gemma-2-2b", "--any-model-sae"]),
        (["--sae", "{shapeless}"], ["without d_in"]),
        (["--sae", "{empty}"], ["cfg.json", "cannot be read"]),
        (["--sae", "nowhere"], ["SAE 'nowhere'", "RELEASE:ID"]),
        (["--sae", "release:"], ["SAE 'release:'", "RELEASE:ID"]),
        ([], ["no SAE for", "--sae"]),
        (["--sae", "6"], ["no SAE for"]),
        (["--model", "organism", "--sae", "5"], ["layer 5", "3, 6"]),
        (["--sae", "{sae}", "--features", "3,48"], ["--features 48", "0:48"]),
        (["--sae", "{sae}", "--features", "3", "--top", "2"], ["--top with --features"]),
        (["--sae", "{sae}", "--shard", "0/2"], ["--shard", "all concepts"]),
        (["--sae", "{sae}", "--info", "none"], ["--info with --conversations"]),
    ],
)
def test_bad_input_is_told_before_the_model_is_loaded(
    inputs: list[str],
    bad: dict[str, str],
    options: list[str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("mechint.models.model.load", refuse)
    given = [option.format(**bad) for option in options]
    own = inputs[2:] if "organism" in given else inputs
    assert sae_attribution.main([*own, *given, "--out", bad["out"]]) == 2
    told = capsys.readouterr().err
    for word in words:
        assert word in told


@pytest.mark.parametrize(
    "options", [["--attribution", "guess"], ["--features", "3,3"], ["--features", "-1"], ["--top", "0"]]
)
def test_options_that_cannot_be_parsed_stop_with_2(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        sae_attribution.main(options)
    assert stop.value.code == 2
    assert options[0] in capsys.readouterr().err


def test_an_sae_of_another_model_is_used_if_one_says_so(bad: dict[str, str], inputs: list[str]) -> None:
    config = sae_attribution.ANALYSIS.parsed([*inputs, "--sae", bad["owner"], "--out", bad["out"]])
    with pytest.raises(MechintError, match="gemma"):
        sae_attribution.check(config)
    known = sae_attribution.ANALYSIS.parsed([*inputs, "--sae", bad["owner"], "--any-model-sae", "--out", bad["out"]])
    sae_attribution.check(known)


def test_both_backends_attribute_alike(inputs: list[str], sae: Path, whole: Path, tmp_path: Path) -> None:
    config = sae_attribution.ANALYSIS.parsed(_argv(inputs, sae, tmp_path, "--backend", "hooked"))
    rows = sae_attribution.compute(config, sae_attribution.check(config))[0]
    found = split(rows)["attribution"].set_index(KEYS)["attribution"]
    other = pd.read_parquet(whole / "table.parquet").set_index(KEYS)["attribution"]
    np.testing.assert_allclose(found, other.loc[found.index], atol=1e-3)


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SAEs are trained in a moment, and kept in a folder of the test's own."""
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path / "cache"))
    usual = Training.usual.__func__  # type: ignore[attr-defined]
    recipe = SAERecipe(d_sae=64, k=4, samples=2_000, batch=64, warm_up=5)
    text = TextRecipe(prompts=9, samples=2, max_new_tokens=6)

    def short(cls: type[Training], model: mi.Model, layer: int | None = None) -> Training:
        return dataclasses.replace(usual(cls, model, layer), recipe=recipe, text=text)

    monkeypatch.setattr(Training, "usual", classmethod(short))


@pytest.mark.usefixtures("short_training")
def test_an_sae_is_trained_where_one_is_wanted_and_its_quality_is_recorded(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["--concepts", "cats", "--n-random", "0", "--top", "2", "--attribution", "gradient", "--sae", "trained:2"]
    config = sae_attribution.ANALYSIS.parsed([*inputs, *few, "--out", str(tmp_path)])
    rows, run_facts = sae_attribution.compute(config, sae_attribution.check(config))
    assert read(Facts, as_json(run_facts)) == run_facts, "as a record has it"
    assert run_facts.sae.name == "trained resid_post.2"
    assert run_facts.text.first == 1, "the very first token, a sink of attention, is left out"
    caption = text(Measured.of(rows), run_facts).layout.title.subtitle.text
    assert "tokens of the model's own text" in caption.replace("<br>", " ")
    monkeypatch.setattr(trained, "train_sae", lambda *_: pytest.fail("trained again"))
    stored = source.load(load_once(inputs[1]), "trained:2", None, any_model=False)
    assert stored.held_out == run_facts.sae.held_out


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--sae", "trained:4"], "an SAE at layer 4"),
        (["--sae", "trained", "--any-model-sae"], "--any-model-sae with an SAE that is trained"),
    ],
)
def test_an_sae_that_cannot_be_trained_is_refused_before_the_model_is_loaded(
    inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert sae_attribution.main([*inputs, *argv, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
