"""Computing an analysis' rows with the engine: whole or a shard, here or on Ray, going on where it was interrupted."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from analyses.kit.options import Common
from analyses.kit.record import short_receipt, sparing_threads, store_directory
from mechint.engine.store import each_once

if TYPE_CHECKING:
    import pandas as pd

    from mechint.base.files import JSON
    from mechint.engine.explain import Explanation
    from mechint.engine.job import Job, Request
    from mechint.engine.job import Options as JobOptions
    from mechint.models.model import Model

# A run that is expected to take longer than this, in seconds, says by which of its options it would take less.
_LONG = 600.0
_SHORTENING = {
    "concepts": "fewer --concepts",
    "n_random": "a smaller --n-random",
    "limit": "a smaller --limit",
    "layers": "--layers that begin later",
    "layer_sweep": "no --layer-sweep",
    "window": "a wider --window",
    "strengths": "fewer --strengths",
    "orders": "fewer --orders",
}


@dataclasses.dataclass(frozen=True)
class Query:
    """Requests to one model; `with_columns` adds to the rows of one (its number, its rows) what their cells are."""

    model: Model
    requests: Sequence[Request]
    with_columns: Callable[[int, pd.DataFrame], pd.DataFrame]


def compute_rows(config: Common, name: str, queries: Sequence[Query]) -> pd.DataFrame:
    """Return the rows of all requests, unfinished (see `mechint.engine.job.finish`), `request` telling them apart.

    `attrs["receipts"]` holds the receipts. An interrupted call leaves its finished cells for the next one.
    """
    import pandas as pd

    from mechint.engine.job import Job

    begun = time.monotonic()
    jobs = [Job.of(query.model, query.requests) for query in queries]
    costs, passed, tables = _computed(config, name, queries, jobs)
    frames: list[pd.DataFrame] = []
    receipts: list[dict[str, JSON]] = []
    for query, rows in zip(queries, tables, strict=True):
        for number, request_rows in enumerate(rows):
            receipts += [
                short_receipt(receipt) | {"model": query.model.name} for receipt in request_rows.attrs["receipts"]
            ]
            frames.append(query.with_columns(number, request_rows).assign(request=len(frames)))
    _tell(name, costs, passed, time.monotonic() - begun)
    table = pd.concat([frame for frame in frames if len(frame)] or frames[:1])  # a shard may have nothing of a request
    table.attrs["receipts"] = each_once(receipts)
    return table


def finished(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table of all requests' rows: with shifts, each request's in its order."""
    import pandas as pd

    from mechint.engine.job import finish

    table = pd.concat(
        [finish(request_rows) for _, request_rows in rows.groupby("request", sort=True)], ignore_index=True
    )
    table = table.drop(columns="request")
    table.attrs["receipts"] = rows.attrs["receipts"]
    return table


def _computed(
    config: Common, name: str, queries: Sequence[Query], jobs: Sequence[Job]
) -> tuple[list[Explanation], int, list[list[pd.DataFrame]]]:
    """Return what the jobs were to cost, how many tokens were passed, and the rows of each one's requests.

    To whoever waits they are one thing: a line says what is expected of all, and one bar goes over all.
    """
    from mechint.base.progress import announce, cell_bar
    from mechint.engine.explain import cost_of
    from mechint.engine.forecast import forecast

    options, tables = _job_options(config, name), []
    costs = [cost_of(job, options) for job in jobs]
    cells = sum(cost.cells for cost in costs)
    cached = sum(cost.known for cost in costs)
    work = sum(cost.work for cost in costs)
    if work:
        with sparing_threads(queries[0].model):
            expected = forecast(jobs, costs, options, workers=config.workers if config.engine == "ray" else 1)
        announce(f"{name}: {expected}{shorter(config, expected.seconds)}")
    with cell_bar(name, work=work, cells=cells, known=cached, by_cells=config.engine == "ray") as count:
        for query, job in zip(queries, jobs, strict=True):
            with sparing_threads(query.model):
                tables.append(_rows(config, query, job, dataclasses.replace(options, progress=count)))
    return costs, count.tokens, tables


def shorter(config: Common, seconds: float | None) -> str:
    """Return, where a run is expected to take long, by which of its options it would take less."""
    if seconds is None or seconds < _LONG:
        return ""
    sweeps = getattr(config, "layer_sweep", False)
    without = {"layers"} if sweeps else {"layer_sweep", "window"}
    ways = [way for option, way in _SHORTENING.items() if hasattr(config, option) and option not in without]
    return f"; it takes less with {', '.join(ways)}"


def _job_options(config: Common, name: str) -> JobOptions:
    from mechint.engine.job import Options as JobOptions

    return JobOptions(
        batch_size=config.batch_size,
        batch_tokens=config.batch_tokens,
        store=store_directory(config.out / name, config.shard),
        shard=config.shard,
        offload=config.offload,
        max_memory=config.max_memory,
    )


def _rows(config: Common, query: Query, job: Job, options: JobOptions) -> list[pd.DataFrame]:
    """Return the rows of one model's requests."""
    if config.engine == "ray":
        _fill(job, query, config.workers, options)
    return job.rows(options)


def _fill(job: Job, query: Query, workers: int, options: JobOptions) -> None:
    from mechint.readouts.ray_engine import fill

    fill(job, query.requests, workers, options)


def _tell(name: str, costs: Sequence[Explanation], passed: int, seconds: float) -> None:
    """Write what a run has cost."""
    cells = sum(cost.cells for cost in costs)
    alone = sum(cost.alone_tokens for cost in costs)
    distinct = sum(cost.distinct_tokens for cost in costs)
    sys.stderr.write(
        f"{name}: {cells:,} cells in {seconds:.1f} s; {passed:,} tokens passed, {distinct:,} distinct, "
        f"{alone:,} if every cell were run by itself\n"
    )
