"""Tables kept for later: they come back to the bit, and whatever was done to them is one message, never other rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses import merge
from analyses.kit import kept_tables, resume
from analyses.kit import record as run
from analyses.kit import shard_files as parts
from analyses.kit.options import Common
from mechint.base.artefacts import FileKind
from mechint.base.errors import StaleArtefactError, UsageError
from mechint.engine.shards import Shard

KIND = FileKind("a table", "a table", error=StaleArtefactError)
NOBODY = parts.PartRecord("logit_lens", ("--limit", "1"), "key", {"model": {"name": "m"}}, "code")


def _table() -> pd.DataFrame:
    texts = ["a", None, "\N{SNOWMAN}"]
    table = pd.DataFrame({"text": texts, "number": [0.1, np.nan, -3e30], "count": [1, 2, 3], "is": [True, False, True]})
    table.attrs = {"receipts": [{"layers": {"1": [0.1, 2.0, 3.0]}}], "part": {"shard": [0, 2]}}
    return table


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return kept_tables.write(_table(), tmp_path_factory.mktemp("kept") / "table.parquet").read_bytes()


def test_a_table_comes_back_with_what_is_said_of_it(tmp_path: Path) -> None:
    found = kept_tables.read(kept_tables.write(_table(), tmp_path / "table.parquet"), KIND)
    pd.testing.assert_frame_equal(found, _table())
    assert found.attrs == _table().attrs


@pytest.mark.parametrize(
    "values",
    [
        [None, None],
        [np.nan, None],
        [True, None],
        ["a", np.nan],
        [1, None],
        [],
        [0.0, -0.0],
        ["", "\ud7ff"],
    ],
)
def test_columns_of_any_kind_come_back(values: list[object], tmp_path: Path) -> None:
    for dtype in (object, None):
        table = pd.DataFrame({"column": pd.Series(values, dtype=dtype), "other": range(len(values))})
        path = kept_tables.write(table, tmp_path / "table.parquet")
        found = kept_tables.read(path, KIND)
        assert len(found) == len(values)
        pd.testing.assert_frame_equal(kept_tables.read(kept_tables.write(found, path), KIND), found)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_damage_is_one_message_or_no_damage(
    content: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    flipped = content[:at] + bytes([content[at] ^ 2 ** data.draw(st.integers(0, 7))]) + content[at + 1 :]
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    path.write_bytes(content[:at] if cut else flipped)
    try:
        found = kept_tables.read(path, KIND)
    except StaleArtefactError:
        return
    pd.testing.assert_frame_equal(found, _table())
    assert found.attrs == _table().attrs


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop(columns="number"),
        lambda table: table.rename(columns={"number": "other"}),
        lambda table: table.assign(number=[0.1, np.nan, -3.1e30]),
        lambda table: table.assign(count=table["count"].astype(float)),
        lambda table: table.iloc[::-1].reset_index(drop=True),
        lambda table: table.iloc[:2],
        lambda table: table[["number", "text", "count", "is"]],
    ],
)
def test_what_was_altered_with_its_old_checksum_is_refused(change, tmp_path: Path) -> None:
    path = kept_tables.write(_table(), tmp_path / "table.parquet")
    table = pd.read_parquet(path)
    altered = change(table)
    altered.attrs = table.attrs
    altered.to_parquet(path, index=False)
    with pytest.raises(StaleArtefactError, match="its checksum is not the one"):
        kept_tables.read(path, KIND)


def _part(directory: Path, index: int = 0, count: int = 1, record: parts.PartRecord = NOBODY) -> Path:
    rows = pd.DataFrame({"request": [0]})
    rows.attrs["receipts"] = []
    return parts.write_part(rows, directory, Shard(index, count), record)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not a table", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_parts_that_are_none_are_one_message(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _part(tmp_path)
    path.write_bytes(content)
    assert merge.main([str(path), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    assert "0-of-1.parquet" in message


@pytest.mark.parametrize(
    "about",
    [
        None,
        {},
        {"part": None},
        {"part": []},
        {"part": {"shard": [0, 1]}},
        {"part": {**dataclasses.asdict(NOBODY), "shard": [0]}, "receipts": []},
        {"part": {**dataclasses.asdict(NOBODY), "shard": ["0", "1"]}, "receipts": []},
        {"part": {**dataclasses.asdict(NOBODY), "shard": [0, 1], "argv": 3}, "receipts": []},
        {"part": {**dataclasses.asdict(NOBODY), "shard": [0, 1], "facts": []}, "receipts": []},
        {"part": {**dataclasses.asdict(NOBODY), "shard": [0, 1]}, "receipts": {}},
        {"part": {**dataclasses.asdict(NOBODY), "shard": [0, 1]}},
    ],
)
def test_parts_that_say_something_else_of_themselves(about: dict[str, object] | None, tmp_path: Path) -> None:
    path = _part(tmp_path)
    table = pd.DataFrame({parts.PLACE: [0], "request": [0]})
    table.attrs = about or {}
    kept_tables.write(table, path)
    with pytest.raises(UsageError, match="cannot be read as a part of a table"):
        parts.read_parts([path])


def test_parts_of_another_version_are_not_drawn_by_this_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _part(tmp_path / "parts")
    assert merge.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "another version of the code" in capsys.readouterr().err
    now = dataclasses.replace(NOBODY, code=run.source_hash())
    assert parts.read_parts([_part(tmp_path, record=now)])["logit_lens"][1] == now


def test_rows_of_an_interrupted_run_that_were_altered_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resume, "store_directory", lambda *_: tmp_path)
    config = _Config(out=tmp_path, shard=None)
    chunks = [resume.Chunk(1, "key", lambda: pd.DataFrame({"value": [1.5]}))]
    whole = resume.compute_chunks(config, "steering", "reply", chunks)
    assert list(whole["value"]) == [1.5]
    never = [dataclasses.replace(chunks[0], compute=lambda: pytest.fail("computed again"))]
    pd.testing.assert_frame_equal(resume.compute_chunks(config, "steering", "reply", never), whole)
    file = tmp_path / "reply-key.parquet"
    pd.DataFrame({"value": [2.5]}).to_parquet(file, index=False)
    with pytest.raises(StaleArtefactError, match="remove the file"):
        resume.compute_chunks(config, "steering", "reply", never)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Config(Common):
    """What of the options is looked at."""

    def __init__(self, **options: object) -> None:
        for name, value in options.items():
            object.__setattr__(self, name, value)
