"""Damaged and hostile files: cut at any length, with any bit flipped, of other types; each ends in one message.

The files are made here, and damaged by rules, not by a list. Where a format has a checksum, whatever still loads is
what was written.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Load, conversation, vector
from gguf import GGUFValueType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import mechint as mi
from mechint.base.errors import MechintError, StaleArtefactError, UsageError
from mechint.base.files import read_json
from mechint.engine.store import CellStore
from mechint.models.cache import KVCache
from mechint.vectors import concept_vectors as vector_files
from mechint.vectors.activations import Activations


@dataclass(frozen=True)
class Format:
    """A kind of file: how a small one is made in a folder, and what is read of it, in a form that can be compared."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]


def _vector(suffix: str) -> Format:
    rows = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    saved = mi.ConceptVector({1: rows[0], 2: rows[1], 3: rows[2]}, "cats", 4, {"model": "m", "key": "k"})
    return Format(
        lambda folder: saved.save(folder / f"cats{suffix}"), lambda path: mi.ConceptVector.load(path).fingerprint()
    )


def _activations() -> Format:
    saved = Activations(torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), {"vocabulary": "v"})

    def read(path: Path) -> object:
        loaded = Activations.load(path)
        return loaded.values.tolist(), dict(loaded.provenance)

    return Format(lambda folder: saved.save(folder / "a.safetensors"), read)


def _cache() -> Format:
    sides = tuple(torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(4))
    saved = KVCache(sides[:2], sides[2:])
    return Format(
        lambda folder: saved.save(folder / "c.safetensors", {"of": "x"}),
        lambda path: KVCache.load(path, {"of": "x"}).fingerprint(),
    )


def _store() -> Format:
    cells = {"key-a": {3: {"p_yes": 0.25, "logit_diff": -1.0}}, "key-b": {3: {"p_yes": 0.5, "logit_diff": 2.0}}}
    return Format(
        lambda folder: CellStore(folder).add(cells, [{"conversation": "a", "intervention": "b"}]),
        lambda path: CellStore(path.parent).load(),
    )


def _conversation() -> Format:
    return Format(
        lambda folder: mi.save_conversations([conversation()], folder / "c.json"),
        lambda path: [chat.to_dict() for chat in mi.load_conversations(path)],
    )


SEALED = {
    "safetensors vector": _vector(".safetensors"),
    "gguf vector": _vector(".gguf"),
    "activations": _activations(),
    "cache": _cache(),
    "store": _store(),
}
FORMATS = {**SEALED, "conversation": _conversation()}


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, str, object]]:
    """Content, name and what is read of a file of each format."""
    contents = {}
    for name, file_format in FORMATS.items():
        path = file_format.make(tmp_path_factory.mktemp("whole"))
        contents[name] = path.read_bytes(), path.name, file_format.read(path)
    return contents


def outcome(name: str, content: bytes, file_name: str, folder: Path) -> object:
    """Return what is read of a file with this content; the message of the error if it is one of ours."""
    path = folder / file_name
    path.write_bytes(content)
    try:
        return FORMATS[name].read(path)
    except MechintError as error:
        refusal = error
    assert str(path) in refusal.given, "the file is named"
    assert "\n" not in refusal.given
    return refusal


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_at_any_length_is_refused(name: str, whole: dict[str, tuple[bytes, str, object]], tmp_path: Path):
    content, file_name, expected = whole[name]
    step = max(1, len(content) // 400)
    for length in [*range(0, len(content), step), len(content) - 1]:
        result = outcome(name, content[:length], file_name, tmp_path)
        assert isinstance(result, MechintError) or result == expected, length  # a last line break may go
    assert outcome(name, content, file_name, tmp_path) == expected


@pytest.mark.parametrize("name", SEALED)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_believed(
    name: str, at: float, bit: int, whole: dict[str, tuple[bytes, str, object]], tmp_path: Path
):
    content, file_name, expected = whole[name]
    damaged = bytearray(content)
    damaged[int(at * len(content))] ^= 1 << bit
    result = outcome(name, bytes(damaged), file_name, tmp_path)
    assert isinstance(result, MechintError) or result == expected


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bytes_of_anything_end_in_one_message(
    name: str, data: st.DataObject, whole: dict[str, tuple[bytes, str, object]], tmp_path: Path
):
    content, file_name, _ = whole[name]
    start = data.draw(st.integers(0, min(64, len(content))))
    junk = data.draw(st.binary(max_size=64))
    assert outcome(name, content[:start] + junk + content[start + len(junk) :], file_name, tmp_path) is not None


def test_a_header_that_counts_far_beyond_the_file_ends_at_once(tmp_path: Path):
    """One flipped bit makes a text a list of 2^56 entries, which the format's own reader would go through."""
    path = _vector(".gguf").make(tmp_path)
    content = bytearray(path.read_bytes())
    kind = content.index(b"controlvector.model_hint") + len(b"controlvector.model_hint")
    assert content[kind] == GGUFValueType.STRING
    for inner in range(13):
        content[kind : kind + 16] = struct.pack("<IIQ", GGUFValueType.ARRAY, inner, 2**56)
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"cats\.gguf"):
            mi.ConceptVector.load(path)


# What stands where a file is expected.


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["directory", "pipe", "loop", "nothing"])
def test_what_is_no_file_is_never_opened(name: str, kind: str, whole: dict[str, object], tmp_path: Path):
    path = tmp_path / whole[name][1]  # type: ignore[index]
    makers = {"directory": Path.mkdir, "pipe": _pipe, "loop": lambda at: at.symlink_to(at), "nothing": lambda at: None}
    makers[kind](path)
    if name == "store" and kind in ("nothing", "loop"):
        assert FORMATS[name].read(path) == ({}, [])
        return
    if name == "conversation" and kind == "directory":
        path = path / "pipe.json"
        _pipe(path)
    with pytest.raises(MechintError):
        FORMATS[name].read(path)


@pytest.mark.parametrize("text", ["a" * 300, "a/" * 3000, "nul\0", "\ud800"])
@pytest.mark.parametrize("suffix", [".gguf", ".safetensors"])
def test_paths_that_no_file_can_have(text: str, suffix: str):
    for read in (mi.ConceptVector.load, Activations.load, lambda path: mi.load_conversations(path)):
        with pytest.raises(MechintError) as error:
            read(text + suffix)
        assert len(str(error.value)) < 1000
        str(error.value).encode()


# Contents of other types, by schema.


VALUES = st.sampled_from(["null", "[]", "{}", '"x"', "3", "true", "1e999", "[" * 5000, "9" * 5000, "NaN", "not json"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES, field=st.sampled_from(["", "name", "n_layers", "provenance"]))
def test_metadata_of_another_type_is_one_message(value: str, field: str, tmp_path: Path):
    path = tmp_path / "v.safetensors"
    save_file({"direction.1": torch.ones(4)}, path, metadata={"mechint": f'{{"{field}": {value}}}' if field else value})
    try:
        loaded = mi.ConceptVector.load(path)
    except UsageError as error:
        refused = error.given
    else:
        refused = "cannot be read as a concept vector"
        assert loaded.name == ("x" if (field, value) == ("name", '"x"') else "v")
        assert loaded.n_layers in (None, 3)
    assert "cannot be read as a concept vector" in refused


@pytest.mark.parametrize(
    "tensors",
    [
        {"direction.1": torch.ones(4, dtype=torch.complex64)},
        {"direction.1": torch.ones(4, dtype=torch.bool)},
        {"direction.1": torch.full((4,), float("nan"))},
        {"direction.1": torch.full((4,), 1e300, dtype=torch.float64)},
        {"direction.1": torch.ones(0)},
        {"direction.1": torch.tensor(1.0)},
        {"direction.1": torch.ones(2, 2)},
        {"direction.1": torch.ones(4), "direction.2": torch.ones(5)},
        {"direction.1": torch.ones(4), "other": torch.ones(4)},
        {"direction.01": torch.ones(4)},
        {"direction.-1": torch.ones(4)},
        {f"direction.{'9' * 5000}": torch.ones(4)},
        {},
    ],
)
def test_tensors_that_are_no_vectors(tensors: dict[str, torch.Tensor], tmp_path: Path):
    save_file(tensors, tmp_path / "v.safetensors")
    with pytest.raises(MechintError):
        mi.ConceptVector.load(tmp_path / "v.safetensors")


def test_files_of_other_tools_have_no_checksum_and_load(tmp_path: Path):
    save_file({"direction.1": torch.ones(4, dtype=torch.float16)}, tmp_path / "v.safetensors")
    assert mi.ConceptVector.load(tmp_path / "v.safetensors").norms == {1: 2.0}


def test_a_cached_vector_without_a_checksum_or_altered_is_extracted_again(tmp_path: Path):
    path = tmp_path / "v.safetensors"
    saved = mi.ConceptVector({1: torch.ones(4)}, "cats", 4, {"key": "k"})
    assert vector_files.load_cached(saved.save(path), "k").norms == {1: 2.0}
    metadata = {"mechint": json.dumps({"provenance": {"key": "k"}})}
    save_file({"direction.1": torch.ones(4)}, path, metadata=metadata)
    with pytest.raises(StaleArtefactError, match="without a checksum"):
        vector_files.load_cached(path, "k")
    path.write_bytes(b"x")
    with pytest.raises(StaleArtefactError, match=r"v\.safetensors"):
        vector_files.load_cached(path, "k")


@pytest.mark.parametrize("damage", ["nan", "flat", "float64", "format", "provenance"])
def test_activations_of_another_kind_are_refused(damage: str, tmp_path: Path):
    values = torch.ones(2, 3, 4, dtype=torch.float64 if damage == "float64" else torch.float32)
    if damage == "nan":
        values[0, 0, 0] = float("nan")
    from mechint.base.tensor_files import save_tensors

    metadata = {
        "format": "mechint activations 1" if damage == "format" else "mechint activations 2",
        "provenance": "[]" if damage == "provenance" else "{}",
    }
    path = save_tensors(tmp_path / "a.safetensors", {"values": values[0] if damage == "flat" else values}, metadata)
    with pytest.raises(UsageError, match=r"a\.safetensors.*activations"):
        Activations.load(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(st.text(), VALUES, st.sampled_from(['{"a": 1, "a": 2}', '"\\ud800"', "[1, -Infinity]", "\ufeff{}"]))
)
def test_json_that_is_none_or_says_two_things(text: str, tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        content = read_json(path)
    except UsageError as error:
        content = error.given
    json.dumps(content, ensure_ascii=False, allow_nan=False).encode()


# Stores: a checksum in each file's name.


def altered_store(model: mi.Model, folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """A store whose first file was read, changed and written back under its name."""
    mi.score(model, conversation(), mi.Injection(vector(model), strength=1.0, name="x"), store=folder)
    file = CellStore(folder).files()[0]
    change(pd.read_parquet(file)).to_parquet(file, index=False)
    return file


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.assign(logit_yes=table["logit_yes"] + 5),
        lambda table: table.drop(columns="p_yes"),
        lambda table: table.assign(key=table["key"].iloc[::-1].to_numpy()),
        lambda table: table.iloc[:1],
    ],
)
def test_altered_cells_are_not_believed(model: mi.Model, tmp_path: Path, change: Callable[..., pd.DataFrame]):
    file = altered_store(model, tmp_path, change)
    for again in (mi.score, mi.explain):
        with pytest.raises(StaleArtefactError, match=rf"{file.name}.*altered") as error:
            again(model, conversation(), mi.Injection(vector(model), strength=1.0, name="x"), store=tmp_path)
        assert "remove the file" in str(error.value)
    file.unlink()
    table = mi.score(model, conversation(), mi.Injection(vector(model), strength=1.0, name="x"), store=tmp_path)
    assert np.isfinite(table["logit_diff"]).all()


def test_a_store_of_an_earlier_version_or_a_renamed_file_is_named(model: mi.Model, tmp_path: Path):
    mi.score(model, conversation(), mi.CLEAN, store=tmp_path)
    (file,) = CellStore(tmp_path).files()
    file.rename(file.with_name(f"cells-{'0' * 32}.parquet"))
    with pytest.raises(StaleArtefactError, match="earlier version"):
        mi.score(model, conversation(), mi.CLEAN, store=tmp_path)


def test_equal_cells_added_twice_are_one_file(tmp_path: Path):
    store, cells = CellStore(tmp_path), {"a": {3: {"p_yes": 0.5}}}
    assert store.add(cells) == store.add(cells)
    assert store.load()[0] == cells


def test_a_damaged_fill_is_filled_again(model: mi.Model, tiny_model: Load, tmp_path: Path):
    other = tiny_model("qwen2", seed=1)
    mi.fill(other, conversation(), tmp_path)
    (file,) = tmp_path.glob("prefix-*")
    rendered, content = mi.render(model.tokenizer, conversation()), file.read_bytes()
    expected = mi.Filled(tmp_path).filler.for_conversation(rendered).cache().fingerprint()
    for damaged in (content[:-1], content[:100], b"", bytes(len(content)), content[:-9] + bytes(9)):
        file.write_bytes(damaged)
        with pytest.raises(StaleArtefactError, match=r"mi\.fill again"):
            mi.Filled(tmp_path).filler.for_conversation(rendered).cache()
        mi.fill(other, conversation(), tmp_path)
        assert mi.Filled(tmp_path).filler.for_conversation(rendered).cache().fingerprint() == expected
