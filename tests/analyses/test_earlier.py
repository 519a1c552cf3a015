"""Two runs in one folder: the same goes on, another is refused with what differs, unless it may take the place."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import refuse_pictures
from whole_runs import refusal, without

from analyses import ANALYSES, logit_lens, merge, published
from analyses import all as gallery
from analyses.gallery.unfinished import Unfinished
from analyses.kit import declarations, earlier
from analyses.kit import inputs as behind
from analyses.kit import record as run
from analyses.kit.options import Out
from mechint.base.errors import OutputError

FEW = ("--concepts", "cats", "--n-random", "0")


@pytest.fixture(scope="module")
def first(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of one run."""
    out = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechint.figures.pictures.write_images", refuse_pictures)
        assert logit_lens.main([*inputs, *FEW, "--out", str(out)]) == 0
    return out


@pytest.fixture
def out(first: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(first, tmp_path / "out"))


@pytest.fixture
def bytes_of(out: Path) -> Iterator[None]:
    """Whatever happens, the results stay what they were."""
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    yield
    assert before == {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--concepts", "bread", "--n-random", "0"], "--concepts was ['cats'], and is ['bread'] now"),
        ([*FEW, "--layer-sweep"], "--layer-sweep was False, and is True now"),
        ([*FEW, "--layers", "2"], "--layers was not given, and is [2] now"),
        ([*FEW, "--seed", "1", "--metric", "logit_diff"], "--seed was 0, and is 1 now"),
        ([*FEW, "--strength", "3"], "--strength was 2.0"),
    ],
)
def test_another_run_is_refused_before_a_model_is_loaded(
    options: list[str],
    word: str,
    inputs: list[str],
    out: Path,
    bytes_of: None,
    no_model: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = without(inputs, "--strength", "--n-random") if "--strength" in options else without(inputs, "--n-random")
    message = refusal(logit_lens, [*given, *options, "--out", str(out)], capsys)
    assert word in message
    assert "--overwrite" in message
    assert "metric" not in message, "which only changes how figures are drawn"


def test_the_same_run_and_other_drawings_of_it_are_not(inputs: list[str], out: Path, quick_analyses: None) -> None:
    before = pd.read_parquet(out / "logit_lens" / "table.parquet")
    same = [*inputs, *FEW, "--out", str(out), "--batch-tokens", "100"]
    assert logit_lens.main(same) == 0
    assert logit_lens.main([*same, "--metric", "logit_diff"]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet(out / "logit_lens" / "table.parquet"), before, rtol=1e-4, atol=1e-6)
    assert logit_lens.main([*same, "--seed", "5", "--overwrite"]) == 0
    record = json.loads((out / "logit_lens" / "run.json").read_text())
    assert record["seed"] == 5
    assert "--overwrite" not in record["argv"]
    assert "overwrite" not in record["config"]


def test_other_weights_behind_the_same_options_are_refused(
    inputs: list[str], out: Path, quick_analyses: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = out / "logit_lens" / "run.json"
    record = json.loads(path.read_text())
    record["model"]["identity"] = "0" * 64
    path.write_text(json.dumps(record))
    argv = [*inputs, *FEW, "--out", str(out)]
    assert "other weights" in refusal_of_warm_run(argv, capsys)
    assert logit_lens.main([*argv, "--overwrite"]) == 0


def refusal_of_warm_run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a run that computes says at its end."""
    assert logit_lens.main(argv) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '{"files": 3}',
        '{"config": [], "files": []}',
        '{"config": {}, "files": [3]}',
        "\ud800",
        "[" * 9000,
    ],
)
def test_a_record_that_is_none_is_one_message_and_can_be_replaced(
    content: str, inputs: list[str], out: Path, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = out / "logit_lens" / "run.json"
    path.write_bytes(content.encode(errors="surrogatepass"))
    assert "--overwrite" in refusal(logit_lens, [*inputs, *FEW, "--out", str(out)], capsys)
    assert earlier.files(path.parent) == []
    path.unlink()
    path.mkdir()
    assert "it is a directory" in refusal(logit_lens, [*inputs, *FEW, "--out", str(out)], capsys)


def test_what_is_no_file_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "gone.png").touch()
    (tmp_path / "kept.png").mkdir()
    record = {"config": {}, "files": ["gone.png", "../../etc/passwd", "nowhere", "kept.png"]}
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(OutputError, match=r"kept.png cannot be removed: it is a directory"):
        run.write_record(tmp_path, [], config=Out(), argv=[], clock=run.Clock(), record={})
    (tmp_path / "kept.png").rmdir()
    run.write_record(tmp_path, [], config=Out(), argv=[], clock=run.Clock(), record={})
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_published_figures_with_other_tables_are_another_run(
    first: Path, tmp_path: Path, quick_analyses: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "published").mkdir()
    config = {"overlay": ["a.csv"], "where": [], "seed": 0, "out": "x"}
    (tmp_path / "published" / "run.json").write_text(json.dumps({"config": config, "files": []}))
    assert "--overlay was ['a.csv'], and is [] now" in refusal(published, ["--out", str(tmp_path)], capsys)


def test_parts_of_another_run_are_not_joined_over_it(
    inputs: list[str], out: Path, tmp_path: Path, quick_analyses: None, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = tmp_path / "parts"
    argv = [*inputs, "--concepts", "bread", "--n-random", "0", "--shard", "0/1", "--out", str(parts)]
    assert logit_lens.main(argv) == 0
    capsys.readouterr()
    assert "--concepts was" in refusal(merge, [str(parts), "--out", str(out)], capsys)
    assert merge.main([str(parts), "--out", str(out), "--overwrite"]) == 0


def test_a_gallery_begins_anew_where_a_file_behind_its_options_has_changed(
    inputs: list[str], tmp_path: Path, quick_analyses: None
) -> None:
    options = dict(zip(inputs[::2], inputs[1::2], strict=True))
    for name in ("--model", "--vectors", "--conversations"):
        old = Path(options[name])
        new = tmp_path / name.strip("-")
        (shutil.copytree if old.is_dir() else shutil.copy)(old, new)
        options[name] = str(new)
    given = [part for option in options.items() for part in option]
    parsed = gallery._parsed(given)
    before = behind.digest(parsed)
    assert behind.digest(parsed) == before
    for name in ("model", "vectors", "conversations"):
        file = next(iter(sorted((tmp_path / name).rglob("*.safetensors"))), tmp_path / name)
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert behind.digest(parsed) != before, name
        file.write_bytes(content)
    assert behind.digest(parsed) == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": 3, "names": 5}', "[" * 9000])
def test_an_odd_note_of_what_is_done_is_nothing_done(content: str, inputs: list[str], tmp_path: Path) -> None:
    (tmp_path / ".unfinished.json").write_text(content)
    unfinished = Unfinished(gallery._parsed([*inputs, "--out", str(tmp_path)]), inputs)
    assert unfinished.names == []
    assert not unfinished.begun


def test_how_cells_are_marked_changes_figures_alone() -> None:
    every = [importlib.import_module(f"analyses.{name}").ANALYSIS.options for name in ANALYSES]
    marking = [options for options in every if "uncorrected" in declarations.declarations(options)]
    assert len(marking) >= 6
    assert all("uncorrected" in declarations.drawing(options) for options in marking)
