"""Cache attribution: planted tables come out as verdicts and figures; runs equal direct calls and go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from conftest import asked_conversations, load_once, refuse_pictures
from whole_runs import Readings, leave_undrawn

import mechint as mi
from analyses import kv_attribution
from analyses.kit import cli
from analyses.kit.command import Results
from analyses.kv_attribution.cache_map import Layout
from analyses.kv_attribution.facts import CachedMessage, Text
from analyses.kv_attribution.figures import figures, verdict
from analyses.kv_attribution.steps import Size
from mechint.attribution import kv
from mechint.attribution.reading import Reading
from mechint.stats.bands import Marks

pytestmark = pytest.mark.usefixtures("quick_analyses")
CONCEPTS, RANDOMS = {"cats": 1.0, "bread": 1.2, "rain": 0.8}, {"random-0": 0.1, "random-1": 0.2}
WORDS = ("<s>", "a", " b", "\n", " not", " c", " d", " e")
TEXT = Text("question", WORDS, (CachedMessage("user", 0, 5, False), CachedMessage("assistant", 5, 8, True)))
SPANS = ((0, 5), (5, 7), (7, 8))
# What each layer carries of a shift of 4, inserted and removed, keys and values; the last window of the text has all.
LAYERS = {0: (0.0, 0.0), 1: (3.2, 1.0), 2: (0.4, 0.2)}
SPLIT = {("both", -1): 1.0, ("keys", -1): 0.25, ("values", -1): 0.75, ("keys", 0): 0.25, ("values", 0): 0.75}


def _row(level: str, place: tuple[int, ...], direction: str, effect: float, **more: object) -> dict[str, object]:
    where = dict(zip(("layer_start", "layer_stop", "pos_start", "pos_stop"), place, strict=True))
    usual = {"side": "both", "head": -1, "n_windows": -1, "n_cells": -1, "of_windows": -1, "windows": ""}
    return {"level": level, **where, "direction": direction, "effect": effect, **usual, **more}


def _vector(size: float, control: bool = False) -> list[dict[str, object]]:
    rows = []
    for at, direction in enumerate(("insert", "remove")):
        rows.append(_row("cache", (0, 3, 0, 8), direction, 4 * size))
        for layer, effects in LAYERS.items():
            effect = effects[at] * size
            for (side, head), part in {("both", -1): 1.0}.items() if control else SPLIT.items():
                rows.append(_row("layer", (layer, layer + 1, 0, 8), direction, effect * part, side=side, head=head))
            if not control:
                for start, stop in SPANS:
                    carried = effect * (start == 7)
                    rows.append(_row("window", (layer, layer + 1, start, stop), direction, carried))
        if not control:
            rows += [_row("cell", (1, 2, at, at + 1), direction, 0.0) for at in (5, 6)]
            for name, shares in (("strongest", (0.4, 0.9, 1.0)), ("shuffled", (0.0, 0.1, 1.0))):
                for count, share in zip((1, 2, 4), shares, strict=True):
                    about = {"windows": name, "n_windows": count, "n_cells": 2 * count, "of_windows": 4}
                    rows.append(_row("curve", (-1, -1, -1, -1), direction, 4 * size * share, **about))
    if not control:
        rows.append(_row("gradient", (1, 2, 0, 8), "gradient", 3.9 * size, side="values", head=0))
    return [{**row, "shift": 4 * size} for row in rows]


def _table(scale: float = 1.0, control: float = 0.0) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for kind, vectors in (("injected", CONCEPTS), ("random", RANDOMS)):
        for name, size in vectors.items():
            columns = {"unit": name, "series": kind, "intervention": name}
            rows += [
                {**columns, **row, "conversation": "question", "kind": "introspection"} for row in _vector(scale * size)
            ]
            if kind == "injected":
                silent = _vector(control * size, control=True)
                rows += [{**columns, **row, "conversation": "control-no", "kind": "control"} for row in silent]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def drawn() -> dict[str, go.Figure]:
    return figures(_table(), TEXT, "a model")


def _signs(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if isinstance(trace, go.Scatter) and "+" in (trace.text or ())]


def _title(figure: go.Figure) -> str:
    return figure.layout.title.text.replace("<br>", " ").removeprefix("<b>").removesuffix("</b>")


def test_titles_and_record_say_what_was_planted(drawn: dict[str, go.Figure]) -> None:
    titles = {name.removeprefix("kv_attribution_"): _title(figure) for name, figure in drawn.items()}
    assert "inserting one window gives at most 80% (layer 1, “e”)" in titles["map"]
    assert "removing one takes at most 25% (layer 1, “e”)" in titles["map"]
    assert titles["layers"].startswith("Layer 1 of the cache carries most: 80% of the shift when inserted, 25% when")
    assert "its values alone 60% and 19%, its keys alone 20% and 6%" in titles["layers"]
    assert "when inserted, the values of head 0 in layer 1 (60% of the shift)" in titles["heads"]
    assert "comes with the 2 strongest of 4 windows inserted, and goes with the 2 strongest removed" in titles["curve"]
    assert titles["curve"].endswith("(in random order: 4, 4)")
    found = verdict(_table(), TEXT)
    assert found["anything_to_attribute"]
    assert found["window_insert"] == {
        "layer_start": 1,
        "layer_stop": 2,
        "pos_start": 7,
        "pos_stop": 8,
        "effect": pytest.approx(3.2),
    }


def test_the_map_shows_each_window_and_the_cells_of_those_taken_apart(drawn: dict[str, go.Figure]) -> None:
    figure = drawn["kv_attribution_map"]
    maps = [trace for trace in figure.data if isinstance(trace, go.Heatmap)]
    assert len(maps) == 4 * 3  # panels; two messages and one window that was taken apart
    user, assistant, cells = maps[:3]
    assert (list(user.y), list(assistant.y), list(cells.y)) == ([1, 2], [3, 5, 6], [3, 4, 5])
    assert list(cells.x) == [1, 2]
    shown = np.array(assistant.z, dtype=float)
    assert np.isnan(shown[0, 1]), "what was taken apart is not drawn twice"
    np.testing.assert_allclose(shown[1], [0, 3.2, 0.4])
    ticks = list(figure.layout.yaxis.ticktext)
    assert ticks[0] == "<b>user, not steered</b>"
    assert ticks[1] == "&lt;s&gt;a b not"
    assert ticks[3:6] == ["<i>c</i>", "<i>d</i>", "e"]
    assert not _signs(figure), "three concepts are too few for bands"
    single = figures(_table(), TEXT, "a model", Marks(uncorrected=True))["kv_attribution_map"]
    assert _signs(single), "certain cells can be told without colours"
    assert "not corrected for the number of cells" in single.layout.title.subtitle.text.replace("<br>", " ")


def test_a_line_break_has_a_name_and_long_pieces_are_cut() -> None:
    assert TEXT.piece(3, 4) == "(line break)"
    long = Text("c", (" word",) * 30, (CachedMessage("user", 0, 30, True),))
    assert len(long.piece(0, 30)) <= 38
    assert long.piece(0, 30).endswith("…")
    layout = Layout.of(long, [(0, 20), (20, 30)], [(20, 30)])
    assert layout.rows([0, 20], 30) == [1, 2, 12]


@pytest.mark.parametrize(
    ("scale", "control", "told"),
    [
        (0.0, 0.0, "+0.00 [+0.00, +0.00] logits under concepts, +0.00 with control questions"),
        (0.03, 0.0, "+0.12 [+0.06, +0.18] logits under concepts, +0.00 with control questions"),
        (1.0, 0.9, "+4.00 [+2.01, +5.99] logits under concepts, +3.60 with control questions"),
    ],
)
def test_without_a_shift_of_its_own_nothing_is_said_to_carry_it(scale: float, control: float, told: str) -> None:
    table = _table(scale, control)
    titles = {_title(figure) for figure in figures(table, TEXT, "a model").values()}
    assert titles == {f"There is no shift of its own to attribute: {told}"}
    assert not verdict(table, TEXT)["anything_to_attribute"]


def test_the_conversation_that_is_drawn_has_its_own_shift() -> None:
    other = _table(0.1)
    other = other[other["kind"] == "introspection"].assign(conversation="other")
    found = figures(pd.concat([_table(), other]), TEXT, "a model")
    assert "Of the shift of +4.00 [" in _title(found["kv_attribution_map"])
    assert "inserting one window gives at most 80%" in _title(found["kv_attribution_map"])
    assert "Whole shift under concepts: +2.20 [" in found["kv_attribution_layers"].layout.title.subtitle.text


def test_one_concept_and_no_random_vectors_are_drawn_without_intervals() -> None:
    table = _table()
    drawn = figures(table[table["unit"] == "cats"], TEXT, "a model")
    assert len([trace for trace in drawn["kv_attribution_map"].data if isinstance(trace, go.Heatmap)]) == 2 * 3
    assert "80% of the shift" in _title(drawn["kv_attribution_layers"])


def _argv(inputs: list[str], out: Path, *more: str) -> list[str]:
    return [*inputs, "--window-positions", "9", "--finer", "0.01", "--most", "2", *more, "--out", str(out)]


@pytest.fixture(scope="module")
def whole(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechint.figures.pictures.write_images", refuse_pictures)
        assert kv_attribution.main(_argv(inputs, out)) == 0
    return out / "kv_attribution"


def test_a_run_equals_direct_calls(whole: Path, inputs: list[str]) -> None:
    table = pd.read_parquet(whole / "table.parquet")
    options = dict(zip(inputs[::2], inputs[1::2], strict=True))
    cats = mi.ConceptVector.load(Path(options["--vectors"]) / "cats.safetensors")
    steer = mi.Injection(cats, (1, 2), 2.0, name="cats")
    reading = Reading.of(load_once(options["--model"]), asked_conversations()[0], [mi.CLEAN, steer])
    mine = table[(table["conversation"] == "question") & (table["intervention"] == "cats")]
    columns = ["layer_start", "pos_start", "direction", "effect", "shift", "fraction", "logit_diff"]
    for level, windows in (("cache", kv.windows(reading, 4)), ("window", kv.windows(reading, 1, 9))):
        direct = kv.effects(reading, 0, 1, windows, level)[columns]
        pd.testing.assert_frame_equal(
            mine.loc[mine["level"] == level, columns].reset_index(drop=True), direct, atol=1e-5
        )
    scored = mi.score(reading.model, reading.rendered.conversation, steer)
    assert mine["shift"].iloc[0] == pytest.approx(scored["logit_diff_shift"].item(), abs=1e-4)
    both = table[(table["level"] == "window") & (table["series"] == "injected")]
    cells = mine.loc[(mine["level"] == "cell") & (mine["direction"] == "insert"), ["layer_start", "pos_start"]]
    expected = [cell for window in kv.strongest(both, 0.01, 2) for cell in kv.cells(window)]
    assert [tuple(row) for row in cells.to_numpy()] == [(cell.layer_start, cell.pos_start) for cell in expected]
    gradient = kv.by_gradient(reading, 0, 1, steps=8)
    sums = mine.loc[mine["level"] == "gradient", "effect"].sum()
    assert sums == pytest.approx(gradient["attribution"].sum(), abs=1e-4)


def _called(inputs: list[str], **more: object) -> Results:
    options = dict(zip(inputs[::2], inputs[1::2], strict=True))
    files = {"conversations": options["--conversations"], "vectors": options["--vectors"]}
    usual = {"n_random": 2, "strength": 2, "window_positions": 9, "finer": 0.01, "most": 2}
    return kv_attribution.run(model=load_once(options["--model"]), **files, **{**usual, **more})


def test_a_call_from_python_gives_the_table_of_the_command_line(whole: Path, inputs: list[str]) -> None:
    results = _called(inputs)
    pd.testing.assert_frame_equal(results.table, pd.read_parquet(whole / "table.parquet"), rtol=1e-4, atol=1e-5)
    assert set(results.figures) == {f"kv_attribution_{name}" for name in ("map", "layers", "heads", "curve")}
    assert results.facts["text"] == json.loads((whole / "run.json").read_text())["text"]
    assert not results.paths


def test_where_nothing_is_injected_no_cache_differs_and_there_is_no_curve(inputs: list[str]) -> None:
    results = _called(inputs, strength=0, n_random=0)
    assert set(results.table["level"]) == {"cache", "layer", "window", "gradient"}
    assert not results.table["effect"].any()
    assert set(results.figures) == {f"kv_attribution_{name}" for name in ("map", "layers", "heads")}


def test_the_table_says_what_was_asked_under_what(whole: Path) -> None:
    table = pd.read_parquet(whole / "table.parquet")
    series_of_kinds = table.groupby("kind")["series"].agg(set)
    assert series_of_kinds.to_dict() == {"introspection": {"injected", "random"}, "control": {"injected"}}
    assert set(table.loc[table["kind"] == "control", "level"]) == {"cache", "layer"}
    curves = table[table["level"] == "curve"]
    ends = curves[curves["n_windows"] == curves["of_windows"]]
    np.testing.assert_allclose(ends["fraction"], 1, atol=1e-3)
    assert set(ends["windows"]) == {"strongest", "shuffled"}
    record = json.loads((whole / "run.json").read_text())
    assert record["text"]["conversation"] == "question"
    assert record["text"]["messages"][0] == {"role": "user", "start": 0, "stop": 20, "marked": True} | {
        "stop": record["text"]["messages"][0]["stop"]
    }
    assert {receipt["kind"] for receipt in record["receipts"]} == {"clean", "injected"}
    whole_cache = table[table["level"] == "cache"]
    reported = whole_cache[(whole_cache["series"] == "injected") & (whole_cache["kind"] == "introspection")]
    assert record["verdict"]["shift"]["mean"] == pytest.approx(reported.drop_duplicates("unit")["shift"].mean())


def test_an_interrupted_run_goes_on(
    whole: Path, inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_undrawn(kv_attribution, monkeypatch)
    readings = Readings.counted(monkeypatch, 9)
    assert kv_attribution.main(_argv(inputs, tmp_path)) == cli.INTERRUPTED
    readings.done, readings.limit = 0, 1000
    assert kv_attribution.main(_argv(inputs, tmp_path)) == 0
    # The question under 4 vectors and two control questions under 2 concepts, then the question's cells: 9 were kept.
    assert readings.done == 4 + 2 * 2 + 4 - 9
    assert not (tmp_path / "kv_attribution" / ".partial").exists()
    tables = [pd.read_parquet(folder / "table.parquet") for folder in (tmp_path / "kv_attribution", whole)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-4, atol=1e-5)


def test_windows_are_no_more_than_are_seen(inputs: list[str]) -> None:
    options = dict(zip(inputs[::2], inputs[1::2], strict=True))
    reading = Reading.of(load_once(options["--model"]), asked_conversations()[0], mi.CLEAN)
    found = Size(None, None).windows(reading)
    assert len({window.layer_start for window in found}) == 4
    assert len({window.pos_start for window in found}) <= 24 + len(reading.rendered.segments)
    assert {window.layer_stop - window.layer_start for window in Size(3, None).windows(reading)} == {2}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--engine", "ray"], ["--engine ray", "--shard"]),
        (["--shard", "0/2"], ["--shard"]),
        (["--window-layers", "9"], ["--window-layers 9", "8"]),
        (["--window-positions", "0"], ["--window-positions", "1 or more"]),
        (["--finer", "0"], ["--finer", "above 0"]),
        (["--finer", "2"], ["--finer", "1 at most"]),
        (["--most", "-1"], ["--most", "0 or more"]),
        (["--layers", "7"], ["layer 7", "last block"]),
        (["--layers", "8"], ["--layers 8", "0:8"]),
        (["--concepts", "unicorns"], ["unicorns"]),
        (["--info", "nothing"], ["nothing"]),
        (["--conversations", "{nowhere}"], ["nowhere.json"]),
        (["--conversations", "{unmarked}"], ["plain", "add_injection"]),
        (["--conversations", "{marked}", "--info", "none"], ["--info", "--conversations"]),
    ],
)
def test_bad_input_is_one_error(
    argv: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = asked_conversations()[0]
    plain = mi.Conversation("plain", chat.messages[3:], yes_token=" yes", no_token=" no")
    mi.save_conversations([plain], tmp_path / "unmarked.json")
    mi.save_conversations([chat], tmp_path / "marked.json")
    files = {name: tmp_path / f"{name}.json" for name in ("nowhere", "unmarked", "marked")}
    given = [part.format(**files) for part in argv]
    try:
        code = kv_attribution.main([*given, "--out", str(tmp_path)])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
