"""Shards on Ray workers of this machine make the same table; lost workers are replaced."""

from __future__ import annotations

import sys

import pandas as pd
import pytest
from conftest import conversation, vector

import mechint as mi
from mechint.base.errors import PrerequisiteError, UsageError, WorkerError
from mechint.engine.store import CellStore
from mechint.interventions.specifications import CLEAN, Injection, Swap
from mechint.readouts import ray_engine

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


def requests(model: mi.Model, other: mi.Model) -> list[mi.Request]:
    chats = [conversation(str(n), question) for n, question in enumerate(("yes or no?", "do you detect a thought?"))]
    steers = [Injection(vector(model, n), layers=[1], strength=2.0, name=str(n)) for n in range(3)]
    return [
        mi.Request(chats, [CLEAN, *steers, Swap(other, name="other")]),
        mi.Request(chats[0], steers[0], layers=[-1, 3]),
    ]


def test_two_workers_make_the_same_tables(tiny_model, tmp_path):
    model, other = tiny_model("qwen2"), tiny_model("qwen2", seed=1)
    jobs = requests(model, other)
    calls: list[int] = []
    tables = ray_engine.ray_tables(
        model, jobs, workers=2, store=tmp_path, progress=lambda cells, _: calls.append(cells)
    )
    for together, alone in zip(tables, mi.tables(model, jobs), strict=True):
        pd.testing.assert_frame_equal(together, alone, atol=1e-5, rtol=0)
        named = [[(r["conversation"], r["intervention"]) for r in t.attrs["receipts"]] for t in (together, alone)]
        assert named[0] == named[1]
    assert len(calls) > 2
    files = CellStore(tmp_path).files()
    ray_engine.ray_tables(model, jobs, workers=2, store=tmp_path)  # nothing is left to do
    assert CellStore(tmp_path).files() == files


class Troubled(ray_engine.Worker):
    """Loses its process at the first shard that it is given, until a file says so, and always fails at shard 2.

    It says which shards it is given, and needs no model for it.
    """

    def __init__(self, _arguments, _sent, options, _threads):
        from pathlib import Path

        self.flag = Path(options.store)

    def run(self, shard):
        import os

        if not self.flag.exists():
            self.flag.touch()
            os._exit(1)
        if shard.index == 2:
            raise ValueError("always")
        return {str(shard.index): {}}, [], 0


def test_a_lost_worker_is_replaced_and_a_shard_that_fails_again_and_again_is_named(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "TRIES", 2)
    model = tiny_model("qwen2")
    sent = [ray_engine._sent(request) for request in requests(model, tiny_model("qwen2", seed=1))]
    options = ray_engine.Options(store=tmp_path / "died")
    pool = ray_engine._Pool(ray, ray_engine._arguments(model), sent, options, 1, Troubled)
    results = pool.results([mi.Shard(index, 3) for index in range(3)])
    cells = [next(results)[0], next(results)[0]]
    assert sorted(cells, key=list) == [{"0": {}}, {"1": {}}]
    assert options.store.exists()
    with pytest.raises(WorkerError, match="shard 2/3 failed 2 times"):
        next(results)


def test_what_cannot_be_sent_is_refused(tiny_model, monkeypatch):
    model = tiny_model("qwen2")
    with pytest.raises(UsageError, match="0 workers"):
        ray_engine.ray_tables(model, [mi.Request(conversation(), CLEAN)], workers=0)
    wrapped = mi.wrap(model.backend.handle, model.tokenizer)
    with pytest.raises(UsageError, match="wrapped"):
        ray_engine.ray_tables(wrapped, [mi.Request(conversation(), CLEAN)], workers=1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PrerequisiteError, match="pip install"):
        ray_engine.ray_tables(model, [mi.Request(conversation(), CLEAN)], workers=1)
