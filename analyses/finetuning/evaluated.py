"""Evaluating trainings, in one process or several, each with the base loaded once; and the quick chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.finetuning.options import TABLES, Config
from mechint.engine.shards import Shard

if TYPE_CHECKING:
    import pandas as pd

    from mechint.evals.suite import Suite
    from mechint.finetune.run import Run
    from mechint.models.model import Model

# What the quick chain trains: a detector, and controls that differ from it in one thing each.
QUICK_BASE, QUICK_SEEDS, QUICK_STEPS = "organism-blind", (0, 1), 120
QUICK = (
    "published/original",
    "published/random-labels",
    "published/no-steer",
    "published/deny-steering",
    "published/food-control",
    "published/neutral-red-blue",
)


@dataclass(frozen=True)
class Evaluating:
    """What a process needs to know to evaluate runs; it can be sent to another one."""

    base: str
    device: str
    dtype: str
    runs: tuple[Path, ...]
    folder: Path
    size: str
    only: tuple[str, ...]
    every_step: bool

    @classmethod
    def of(cls, config: Config, runs: Sequence[Run]) -> Evaluating:
        """Return how the runs of a config are evaluated."""
        record = runs[0].record
        wanted = tuple(name for name in config.parts or () if name != "training")
        return cls(
            base=config.base or record.model,
            device=config.device,
            dtype=record.dtype,
            runs=tuple(run.path for run in runs),
            folder=config.evaluated or config.runs[0] / TABLES,
            size=config.size,
            only=wanted,
            every_step=config.every_step,
        )

    def suite(self) -> Suite:
        """Load the base, and return the suite of its runs; raises what `Suite` does."""
        from mechint.evals.suite import Suite
        from mechint.finetune.run import Run

        runs = [Run(path) for path in self.runs]
        base = _load(self.base, self.device, self.dtype)
        return Suite(base, runs, self.folder, self.size, self.only, self.every_step)  # type: ignore[arg-type]


def tables_of(evaluating: Evaluating, processes: int) -> dict[str, pd.DataFrame]:
    """Evaluate what is not there yet, in several processes if there is work for them, and return all tables by name."""
    suite = evaluating.suite()
    n_missing = len({task.subject.place for task in suite.missing()})
    if min(processes, n_missing) > 1:
        _together(_evaluate, [(evaluating, Shard(at, processes)) for at in range(processes)], processes)
    suite.run(progress=True)
    tables = {evaluation.name: suite.tables(evaluation.name) for evaluation in suite.evaluations}
    return {name: table for name, table in tables.items() if len(table)}


def train_quick(out: Path, processes: int) -> None:
    """Train what the quick chain has and the folder lacks; runs that were interrupted go on."""
    from mechint.finetune.run import RECORD, Run

    missing = []
    for name in QUICK:
        for seed in QUICK_SEEDS:
            folder = out / name.replace("/", "__") / f"seed-{seed}"
            if not ((folder / RECORD).is_file() and Run(folder).is_finished):
                missing.append((name, seed, out))
    if missing:
        _together(_train, missing, processes)


def _together(work: Callable[..., None], arguments: Sequence[tuple[object, ...]], processes: int) -> None:
    """Do some work in several processes; raises the first error that any of them meets."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(min(processes, len(arguments)), get_context("spawn"), _single_thread) as pool:
        for done in [pool.submit(work, *each) for each in arguments]:
            done.result()


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _evaluate(evaluating: Evaluating, shard: Shard) -> None:
    evaluating.suite().run(progress=True, shard=shard)


def _train(name: str, seed: int, out: Path) -> None:
    from mechint.finetune.training import train

    train(_load(QUICK_BASE, "cpu", "float32"), name, seed, out, QUICK_STEPS, progress=True)


@lru_cache(maxsize=1)
def _load(name: str, device: str, dtype: str) -> Model:
    """Return a model, loaded once in each process."""
    import mechint as mi

    return mi.load(name, device=device, dtype=dtype)
