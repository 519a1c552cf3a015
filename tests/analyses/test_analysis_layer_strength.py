"""Layers and strengths: planted effects come out as verdicts and figures; runs equal direct calls, go on, and merge."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from conftest import asked_conversations
from whole_runs import leave_undrawn, model_and_cats, refusal, whole_run

import mechint as mi
from analyses import layer_strength
from analyses.kit import cli, plain_text
from analyses.kit.dose import Dose
from analyses.layer_strength.figures import Setting, figures, verdict
from analyses.layer_strength.measures import grid, ranges
from mechint.prompts.design import PromptDesign

pytestmark = pytest.mark.usefixtures("quick_analyses")
WINDOWS, STRENGTHS = ("0:2", "1:3", "2:4"), ("0.1", "0.5", "2")
CONCEPTS, RANDOMS = {"cats": 1.0, "bread": 2.0, "rain": 1.5}, {"random-0": 0.1, "random-1": 0.3}
DOSE = Dose((1, 2), None, 0.5, "test")
SETTING = Setting("a model", DOSE, True)
# By window: how much a concept of size one shifts the introspection answer at strength one.
GAIN = dict(zip(WINDOWS, (1.0, 4.0, 2.0), strict=True))


def _place(layers: str, strength: str, sweep: str, control: float, yes: float, harm: float) -> list[dict[str, object]]:
    """Rows at one place: controls shift by `control` and `yes` times what introspection does, text loss by `harm`."""
    rows: list[dict[str, object]] = []
    for kind, vectors in (("injected", CONCEPTS), ("random", RANDOMS)):
        for name, size in vectors.items():
            columns = {"unit": name, "series": kind, "intervention": f"{name} {sweep} {layers} {strength}"}
            columns |= {"sweep": sweep, "injected_layers": layers, "strength": strength}
            shift = size * GAIN.get(layers, 1.0) * float(strength)
            asked = {"question": ("introspection", "", 1.0), "no": ("control", "no", control)}
            asked |= {"yes": ("control", "yes", yes)} if kind == "injected" else {}
            for label, (what, group, share) in asked.items():
                values = {"logit_diff_shift": share * shift, "p_yes": 0.2, "added_ratio": 0.25 * float(strength)}
                if kind == "injected" or what == "introspection":
                    rows.append({**columns, "conversation": label, "kind": what, "group": group, **values})
            for text, more in (("prose", -0.5), ("reply", harm * float(strength))):
                rows.append({**columns, "conversation": f"{text}-0", "kind": "text", "group": text, "loss": 3.0 + more})
    return rows


def _table(control: float = 0.1, yes: float = -0.1, harm: float = 1.0) -> pd.DataFrame:
    rows: list[dict[str, object]] = [
        {"conversation": f"{text}-0", "kind": "text", "group": text, "loss": 3.0} for text in ("prose", "reply")
    ]
    rows += [{"conversation": "question", "kind": "introspection", "group": "", "logit_diff_shift": 0.0}]
    rows = [{**row, "unit": "", "series": "clean", **layer_strength.CLEAN} for row in rows]
    for layers in WINDOWS:
        for strength in STRENGTHS:
            rows += _place(layers, strength, "grid", control, yes, harm)
    for layers in ("0", "1", "2", "0:2", "1:3", "0:3"):
        rows += _place(layers, "0.5", "range", control, yes, harm * (layers == "0:3") * 4)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    return _table()


@pytest.fixture(scope="module")
def drawn(planted: pd.DataFrame) -> dict[str, go.Figure]:
    return figures(planted, SETTING)


def test_measures_are_those_that_were_planted(planted: pd.DataFrame) -> None:
    places = grid(planted)
    assert places.rows == WINDOWS
    assert places.columns == STRENGTHS
    shifts = 1.5 * np.outer(list(GAIN.values()), [0.1, 0.5, 2.0])
    for name, share in (("detection", 1.0), ("no", 0.1), ("yes", -0.1), ("net", 0.9), ("random", 0.2 / 1.5)):
        np.testing.assert_allclose(places.measures[name].mean, share * shifts)
    assert np.all(places.measures["detection"].low < places.measures["detection"].mean)
    # Replies suffer, prose gains: the kind that suffers more counts.
    np.testing.assert_allclose(places.measures["text"].mean, [[np.exp(0.1), np.exp(0.5), np.exp(2.0)]] * 3)
    assert places.lost.tolist() == [[False, False, True]] * 3
    assert places.best() == (1, 1)


def test_titles_and_record_say_where_detection_exceeds_control(
    planted: pd.DataFrame, drawn: dict[str, go.Figure]
) -> None:
    assert set(drawn) == {"layer_strength_grid", "layer_strength_curves", "layer_strength_ranges"}
    titles = {name: figure.layout.title.text.replace("<br>", " ") for name, figure in drawn.items()}
    assert "at layers 1:3, strength 0.5: by +2.70 [" in titles["layer_strength_grid"]
    assert "random vectors shift detection by +0.40 there" in titles["layer_strength_grid"]
    assert "text is coherent up to strength 0.5" in titles["layer_strength_curves"]
    verdicts = verdict(planted, SETTING)
    assert (verdicts["grid"]["row"], verdicts["grid"]["column"]) == ("1:3", "0.5")
    assert verdicts["grid"]["net"] == pytest.approx(2.7)
    assert verdicts["clean_perplexity"] == {"prose": pytest.approx(np.exp(3), abs=1e-3), "reply": pytest.approx(20.086)}


@pytest.mark.parametrize("change", [{"control": 1.0}, {"control": 1.2}, {"harm": 20.0}])
def test_a_bias_or_broken_text_is_no_detection(change: dict[str, float]) -> None:
    """Controls that move as much, or text that is lost before anything is detected."""
    table = _table(**change)
    assert grid(table).best() is None
    title = figures(table, SETTING)["layer_strength_grid"].layout.title.text.replace("<br>", " ")
    assert title == "<b>Nowhere does detection exceed control while text is still coherent</b>"
    assert verdict(table, SETTING)["grid"] is None


def test_ranges_are_first_by_last_layer_with_gaps(planted: pd.DataFrame) -> None:
    places = ranges(planted)
    assert (places.rows, places.columns) == (("0", "1", "2"), ("0", "1", "2"))
    there = ~np.isnan(places.measures["net"].mean)
    assert there.tolist() == [[True, True, True], [False, True, True], [False, False, True]]
    assert places.lost.tolist() == [[False, False, True], [False] * 3, [False] * 3]
    assert places.best() == (1, 2)


def test_panels_share_a_scale_and_lost_places_are_hatched(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["layer_strength_grid"]
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [trace.coloraxis for trace in maps] == ["coloraxis"] * 4 + ["coloraxis2", "coloraxis3"]
    scale = figure.layout.coloraxis
    assert scale.cmax == -scale.cmin == pytest.approx(3 * 1.5 * 4 * 0.5)  # not the 12 of places without coherent text
    np.testing.assert_allclose(maps[2].z, 0.9 * 1.5 * np.outer(list(GAIN.values()), [0.1, 0.5, 2.0]))
    hatching = [trace for trace in figure.data if trace.type == "scatter" and trace.opacity == 0.45]
    assert len(hatching) == 6
    assert {round(x) for x in hatching[0].x if x is not None} == {2}


def test_absolute_strengths_have_a_second_axis(planted: pd.DataFrame, drawn: dict[str, go.Figure]) -> None:
    dose = Dose((1, 2), 0.5, None, "test")
    figure = figures(planted, Setting("a model", dose, False))["layer_strength_curves"]
    assert list(figure.layout.xaxis99.ticktext) == ["0.025", "0.12", "0.5"]
    assert figure.layout.xaxis99.range == figure.layout.xaxis.range
    relative = drawn["layer_strength_curves"]
    assert "xaxis99" not in relative.layout.to_plotly_json(), "a relative strength is the ratio itself"


def test_figures_do_without_random_vectors_and_controls(planted: pd.DataFrame) -> None:
    alone = planted[(planted["series"] != "random") & (planted["kind"] != "control")]
    title = figures(alone, SETTING)["layer_strength_grid"].layout.title.text
    assert "no control questions were asked" in title.replace("<br>", " ")
    one_concept = planted[planted["unit"].isin(["", "cats"])]
    assert grid(one_concept).best() == (1, 1), "one concept has no interval, and its mean counts"


def _argv(inputs: list[str], *more: str) -> list[str]:
    return [*inputs, "--strengths", "0,3", "--absolute", "--window", "2", "--step", "2", *more]


@pytest.fixture(scope="module")
def whole(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(layer_strength, _argv(inputs, "--ranges"), tmp_path_factory.mktemp("whole"))


def test_a_run_has_every_place_once_and_equals_direct_calls(whole: Path, inputs: list[str]) -> None:
    table = pd.read_parquet(whole / "table.parquet")
    assert not table.duplicated(["conversation", "intervention"]).any()
    cells = table[table["kind"] != "text"]
    assert len(cells) == 3 + (3 * 2 + 1 * 2) * 3  # clean; 2 concepts and 2 random at 2 strengths and one range
    assert cells.loc[cells["sweep"] == "range", "injected_layers"].unique().tolist() == ["2:4"]  # no block 0
    model, cats = model_and_cats(inputs)
    steer = mi.Injection(cats, (1, 2), strength=3.0, name="cats grid 1:3 3")
    rows = table.set_index(["intervention", "conversation"]).loc[steer.name]
    for chat in asked_conversations():
        direct = mi.score(model, chat, steer).iloc[0]
        np.testing.assert_allclose(rows.loc[chat.label, "logit_diff_shift"], direct["logit_diff_shift"], atol=1e-5)
    prose = mi.text_loss(model, PromptDesign.load("full").tasks.plain, steer)["loss"]
    np.testing.assert_allclose([rows.loc[f"prose-{at}", "loss"] for at in range(len(prose))], prose, atol=1e-5)
    assert abs(rows.loc["question", "logit_diff_shift"]) > 1e-3


def test_zero_strength_is_clean_and_ratios_are_those_of_receipts(whole: Path) -> None:
    table = pd.read_parquet(whole / "table.parquet")
    zero = table[table["strength"] == "0"]
    np.testing.assert_allclose(zero["logit_diff_shift"].dropna(), 0, atol=1e-6)
    text = plain_text.rises(zero)
    assert len(text)
    np.testing.assert_allclose(text["rise"], 0, atol=1e-6)
    record = json.loads((whole / "run.json").read_text())
    receipt = next(one for one in record["receipts"] if one["intervention"] == "bread grid 1:3 3")
    ratio = table.loc[table["intervention"] == "bread grid 1:3 3", "added_ratio"].dropna().unique()
    np.testing.assert_allclose(ratio, np.mean([layer[3] for layer in receipt["layers"].values()]), rtol=1e-3)
    assert record["relative"] is False
    assert "layer_strength_ranges.html" in record["files"]


def test_an_interrupted_run_goes_on(
    whole: Path, inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("mechint.readouts.text_loss")
    real, calls = module.text_loss, []

    def counted(*arguments: object, **options: object) -> pd.DataFrame:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*arguments, **options)

    argv = [*_argv(inputs, "--ranges"), "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        leave_undrawn(layer_strength, patch)
        patch.setattr(module, "text_loss", counted)
        assert layer_strength.main(argv) == cli.INTERRUPTED
        calls.clear()
        patch.setattr(module, "text_loss", lambda *a, **b: (calls.append(1), real(*a, **b))[1])
        assert layer_strength.main(argv) == 0
    assert len(calls) == 3, "clean and one vector were kept, three vectors were left"
    assert not (tmp_path / "layer_strength" / ".partial").exists()
    tables = [pd.read_parquet(folder / "table.parquet") for folder in (tmp_path / "layer_strength", whole)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-5, atol=1e-6)


def test_defaults_are_multiples_of_the_dose(inputs: list[str]) -> None:
    config = layer_strength.ANALYSIS.parsed(inputs)
    relative = layer_strength.doses(config, Dose((1,), None, 0.3, ""))
    assert [dose.relative_strength for dose in relative] == [0.3 * factor for factor in layer_strength.FACTORS]
    absolute = layer_strength.doses(config, Dose((1,), 20.0, None, ""))
    assert {dose.relative_strength for dose in absolute} == {None}
    assert [dose.amount for dose in absolute][:4] == [2, 5, 10, 20]
    given = layer_strength.ANALYSIS.parsed([*inputs, "--strengths", "3,1"])
    assert [dose.relative_strength for dose in layer_strength.doses(given, Dose((1,), 20.0, None, ""))] == [1, 3]


def test_a_run_from_python_gives_the_table_of_the_command_line(whole: Path, inputs: list[str]) -> None:
    options = dict(zip([name.removeprefix("--") for name in inputs[::2]], inputs[1::2], strict=True))
    options["n_random"] = options.pop("n-random")
    results = layer_strength.run(**options, strengths=(0, 3), absolute=True, window=2, step=2, ranges=True)
    pd.testing.assert_frame_equal(results.table, pd.read_parquet(whole / "table.parquet"), check_dtype=False)
    assert set(results.figures) == {"layer_strength_grid", "layer_strength_curves", "layer_strength_ranges"}
    assert results.facts["verdict"] == json.loads((whole / "run.json").read_text())["verdict"]
    assert results.paths == ()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--absolute"], ["--absolute", "--strengths"]),
        (["--strengths", "1,1"], ["--strengths", "1,1"]),
        (["--strengths", "-1,2"], ["--strengths"]),
        (["--strengths", "0"], ["--strengths", "above 0"]),
        (["--strengths", "a"], ["--strengths"]),
        (["--window", "99"], ["--window 99"]),
        (["--step", "0"], ["--step", "1 or more"]),
        (["--concepts", "unicorns"], ["unicorns"]),
        (["--info", "nonsense"], ["nonsense", "lorem-ipsum"]),
        (["--conversations", "{asked}", "--info", "none"], ["--info", "--conversations"]),
    ],
)
def test_bad_input_is_one_error(
    argv: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = tmp_path / "asked.json"
    mi.save_conversations(asked_conversations(), asked)
    given = [part.format(asked=asked) for part in argv]
    message = refusal(layer_strength, [*given, "--out", str(tmp_path)], capsys)
    assert all(word in message for word in words), message
