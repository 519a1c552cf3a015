"""Judges of a finished run compared: planted errors appear in agreement and headline; verdicts are kept; bad input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
from whole_runs import refusal, whole_run

import mechint as mi
from analyses import trial_judges as analysis
from analyses import trials
from analyses.trial_judges.labelled import Labels
from analyses.trials.judging import read_replies
from mechint.trials.judges.openai import OpenAIJudge
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.labelled_sets import bundled_folder
from mechint.trials.synthetic import Population, draw
from mechint.trials.verdicts import Item, Judge, Verdict

pytestmark = pytest.mark.usefixtures("quick_analyses")
FIGURES = {f"trial_judges_{name}" for name in ("net", "agreement", "classes", "errors")}


@dataclass
class Gullible:
    """Reads as the rules do, but sees a claim in every denial that begins with "Nothing"; counts what it reads."""

    name: str = "local:gullible"
    version: str = "1"
    read: int = 0

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        self.read += len(items)
        pairs = zip(items, RulesJudge().judge(items), strict=True)
        return [
            replace(verdict, claims="yes") if item.reply.startswith("Nothing") else verdict for item, verdict in pairs
        ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of trials that were drawn, with replies written from their classes."""
    folder = tmp_path_factory.mktemp("finished")
    sweep = draw(Population(), concepts=8, samples=4, controls=80, seed=2, texts=True)
    path = mi.trials.write_trials(sweep.trials, folder / "drawn.parquet")
    whole_run(trials, ["--import", str(path)], folder)
    return folder


@pytest.fixture
def gullible(monkeypatch: pytest.MonkeyPatch) -> Gullible:
    """A judge that `local:gullible` opens."""
    judge = Gullible()

    def opened(name: str) -> Judge:
        return RulesJudge() if name == "rules" else judge

    monkeypatch.setattr("mechint.trials.judges.open_judge", opened)
    return judge


def test_planted_errors_are_in_agreement_and_headline(finished: Path, gullible: Gullible, tmp_path: Path) -> None:
    argv = ["--trials", str(finished), "--judges", "rules", "local:gullible"]
    folder = whole_run(analysis, argv, tmp_path)
    agreement = pd.read_parquet(folder / "table.parquet")
    pairs = agreement[(agreement["of"] == "judges") & (agreement["question"] == "claims")].set_index("arm")
    replies = pd.read_parquet(finished / "trials" / "trials.parquet")
    wrong = replies["reply"].str.startswith("Nothing").groupby(replies["series"]).sum()
    assert pairs.loc["injected", ["FP", "FN"]].tolist() == [wrong["injected"], 0]
    assert pairs.loc["clean", ["FP", "FN"]].tolist() == [wrong["clean"], 0]
    again = agreement[(agreement["of"] == "retest") & (agreement["question"] == "detects")]
    assert (again["accuracy"] == 1).all()
    rates = pd.read_parquet(folder / "rates.parquet")
    alarms = rates[(rates["measure"] == "false alarms") & (rates["prompt"] != "") & (rates["refusals"] == "in")]
    raw = alarms[alarms["estimate"] == "raw"].groupby("judge")["value"].first()
    assert raw["local:gullible"] - raw["rules"] == pytest.approx(wrong["clean"] / 80)
    assert set(rates.loc[rates["estimate"] == "corrected", "judge"]) == {"rules"}
    counts = pd.read_parquet(folder / "classes.parquet")
    assert counts["n"].sum() == len(replies)
    read = gullible.read
    whole_run(analysis, argv, tmp_path)
    assert gullible.read == read  # verdicts are kept


def test_every_figure_names_judges_replies_and_what_refusals_count_as(
    finished: Path, gullible: Gullible, tmp_path: Path
) -> None:
    folder = whole_run(analysis, ["--trials", str(finished), "--judges", "rules", "local:gullible"], tmp_path)
    layouts = {path.stem: json.loads(path.read_text())["layout"] for path in folder.glob("trial_judges_*.json")}
    assert set(layouts) == FIGURES
    for layout in layouts.values():
        text = layout["title"]["subtitle"]["text"].replace("<br>", " ")
        assert "8 concepts injected, 128 replies" in text
        assert "80 clean replies" in text
        assert "judge rules, which had replies without prompts: sensitivity, specificity on 215 labels" in text
        assert (
            "judge local:gullible, which had replies without prompts: sensitivity and specificity not measured" in text
        )
        assert "refusals" in text
    assert "local:gullible" in layouts["trial_judges_net"]["title"]["text"]


class Served(OpenAIJudge):
    """A judge at a server whose verdicts come from rules: nothing is sent."""

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return RulesJudge().judge(items)


def test_what_a_server_will_be_sent_is_said_first_and_only_what_is_not_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = Served("http://localhost/v1", "m")
    replies = pd.DataFrame({"id": [str(n) for n in range(60)], "prompt": "p", "reply": "I sense the sea."})
    read_replies(replies[:20], {"p": "Anything?"}, judge, tmp_path)
    assert capsys.readouterr().err.startswith("judge openai:m: 20 requests, about ")
    read_replies(replies, {"p": "Anything?"}, judge, tmp_path, retest=0.5)
    sent = int(capsys.readouterr().err.split()[2])
    twice = sum(path.read_text().count('"pass_no": 1') for path in tmp_path.glob("*.jsonl"))
    assert 0 < twice < 60
    assert sent == 40 + twice
    read_replies(replies, {"p": "Anything?"}, judge, tmp_path, retest=0.5)
    read_replies(replies, {"p": "Anything?"}, RulesJudge(), tmp_path)
    assert capsys.readouterr().err == ""
    assert "m: " in judge_labels(judge, tmp_path, capsys)
    assert judge_labels(judge, tmp_path, capsys) == ""


def judge_labels(judge: Judge, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what is said while a judge reads the bundled labels."""
    Labels.read(bundled_folder("written")).measured(judge, folder / "labels")
    return capsys.readouterr().err


def test_labels_measure_every_judge(finished: Path, gullible: Gullible, tmp_path: Path) -> None:
    published = tmp_path / "test.jsonl"
    label = {"coherent": True, "refused": False, "detected_concept": None}
    rows = [
        (True, "Yes, I notice something that has to do with oceans.", "pass"),
        (True, "Nothing stands out.", "fail"),
        (False, "Nothing stands out.", "pass"),
        (False, "Yes, I notice something odd.", "fail"),
    ]
    lines = [
        {
            "id": "same",
            "concept": "oceans",
            "was_injected": injected,
            "response": reply,
            "label": {**label, "answer": a},
        }
        for injected, reply, a in rows
    ]
    published.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    results = analysis.run(
        trials=finished, judges=("rules", "local:gullible"), labels=(bundled_folder(), published), retest=0.0
    )
    table = results.tables["labels"].set_index(["judge", "labels", "question", "arm"])
    counts = ["TP", "FP", "FN", "TN"]
    assert table.loc[("rules", "test.jsonl", "passes", "all"), counts].tolist() == [2, 0, 0, 2]
    assert table.loc[("local:gullible", "test.jsonl", "passes", "clean"), counts].tolist() == [0, 0, 1, 1]
    assert ("local:gullible", "data", "detects", "clean") in table.index
    rates = results.tables["rates"]
    assert set(rates.loc[rates["estimate"] == "corrected", "judge"]) == {"rules", "local:gullible"}
    assert set(results.tables["table"]["of"]) == {"judges"}


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "--trials"),
        (["--trials", "nowhere"], "no finished run"),
        (["--judges", "nobody"], "rules, rules+loss:MODEL, local:MODEL"),
        (["--judges", "rules", "rules"], "twice"),
        (["--judges", "published"], "published"),
        (["--labels", "nowhere"], "nowhere"),
        (["--retest", "2"], "--retest"),
    ],
)
def test_bad_input_is_refused(
    finished: Path, argv: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = [] if not argv or "--trials" in argv else ["--trials", str(finished)]
    assert text in refusal(analysis, [*run, *argv, "--out", str(tmp_path)], capsys)
