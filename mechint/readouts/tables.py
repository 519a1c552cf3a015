"""Several tables computed together, so that passes which they share are done once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd

from mechint.base.progress import Progress, announce, cell_bar
from mechint.base.signatures import Count, checked
from mechint.engine.explain import cost_of
from mechint.engine.forecast import forecast
from mechint.engine.job import Job, Options, Request, finish
from mechint.engine.shards import Shard
from mechint.models.model import Model


@checked
def tables(
    model: Model,
    requests: Sequence[Request],
    *,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> list[pd.DataFrame]:
    """Return the tables of several requests, computed together: prefills that they share are done once.

    Each has the columns of `score`, and `layer` where more than the output was asked for (-1 is the stream before
    block 0). The other arguments are those of `score`. Raises what `score` raises.
    """
    job = Job.of(model, requests)
    options = Options(batch_size, batch_tokens, None, store, shard, offload, max_memory)
    with reporting(job, options, progress) as reported:
        return finished_tables(requests, job.rows(reported))


@contextmanager
def reporting(
    job: Job, options: Options, progress: Progress | bool | None, name: str = "table", *, by_cells: bool = False
) -> Iterator[Options]:
    """Yield options whose `progress` is a function of the caller, or a bar over the work that the job will be.

    Before the bar a line says what is expected. `by_cells`: a bar over cells, where the work is done elsewhere.
    """
    if not isinstance(progress, bool):
        yield replace(options, progress=progress)
    elif not progress:
        yield replace(options, progress=None)
    else:
        cost = cost_of(job, options)
        if cost.work:
            announce(f"{name}: {forecast([job], [cost], options)}")
        with cell_bar(name, work=cost.work, cells=cost.cells, known=cost.known, by_cells=by_cells) as bar:
            yield replace(options, progress=bar)


def finished_tables(requests: Sequence[Request], rows: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return the tables of some requests from their rows; `layer` only where more than the output was asked for."""
    tables = []
    for request, request_rows in zip(requests, rows, strict=True):
        table = finish(request_rows)
        if request.layers is None:
            del table["layer"]
        tables.append(table)
    return tables
