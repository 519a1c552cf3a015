"""Concept vectors: arithmetic, files, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import conversation
from hypothesis import given, settings
from hypothesis import strategies as st
from repeng_files import write_like_repeng

import mechint as mi
from mechint.base.errors import (
    InvalidVectorError,
    LayerRangeError,
    StaleArtefactError,
    UsageError,
    VectorMismatchError,
    VectorWarning,
)
from mechint.vectors.concept_vectors import load_cached

D_MODEL = 32


def random_vector(layers: range | list[int] = range(1, 4), seed: int = 0, n_layers: int | None = 4) -> mi.ConceptVector:
    generator = torch.Generator().manual_seed(seed)
    rows = {layer: torch.randn(D_MODEL, generator=generator) for layer in layers}
    return mi.ConceptVector(rows, "v", n_layers, {"method": "random"})


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_arithmetic_is_that_of_vectors(seed, a, b):
    v, w = random_vector(seed=seed), random_vector(seed=seed + 100)
    mixed = v * a + w * b - v / 2.0
    for layer in v.layers:
        expected = v.vectors[layer] * (a - 0.5) + w.vectors[layer] * b
        torch.testing.assert_close(mixed.vectors[layer], expected, atol=1e-5, rtol=1e-5)
    assert (-v).fingerprint() == (v * -1).fingerprint()
    assert set((v - v).norms.values()) == {0.0}


def test_rescaling():
    v = random_vector()
    assert v.directions().norms == pytest.approx(dict.fromkeys(v.layers, 1.0))
    assert v.rescaled({1: 1.0, 2: 2.0, 3: 3.0}).norms == pytest.approx({1: 1.0, 2: 2.0, 3: 3.0})
    with pytest.raises(LayerRangeError, match="3"):
        v.rescaled({1: 1.0, 2: 2.0})


@pytest.mark.parametrize("suffix", [".gguf", ".safetensors"])
def test_files_round_trip_exactly(suffix, tmp_path):
    v = random_vector()
    loaded = mi.ConceptVector.load(v.save(tmp_path / f"v{suffix}"))
    assert loaded.fingerprint() == v.fingerprint()
    assert loaded.n_layers == 4
    assert loaded.name == "v"
    if suffix == ".safetensors":
        assert loaded.provenance == {"method": "random"}


def test_block_zero_is_left_out_of_gguf_aloud(tmp_path):
    with pytest.warns(VectorWarning, match="block 0"):
        path = random_vector(range(4)).save(tmp_path / "v.gguf")
    assert mi.ConceptVector.load(path).layers == (1, 2, 3)
    with pytest.warns(VectorWarning), pytest.raises(InvalidVectorError, match="block 0 only"):
        random_vector([0]).save(tmp_path / "zero.gguf")


def test_repeng_vectors_act_as_they_do_there(tmp_path, model, plain_hf):
    """repeng adds strength x direction.k to the output of block k, at every position that is not padding."""
    import reference

    from mechint.chat.render import render

    rng = np.random.default_rng(0)
    directions = {layer: rng.standard_normal(D_MODEL).astype(np.float32) for layer in (1, 2, 3)}
    write_like_repeng(tmp_path / "cats.gguf", directions)
    v = mi.ConceptVector.load(tmp_path / "cats.gguf")
    assert (v.name, v.layers, v.n_layers) == ("cats", (1, 2, 3), 4)
    table = mi.score(model, conversation(), mi.Injection(v, layers=range(1, 3), strength=4.0))
    rendered = render(model.tokenizer, conversation())
    where = range(rendered.prefix_length)
    added = [reference.Addition(k, torch.tensor(directions[k]) * 4.0, where) for k in (1, 2)]
    logits = reference.logits(plain_hf("qwen2"), rendered.tokens, added).double()
    yes = model.tokenizer(" yes", add_special_tokens=False)["input_ids"][0]
    assert table.p_yes[0] == pytest.approx(logits.softmax(-1)[yes].item(), abs=1e-5)


def test_gguf_is_readable_by_the_gguf_package(tmp_path):
    from gguf import GGUFReader

    reader = GGUFReader(str(random_vector().save(tmp_path / "v.gguf")))
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert sorted(t.name for t in reader.tensors) == ["direction.1", "direction.2", "direction.3"]
    assert all(t.data.dtype == np.float32 for t in reader.tensors)


def test_depth_of_a_gguf_vector(tmp_path):
    ones = np.ones(D_MODEL, dtype=np.float32)
    write_like_repeng(tmp_path / "whole.gguf", dict.fromkeys(range(1, 6), ones))
    whole = mi.ConceptVector.load(tmp_path / "whole.gguf")
    assert whole.n_layers == 6
    with pytest.raises(VectorMismatchError, match="n_layers=6"):
        whole.check_fits(D_MODEL, 8)
    mi.ConceptVector.load(tmp_path / "whole.gguf", n_layers=8).check_fits(D_MODEL, 8)
    write_like_repeng(tmp_path / "some.gguf", dict.fromkeys((2, 4), ones))
    loaded = mi.ConceptVector.load(tmp_path / "some.gguf")
    assert loaded.n_layers is None
    loaded.check_fits(D_MODEL, 8)
    with pytest.raises(VectorMismatchError, match="at least 5"):
        loaded.check_fits(D_MODEL, 4)


def test_vector_of_another_width(tmp_path, model):
    write_like_repeng(tmp_path / "wide.gguf", {k: np.ones(64, dtype=np.float32) for k in (1, 2, 3)})
    wide = mi.ConceptVector.load(tmp_path / "wide.gguf")
    with pytest.raises(VectorMismatchError, match=r"d_model=64, n_layers=4\n.*this model has 32, 4"):
        mi.score(model, conversation(), mi.Injection(wide, strength=1.0))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite(bad):
    with pytest.raises(InvalidVectorError, match="layers 2"):
        mi.ConceptVector({1: torch.ones(4), 2: torch.full((4,), bad)})


@pytest.mark.parametrize("vectors", [{}, {1: torch.ones(4), 2: torch.ones(5)}, {-1: torch.ones(4)}])
def test_no_vectors(vectors):
    with pytest.raises(InvalidVectorError, match="layers"):
        mi.ConceptVector(vectors)


def test_unreadable_files(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"not a gguf file at all, sorry")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    for name in ("x.gguf", "x.safetensors", "missing.gguf", "x.pt"):
        with pytest.raises(UsageError, match=name):
            mi.ConceptVector.load(tmp_path / name)


def test_foreign_gguf_tensors_are_refused(tmp_path):
    from gguf import GGUFWriter

    writer = GGUFWriter(str(tmp_path / "model.gguf"), "llama")
    writer.add_tensor("blk.0.attn_q.weight", np.ones((2, 2), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UsageError, match=r"blk\.0"):
        mi.ConceptVector.load(tmp_path / "model.gguf")


def test_adding_vectors_of_different_layers_or_width():
    with pytest.raises(LayerRangeError, match="1:4"):
        random_vector() + random_vector([1, 2])
    with pytest.raises(VectorMismatchError):
        random_vector() + mi.ConceptVector({k: torch.ones(8) for k in (1, 2, 3)}, n_layers=4)


def test_cached_vectors_are_reused_only_for_the_same_key(tmp_path):
    v = mi.ConceptVector({1: torch.ones(4)}, provenance={"key": "abc"})
    path = v.save(tmp_path / "v.safetensors")
    assert load_cached(path, "abc").fingerprint() == v.fingerprint()
    with pytest.raises(StaleArtefactError, match="other inputs"):
        load_cached(path, "abd")


def test_specifications_travel_to_other_processes():
    import copy
    import pickle

    steer = mi.Injection(random_vector(), layers=[1, 2], strength=1.0)
    both = steer + mi.Injection(random_vector(seed=1), relative_strength=0.3)
    for unsavable in (steer, both, conversation()):
        for again in (pickle.loads(pickle.dumps(unsavable)), copy.deepcopy(unsavable)):
            assert again.key == unsavable.key if hasattr(unsavable, "key") else again == unsavable


def test_provenance_is_in_the_file(tmp_path):
    from safetensors import safe_open

    path = random_vector().save(tmp_path / "v.safetensors")
    with safe_open(str(path), framework="pt") as file:
        metadata = json.loads(file.metadata()["mechint"])
    assert metadata["n_layers"] == 4
    assert set(metadata["norms"]) == {"1", "2", "3"}


@pytest.mark.parametrize("suffix", [".gguf", ".safetensors"])
def test_one_tensor_may_stand_at_several_layers(suffix, tmp_path):
    row = torch.ones(4)
    vector = mi.ConceptVector({1: row, 2: row}, "twice")
    assert mi.ConceptVector.load(vector.save(tmp_path / f"v{suffix}")).norms == {1: 2.0, 2: 2.0}


@pytest.mark.parametrize(
    "vectors",
    [
        {1.5: torch.ones(4)},
        {"1": torch.ones(4)},
        {True: torch.ones(4)},
        {1: torch.ones(4, dtype=torch.complex64)},
        {1: torch.ones(4, dtype=torch.bool)},
        {1: [1.0, 2.0]},
        {1: torch.ones(0)},
        [torch.ones(4)],
        torch.ones(2, 4),
        {},
    ],
)
def test_what_is_no_vector_by_layer_is_refused_and_never_rounded(vectors):
    with pytest.raises((UsageError, InvalidVectorError)):
        mi.ConceptVector(vectors)


def test_whole_numbers_and_halves_become_float32():
    vector = mi.ConceptVector({1: torch.tensor([3, 4]), np.int64(2): torch.tensor([3, 4], dtype=torch.float16)})
    assert vector.norms == {1: 5.0, 2: 5.0}
