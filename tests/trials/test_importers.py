"""Importing others' trials: files that do not hold what they say are named, all of them and no others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mechint.base.errors import UsageError
from mechint.trials.importers import import_trials, integrity_report, published_rates
from mechint.trials.outcomes import outcome_table
from mechint.trials.rates import rate_table
from mechint.trials.storage import write_trials
from mechint.trials.synthetic import Population, draw
from tests.trials.published_trees import MIXED_UP, PHASE_2, published_tree, record, records, write


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_tree(tmp_path_factory.mktemp("published"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two files of two models that are as they should be."""
    for seed, file in enumerate(("32b/ocean.jsonl", "32b-coder/ocean.jsonl")):
        write(tmp_path, file, records(f"phase2/{file}", seed))
    return tmp_path


def test_the_report_names_exactly_the_files_that_hold_others_trials(tree: Path) -> None:
    report = integrity_report(tree)
    assert report.files == sorted(MIXED_UP)
    assert (report.n_files, report.n_rows) == (64, 64 * 16)
    checks = report.problems.groupby("file")["check"].agg(set)
    assert all({"place", "copy"} <= found for found in checks)
    place = report.problems.set_index(["file", "check"])["text"]
    assert (
        "its place says Qwen/Qwen2.5-Coder-32B-Instruct" in place["phase3/v3b/32b-coder/ocean.jsonl", "place"].iloc[0]
    )
    assert report.text.startswith("10 of 64 files cannot be taken as they are:")


@pytest.mark.parametrize("part", ["phase3", "phase3/v3a", "phase3/v3c", "phase2"])
def test_a_part_of_the_tree_is_enough_to_see_it(tree: Path, part: str) -> None:
    expected = sorted(file.removeprefix(f"{part}/") for file in MIXED_UP if file.startswith(f"{part}/"))
    assert integrity_report(tree / part).files == expected


def test_a_tree_that_is_right_is_read_whole(tmp_path: Path) -> None:
    imported = import_trials(published_tree(tmp_path, mixed_up=False, samples=2), categories={"anger": "emotional"})
    assert imported.report.problems.empty
    assert imported.report.text.endswith("nothing is wrong")
    assert len(imported.trials) == len(imported.verdicts) == 64 * 8
    assert not imported.origins["marked"].any()
    anger = imported.trials[imported.trials["concept"] == "anger"]
    assert set(anger["category"]) == {"emotional"}
    assert (imported.trials.loc[imported.trials["series"] == "clean", "concept"] == "").all()


def test_faulty_files_are_refused_left_out_or_marked(tree: Path) -> None:
    with pytest.raises(UsageError, match="10 of 64 files are not what they say") as error:
        import_trials(tree)
    assert all(file in str(error.value) for file in MIXED_UP)
    clean = import_trials(tree, leave_out=list(MIXED_UP))
    assert not set(clean.origins["file"]) & set(MIXED_UP)
    kept = import_trials(tree, as_published=True)
    assert set(kept.origins.loc[kept.origins["marked"], "file"]) == set(MIXED_UP)
    file = kept.origins["file"] == "phase3/v3a/32b-coder/fear.jsonl"
    assert set(kept.trials.loc[file.to_numpy(), "prompt"]) == {"v3a"}
    assert set(kept.origins.loc[file, "held_prompt"]) == {"v3c"}
    with pytest.raises(UsageError, match="leave_out='phase9"):
        import_trials(tree, leave_out=["phase9/x.jsonl"])


def test_published_rates_are_those_of_the_answers_in_the_files(tree: Path) -> None:
    kept = import_trials(tree, as_published=True)
    rows = [json.loads(line) for file in PHASE_2 if "/14b/" in file for line in (tree / file).read_text().splitlines()]
    passes = {arm: [r["judge"]["answer"] == "pass" for r in rows if r["was_injected"] is arm] for arm in (True, False)}
    table = published_rates(kept).set_index(["model", "prompt"]).loc[("Qwen/Qwen2.5-14B-Instruct", "v2")]
    assert table["hits"] == pytest.approx(np.mean(passes[True]))
    assert table["net"] == pytest.approx(np.mean(passes[True]) - 1 + np.mean(passes[False]))
    outcomes = outcome_table(kept.trials, kept.verdicts, {})
    ours = rate_table(kept.trials, outcomes, measures=["net"]).set_index(["model", "refusals"])["value"]
    assert ours["Qwen/Qwen2.5-14B-Instruct", "lowest"] == pytest.approx(table["net"])


@pytest.mark.parametrize(
    ("judge", "injected", "expected"),
    [
        ({"answer": "pass"}, True, "names rightly"),
        ({"answer": "fail"}, True, "denies"),
        ({"answer": "pass"}, False, "denies"),
        ({"answer": "fail", "detected_concept": "sea"}, False, "names wrongly"),
        ({"answer": "fail"}, False, "claims"),
        ({"answer": "fail", "refused": True}, False, "refuses"),
        ({"answer": "fail", "coherent": False}, False, "incoherent"),
    ],
)
def test_passes_and_fails_have_classes(tmp_path: Path, judge: dict[str, object], injected: bool, expected: str) -> None:
    row = record("m", "v1", "fear", injected, 2.0, 0, "Well.")
    write(tmp_path, "fear.jsonl", [{**row, "judge": judge}])
    imported = import_trials(tmp_path)
    assert outcome_table(imported.trials, imported.verdicts, {})["outcome"].tolist() == [expected]


def test_what_was_not_judged_has_no_verdict(tmp_path: Path) -> None:
    rows = [record("m", "v1", "fear", True, 2.0, at, f"Reply {at}") for at in range(3)]
    rows[0]["judge"], rows[1]["judge"], rows[1]["judge_error"] = None, None, "timeout"
    write(tmp_path, "fear.jsonl", rows)
    verdicts = import_trials(tmp_path).verdicts
    assert verdicts["error"].tolist() == ["timeout", ""]


def _changed(path: Path, **changes: object) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for name, value in changes.items():
        holder = rows[2] if name in rows[2] or name == "mood" else rows[2]["config"]
        if value == "missing":
            del holder[name]
        else:
            holder[name] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mood": "good"}, "unknown mood"),
        ({"response": "missing"}, "missing response"),
        ({"prompt_version": "missing"}, "missing config.prompt_version"),
        ({"strength": 0.0}, "was_injected is true and the strength is 0"),
        ({"strength": float("nan")}, "strength that is no finite number: nan"),
        ({"strength": "strong"}, "strength that is no finite number: 'strong'"),
        ({"was_injected": "yes"}, "was_injected that is not true or false"),
        ({"response": 3}, "response that is no text: 3"),
        ({"layer": 40}, "layer differs from the id"),
        ({"trial": 7}, "sample differs from the id"),
        ({"was_injected": False}, "injected differs from the id"),
        ({"concept": "fear"}, "concept differs from the id"),
        ({"model": "Qwen/Qwen2.5-Coder-32B-Instruct"}, "holds model Qwen/Qwen2.5-Coder-32B-Instruct"),
        ({"id": "ocean_injection_L38_S3.0_t0"}, "one id for two different records"),
    ],
)
def test_each_slip_is_named_with_its_file(small: Path, changes: dict[str, object], complaint: str) -> None:
    assert integrity_report(small).problems.empty
    _changed(small / "32b/ocean.jsonl", **changes)
    report = integrity_report(small)
    assert report.files == ["32b/ocean.jsonl"]
    assert complaint in report.text
    assert set(report.problems.loc[report.problems["text"].str.startswith(complaint), "row"]) <= {3, 1}


def test_a_folder_that_has_another_model_is_seen_in_a_single_file(tmp_path: Path) -> None:
    rows = records("phase3/v1/32b/fear.jsonl", 0)
    write(tmp_path, "v3a/32b-coder/fear.jsonl", rows)
    text = integrity_report(tmp_path).text
    assert "holds prompt v1, its place says v3a" in text
    assert "holds model Qwen/Qwen2.5-32B-Instruct, its place says 32b-coder" in text


def test_a_manifest_says_what_a_folder_should_hold(small: Path) -> None:
    manifest = {"32b": {"model": "another"}, "32b-coder/ocean.jsonl": {"prompt": "v9"}}
    report = integrity_report(small, manifest=manifest)
    assert "32b/ocean.jsonl: holds model Qwen/Qwen2.5-32B-Instruct, its place says another (16 rows)" in report.text
    assert "32b-coder/ocean.jsonl: holds prompt v2, its place says v9" in report.text
    (small / "manifest.json").write_text(json.dumps(manifest))
    assert integrity_report(small).files == ["32b-coder/ocean.jsonl", "32b/ocean.jsonl"]


def test_copies_are_seen_without_help_of_folders_and_short_replies_are_no_copies(tmp_path: Path) -> None:
    first, second = records("phase2/32b/ocean.jsonl", 0), records("phase2/32b/ocean.jsonl", 1)
    write(tmp_path, "a.jsonl", first)
    relabelled = [{**row, "config": {**row["config"], "model": "another"}} for row in first]  # type: ignore[dict-item]
    write(tmp_path, "b.jsonl", relabelled[::-1])
    write(tmp_path, "c.jsonl", second)
    assert integrity_report(tmp_path).files == ["a.jsonl", "b.jsonl"]
    for name, rows in (("a", first), ("b", relabelled), ("c", second)):
        for row in rows:
            row["response"] = "Yes." if row["was_injected"] else "No."
        write(tmp_path, f"{name}.jsonl", rows)
    assert integrity_report(tmp_path).problems.empty


def test_controls_that_differ_between_files_are_no_one_sample(tmp_path: Path) -> None:
    for seed, concept in enumerate(("celebration", "fear", "ocean", "silence")):
        failing = 0.6 if concept == "ocean" else 0.05
        rows = records(f"phase2/32b/{concept}.jsonl", seed, samples=25, failing=failing)
        write(tmp_path, f"32b/{concept}.jsonl", rows)
    report = integrity_report(tmp_path)
    assert report.files == ["32b/ocean.jsonl"]
    assert "controls of Qwen/Qwen2.5-32B-Instruct, v2 differ between files" in report.text


def test_one_file_of_many_models_has_no_place_that_says_one(tmp_path: Path) -> None:
    rows = [row for seed, file in enumerate(PHASE_2[::8]) for row in records(file, seed)]
    write(tmp_path, "rescored/consolidated.jsonl", rows)
    imported = import_trials(tmp_path / "rescored" / "consolidated.jsonl")
    assert imported.trials["model"].nunique() == 4
    assert imported.trials["id"].is_unique
    assert integrity_report(tmp_path).problems.empty


def test_folders_of_any_names_are_learned_from_what_most_of_their_files_hold(tmp_path: Path) -> None:
    names = ["alpha", "beta"]
    for seed, (folder, concept) in enumerate([(f, c) for f in names for c in ("fear", "ocean", "silence")]):
        holds = "beta" if (folder, concept) == ("alpha", "ocean") else folder
        rows = [record(f"model-{holds}", "v1", concept, True, 2.0, at, f"{seed} {at}") for at in range(4)]
        write(tmp_path, f"{folder}/{concept}.jsonl", rows)
    assert integrity_report(tmp_path).files == ["alpha/ocean.jsonl"]


def test_broken_lines_and_empty_folders_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no files of the format 'auto'"):
        import_trials(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"id": "x"\n')
    with pytest.raises(UsageError, match="line 1: broken JSON"):
        import_trials(tmp_path)
    (tmp_path / "a.jsonl").write_text("[]\n")
    with pytest.raises(UsageError, match="line 1: no object"):
        import_trials(tmp_path)


def _thoughts(claims: bool, right: bool, kind: str, trial: int) -> dict[str, object]:
    grades = {
        "claims_detection": {"claims_detection": claims, "grade": int(claims), "raw_response": "..."},
        "correct_concept_identification": {"correct_identification": right, "grade": int(right)},
    }
    return {
        "concept": "Milk",
        "trial": trial,
        "response": f"Reply {trial}",
        "injected": kind != "control",
        "layer": 22,
        "layer_fraction": 0.7,
        "strength": 4.0,
        "detected": right,
        "trial_type": kind,
        "evaluations": grades,
    }


def test_results_of_injected_thoughts_are_read_with_both_grades(tmp_path: Path) -> None:
    results = [
        _thoughts(True, True, "injection", 1),
        _thoughts(True, False, "injection", 2),
        _thoughts(False, False, "injection", 3),
        _thoughts(True, False, "control", 4),
        _thoughts(True, True, "forced_injection", 5),
    ]
    path = tmp_path / "llama_8b" / "layer_0.70_strength_4.0" / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"results": results, "metrics": {"layer_idx": 22}, "n_samples": 5}))
    imported = import_trials(tmp_path)
    assert set(imported.trials["model"]) == {"llama_8b"}
    assert imported.trials["prompt"].tolist() == ["standard"] * 4 + ["forced"]
    assert imported.trials["depth"].tolist()[:3] == [0.7] * 3
    classes = outcome_table(imported.trials, imported.verdicts, {})["outcome"].tolist()
    assert classes == ["names rightly", "claims", "denies", "claims", "names rightly"]
    path.write_text(json.dumps({"results": [{"concept": "Milk"}]}))
    with pytest.raises(UsageError, match="missing response"):
        import_trials(tmp_path)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_tables_of_ours_are_imported_and_copies_under_another_name_are_seen(tmp_path: Path, suffix: str) -> None:
    sweep = draw(Population(), concepts=3, samples=3, controls=20, texts=True)
    trials = sweep.trials.assign(reply=[f"{reply} {place:>120}" for place, reply in enumerate(sweep.trials["reply"])])
    write_trials(trials, tmp_path / f"a{suffix}")
    pd.testing.assert_frame_equal(import_trials(tmp_path).trials, trials, check_dtype=False)
    renamed = trials.assign(model="another", id=[f"b{name}" for name in trials["id"]])
    write_trials(renamed, tmp_path / f"b{suffix}")
    with pytest.raises(UsageError, match="has the replies of"):
        import_trials(tmp_path)
