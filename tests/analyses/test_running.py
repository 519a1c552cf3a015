"""Analyses from Python: the same table as from the command line, nothing left on disk, a loaded model as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import refuse_pictures
from whole_runs import whole_run

import analyses
import mechint as mi
from analyses.kit import facts
from analyses.kit.facts import RunFacts
from mechint.base.errors import OutputError, UnknownNameError, UsageError


@pytest.fixture
def options(inputs: list[str]) -> dict[str, object]:
    """The command line of the tiny model as values."""
    names = [name.removeprefix("--").replace("-", "_") for name in inputs[::2]]
    return dict(zip(names, inputs[1::2], strict=True))


def test_a_call_makes_the_table_and_facts_of_the_command_line(
    options: dict[str, object], inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = analyses.controls.run(**options)
    assert list(tmp_path.iterdir()) == [], "nothing is left on disk"
    assert results.paths == ()
    folder = whole_run(analyses.controls, inputs, tmp_path / "written")
    pd.testing.assert_frame_equal(results.table, pd.read_parquet(folder / "table.parquet"))
    record = json.loads((folder / "run.json").read_text())
    assert results.facts["verdict"] == record["verdict"]
    assert results.facts["model"] == record["model"]
    assert {f"{name}.json" for name in results.figures} <= set(record["files"])


def test_a_call_with_out_writes_what_the_command_line_writes(
    options: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechint.figures.pictures.write_images", refuse_pictures)
    results = analyses.controls.run(**options, out=tmp_path)
    record = json.loads((tmp_path / "controls" / "run.json").read_text())
    assert {path.name for path in results.paths} == {*record["files"], "run.json"}
    again = analyses.controls.ANALYSIS.parsed(record["argv"])
    assert again.out == tmp_path
    with pytest.raises(OutputError, match="another run"):
        analyses.controls.run(**{**options, "seed": 5}, out=tmp_path)


def test_a_loaded_model_is_used_as_it_is(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    by_name = analyses.controls.run(**options)
    model = mi.load(options.pop("model"))
    monkeypatch.setattr("mechint.load", lambda *_, **__: pytest.fail("a model is loaded again"))
    loaded = analyses.controls.run(model=model, **options)
    pd.testing.assert_frame_equal(loaded.table, by_name.table)
    for name in ("device", "dtype", "backend", "thinking"):
        with pytest.raises(UsageError, match=f"{name} with a model that is loaded"):
            analyses.controls.run(model=model, **options, **{name: "cpu" if name == "device" else "on"})


def test_bad_input_from_python_is_an_error_and_ends_no_process(options: dict[str, object]) -> None:
    with pytest.raises(UnknownNameError, match="unknown option: concept"):
        analyses.controls.run(**options, concept="cats")
    with pytest.raises(UsageError, match="--n-random"):
        analyses.controls.run(**{**options, "n_random": "many"})
    with pytest.raises(UsageError, match="shard without out"):
        analyses.controls.run(**options, shard="0/2")


def test_analyses_are_named_by_the_package() -> None:
    assert analyses.detection.NAME == "detection"
    assert {"detection", "logit_lens"} <= set(dir(analyses))
    with pytest.raises(AttributeError, match="no analysis 'detections'"):
        _ = analyses.detections


def test_facts_come_back_from_what_a_part_says(options: dict[str, object]) -> None:
    results = analyses.controls.run(**options)
    record = json.loads(
        json.dumps({name: results.facts[name] for name in ("model", "dose", "vectors", "conversations")})
    )
    run_facts = facts.read(RunFacts, record)
    assert run_facts.dose.layers == tuple(record["dose"]["layers"])
    assert run_facts.caption.endswith(f"{run_facts.dose} (--strength)")
    with pytest.raises(ValueError, match="dose"):
        facts.read(RunFacts, {**record, "dose": {"layers": "all"}})
