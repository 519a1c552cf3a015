"""The shards of some tables on a Ray cluster, or on this machine's cores and GPUs: one model for each worker.

Ray is an optional extra (`pip install "mechint[ray]"`). Workers send their finished cells back, so nothing but the
checkpoint has to be within reach of all of them.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING

import pandas as pd

from mechint.base.errors import MechintError, PrerequisiteError, UsageError, WorkerError
from mechint.base.progress import Progress
from mechint.engine.job import Job, Options, Readings, ReceiptDict, Request
from mechint.engine.plan import Cell
from mechint.engine.shards import Shard
from mechint.engine.store import CellStore
from mechint.interventions.specifications import Intervention, Swap
from mechint.models.model import AUTO, LoadArguments, Model
from mechint.readouts.tables import finished_tables, reporting

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

# More shards than workers, so that a slow one holds up little and a lost one costs little.
SHARDS_PER_WORKER = 4
TRIES = 3
# Cells by key, receipts, and how many tokens were passed.
Finished = tuple[dict[str, Readings], list[ReceiptDict], int]


@dataclass(frozen=True)
class SwapOf:
    """A swap as it is sent to a worker, which loads the other model itself."""

    arguments: LoadArguments
    name: str


Sent = tuple[Request, tuple[Intervention | SwapOf, ...]]


def ray_tables(
    model: Model,
    requests: Sequence[Request],
    *,
    workers: int,
    store: str | Path | None = None,
    batch_size: int | None = None,
    batch_tokens: int | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
) -> list[pd.DataFrame]:
    """Return the tables of `tables`, computed by `workers` Ray workers that each load the model once.

    A cluster is used if `ray.init` was called or RAY_ADDRESS names one, this machine otherwise, for as long as it
    takes. A shard whose worker is lost is given to another. Raises PrerequisiteError without Ray, UsageError for models
    that were not loaded by `load`, WorkerError if a shard fails again and again, and what `tables` raises.
    """
    options = Options(batch_size, batch_tokens, offload=offload, max_memory=max_memory)
    with TemporaryDirectory() as temporary:
        kept, job = replace(options, store=temporary if store is None else store), Job.of(model, requests)
        with reporting(job, kept, progress, by_cells=True) as reported:
            fill(job, requests, workers, reported)
        rows = job.rows(kept)
    return finished_tables(requests, rows)


def fill(job: Job, requests: Sequence[Request], workers: int, options: Options) -> None:
    """Let Ray workers compute the cells of these requests that the store in `options` lacks.

    Raises what `ray_tables` raises.
    """
    ray = _ray()
    if workers < 1 or options.store is None or options.shard is not None:
        raise UsageError(
            given=f"{workers} workers, store {options.store}, shard {options.shard}",
            allowed="1 or more workers that fill one store with a whole table: they divide it among themselves",
            advice="choose a positive number, and leave the shard out",
        )
    kept = CellStore(options.store)
    missing = _missing(job, kept, workers * SHARDS_PER_WORKER)
    if not missing:
        return
    sent = [_sent(request) for request in requests]
    alone = replace(options, progress=None, store=None)
    for cells, receipts, tokens in _Pool(ray, _arguments(job.model), sent, alone, workers).results(missing):
        kept.add(cells, receipts)
        if options.progress is not None:
            options.progress(len(cells), tokens)


class Worker:
    """Computes shards with its own copy of the model, in a process of its own."""

    def __init__(self, arguments: LoadArguments, sent: Sequence[Sent], options: Options, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.model = arguments.load()
        self.job = Job.of(self.model, [_received(request, swaps) for request, swaps in sent])
        self.options = options

    def run(self, shard: Shard) -> Finished:
        """Return the finished cells of a shard by key, the receipts of its prefills, and the tokens passed for them."""
        cells: dict[str, Readings] = {}
        receipts: dict[Cell, ReceiptDict] = {}
        passed: list[int] = []
        options = replace(self.options, shard=shard, progress=lambda _, tokens: passed.append(tokens))
        for fresh, new in self.job.run(options):
            cells |= {self.job.keys[cell]: readings for cell, readings in fresh.items()}
            receipts |= new
        return cells, self.job.stored(receipts), sum(passed)


class _Pool:
    """Workers that take shards until none is left."""

    def __init__(
        self,
        ray: ModuleType,
        arguments: LoadArguments,
        sent: Sequence[Sent],
        options: Options,
        workers: int,
        kind: type[Worker] = Worker,
    ) -> None:
        self.ray, self.workers, self.started = ray, workers, not ray.is_initialized()
        if self.started:
            ray.init(log_to_driver=False, include_dashboard=False)
        gpus = _gpus(arguments.device, int(ray.cluster_resources().get("GPU", 0)), workers)
        threads = max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)
        remote = ray.remote(num_gpus=gpus, num_cpus=0)(kind)
        self._start: Callable[[], ActorHandle[Worker]] = lambda: remote.remote(arguments, list(sent), options, threads)

    def results(self, shards: Sequence[Shard]) -> Iterator[Finished]:
        """Yield the finished cells of each shard as it ends. Raises WorkerError for one that fails TRIES times."""
        waiting = deque((shard, 1) for shard in shards)
        idle = [self._start() for _ in range(min(self.workers, len(shards)))]
        running: dict[ObjectRef[Finished], tuple[ActorHandle[Worker], Shard, int]] = {}
        try:
            while waiting or running:
                while waiting and idle:
                    shard, tries = waiting.popleft()
                    worker = idle.pop()
                    running[worker.run.remote(shard)] = (worker, shard, tries)
                (done, *_), _ = self.ray.wait(list(running), num_returns=1)
                worker, shard, tries = running.pop(done)
                try:
                    finished: Finished = self.ray.get(done)
                except self.ray.exceptions.RayError as error:
                    waiting.append((shard, _next_try(error, shard, tries)))
                    idle.append(self._start())
                    self.ray.kill(worker)
                    continue
                idle.append(worker)
                yield finished
        finally:
            for worker in (*idle, *(worker for worker, _, _ in running.values())):
                self.ray.kill(worker)
            if self.started:
                self.ray.shutdown()


def _gpus(device: str, present: int, workers: int) -> int:
    """Return how many GPUs each worker needs: one, or its share where a model is spread over all that it sees."""
    if device == AUTO:
        return present // workers
    return 1 if device.startswith("cuda") else 0


def _next_try(error: Exception, shard: Shard, tries: int) -> int:
    """Return the number of the next try; raises a worker's error of bad input, and WorkerError after the last try."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, MechintError):
        raise cause
    if tries == TRIES:
        raise WorkerError(
            given=f"shard {shard.index}/{shard.count} failed {TRIES} times: {str(error).strip().splitlines()[-1]}",
            allowed="workers that stay alive and can load the model",
            advice="look at Ray's logs; finished cells are kept, and the same command goes on from there",
        ) from error
    return tries + 1


def _missing(job: Job, store: CellStore, count: int) -> list[Shard]:
    """Return the shards of which the store lacks a cell."""
    finished, _ = store.load()
    every = [Shard(index, count) for index in range(count)]
    return [shard for shard in every if any(not job.has(finished, cell) for cell in shard.of(job.cells, job.rendered))]


def _arguments(model: Model) -> LoadArguments:
    if model.arguments is None:
        raise UsageError(
            given=f"{model.name}, which was wrapped, not loaded",
            allowed="models that a worker can load by themselves: those of mi.load()",
            advice="save the checkpoint and load it, or run without Ray",
        )
    return replace(model.arguments, identity=model.identity)


def _sent(request: Request) -> Sent:
    interventions = request.interventions
    steers = [interventions] if isinstance(interventions, Intervention) else list(interventions)
    sent = tuple(SwapOf(_arguments(s.model), s.name) if isinstance(s, Swap) else s for s in steers)
    return replace(request, interventions=()), sent


def _received(request: Request, sent: Sequence[Intervention | SwapOf]) -> Request:
    loaded = [Swap(item.arguments.load(), item.name) if isinstance(item, SwapOf) else item for item in sent]
    return replace(request, interventions=loaded)


def _ray() -> ModuleType:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise PrerequisiteError(
            "ray is not installed", "ray, for the Ray engine", 'pip install "mechint[ray]"'
        ) from error
