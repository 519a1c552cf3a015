"""A sweep of trials: sampled, judged and counted; trials of others; bad input; what figures say of their controls."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import load_once
from whole_runs import refusal, whole_run

import mechint as mi
from analyses import trials as analysis
from analyses.gallery.counts import Counts
from analyses.trials.captions import net_title
from mechint.engine.explain_replies import ReplyExplanation
from mechint.trials import CLASSES, read_trials, read_verdicts
from mechint.trials.design import TrialDesign
from tests.trials.published_trees import published_tree
from tests.trials.sweeps import joined, sweep_of

pytestmark = pytest.mark.usefixtures("quick_analyses")

DESIGN = {
    "concepts": ["cats", "bread", "rain"],
    "layers": ["1:3", "2:5"],
    "strengths": [0.1, 0.4],
    "prompts": ["plain", "standard"],
    "samples": 1,
    "control_samples": 1,
    "controls": {"clean": 6, "random": 2, "no": 1, "yes": 0, "none": 0, "mention": 1},
    "max_new_tokens": 6,
}
FIGURES = {
    f"trials_{name}" for name in ("classes", "net", "hits", "strengths", "concepts", "grid", "wording", "logits")
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Where a small sweep on the organism is, and its command line."""
    folder = tmp_path_factory.mktemp("trials")
    (folder / "design.json").write_text(json.dumps(DESIGN))
    argv = ["--design", str(folder / "design.json")]
    return whole_run(analysis, argv, folder), argv


def subtitles(folder: Path) -> dict[str, str]:
    layouts = {path.stem: json.loads(path.read_text())["layout"] for path in folder.glob("trials_*.json")}
    return {name: layout["title"]["subtitle"]["text"].replace("<br>", " ") for name, layout in layouts.items()}


def test_tables_are_of_every_reply(run: tuple[Path, list[str]]) -> None:
    folder, _ = run
    trials, verdicts = read_trials(folder / "trials.parquet"), read_verdicts(folder / "verdicts.parquet")
    outcomes = pd.read_parquet(folder / "outcomes.parquet")
    # Two strengths, layers and prompts, 3 concepts and 2 random vectors; a control question; clean ones; mentioned.
    assert len(trials) == 2 * 4 * 5 + (4 * 5 + 1) + 2 * 6 + 2 * 3
    assert set(trials["id"]) == set(verdicts["id"]) == set(outcomes["id"])
    assert set(outcomes["outcome"]) <= set(CLASSES)
    rates = pd.read_parquet(folder / "rates.parquet")
    net = rates[(rates["measure"] == "net") & (rates["series"] == "injected") & (rates["prompt"] == "plain")]
    assert set(zip(net["estimate"], net["refusals"], strict=True)) == {
        *(("raw", refusals) for refusals in ("in", "out", "lowest", "highest")),
        *(("corrected", refusals) for refusals in ("in", "out", "lowest", "highest")),
    }
    plain = trials.merge(outcomes, on="id")
    plain = plain[(plain["prompt"] == "plain") & (plain["question"] == "introspection")]
    claims = plain["outcome"].isin(["claims", "names wrongly", "names rightly"]).groupby(plain["series"]).mean()
    raw = net[(net["estimate"] == "raw") & (net["refusals"] == "in")]
    assert raw["value"].item() == pytest.approx(claims["injected"] - claims["clean"])


@pytest.mark.parametrize(
    ("random", "ending"),
    [
        ((-0.1, -0.1), "noticed under plain and standard"),
        ((0.1, 0.1), "noticed under plain and standard, and so are random vectors"),
        ((-0.1, 0.1), "noticed under plain and standard, and so are random vectors under standard"),
    ],
)
def test_a_title_says_under_which_prompts_random_vectors_are_noticed(random: tuple[float, float], ending: str) -> None:
    lows = [("injected", "plain", 0.3), ("injected", "standard", 0.4)]
    lows += [("random", prompt, low) for prompt, low in zip(("plain", "standard"), random, strict=True)]
    common = {"measure": "net", "question": "introspection", "model": "organism", "estimate": "raw", "high": 0.9}
    rows = [
        {**common, "series": series, "prompt": prompt, "low": low, "refusals": refusals}
        for series, prompt, low in lows
        for refusals in ("in", "out")
    ]
    title = net_title(pd.DataFrame(rows))
    assert title.replace("every prompt", "plain and standard").endswith(ending)


def test_every_figure_has_judge_and_controls(run: tuple[Path, list[str]]) -> None:
    of_figures = subtitles(run[0])
    assert set(of_figures) == FIGURES
    for text in of_figures.values():
        assert "3 concepts injected, 24 replies" in text
        assert "12 clean replies" in text
        assert "2 random vectors" in text
        assert "judge rules: sensitivity, specificity on 215 labels: clean 1.00, 1.00" in text
        assert "efusals" in text


def test_record_has_design_and_judge(run: tuple[Path, list[str]]) -> None:
    record = json.loads((run[0] / "run.json").read_text())
    assert record["design"]["samples"] == 1
    assert record["judge"]["name"] == "rules"
    assert set(record["judge"]["errors"]) == {"clean", "injected", "random"}
    assert record["judge"]["agreement"]


def test_run_goes_on_with_what_is_there(run: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, argv = run
    before = pd.read_parquet(folder / "table.parquet")

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("sampled again")

    monkeypatch.setattr("mechint.trials.run.replies", refuse)
    whole_run(analysis, argv, folder.parent)
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "table.parquet"), before)


def test_preset_is_small_and_at_the_dose() -> None:
    results = analysis.run(explain=True, concepts=("cats", "bread"), n_random=1, samples=3)
    counts = results.table.set_index(["question", "series"])["replies"]
    assert counts["introspection", "injected"] == 2 * 3 * 2 * 3  # concepts, strengths, prompts, samples
    assert counts["introspection", "clean"] == 2 * 60
    assert "smallest p (sign flip over concepts): 0.5" in str(results.facts["explained"])


def test_modes_of_steering_share_their_clean_replies() -> None:
    options = {"concepts": ("cats", "bread"), "n_random": 1, "samples": 3, "prompts": ("standard",), "factors": (1.0,)}
    results = analysis.run(explain=True, steer=("prefill", "reply"), **options)
    counts = results.table.set_index(["question", "series"])["replies"]
    assert counts["introspection", "injected"] == 2 * 3 * 2  # concepts, samples, modes
    assert counts["introspection", "clean"] == 60


def test_seconds_grow_with_replies_and_tokens() -> None:
    cost = ReplyExplanation(640, 10, 64, 1000, 20_000, 60_000, 1, 1)
    design = TrialDesign(concepts=("cats", "bread"), layers=("2",), strengths=(0.1,), max_new_tokens=30)
    counts = Counts(load_once("organism"), pace=1e-4)
    seconds = analysis.seconds_of(cost, design, counts)
    assert analysis.seconds_of(replace(cost, replies=1280), design, counts) > 1.8 * seconds
    assert analysis.seconds_of(cost, replace(design, max_new_tokens=60), counts) > 1.8 * seconds
    assert analysis.seconds_of(replace(cost, prompt_tokens=1_000_000), design, counts) > seconds


def test_explanation_is_written_and_nothing_else(
    tmp_path: Path, run: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert analysis.main([*run[1], "--explain", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "prefills" in text
    assert re.search(r"about [\d.]+ (s|min) of sampling on this machine", text)
    assert "smallest p" in text
    assert not list(tmp_path.rglob("*.json"))


def test_trials_of_others_come_with_their_verdicts(tmp_path: Path) -> None:
    tree = published_tree(tmp_path / "tree", mixed_up=False, samples=1)
    results = analysis.run(import_=tree / "phase3" / "v1", out=tmp_path, unmatched=True)
    assert results.facts["judge"]["name"] == "published"  # type: ignore[index,call-overload]
    assert set(results.table["model"]) == {"Qwen/Qwen2.5-32B-Instruct", "Qwen/Qwen2.5-Coder-32B-Instruct"}
    assert "corrected" not in set(results.tables["rates"]["estimate"])
    for text in subtitles(tmp_path / "trials").values():
        assert "judge published: sensitivity and specificity not measured" in text
        assert "grids may differ" in text


def test_own_tables_are_judged_again(tmp_path: Path) -> None:
    sweep = joined(*(sweep_of({"cats": "nnd", "oceans": "nrd"}, "ddd", prompt=name, prompt_hash=name) for name in "ab"))
    path = mi.trials.write_trials(sweep.trials, tmp_path / "theirs.parquet")
    results = analysis.run(import_=path)
    assert results.facts["judge"]["reads_prompts"] is False  # type: ignore[index,call-overload]
    assert len(results.table) == len(sweep.trials)


def test_files_that_are_not_what_they_say_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = published_tree(tmp_path / "tree", samples=1)
    argv = ["--import", str(tree), "--out", str(tmp_path)]
    assert "v3a/32b-coder/ocean" not in refusal(analysis, argv, capsys)
    assert "v3a/32b-coder/fear" in refusal(analysis, argv, capsys)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--judge", "nobody"], "rules, rules+loss:MODEL, local:MODEL"),
        (["--judge", "published"], "rules, rules+loss:MODEL, local:MODEL"),
        (["--prompts", "plain,poem"], "unknown prompt 'poem'"),
        (["--steer", "reply,sideways"], "prefill, reply, everything, onward"),
        (["--design", "nowhere.json"], "nowhere.json"),
        (["--design", "d.json", "--steer", "prefill"], "--steer with --design"),
        (["--design", "d.json", "--samples", "3"], "--samples with --design"),
        (["--import", "nowhere"], "nowhere"),
        (["--import", "nowhere", "--concepts", "cats"], "--concepts with --import"),
        (["--as-published"], "--as-published"),
        (["--preset", "published", "--layers", "3"], "--layers with --preset published"),
        (["--shard", "0/2"], "--shard"),
        (["--pilot", "2", "--shard", "0/2"], "--shard"),
        (["--pilot-coherence", "0.3"], "--pilot-coherence with no --pilot"),
        (["--design", "d.json", "--pilot", "2"], "--pilot with --design"),
        (["--pilot", "4"], "a pilot of 4 of 4 samples"),
        (["--limit", "3"], "--limit"),
        (["--spread", "2"], "--spread"),
    ],
)
def test_bad_input_is_refused(argv: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "d.json" in argv:
        (tmp_path / "d.json").write_text(json.dumps(DESIGN))
        argv = [str(tmp_path / "d.json") if word == "d.json" else word for word in argv]
    assert text in refusal(analysis, [*argv, "--out", str(tmp_path)], capsys)
