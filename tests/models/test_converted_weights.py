"""A GGUF file is converted once: later loads read what the first has kept, and never what another file has left."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import small_ggufs
import torch

from mechint.base import files
from mechint.models import converted_weights, loading
from mechint.models.gguf_configs import config_of
from mechint.models.gguf_models import reading_model
from mechint.models.gguf_weights import weights_of
from mechint.models.model_names import resolve


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own, which takes small files too."""
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(converted_weights, "SMALLEST", 0)
    return tmp_path / "cache" / "gguf"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small file in 8 bits."""
    raw = small_ggufs.tokenizer()
    model = small_ggufs.hf_model("llama", len(raw))
    return small_ggufs.write(
        tmp_path / "small.gguf", model, small_ggufs.tokenizer_fields(raw.backend_tokenizer), "Q8_0"
    )


def read(path: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    return loading.load_hf(resolve(path), dtype, torch.device("cpu"))


def assert_converted(model: torch.nn.Module, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Hold that a model has the weights of a file, to the bit."""
    with reading_model(path) as file:
        expected = weights_of(file, config_of(file), dtype)
    loaded = dict(model.named_parameters())
    assert loaded.keys() >= expected.keys()
    assert all(torch.equal(loaded[name], weight) and loaded[name].dtype == dtype for name, weight in expected.items())


def change_a_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_the_second_load_reads_what_the_first_has_kept(
    path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_converted(read(path), path)
    assert_converted(read(path, torch.bfloat16), path, torch.bfloat16)
    assert len(list(cache.iterdir())) == 2, "one for each dtype"
    monkeypatch.setattr(converted_weights, "weights_of", lambda *_: pytest.fail("it was converted again"))
    first, second = read(path), read(path, torch.bfloat16)
    monkeypatch.undo()
    assert_converted(first, path)
    assert_converted(second, path, torch.bfloat16)


def test_a_changed_file_is_another_entry(path: Path, cache: Path) -> None:
    before = read(path)
    change_a_byte(path, -300)  # the last ones fill up a block
    assert_converted(read(path), path)
    assert len(list(cache.iterdir())) == 2
    assert any(not torch.equal(*pair) for pair in zip(before.parameters(), read(path).parameters(), strict=True))


def test_a_file_that_is_changed_while_it_is_read_is_not_kept(
    path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(*arguments: object) -> object:
        change_a_byte(path, -300)
        return weights_of(*arguments)

    monkeypatch.setattr(converted_weights, "weights_of", changing)
    read(path)
    assert not cache.exists()


def test_another_converter_makes_its_own_entry_and_removes_the_old_one(
    path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(path)
    old = list(cache.iterdir())
    read(path, torch.float16)
    monkeypatch.setattr(converted_weights, "installed", lambda _: "99.0")
    assert_converted(read(path), path)
    assert len(list(cache.iterdir())) == 2
    assert not old[0].exists()


@pytest.mark.parametrize("damage", ["a changed byte", "cut off", "without a seal"])
def test_a_damaged_entry_is_made_again(damage: str, path: Path, cache: Path) -> None:
    from safetensors.torch import load_file, save_file

    read(path)
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    if damage == "a changed byte":
        change_a_byte(entry, -1)
    elif damage == "cut off":
        entry.write_bytes(whole[:-100])
    else:
        save_file({name: torch.zeros_like(weight) for name, weight in load_file(entry).items()}, entry)
    assert_converted(read(path), path)
    assert entry.read_bytes() == whole


def test_a_killed_writer_leaves_no_entry(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        read(path)
    monkeypatch.undo()
    assert list(cache.iterdir()) == []


def test_several_may_make_one_entry_at_once(path: Path, cache: Path) -> None:
    def convert(_: int) -> dict[str, torch.Tensor]:
        with reading_model(path) as file:
            return converted_weights.converted_weights(file, config_of(file), torch.float32)

    with ThreadPoolExecutor(4) as threads:
        every = list(threads.map(convert, range(4)))
    assert len(list(cache.iterdir())) == 1
    for weights in every:
        assert all(torch.equal(weights[name], weight) for name, weight in every[0].items())
    assert_converted(read(path), path)


def test_edits_of_a_model_do_not_reach_the_entry(path: Path, cache: Path) -> None:
    read(path)
    model = read(path)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert_converted(read(path), path)


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(path: Path, cache: Path) -> None:
    cache.parent.write_text("a file where the folder would be")
    assert_converted(read(path), path)


def test_only_what_is_worth_it_is_kept(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("MECHINT_CACHE", str(cache.parent))
    assert_converted(read(path), path)
    monkeypatch.setattr(converted_weights, "LARGEST", 1000)
    monkeypatch.setattr(converted_weights, "SMALLEST", 0)
    assert_converted(read(path), path)
    assert not cache.exists()


def test_the_folder_is_the_named_one_or_that_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mechint.base.cache_folder import cache_folder

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MECHINT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == tmp_path / ".cache" / "mechint"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "mechint"
    monkeypatch.setenv("MECHINT_CACHE", f"~{os.sep}mine")
    assert cache_folder() == tmp_path / "mine"
