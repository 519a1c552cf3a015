"""Every analysis in parts: merged, they are the table of one run, however many parts and whatever each has got."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from conftest import conversation, vector
from whole_runs import DIGITS, leave_undrawn, refusal, without

import mechint as mi
from analyses import ANALYSES, WITHOUT_MODEL, calibration, merge
from mechint.base.errors import UsageError
from mechint.engine.job import Job, Options, Request
from mechint.engine.shards import Shard

pytestmark = [pytest.mark.usefixtures("quick_analyses", "undrawn"), DIGITS]
# By analysis that can be divided: options of the shared inputs that it does not take, and its own for a tiny run.
TINY: dict[str, tuple[tuple[str, ...], str]] = {
    "calibration": (
        ("--conversations", "--vectors", "--model", "--n-random"),
        "--model organism --limit 2 --concepts cats --n-random 1",
    ),
    "detection": ((), ""),
    "controls": ((), ""),
    "logit_lens": ((), "--layer-sweep"),
    "model_swap": (
        ("--vectors", "--n-random", "--strength"),
        "--n-random 1 --relative-strength 0.3 --finetuned {other}",
    ),
    "identification": (("--conversations", "--n-random"), "--orders 2 --limit 1 --n-random 1"),
    "location": (("--conversations", "--n-random"), "--orders 2 --concepts cats --n-random 0 --info none"),
    "layer_strength": (
        ("--n-random",),
        "--strengths 0,3 --absolute --window 2 --step 2 --ranges --concepts cats --n-random 1",
    ),
    "steering": (
        ("--conversations", "--n-random"),
        "--factors 1 --n-samples 1 --max-new-tokens 4 --limit 1 --concepts cats --n-random 1",
    ),
}
WHOLE_ONLY = set(ANALYSES) - set(TINY) - WITHOUT_MODEL


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made of a merged table, and not written."""
    monkeypatch.setattr("mechint.figures.save_all", lambda *_, **__: [])
    monkeypatch.setattr(calibration, "READERS", calibration.READERS[:2])


@pytest.fixture
def argv(inputs: list[str], tiny_checkpoint: Callable[..., Path]) -> Callable[[str], list[str]]:
    """Return what gives the options of a tiny run of an analysis."""

    def options(name: str) -> list[str]:
        left_out, more = TINY[name]
        return [*without(inputs, *left_out), *more.format(other=tiny_checkpoint(seed=1)).split()]

    return options


def module(name: str) -> ModuleType:
    return importlib.import_module(f"analyses.{name}")


def in_parts(name: str, argv: list[str], count: int, out: Path) -> pd.DataFrame:
    """Return the table of a run in `count` parts, merged."""
    for index in range(count):
        assert module(name).main([*argv, "--shard", f"{index}/{count}", "--out", str(out)]) == 0
    assert merge.main([str(out), "--out", str(out)]) == 0
    return pd.read_parquet(out / name / "table.parquet")


def in_one(name: str, argv: list[str], out: Path) -> pd.DataFrame:
    """Return the table of a whole run, without figures: those of the merged table are made."""
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(module(name), patch)
        assert module(name).main([*argv, "--out", str(out)]) == 0
    return pd.read_parquet(out / name / "table.parquet")


@pytest.mark.parametrize("name", TINY)
def test_parts_of_every_analysis_make_its_table(name: str, argv: Callable[[str], list[str]], tmp_path: Path) -> None:
    options = argv(name)
    whole = in_one(name, options, tmp_path / "whole")
    pd.testing.assert_frame_equal(in_parts(name, options, 2, tmp_path / "parts"), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_a_part_may_have_got_nothing(name: str, argv: Callable[[str], list[str]], tmp_path: Path) -> None:
    assert module(name).main([*argv(name), "--shard", "5000/9999", "--out", str(tmp_path)]) == 0
    assert pd.read_parquet(tmp_path / name / "parts" / "5000-of-9999.parquet").empty


@pytest.mark.parametrize("name", sorted(WHOLE_ONLY))
def test_what_cannot_be_divided_says_so(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--shard" in refusal(module(name), ["--shard", "0/2", "--out", str(tmp_path)], capsys)


def test_more_parts_than_cells_make_the_table(argv: Callable[[str], list[str]], tmp_path: Path) -> None:
    options = [*without(argv("detection"), "--n-random"), "--n-random", "0"]
    whole = in_one("detection", options, tmp_path / "whole")
    table = in_parts("detection", options, 5, tmp_path / "parts")
    pd.testing.assert_frame_equal(table, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strengths", [(0.0, 0.5), (0.5, 0.0), (0.0, 0.5, 0.2, 0.1)])
def test_strengths_of_zero_need_no_clean_cell_beside_them(strengths: tuple[float, ...], model: mi.Model) -> None:
    steers = [mi.Injection(vector(model), (1, 2), relative_strength=s, name=f"v {s}") for s in strengths]
    request = Request(conversation(), [mi.CLEAN, *steers])
    (whole,) = Job.of(model, [request]).rows(Options())
    parts = [Job.of(model, [request]).rows(Options(shard=Shard(index, 2)))[0] for index in range(2)]
    joined = pd.concat([part for part in parts if len(part)]).sort_index()
    pd.testing.assert_frame_equal(joined, whole, rtol=1e-4, atol=1e-5)
    assert joined["logit_diff"].round(3).nunique() == len(strengths), (
        "the strength of zero reads clean, the others do not"
    )


def test_no_requests_are_refused(model: mi.Model) -> None:
    with pytest.raises(UsageError, match="no requests"):
        mi.tables(model, [])
