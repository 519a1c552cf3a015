"""Runs that are interrupted, killed, spread over machines or workers end with the table of a plain run."""

from __future__ import annotations

import json
import os
import re
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import pytest
from forks import forked
from whole_runs import leave_undrawn

from analyses import logit_lens, merge
from analyses.kit import cli
from analyses.kit import compute as tables
from mechint.engine.store import CellStore

pytestmark = pytest.mark.usefixtures("quick_analyses")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose tables and records are compared draw nothing."""
    leave_undrawn(logit_lens, monkeypatch)


def _interrupting(monkeypatch: pytest.MonkeyPatch, after: int) -> list[int]:
    """Let `after` passes be kept and raise KeyboardInterrupt at the next; returns the list of those kept."""
    real, kept = CellStore.add, []

    def add(store: CellStore, *arguments: object) -> Path:
        if len(kept) == after:
            raise KeyboardInterrupt
        kept.append(len(kept))
        return real(store, *arguments)

    monkeypatch.setattr(CellStore, "add", add)
    return kept


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_run_goes_on_and_ends_with_the_same_table(
    inputs: list[str],
    table: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = [*inputs, "--layer-sweep", "--batch-tokens", "24", "--out"]
    with monkeypatch.context() as patch:
        in_one_go = _interrupting(patch, after=1000)
        assert logit_lens.main([*argv, str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        _interrupting(patch, after=2)
        assert logit_lens.main([*argv, str(tmp_path)]) == cli.INTERRUPTED
    assert "interrupted" in capsys.readouterr().err
    assert len(list((tmp_path / "logit_lens" / ".partial").rglob("*.parquet"))) == 2
    assert not (tmp_path / "logit_lens" / "table.parquet").exists()
    with monkeypatch.context() as patch:
        kept = _interrupting(patch, after=1000)
        assert logit_lens.main([*argv, str(tmp_path)]) == 0
    assert len(kept) == len(in_one_go) - 2 > 0
    assert not (tmp_path / "logit_lens" / ".partial").exists()
    resumed = pd.read_parquet(tmp_path / "logit_lens" / "table.parquet")
    pd.testing.assert_frame_equal(resumed, table, rtol=1e-5, atol=1e-6)
    receipts = json.loads((tmp_path / "logit_lens" / "run.json").read_text())["receipts"]
    assert {receipt["intervention"] for receipt in receipts} >= set(resumed["intervention"])


def _killed(sender: Connection, argv: list[str]) -> None:
    """Run the analysis, and kill this process when its second pass is to be kept."""
    real, kept = CellStore.add, iter((True, False))

    def add(*arguments: object) -> Path:
        if not next(kept):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    CellStore.add = add
    logit_lens.main(argv)
    sender.send("it lived")


@pytest.mark.usefixtures("undrawn")
def test_a_killed_run_goes_on_and_ends_with_the_same_table(
    inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = [*inputs, "--batch-tokens", "64", "--out", str(tmp_path / "killed")]
    whole = [*inputs, "--batch-tokens", "64", "--out", str(tmp_path / "whole")]
    process, _ = forked(_killed, killed)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    passes = []
    for argv in (killed, whole):
        with monkeypatch.context() as patch:
            kept = _interrupting(patch, after=1000)
            assert logit_lens.main(argv) == 0
            passes.append(len(kept))
    assert passes[0] == passes[1] - 1 > 0, "the pass that had been kept is not run again"
    tables = [pd.read_parquet(tmp_path / name / "logit_lens" / "table.parquet") for name in ("killed", "whole")]
    pd.testing.assert_frame_equal(*tables, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_a_run_says_what_it_has_cost(inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert logit_lens.main([*inputs, "--out", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "tokens passed" in line]

    def number_before(words: str) -> int:
        return int(re.search(rf"([\d,]+) {words}", lines[0])[1].replace(",", ""))

    cells = number_before("cells")
    passed = number_before("tokens passed")
    distinct = number_before("distinct")
    alone = number_before("if every cell")
    assert cells == 3 * 3 + 2  # clean and two concepts; the random vectors are asked one question
    assert distinct <= passed < alone


@pytest.mark.usefixtures("undrawn")
def test_a_run_within_a_limit_makes_the_same_table(inputs: list[str], table: pd.DataFrame, tmp_path: Path) -> None:
    assert logit_lens.main([*inputs, "--layer-sweep", "--max-memory", "64GB", "--out", str(tmp_path)]) == 0
    found = pd.read_parquet(tmp_path / "logit_lens" / "table.parquet")
    pd.testing.assert_frame_equal(found, table, rtol=1e-5, atol=1e-6)
    assert json.loads((tmp_path / "logit_lens" / "run.json").read_text())["config"]["max_memory"] == 64 * 10**9


@pytest.mark.parametrize(
    ("options", "named", "unnamed"),
    [
        (["--layer-sweep"], ("--concepts", "--n-random", "--limit", "--window"), ("--layers",)),
        ([], ("--concepts", "--n-random", "--limit", "--layers"), ("--window", "--layer-sweep")),
    ],
)
def test_a_long_run_names_the_options_that_shorten_it(
    options: list[str], named: tuple[str, ...], unnamed: tuple[str, ...]
) -> None:
    config = logit_lens.ANALYSIS.parsed(options)
    assert tables.shorter(config, 599) == tables.shorter(config, None) == ""
    told = tables.shorter(config, 601)
    assert all(option in told for option in named)
    assert not any(option in told for option in unnamed)


def test_shards_merged_make_the_same_results(
    inputs: list[str], finished: Path, table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [*inputs, "--layer-sweep"]
    parts = []
    for index in (2, 0, 1):  # as from three machines
        out = tmp_path / str(index)
        assert logit_lens.main([*argv, "--shard", f"{index}/3", "--out", str(out)]) == 0
        parts.append(Path(capsys.readouterr().out.strip()))
        assert parts[-1] == out / "logit_lens" / "parts" / f"{index}-of-3.parquet"
        assert not (out / "logit_lens" / ".partial").exists()
    assert merge.main([str(parts[0]), str(tmp_path / "0"), "--out", str(tmp_path / "all")]) == 2
    assert "parts 1 of 3 are missing" in capsys.readouterr().err
    assert merge.main([*map(str, parts), str(parts[0].parent), str(tmp_path / "2"), "--out", str(tmp_path / "2")]) == 0
    merged = tmp_path / "2" / "logit_lens"
    assert {path.name for path in merged.iterdir()} - {"parts"} == {path.name for path in finished.iterdir()}
    pd.testing.assert_frame_equal(pd.read_parquet(merged / "table.parquet"), table, rtol=1e-5, atol=1e-6)
    assert not list((merged / "parts").iterdir())
    assert parts[1].exists(), "parts elsewhere are left alone"
    receipts = [json.loads((folder / "run.json").read_text())["receipts"] for folder in (merged, finished)]
    names = [sorted((r["conversation"], r["intervention"]) for r in found) for found in receipts]
    assert set(names[0]) == set(names[1])


def _err(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_parts_of_different_runs_are_not_merged(
    inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, strength in enumerate(("2", "3")):
        argv = [*inputs, "--strength", strength, "--shard", f"{index}/2", "--out", str(tmp_path)]
        assert logit_lens.main(argv) == 0
    assert merge.main([str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "different runs" in capsys.readouterr().err
    assert len(list((tmp_path / "logit_lens" / "parts").iterdir())) == 2, "nothing is lost"
    assert merge.main([str(tmp_path / "nowhere")]) == 2
    other = tmp_path / "0-of-1.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(other)
    assert merge.main([str(other)]) == 2
    assert "it has no checksum" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_ray_workers_make_the_same_table(inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    for engine in ("local", "ray"):
        argv = ["--engine", engine, "--workers", "1", "--out", str(tmp_path / engine)]
        assert logit_lens.main([*inputs, *argv]) == 0
    local, on_ray = re.findall(r"([\d,]+) tokens passed", _err(capsys))
    assert int(on_ray.replace(",", "")) >= int(local.replace(",", "")) > 0, "shards fill some clean caches again"
    assert logit_lens.main([*inputs, "--engine", "ray", "--shard", "0/2", "--out", str(tmp_path)]) == 2
    assert "--engine ray with --shard" in _err(capsys)
    tables = [pd.read_parquet(tmp_path / engine / "logit_lens" / "table.parquet") for engine in ("local", "ray")]
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-5)  # a worker may use more threads
