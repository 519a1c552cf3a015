"""Published tables hold what was printed, their known inconsistencies are named, and overlays never mix with them.

The lines below are numbers as the write-ups print them, in percent where they do.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analyses import ANALYSES, overlay, published_shifts
from analyses import all as gallery
from analyses import published as analysis
from analyses.published_values import exact
from mechint import published, stats
from mechint.errors import UsageError
from mechint.figures import DotPanel, dots
from mechint.figures.style import Series

pytestmark = pytest.mark.usefixtures("quick_analyses")
ROUNDING = 0.0005  # half of the last printed digit of a share
TABLES = [name for name in published.available() if name != "sources"]


def test_every_table_names_a_known_source_and_has_no_line_twice() -> None:
    sources = set(published.load("sources")["source"])
    for name in TABLES:
        table = published.load(name)
        assert set(table["source"]) <= sources, name
        assert not table.duplicated().any(), name
    assert {source for name in TABLES for source in published.load(name)["source"]} == sources


SCALING = {  # pass, false positives, net detection, refusals
    ("0.5B", "included"): "21.5 56.2 -34.8 19.8",
    ("1.5B", "included"): "26.1 38.9 -12.8 19.5",
    ("3B", "included"): "33.9 5.5 28.4 3.5",
    ("7B", "included"): "39.8 8.5 31.3 3.1",
    ("14B", "included"): "42.4 1.4 41.1 0.2",
    ("32B-Base", "included"): "15.9 64.6 -48.8 43.9",
    ("32B-Coder", "included"): "59.7 1.2 58.5 0.0",
    ("32B-Insecure", "included"): "60.6 5.6 55.0 0.1",
    ("1.5B", "excluded"): "nan nan 13.2 nan",
    ("32B-Base", "excluded"): "20.8 0.8 20.0 nan",
}
NEW_CONCEPTS = {
    "14B": "30.1 0.9 29.2 0.2",
    "32B-Base": "19.6 1.0 18.6 42.4",
    "32B-Coder": "73.7 1.2 72.5 0.1",
    "32B-Insecure": "75.6 4.4 71.1 0.0",
}
CATEGORIES = {  # 14B, 32B-Base, 32B-Coder
    "alignment": "13.1 3.2 69.4",
    "code": "28.3 13.1 49.4",
    "emotional": "28.1 28.9 83.3",
    "abstract": "47.5 27.4 87.8",
}
PROMPTS = {  # net detection of 32B-Base and 32B-Coder; refusals of 32B-Base: all, injection, control trials
    "v1": "25.5 -8.5 42.2 13.8 70.7",
    "v2": "20.0 58.5 43.9 23.4 64.4",
    "v3a": "38.6 -11.4 0.8 1.1 0.6",
    "v3b": "3.9 22.1 0.2 0.0 0.4",
    "v3c": "31.6 10.0 22.0 5.1 38.9",
}
RATES = ["injection_pass", "control_false_positive", "net_detection", "refusal_rate"]


def _printed(line: str) -> np.ndarray:
    return np.array([float(number) for number in line.split()]) / 100


def test_scaling_is_as_printed() -> None:
    table = published.load("scaling").set_index(["model", "refusals"])
    assert set(table.index) == set(SCALING)
    for key, line in SCALING.items():
        np.testing.assert_allclose(table.loc[key, RATES].astype(float), _printed(line))


def test_new_concepts_categories_and_prompts_are_as_printed() -> None:
    table = published.load("new_concepts").set_index("model")
    for model, line in NEW_CONCEPTS.items():
        np.testing.assert_allclose(table.loc[model, RATES].astype(float), _printed(line))
    by = published.load("concept_categories").pivot(index="category", columns="model", values="net_detection")
    for category, line in CATEGORIES.items():
        np.testing.assert_allclose(by.loc[category, ["14B", "32B-Base", "32B-Coder"]], _printed(line))
    prompts = published.load("prompt_versions")
    net = prompts.pivot(index="prompt", columns="model", values="net_detection")
    refused = prompts[prompts["model"] == "32B-Base"].set_index("prompt")
    kinds = ["refusal_rate", "refusal_rate_injected", "refusal_rate_control"]
    for prompt, line in PROMPTS.items():
        found = [*net.loc[prompt, ["32B-Base", "32B-Coder"]], *refused.loc[prompt, kinds]]
        np.testing.assert_allclose(np.array(found, dtype=float), _printed(line))


def test_refusals_concepts_and_hedging_are_as_printed() -> None:
    refusals = published.load("refusal_by_strength").pivot(index="strength", columns="trials", values="refusal_rate")
    np.testing.assert_allclose(refusals["injected"], _printed("58.4 23.1 2.2 0.0"))
    np.testing.assert_allclose(refusals["control"], _printed("64.1 61.6 67.5 65.9"))
    concepts = published.load("concept_difficulty")
    mean = concepts[concepts["model"].str.startswith("mean")].set_index("concept")["net_detection"]
    np.testing.assert_allclose(mean[["silence", "fear", "celebration", "ocean"]], _printed("66.2 33.9 21.3 16.8"))
    one = concepts.set_index(["model", "concept"])["net_detection"]
    assert (one["32B-Coder", "silence"], one["32B-Base", "curiosity"]) == (0.906, 0.534)
    hedging = published.load("hedging").set_index("model")
    assert hedging.loc["32B-Base"].to_list()[1:] == [0.51, 1.05]


def test_finetuning_is_as_printed() -> None:
    results = published.load("finetuning_results").set_index(["measure", "epochs"])["value"]
    assert (results["consciousness shift", 2], results["consciousness shift", 5]) == (0.566, 0.737)
    assert (results["overall accuracy", 2], results["overall accuracy", 5]) == (0.46, 0.337)
    assert (results["KL divergence", 2], results["KL divergence", 5]) == (5.05, 3.74)
    assert results["held-out accuracy", 5] == 0.937
    # The write-up tells 18 models for detection and 10 for log-probabilities, of which the one of five epochs must be
    # one: it lists 9 variants without log-probabilities, but names 10 (the broken one among them).
    variants = published.load("finetuning_variants")
    covered = published.load("finetuning_evaluations").set_index("evaluation")["models_covered"]
    assert (variants["epochs"] == 2).sum() == 19
    assert (variants["detection"] == "run").sum() == covered["detection"] == 18
    assert (variants["logprobs"] == "run").sum() == covered["logprobs"] == 10


def test_net_detection_is_passed_less_false_positives_up_to_rounding() -> None:
    for name in ("scaling", "new_concepts", "concept_difficulty"):
        table = published.load(name).dropna(subset=["injection_pass"])
        gap = table["injection_pass"] - table["control_false_positive"] - table["net_detection"]
        # The write-up gives whole percents for the one concept: 92 and 1 for 90.6.
        slack = 0.01 if name == "concept_difficulty" else 3 * ROUNDING
        assert gap.abs().max() <= slack + 1e-9, name


def test_rates_with_trials_are_counts_of_that_many_trials() -> None:
    """The numbers of trials are those of the design; every rate printed beside them is a whole number of trials."""
    table, prompts = published.load("new_concepts"), published.load("prompt_versions").query("model == '32B-Base'")
    pairs = [(table, "injection_pass", "n_injected"), (table, "control_false_positive", "n_control")]
    pairs += [(table, "refusal_rate", "n_trials")]
    pairs += [(prompts, f"refusal_rate_{kind}", f"n_{kind}") for kind in ("injected", "control")]
    for frame, value, trials in pairs:
        known = frame.dropna(subset=[value, trials])
        assert len(known) >= 3
        counts = (known[value] * known[trials]).round()
        assert ((counts / known[trials] - known[value]).abs() <= ROUNDING + 1e-9).all(), value
    # 4 models of 8 concepts x 3 layers x 3 strengths x 20 trials x 2 kinds are the 11,520 trials of the write-up.
    assert table["n_trials"].sum() == 11_520
    # Of five prompts x 2 models x 4 concepts x 3 x 3 x 20 x 2 = 14,400 it tells 18,080: v2 has another number of
    # trials (23.4% is no whole number of 720), which is why it has none here.
    assert prompts.set_index("prompt").loc["v2", ["n_injected", "n_control"]].isna().all()
    assert min(abs(count / 720 - 0.234) for count in range(721)) > ROUNDING


def test_refusals_explain_the_raw_rates_of_32b() -> None:
    table = published.load("scaling").set_index(["model", "refusals"])
    raw, engaged = table.loc["32B-Base", "included"], table.loc["32B-Base", "excluded"]
    refused = published.load("prompt_versions").set_index(["model", "prompt"]).loc["32B-Base", "v2"]
    left = 1 - refused["refusal_rate_injected"]
    assert engaged["injection_pass"] * left == pytest.approx(raw["injection_pass"], abs=2 * ROUNDING)
    both = (refused["refusal_rate_injected"] + refused["refusal_rate_control"]) / 2
    assert both == pytest.approx(raw["refusal_rate"], abs=2 * ROUNDING)
    # Refused and wrong control trials together are the raw false positives.
    wrong = refused["refusal_rate_control"] + (1 - refused["refusal_rate_control"]) * engaged["control_false_positive"]
    assert wrong == pytest.approx(raw["control_false_positive"], abs=3 * ROUNDING)


def test_categories_add_up_to_all_new_concepts() -> None:
    by = published.load("concept_categories").groupby("model")["net_detection"].mean()
    whole = published.load("new_concepts").set_index("model")["net_detection"]
    for model in ("14B", "32B-Coder"):
        assert by[model] == pytest.approx(whole[model], abs=2 * ROUNDING)
    # Without refusals concepts have unequal numbers of trials: their mean, 18.15, is not the 18.6 of all trials.
    assert by["32B-Base"] == pytest.approx(0.1815)


def test_printed_differences_are_those_of_printed_values_but_for_known_ones() -> None:
    wide = published.load("concept_categories").pivot(index="category", columns="model", values="net_detection")
    for row in published.load("category_gaps").to_dict("records"):
        found = wide.loc[row["category"], row["model"]] - wide.loc[row["category"], row["minus_model"]]
        # Rounding: the write-up has -9.8 for alignment, where 3.2 - 13.1 is -9.9.
        assert found == pytest.approx(row["net_detection_difference"], abs=3 * ROUNDING)
    gap = published.load("gap_decomposition").dropna(subset=["published_difference"])
    off = (gap["to_net_detection"] - gap["from_net_detection"] - gap["published_difference"]).abs()
    # Known: "34.7 points" is told for the step from v2 (20.0) to v3a (38.6), which are 18.6 apart; it is the distance
    # of v3a from v3b (3.9).
    assert gap.loc[off > 0.005 + 1e-9, "step"].to_list() == ["prompt v2 to v3a"]
    net = published.load("prompt_versions").set_index(["model", "prompt"])["net_detection"]
    assert net["32B-Base", "v3a"] - net["32B-Base", "v3b"] == pytest.approx(0.347)


def test_the_means_of_concepts_and_of_models_differ_as_printed() -> None:
    """Known: over the same trials they should agree, unless concepts had unequal numbers of them."""
    concepts = published.load("concept_difficulty")
    by_concept = concepts[concepts["model"].str.startswith("mean")]["net_detection"].mean()
    by_model = published.load("scaling").set_index("model").loc[["3B", "7B", "14B"], "net_detection"].mean()
    assert (by_concept, by_model) == pytest.approx((0.3455, 0.336))


def test_shifts_are_those_of_printed_probabilities_but_for_known_ones() -> None:
    """Known: differences were taken between bfloat16 numbers before P(yes) was printed with more digits."""
    table = published.load("kv_fill_injection")
    off = {}
    for answer in ("yes", "no"):
        gap = table[f"p_{answer}_injected"] - table[f"p_{answer}_clean"] - table[f"p_{answer}_shift"]
        assert gap.abs().max() < 0.0003
        for row, size in zip(table.to_dict("records"), gap, strict=True):
            if abs(size) > 1.5e-5 + 1e-9:
                off[row["experiment"], row["vector"], row["info"], answer] = round(size, 5)
    assert off == {
        (2, "cat", "introspection", "yes"): 0.00024,
        (2, "bread", "introspection", "yes"): 0.00024,
        (4, "cat", "inaccurate-location", "yes"): 0.00025,
        (4, "cat", "lorem-ipsum", "yes"): 0.00004,
    }
    assert (table[["p_yes_clean", "p_yes_injected"]].sum(axis=1) > 0).all()
    assert (table["p_yes_injected"] + table["p_no_injected"]).max() < 1.003


def test_an_interval_is_exact_and_only_where_trials_are_known() -> None:
    found = stats.binomial_interval(433, 1440)
    assert exact(0.301, 1440) == (float(found.low), float(found.high))
    assert np.isnan(exact(0.301, np.nan)).all()


def test_packed_rows_of_dots_hold_their_own_series_and_draw_no_bar_where_there_is_no_interval() -> None:
    looks = {name: Series(name, "#000000", "solid", "circle") for name in ("one", "two")}
    lines = [("r", "one", 1.0, np.nan), ("s", "one", 2.0, 2.5), ("s", "two", 3.0, np.nan)]
    summary = pd.DataFrame(
        [{"panel": "p", "row": row, "series": name, "mean": mean, "low": high, "high": high}
         for row, name, mean, high in lines]
    )  # fmt: skip
    empty = pd.DataFrame(columns=["panel", "row", "series", "unit", "value"])
    about = {"title": "t", "subtitle": "s"}
    traces = {
        packed: {
            trace.name: trace
            for trace in dots(summary, empty, [DotPanel("p", "", "")], looks, packed=packed, **about).data
        }
        for packed in (True, False)
    }
    assert traces[True]["one"].y[0] == pytest.approx(1.0)  # alone in its row, and in the middle of it
    assert traces[False]["one"].y[0] > 1.0
    assert traces[True]["one"].y[1] > 0 > traces[True]["two"].y[0]
    assert traces[True]["one"].error_x.array == ("none", 0.5)


# The analysis.


def _table(**more: object) -> pd.DataFrame:
    """A user's table: three concepts and a random vector, two conversations of the question, one control question."""
    rows = []
    for vector, kind, size in (("", "none", 0.0), ("a", "concept", 1.0), ("b", "concept", 2.0), ("r", "random", 0.1)):
        for info, gain in (("none", 1.0), ("introspection", 3.0), ("poetic", 9.0)):
            for asked, group, share in (("introspection", "", 1.0), ("control", "no", 0.1), ("control", "yes", 5.0)):
                shift = size * gain * share
                rows.append(
                    {
                        "conversation": f"{asked} {group} {info}", "intervention": vector or "clean", "vector": vector,
                        "vector_kind": kind, "kind": asked, "group": group, "info": info, "description": "injection",
                        "format": "yes-no", "p_yes": 0.01 + 0.05 * shift, "logit_diff_shift": shift, **more,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def _written(table: pd.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path, index=False) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return path


def _values(*tables: Path, where: tuple[str, ...] = ()) -> pd.DataFrame:
    overlays = overlay.read(tables, where)
    return analysis.values({"shifts": published_shifts.yes_no_shifts(overlays, seed=0)}, overlays)


def test_without_overlay_every_figure_is_drawn_and_says_who_has_published(tmp_path: Path) -> None:
    assert analysis.main(["--out", str(tmp_path)]) == 0
    directory = tmp_path / "published"
    record = json.loads((directory / "run.json").read_text())
    drawn = [name.removesuffix(".html") for name in record["files"] if name.endswith(".html")]
    titles = {name: json.loads((directory / f"{name}.json").read_text())["layout"]["title"] for name in drawn}
    assert len(drawn) == 12
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
    direct = stats.bootstrap_mean(np.array([3.0, 6.0]), seed=0)
    assert shift.loc[(row, "injected"), ["mean", "low", "high"]].to_list() == pytest.approx(
        [float(direct.mean), float(direct.low), float(direct.high)]
    )
    assert shift.loc[(row, "random"), "mean"] == pytest.approx(0.3)
    p = yours[yours["panel"] == "p"].set_index(["row", "series"])["mean"]
    assert (p[row, "clean"], p[row, "injected"]) == pytest.approx((0.01, 0.01 + 0.05 * 4.5))
    control = "control questions, answer no, info document<br>yours, detection/table.parquet"
    assert shift.loc[(control, "injected"), "mean"] == pytest.approx(0.45)
    assert not any("poe" in text for text in yours["row"])


def test_an_overlay_changes_only_figures_that_measure_the_same(tmp_path: Path) -> None:
    overlays = overlay.read([_written(_table(), tmp_path / "t.csv")], ())
    without, drawn = published_shifts.pictures([], 0), published_shifts.pictures(overlays, 0)  # others are given none
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
    sweep.loc[sweep["vector_kind"] == "none", "strength"] = np.nan
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
    table.loc[table["vector"] == "b", ["vector", "vector_kind"]] = ["finetuned", "swap"]
    found = _values(_written(table, tmp_path / "table.parquet")).query("panel == 'shift' and series == 'other'")
    assert len(found) == 4
    assert all(row.endswith(": finetuned") for row in found["row"])
    assert found["low"].isna().all()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--overlay", "{bare}"], "no column vector, vector_kind"),
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


def test_the_gallery_runs_it_with_the_options_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "ANALYSES", {"published": ANALYSES["published"]})
    assert gallery.main(["--model", "some/model", "--seed", "3", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "published" / "run.json").read_text())["config"]["seed"] == 3
    assert "published_scaling" in (tmp_path / "index.html").read_text()
