"""Labelling in a terminal: blind, kept at once, resumed, and no verdict before labels are frozen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from analyses.trial_labels.__main__ import main
from analyses.trial_labels.session import Session, differences
from mechint.base.errors import UsageError
from mechint.trials.labelled_sets import LabelledSet, bundled_folder
from mechint.trials.verdicts import Verdict


@pytest.fixture
def labelled(tmp_path: Path) -> LabelledSet:
    lines = (bundled_folder() / "trials.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    (tmp_path / "trials.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy(bundled_folder() / "prompts.json", tmp_path)
    return LabelledSet.load(tmp_path)


def session(labelled: LabelledSet, typed: Iterator[str], written: list[str], pass_no: int = 0) -> Session:
    def ask(question: str) -> str:
        written.append(question)
        return next(typed)

    return Session(labelled, "A", pass_no, ask, written.append)


def test_answers_are_kept_at_once_and_the_rest_is_asked_next_time(labelled: LabelledSet) -> None:
    typed = iter(["y", "the sea", "y", "y", "n", "n", "y", "q"])
    assert session(labelled, typed, []).run() == 2
    first, second = labelled.labels.versions()
    assert (first.claims, first.named, first.claim_first, first.coherent) == ("yes", "the sea", True, True)
    assert (second.claims, second.refused, second.coherent) == ("no", False, True)
    assert len(session(labelled, iter([]), []).remaining()) == 4
    assert len(session(labelled, iter([]), [], pass_no=1).remaining(3)) == 3


def test_one_can_go_back_and_both_versions_are_kept(labelled: LabelledSet) -> None:
    typed = iter(["n", "n", "y", "b", "u", "n", "n", "q"])
    session(labelled, typed, []).run()
    versions = labelled.labels.versions()
    assert [label.claims for label in versions] == ["no", "unclear"]
    assert versions[0].id == versions[1].id


def test_another_answer_is_asked_for_again(labelled: LabelledSet) -> None:
    assert session(labelled, iter(["maybe", "", "n", "n", "y", "q"]), []).run() == 1


def test_nothing_on_the_screen_says_what_was_done(labelled: LabelledSet) -> None:
    written: list[str] = []
    session(labelled, iter(["n", "n", "y"] * 6), written).run()
    screen = "".join(written)
    for _, row in labelled.trials.iterrows():
        assert row["reply"] in screen
        assert row["id"] not in screen
    for word in ("injected", "clean", "random", "strength"):
        assert word not in screen.replace(" ".join(labelled.prompts.values()), "")


def test_no_verdict_is_shown_before_all_labels_are_frozen(labelled: LabelledSet) -> None:
    session(labelled, iter(["n", "n", "y"] * 6), []).run()
    verdicts = {item.id: Verdict("yes") for item in labelled.items()}
    with pytest.raises(UsageError, match="6 labels that are not frozen"):
        differences(labelled, verdicts)
    labelled.labels.freeze()
    lines = differences(labelled, verdicts)
    assert len(lines) == 6
    assert "label no, judge yes" in lines[0]


def test_the_command_freezes_measures_and_says_what_is_missing(
    labelled: LabelledSet, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(labelled.labels.path.parent)
    assert main([]) == 2
    assert main(["--set", folder, "--judge", "rules"]) == 2
    assert "not frozen" in capsys.readouterr().err
    session(labelled, iter(["n", "n", "y"] * 6), []).run()
    assert main(["--set", folder, "--freeze"]) == 0
    assert main(["--set", folder, "--judge", "rules", "--measure"]) == 0
    assert "specificity" in capsys.readouterr().out
    assert main(["--set", folder, "--judge", "nobody"]) == 2
    kept = labelled.labels.path.parent / "kept"
    arguments = ["--set", folder, "--judge", "rules", "--out", f"{kept / 'm.csv'}", "--verdicts", f"{kept}"]
    assert main(arguments) == 2
    assert main([*arguments, "--measure", "--count", "2"]) == 0
    assert (kept / "m.csv").read_text(encoding="utf-8").startswith("judge,version,labels_version,arm,question")
    assert list(kept.glob("rules-*.jsonl"))


def test_the_order_is_of_labeller_and_reading_and_the_same_again(labelled: LabelledSet) -> None:
    orders = [[item.id for item in session(labelled, iter([]), [], pass_no).remaining()] for pass_no in (0, 1, 2, 0)]
    assert orders[0] == orders[3]
    assert len({tuple(order) for order in orders}) == 3
    assert {frozenset(order) for order in orders} == {frozenset(labelled.trials["id"])}


def test_the_command_compares_a_judge_with_a_copy_of_published_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "8B.csv"
    path.write_text(
        "concept,response,refusal,affirmative,correct_id,coherent\nocean,I sense the sea.,0,1,1,1\n,No.,0,0,,1\n",
        encoding="utf-8",
    )
    assert main(["--published", str(path), "--judge", "rules"]) == 0
    screen = capsys.readouterr().out
    assert "names rightly" in screen
    assert "passes" not in screen  # this format has no such label
    assert main(["--published", str(tmp_path / "none.csv")]) == 2
