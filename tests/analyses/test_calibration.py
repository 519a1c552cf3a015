"""The calibration analysis: verdicts on tables whose truth is known, and the run from command line to files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from whole_runs import refusal

import mechint as mi
from analyses import calibration
from analyses.calibration import Reader
from analyses.calibration.figures import BIAS, NULL, REPORTS, UNDECIDED, figures, judge, verdicts
from mechint.engine.store import CellStore
from mechint.stats.intervals import Interval


def _config(*argv: str) -> calibration.Config:
    return calibration.ANALYSIS.parsed(argv)


def _rows(model: str, kind: str, detection: float, control: float, spread: float) -> list[dict[str, object]]:
    rng = np.random.default_rng(len(model))
    rows = []
    for asked, effect, count in (("introspection", detection, 6), ("control", control, 9)):
        for question in range(count):
            for vector in range(5):
                shift = effect + spread * rng.normal()
                rows.append(
                    {
                        "model": model,
                        "document": "introspection",
                        "filled_by": "",
                        "series": kind,
                        "kind": asked,
                        "conversation": f"{asked} {question}",
                        "intervention": f"{kind} {vector}",
                        "logit_diff_shift": shift,
                    }
                )
    return rows


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    rows = _rows("organism", "injected", 6.0, 0.1, 0.3) + _rows("organism", "random", 0.1, 0.0, 0.1)
    rows += _rows("organism-blind", "injected", 0.0, 0.0, 0.1) + _rows("organism-yes-biased", "injected", 1.2, 1.2, 0.1)
    return verdicts(pd.DataFrame(rows), margin=0.5)


def test_verdicts_read_what_is_in_the_table(found):
    by = found.set_index(["model", "series"])
    assert by.verdict.to_dict() == {
        ("organism", "injected"): REPORTS,
        ("organism", "random"): NULL,
        ("organism-blind", "injected"): NULL,
        ("organism-yes-biased", "injected"): BIAS,
    }
    biased = by.loc[("organism-yes-biased", "injected")]
    assert biased.detection == pytest.approx(1.2, abs=0.1)
    assert biased.net == pytest.approx(biased.detection - biased.control)
    blind = by.loc[("organism-blind", "injected")]
    assert blind.net_low < 0 < blind.net_high
    assert (blind.vectors, blind.questions, blind.controls) == (5, 6, 9)


def _interval(low: float, high: float) -> Interval:
    return Interval(np.array((low + high) / 2), np.array(float(low)), np.array(float(high)), 5)


@pytest.mark.parametrize(
    ("detection", "net", "verdict"),
    [
        ((3, 4), (2, 3), REPORTS),
        ((3, 4), (-0.1, 0.2), BIAS),
        ((-0.2, 0.2), (-0.1, 0.2), NULL),
        ((0.1, 2.0), (0.1, 2.0), UNDECIDED),
        ((-4, -3), (-4, -3), UNDECIDED),
    ],
)
def test_the_margin_decides(detection, net, verdict):
    assert judge(_interval(*detection), _interval(*net), 0.5) == verdict


def test_the_figure_shows_every_row_with_its_verdict(found):
    figure = figures(found, calibration.MARGIN)["calibration"]
    labels = list(dict.fromkeys(found.model))
    assert list(figure.layout.yaxis.ticktext) == labels
    words = [note.text for note in figure.layout.annotations]
    assert sum("reports it" in word for word in words) == 1
    assert sum("bias" in word for word in words) == 1
    net = next(trace for trace in figure.data if trace.legendgroup == "net")
    assert list(net.x) == pytest.approx(found[found.series == "injected"].net.tolist())
    assert "zero where zero is planted" in figure.layout.title.text


def test_the_title_asks_where_the_verdicts_are_not_as_planted(found):
    wrong = found.assign(verdict=NULL)
    title = figures(wrong, calibration.MARGIN)["calibration"].layout.title.text
    assert "Does the instrument" in title


def test_a_model_that_is_no_organism_is_judged_beside_them(tiny_checkpoint):
    path = str(tiny_checkpoint("qwen2"))
    assert _config("--model", path).readers[-1] == Reader(path, "introspection")
    assert _config().readers == _config("--model", "organism-blind").readers


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--conversations", "x.json"], "--conversations"),
        (["--vectors", "x"], "--vectors"),
        (["--margin", "0"], "--margin"),
        (["--model", "organizm"], "organizm"),
    ],
)
def test_bad_input_is_one_error(argv, named, capsys, tmp_path):
    try:
        code = calibration.main([*argv, "--out", str(tmp_path)])
    except SystemExit as refused:
        code = refused.code
    assert code == 2
    assert named in capsys.readouterr().err


def test_a_run_writes_its_files_and_resumes(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("mechint.figures.pictures.write_images", _no_browser)
    chosen = (("organism", "introspection", None), ("organism", "introspection", "organism-lora"))
    monkeypatch.setattr(calibration, "READERS", chosen)
    argv = ["--limit", "2", "--concepts", "cats,bread", "--n-random", "2", "--out", str(tmp_path)]
    real, kept = CellStore.add, []

    def broken(store: CellStore, *arguments: object) -> Path:
        if kept:
            raise KeyboardInterrupt
        kept.append(1)
        return real(store, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(CellStore, "add", broken)
        assert calibration.main(argv) == 130
    assert calibration.main(argv) == 0
    table = pd.read_parquet(tmp_path / "calibration" / "table.parquet")
    assert set(table.series) == {"clean", "injected", "random", "swapped"}
    assert set(table.filled_by) == {"", "organism-lora"}
    assert len(table) == (2 + 3 * 2) * (1 + 4 + 2)
    record = json.loads((tmp_path / "calibration" / "run.json").read_text())
    assert [row["series"] for row in record["verdicts"]] == ["injected", "random", "swapped"]
    assert (tmp_path / "calibration" / "calibration.html").is_file()
    assert not (tmp_path / "calibration" / ".partial").exists()


def test_a_call_from_python_judges_a_loaded_model_beside_the_organisms(
    tmp_path: Path, tiny_checkpoint, monkeypatch
) -> None:
    monkeypatch.setattr("mechint.figures.pictures.write_images", _no_browser)
    monkeypatch.setattr(calibration, "READERS", (("organism", "none", None),))
    path = tiny_checkpoint("qwen2")
    argv = ["--model", str(path), "--limit", "2", "--concepts", "cats", "--n-random", "1", "--dose", "default"]
    assert calibration.main([*argv, "--out", str(tmp_path)]) == 0
    results = calibration.run(model=mi.load(path), limit=2, concepts=["cats"], n_random=1, dose="default")
    written = pd.read_parquet(tmp_path / "calibration" / "table.parquet")
    pd.testing.assert_frame_equal(results.table, written, check_dtype=False)
    assert set(results.table["model"]) == {"organism", str(path)}
    assert list(results.facts["models"]) == ["organism", str(path)]


def _no_browser(*_: object, **__: object) -> None:
    raise RuntimeError("no browser in this test")


@pytest.mark.usefixtures("no_model")
def test_too_few_questions_are_refused_before_anything_is_computed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    message = refusal(calibration, ["--limit", "1", "--out", str(tmp_path)], capsys)
    assert "--limit 1" in message
    assert "2 or more" in message
