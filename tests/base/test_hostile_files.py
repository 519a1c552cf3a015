"""Files of every wrong kind at every option that takes one: one message and exit code 2, before any model is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest
from whole_runs import refusal

from analyses import all as gallery
from analyses import logit_lens, merge, model_swap, published, rendering, sae_attribution
from analyses.gallery import browser, changes
from analyses.published import overlay
from mechint.base.errors import UsageError

FILES = ("folder", "text", "noise", "short.parquet", "short.csv", "nowhere.parquet", "pipe.parquet", "pipes")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that are not what they are taken for."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "folder").mkdir()
    (folder / "text").write_text("x")
    (folder / "noise").write_bytes(bytes(range(256)))
    (folder / "short.parquet").write_bytes(b"PAR1x")
    (folder / "short.csv").write_bytes(b"\xff\xfe,\n1")
    os.mkfifo(folder / "pipe.parquet")
    for path in ("pipes/cats.gguf", "pipes/a.json", "pipes/parts/0-of-1.parquet", "pipes/config.json"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(folder / path)
    for name, content in (("deep", "[" * 9000), ("none", "no JSON"), ("good", "{}")):
        (folder / name / "detection").mkdir(parents=True)
        (folder / name / "detection" / "figure.json").write_text(content)
    return folder


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("command", "option"),
    [
        (published, "--overlay"),
        (logit_lens, "--conversations"),
        (logit_lens, "--vectors"),
        (logit_lens, "--model"),
        (sae_attribution, "--sae"),
        (model_swap, "--filled"),
        (model_swap, "--adapter"),
        (model_swap, "--finetuned"),
        (merge, ""),
    ],
    ids=lambda value: getattr(value, "__name__", value).removeprefix("analyses."),
)
def test_what_cannot_be_read_is_one_message(
    command, option: str, name: str, hostile: Path, tmp_path: Path, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*filter(None, [option]), str(hostile / name), "--out", str(tmp_path)]
    assert "Traceback" not in refusal(command, options, capsys)


@pytest.mark.parametrize("name", FILES)
def test_nor_is_it_rendered(name: str, hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refusal(rendering, [str(hostile / name)], capsys)


@pytest.mark.parametrize("name", ["deep", "none", "text", "folder"])
def test_nor_compared(name: str, hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refusal(changes, [str(hostile / name), str(hostile / "good")], capsys)
    refusal(changes, [str(hostile / "good"), str(hostile / name)], capsys)


@pytest.mark.parametrize("command", [logit_lens, gallery, merge, published], ids=lambda module: module.__name__)
def test_results_are_not_written_into_a_file(
    command, hostile: Path, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal(command, ["--out", str(hostile / "text")], capsys)
    refusal(browser, [str(hostile / "text")], capsys)


@pytest.mark.parametrize(
    "change", [{"layer": "early"}, {"p_yes": "much"}, {"logit_diff_shift": "0.1?"}, {"info": None}, {"kind": 3.5}]
)
def test_an_overlay_with_odd_columns_is_one_message(change: dict[str, object], tmp_path: Path) -> None:
    row = {"conversation": "a", "unit": "cats", "series": "injected", "kind": "introspection", "group": ""}
    row |= {"info": "none", "p_yes": 0.1, "logit_diff_shift": 0.2, "description": "injection", "format": "yes-no"}
    path = tmp_path / "table.csv"
    pd.DataFrame([row]).to_csv(path, index=False)
    assert len(overlay.read([path], ())[0].rows) == 1
    pd.DataFrame([row | change]).to_csv(path, index=False)
    with pytest.raises(UsageError):
        overlay.read([path], ())
