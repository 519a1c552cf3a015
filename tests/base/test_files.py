"""Writing: a full disk is one message whoever writes, and what a killed process has left goes away."""

from __future__ import annotations

import os
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from forks import forked

import mechint as mi
from mechint.base.errors import OutputError
from mechint.base.files import replace_atomically, write_atomically
from mechint.engine.store import CellStore
from mechint.interventions.fill_files import FillSource, Prefix, StoredPrefix
from mechint.models.cache import KVCache
from mechint.vectors.activations import Activations


def write_to_a_full_disk(outcomes: Connection, folder: Path) -> None:
    """Send what becomes of each kind of file; a limit on sizes, which is refused alike, stands for a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    cache = KVCache(*[(torch.randn(1, 2, 100, 64),) for _ in range(2)])
    vector = mi.ConceptVector({1: torch.randn(10_000)}, "v", 2)
    filler = FillSource("m", "i", True, "bridge", "torch.float32", "s", "c", "v")
    writers = {
        "safetensors": lambda: vector.save(folder / "v.safetensors"),
        "gguf": lambda: vector.save(folder / "v.gguf"),
        "activations": lambda: Activations(torch.randn(1, 1, 10_000), {}).save(folder / "a.safetensors"),
        "cache": lambda: cache.save(folder / "c.safetensors", {}),
        "fill": lambda: StoredPrefix(folder, filler, Prefix((1,), (1,))).write(cache, "m", "i"),
        "store": lambda: CellStore(folder).add({str(k): {0: {"p": k / 7}} for k in range(5000)}),
    }
    for name, write in writers.items():
        try:
            write()
            outcomes.send((name, "written"))
        except OutputError as error:
            outcomes.send((name, error.given))


def test_a_full_disk_is_one_message_whoever_writes_and_leaves_nothing(tmp_path: Path):
    process, outcomes = forked(write_to_a_full_disk, tmp_path)
    for name in ("safetensors", "gguf", "activations", "cache", "fill", "store"):
        writer, message = outcomes.recv()
        assert writer == name
        assert message.count("cannot be written") == 1
    process.join()
    assert process.exitcode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_the_writer_is_no_fault_of_the_disk(tmp_path: Path):
    def write(path: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        replace_atomically(tmp_path / "x", write)
    assert list(tmp_path.iterdir()) == []


def write_for_a_minute(begun: Connection, target: Path) -> None:
    """Send a word from within the writing."""
    replace_atomically(target, lambda _: (begun.send("begun"), time.sleep(60)))


def killed_while_writing(target: Path) -> Path:
    """Kill a process that writes to a target; returns the temporary file that it leaves."""
    process, begun = forked(write_for_a_minute, target)
    assert begun.recv() == "begun"
    process.kill()
    process.join()
    (left,) = target.parent.iterdir()
    return left


def test_what_a_killed_writer_has_left_goes_with_the_next_write(tmp_path: Path):
    left = killed_while_writing(tmp_path / "table.parquet")
    others = [tmp_path / name for name in (".table.mine.parquet", ".table.0123abcd-1.parquet", "table.txt")]
    for other in others:
        other.write_text("kept")
    write_atomically(tmp_path / "other.parquet", "x")
    assert left.exists()
    write_atomically(tmp_path / "table.parquet", "x")
    assert not left.exists()
    assert all(other.read_text() == "kept" for other in others)


def test_what_is_being_written_stays(tmp_path: Path):
    target = tmp_path / "table.parquet"

    def write(path: Path) -> None:
        write_atomically(target, "meanwhile")
        assert path.exists()
        path.write_text("at last")

    assert replace_atomically(target, write).read_text() == "at last"
    assert list(tmp_path.iterdir()) == [target]


def test_another_machines_file_goes_once_it_is_old(tmp_path: Path):
    elsewhere = tmp_path / ".table.00000000-999999999.abcdefgh.parquet"
    elsewhere.write_text("x")
    write_atomically(tmp_path / "table.parquet", "x")
    assert elsewhere.exists()
    weeks_ago = time.time() - 30 * 24 * 3600
    os.utime(elsewhere, (weeks_ago, weeks_ago))
    write_atomically(tmp_path / "table.parquet", "x")
    assert not elsewhere.exists()


def test_a_store_that_goes_on_has_nothing_of_a_killed_run(tmp_path: Path):
    left = killed_while_writing(tmp_path / f"cells-{'0' * 64}.parquet")
    CellStore(tmp_path).compact()
    assert not left.exists()


def test_long_names_can_be_written(tmp_path: Path):
    assert write_atomically(tmp_path / ("a" * 250 + ".txt"), "x").read_text() == "x"
