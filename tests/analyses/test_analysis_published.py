"""Figures of published values: who has published them, exact intervals, and overlays that never mix with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pytest
from conftest import make_analyses_quick

from analyses import ANALYSES
from analyses import all as gallery
from analyses import published as analysis
from analyses.published import overlay, points
from analyses.published import shifts as published_shifts
from analyses.published.points import exact
from mechint.base.errors import UsageError
from mechint.base.files import sha256
from mechint.figures import published
from mechint.stats import intervals

pytestmark = pytest.mark.usefixtures("quick_analyses")


def _table(**more: object) -> pd.DataFrame:
    """A user's table: three concepts and a random vector, two conversations of the question, one control question."""
    rows = []
    for vector, kind, size in (
        ("", "clean", 0.0),
        ("a", "injected", 1.0),
        ("b", "injected", 2.0),
        ("r", "random", 0.1),
    ):
        for info, gain in (("none", 1.0), ("introspection", 3.0), ("poetic", 9.0)):
            for asked, group, share in (("introspection", "", 1.0), ("control", "no", 0.1), ("control", "yes", 5.0)):
                shift = size * gain * share
                rows.append(
                    {
                        "conversation": f"{asked} {group} {info}",
                        "intervention": vector or "clean",
                        "unit": vector,
                        "series": kind,
                        "kind": asked,
                        "group": group,
                        "info": info,
                        "description": "injection",
                        "format": "yes-no",
                        "p_yes": 0.01 + 0.05 * shift,
                        "logit_diff_shift": shift,
                        **more,
                    }
                )
    return pd.DataFrame(rows)


def _written(table: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path, index=False) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


def _values(*tables: Path, where: tuple[str, ...] = ()) -> pd.DataFrame:
    overlays = overlay.read(tables, where)
    return analysis.values({"shifts": published_shifts.yes_no_shifts(overlays)}, overlays)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a gallery that has the published values alone, without a user's."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        make_analyses_quick(patch)
        patch.setattr(gallery, "ANALYSES", {"published": ANALYSES["published"]})
        assert gallery.main(["--seed", "3", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def table(whole: Path) -> pd.DataFrame:
    """The values."""
    return pd.read_parquet(whole / "published" / "table.parquet")


@pytest.fixture(scope="module")
def drawn(whole: Path) -> dict[str, go.Figure]:
    """The figures."""
    files = (whole / "published").glob("published_*.json")
    return {file.stem: plotly.io.read_json(file) for file in files}


def test_an_interval_is_exact_and_only_where_trials_are_known() -> None:
    found = intervals.binomial_interval(433, 1440)
    assert exact(0.301, 1440) == (float(found.low), float(found.high))
    assert np.isnan(exact(0.301, np.nan)).all()


def test_without_overlay_every_figure_is_drawn_and_says_who_has_published(whole: Path) -> None:
    directory = whole / "published"
    record = json.loads((directory / "run.json").read_text())
    drawn = [name.removesuffix(".html") for name in record["files"] if name.endswith(".html")]
    titles = {name: json.loads((directory / f"{name}.json").read_text())["layout"]["title"] for name in drawn}
    assert len(drawn) == 21
    for title in titles.values():
        assert title["text"].startswith("<b>Published in “")
        said = title["subtitle"]["text"].replace("<br>", " ")
        assert "No interval published" in said or "exact 95%" in said or "Not run" in said
    table = pd.read_parquet(directory / "table.parquet")
    assert set(table["figure"]) == set(drawn)
    assert set(table["whose"]) == {"published"}
    assert (table["source"] != "").all()
    net = table.query("figure == 'published_scaling' and series == 'net'").set_index("row")["mean"]
    assert net["14B"] == 0.411
    assert net["32B-Base, refusals excluded"] == 0.2


def test_values_of_mixed_files_are_hollow_and_have_no_interval(
    table: pd.DataFrame, drawn: dict[str, go.Figure]
) -> None:
    is_mixed = table["series"].str.endswith(", mixed files")
    net = table[is_mixed & (table["panel"] == "net")]
    coder = net[net["series"].str.startswith("32B-Coder")]
    assert list(coder["mean"]) == [-0.114, 0.221, 0.1]
    assert [row.rpartition("32B-Coder: ")[2] for row in coder["row"]] == [f"{n} of 4 files right" for n in (1, 2, 1)]
    assert set(net[net["figure"] == "published_new_concepts"]["row"]) == {"32B-Insecure<br>7 of 8 files right"}
    assert table.loc[is_mixed, ["low", "high"]].isna().all(axis=None)
    for name in ("published_prompts", "published_new_concepts"):
        figure = drawn[name]
        hollow = [trace for trace in figure.data if trace.name and "hold other trials" in trace.name]
        assert len(hollow) >= 4
        assert all(trace.marker.symbol.endswith("-open") for trace in hollow)
        assert "of another model or prompt" in figure.layout.title.subtitle.text.replace("<br>", " ")


def test_no_title_claims_what_mixed_files_cannot_carry(drawn: dict[str, go.Figure]) -> None:
    titles = {name: figure.layout.title.text.replace("<br>", " ") for name, figure in drawn.items()}
    mixed = published.load("prompt_versions").query("files_right < n_files")["net_detection"]
    for title in titles.values():
        assert not [value for value in mixed if points.signed_percent(value) in title]
    assert "cannot be read from them" in titles["published_prompts"]


def test_kappa_of_the_judge_is_that_of_its_counts() -> None:
    values = points.judge(published.load("judge_agreement")).query("panel == 'kappa'")
    kappa = values.set_index(["series", "row"])["mean"]
    expected = {("revised", "dev"): 0.92, ("as first given", "dev"): 0.88}
    expected |= {("revised", "test"): 0.79, ("as first given", "test"): 0.41}
    for (series, row), value in kappa.items():
        assert value == pytest.approx(expected[series, row.split(",")[0]], abs=0.005)


def test_the_published_shift_in_logits_is_that_of_the_printed_probabilities() -> None:
    found = _values().query("panel == 'shift'").set_index("row")
    cat = found.loc["info document: cat (experiment 2)"]
    assert cat["mean"] == pytest.approx(np.log(0.53125 / 0.00757) - np.log(0.46875 / 0.99219))
    assert cat["low"] < cat["mean"] < cat["high"]
    wide = found.loc["control questions, answer no: cat (experiment 3)"]
    assert wide["high"] - wide["low"] > 1 > 10 * (cat["high"] - cat["low"])


def test_an_overlay_stands_in_rows_of_its_own_with_its_own_numbers(tmp_path: Path) -> None:
    path = _written(_table(), tmp_path / "detection" / "table.parquet")
    before, after = _values(), _values(path)
    published_rows = after[after["whose"] == "published"].reset_index(drop=True)
    pd.testing.assert_frame_equal(published_rows, before, check_dtype=False)
    yours = after[after["whose"] == "detection/table.parquet"]
    assert (yours["source"] == "").all()
    assert not set(yours["row"]) & set(before["row"])
    shift = yours[yours["panel"] == "shift"].set_index(["row", "series"])
    row = "info document<br>yours, detection/table.parquet"
    direct = intervals.mean_interval(np.array([3.0, 6.0]))
    assert shift.loc[(row, "injected"), ["mean", "low", "high"]].to_list() == pytest.approx(
        [float(direct.mean), float(direct.low), float(direct.high)]
    )
    assert shift.loc[(row, "random"), "mean"] == pytest.approx(0.3)
    p = yours[yours["panel"] == "p"].set_index(["row", "series"])["mean"]
    assert (p[row, "clean"], p[row, "injected"]) == pytest.approx((0.01, 0.01 + 0.05 * 4.5))
    control = "control questions, answer no, info document<br>yours, detection/table.parquet"
    assert shift.loc[(control, "injected"), "mean"] == pytest.approx(0.45)
    assert not any("poe" in text for text in yours["row"])


def test_a_call_from_python_gives_the_table_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _written(_table(strength=0.5), tmp_path / "detection" / "table.parquet")
    options = ["--overlay", str(path), "--where", "strength=0.5"]
    assert analysis.main([*options, "--out", str(tmp_path / "figures")]) == 0
    written = pd.read_parquet(tmp_path / "figures" / "published" / "table.parquet")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    results = analysis.run(overlay=path, where=("strength=0.5",))
    pd.testing.assert_frame_equal(results.table, written, check_dtype=False)
    assert set(results.figures) == set(written["figure"])
    digest = sha256(path.read_bytes())
    assert results.facts == {"overlays": [{"label": "detection/table.parquet", "path": str(path), "sha256": digest}]}
    assert (list(tmp_path.glob("empty/*")), results.paths) == ([], ())


def test_an_overlay_changes_only_figures_that_measure_the_same(tmp_path: Path) -> None:
    overlays = overlay.read([_written(_table(), tmp_path / "t.csv")], ())
    without, drawn = published_shifts.pictures([]), published_shifts.pictures(overlays)  # others are given none
    changed = {name for name in drawn if drawn[name].figure.to_json() != without[name].figure.to_json()}
    assert changed == {"published_yes_no_shifts"}


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    both = [_values(_written(_table(), tmp_path / f"table.{kind}")) for kind in ("csv", "parquet")]
    numbers = [found.drop(columns=["whose", "row"]) for found in both]
    pd.testing.assert_frame_equal(*numbers)


def test_tables_of_one_name_keep_apart(tmp_path: Path) -> None:
    first = _written(_table(), tmp_path / "a" / "detection" / "table.parquet")
    second = _written(_table(), tmp_path / "b" / "detection" / "table.parquet")
    assert [one.label for one in overlay.read([first, second], ())] == [str(first), str(second)]


def test_of_a_lens_the_last_layer_counts_and_of_a_sweep_the_main_placement(tmp_path: Path) -> None:
    layers = [_table(layer=layer, sweep="main") for layer in ("embed", "2", "10")]
    for number, part in enumerate(layers):
        part["logit_diff_shift"] *= number
    aside = _table(layer="10", sweep="single").assign(logit_diff_shift=99.0)
    path = _written(pd.concat([*layers, aside]), tmp_path / "table.parquet")
    shift = _values(path).query("panel == 'shift' and series == 'injected'")["mean"]
    assert shift.max() == pytest.approx(2 * 4.5)


def test_settings_are_never_pooled_and_where_chooses_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = pd.concat([_table(strength=0.1), _table(strength=0.5).assign(logit_diff_shift=7.0)])
    sweep.loc[sweep["series"] == "clean", "strength"] = np.nan
    path = _written(sweep.drop_duplicates(), tmp_path / "table.parquet")
    assert analysis.main(["--out", str(tmp_path), "--overlay", str(path)]) == 2
    told = capsys.readouterr().err
    assert "strength (0.1, 0.5)" in told
    assert "--where strength=VALUE" in told
    chosen = _values(path, where=("strength=0.5",)).query("series == 'injected'")
    assert set(chosen.query("panel == 'shift'")["mean"]) == {7.0}
    clean = _values(path, where=("strength=0.5",)).query("series == 'clean'")
    assert len(clean)
    with pytest.raises(UsageError, match=r"strength=3: no row"):
        overlay.read([path], ("strength=3",))
    with pytest.raises(UsageError, match="dose=3"):
        overlay.read([path], ("dose=3",))


def test_another_model_s_cache_is_a_row_of_its_own(tmp_path: Path) -> None:
    table = _table()
    table.loc[table["unit"] == "b", ["unit", "series"]] = ["finetuned", "swapped"]
    found = _values(_written(table, tmp_path / "table.parquet")).query("panel == 'shift' and series == 'other'")
    assert len(found) == 4
    assert all(row.endswith(": finetuned") for row in found["row"])
    assert found["low"].isna().all()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--overlay", "{bare}"], "no column unit, series"),
        (["--overlay", "{other}"], "nothing in it measures"),
        (["--overlay", "{none}"], "--overlay"),
        (["--overlay", "{text}"], "neither .parquet nor .csv"),
        (["--overlay", "{broken}"], "--overlay"),
        (["--overlay", "{good}", "--overlay", "{good}"], "twice"),
        (["--where", "strength=1"], "--where without --overlay"),
    ],
)
def test_bad_input_is_one_clear_error(
    argv: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {name: tmp_path / f"{name}.parquet" for name in ("bare", "other", "none", "broken", "good")}
    _written(_table()[["conversation", "p_yes"]], files["bare"])
    _written(_table().query("info == 'poetic'"), files["other"])
    _written(_table(), files["good"])
    files["broken"].write_bytes(b"not a table")
    files["text"] = tmp_path / "table.txt"
    files["text"].write_text("x")
    given = [part.format(**files) for part in argv]
    assert analysis.main(["--out", str(tmp_path / "out"), *given]) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.startswith("error: ")
    assert not (tmp_path / "out" / "published").exists()


@pytest.mark.parametrize("option", ["--model", "--layers", "--concepts", "--shard"])
def test_options_of_a_model_do_not_exist(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        analysis.main([option, "x"])
    assert ended.value.code == 2
    assert option in capsys.readouterr().err


def test_the_gallery_runs_it_with_the_options_it_has(whole: Path) -> None:
    assert "seed" not in json.loads((whole / "published" / "run.json").read_text())["config"]
    assert "published_scaling" in (whole / "index.html").read_text()
