"""KV caches: views, rows, files."""

from __future__ import annotations

import pytest
import torch

from mechint.base.errors import CacheMismatchError, StaleArtefactError
from mechint.models.cache import KVCache, concatenate


def random_cache(batch: int = 2, n_pos: int = 5, masked: bool = False) -> KVCache:
    generator = torch.Generator().manual_seed(batch * 10 + n_pos)
    keys = tuple(torch.randn(batch, 2, n_pos, 4, generator=generator) for _ in range(3))
    values = tuple(torch.randn(batch, 2, n_pos, 4, generator=generator) for _ in range(3))
    return KVCache(keys, values, torch.rand(batch, n_pos, generator=generator) > 0.5 if masked else None)


def test_shape_and_empty():
    assert (random_cache().batch, random_cache().n_pos, random_cache().n_layers) == (2, 5, 3)
    assert (KVCache().batch, KVCache().n_pos, KVCache().n_layers) == (0, 0, 0)


@pytest.mark.parametrize("masked", [False, True])
def test_select_crop_clone_concatenate(masked):
    cache = random_cache(masked=masked)
    again = concatenate([cache.select(torch.tensor([i])) for i in (0, 1)])
    assert again.fingerprint() == cache.fingerprint() == cache.clone().fingerprint()
    turned = cache.select(torch.tensor([1, 0, 0]))
    torch.testing.assert_close(turned.keys[2][2], cache.keys[2][0])
    assert cache.crop(3).n_pos == 3
    torch.testing.assert_close(cache.crop(3).values[1], cache.values[1][:, :, :3])
    assert turned.fingerprint() != cache.fingerprint()
    cache.clone().keys[0].zero_()
    assert cache.keys[0].abs().max() > 0


def test_expand_shares_memory():
    cache = random_cache(batch=1)
    expanded = cache.expand(4)
    assert expanded.batch == 4
    assert expanded.keys[0].data_ptr() == cache.keys[0].data_ptr()
    with pytest.raises(CacheMismatchError):
        random_cache(batch=2).expand(3)


def test_out_of_range():
    with pytest.raises(CacheMismatchError, match="0 to 5"):
        random_cache().crop(6)
    with pytest.raises(CacheMismatchError):
        concatenate([random_cache(n_pos=5), random_cache(n_pos=4)])


@pytest.mark.parametrize("masked", [False, True])
def test_file_round_trip_and_identity(tmp_path, masked):
    cache = random_cache(masked=masked)
    identity = {"model": "a", "conversation": "b"}
    path = cache.save(tmp_path / "cache.safetensors", identity)
    assert KVCache.load(path, identity).fingerprint() == cache.fingerprint()
    for other in ({"model": "A", "conversation": "b"}, {"model": "a"}, {**identity, "intervention": "c"}):
        with pytest.raises(StaleArtefactError):
            KVCache.load(path, other)
