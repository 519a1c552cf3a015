"""Running a table of (conversation x intervention): prefill, remove, read the stream at the answer position.

Every distinct computation is done once (see `plan`). Steps of equal depth share a padded batch; a step's caches live
until everything that continues them has been read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.errors import UsageError
from mechint.base.progress import Progress, meter_of
from mechint.chat.render import Rendered
from mechint.engine.branching import Indices
from mechint.engine.division import Division, Visit
from mechint.engine.footprint import Footprint
from mechint.engine.passes import Budget, Pass, StepResult
from mechint.engine.plan import Cell, Plan, Step, make_plans
from mechint.engine.step_receipts import receipts_of
from mechint.interventions.receipts import Receipt
from mechint.interventions.specifications import Intervention, terms_among
from mechint.models.memory import Memory
from mechint.models.model import Model

# Residual-sized tensors that a block needs for each token, MLP included; and the share of a run's memory for them.
_COPIES, _SHARE = 40, 0.25
# Beyond this many tokens at once nothing gets faster; on a CPU things get slower, as caches no longer hold them.
_MOST_TOKENS_CPU, _MOST_TOKENS = 1024, 65_536


@dataclass(frozen=True)
class CellBatch:
    """Residuals at the answer position of some cells (conversation index, intervention index).

    `resid[k]` holds distinct residuals at the k-th layer that was asked for, `row[k]` which of them each cell has.
    """

    cells: tuple[Cell, ...]
    resid: tuple[Float[Tensor, "_ d_model"], ...]
    row: tuple[Indices, ...]
    receipts: Mapping[Cell, Receipt]


def run(
    model: Model,
    rendered: Sequence[Rendered],
    interventions: Sequence[Intervention],
    layers: Sequence[int],
    *,
    cells: Sequence[Cell],
    finished: Set[Cell] = frozenset(),
    batch_size: int | None = None,
    batch_tokens: int | None = None,
    offload: bool = False,
    memory: Memory | None = None,
    progress: Progress | None = None,
) -> Iterator[CellBatch]:
    """Yield every cell once, batched by passes; a pass all of whose cells are `finished` is left out.

    Leaving passes out does not change what the others compute, so a table that is gone on with ends as if it had been
    made in one go. A block is given at most `batch_tokens` tokens and `batch_size` rows at once; with `offload`, caches
    wait in the computer's memory. `memory` is what all this may take. `progress` is told of every pass, its padding
    counted among its tokens, and, if it is a Meter, of the work within passes. Raises UsageError, ReceiptError and
    MemoryLimitError.
    """
    memory = memory or Memory.of(model, None, offload=offload)
    budget = make_budget(model, batch_size, batch_tokens, memory, offload=offload)
    division = Division(Footprint(model, budget, len(layers)), memory.room, finished)
    depth = depth_of(interventions, layers)
    for plan in make_plans(rendered, interventions, cells, depth):
        yield from _Run(model, plan, rendered, interventions, tuple(layers), budget, division, progress).batches()


@dataclass(frozen=True)
class _Run:
    """Carries out a plan, depth first."""

    model: Model
    plan: Plan
    rendered: Sequence[Rendered]
    interventions: Sequence[Intervention]
    layers: tuple[int, ...]
    budget: Budget
    division: Division
    progress: Progress | None

    def batches(self) -> Iterator[CellBatch]:
        """Yield the cells of each pass that reads some."""
        done: dict[Step, StepResult] = {}
        receipts: dict[Cell, Receipt] = {}
        for visit in self.division.visits(self.plan.roots):
            if visit.begins:
                yield from self._pass(visit, done, receipts)
            else:
                for step in visit.steps:
                    del done[step]

    def _pass(self, visit: Visit, done: dict[Step, StepResult], receipts: dict[Cell, Receipt]) -> Iterator[CellBatch]:
        self.model.check_no_hooks("before a forward pass")
        steps, meter = visit.steps, meter_of(self.progress)
        forward = Pass(self.model, steps, done, self.budget, meter, packed=visit.packed)
        results = forward.run(self.plan.depth, self.layers)
        done.update(zip(steps, results, strict=True))
        for step in steps:
            receipts |= receipts_of(self.model, step, done, self.rendered, self.interventions)
        batch = self._batch(steps, results, receipts)
        if batch is not None:
            yield batch
            receipts.clear()
        self._report(visit, batch)

    def _report(self, visit: Visit, batch: CellBatch | None) -> None:
        if self.progress is not None:
            fresh = [cell for cell in (batch.cells if batch else ()) if cell not in self.division.finished]
            self.progress(len(fresh), visit.load.n_pos * visit.load.computed)

    def _batch(
        self, chunk: Sequence[Step], results: Sequence[StepResult], receipts: Mapping[Cell, Receipt]
    ) -> CellBatch | None:
        """Return the cells that a pass has read; None if it has only filled caches."""
        reads = [(step, result) for step, result in zip(chunk, results, strict=True) if step.reads]
        if not reads:
            return None
        cells = tuple(cell for step, _ in reads for cell in step.reads)
        residuals = [_residuals(reads, layer) for layer in self.layers]
        return CellBatch(
            cells, tuple(resid for resid, _ in residuals), tuple(row for _, row in residuals), dict(receipts)
        )


def _residuals(reads: Sequence[tuple[Step, StepResult]], layer: int) -> tuple[Float[Tensor, "row d_model"], Indices]:
    """Return the distinct residuals at one layer of some steps, and which of them each of their cells has."""
    parts, rows, start = [], [], 0
    for step, result in reads:
        states = np.array(list(step.reads.values()))
        rows.append(step.rows.level[states, max(layer, 0)] + start)
        parts.append(result.resid[layer])
        start += len(parts[-1])
    return torch.cat(parts), np.concatenate(rows)


def depth_of(interventions: Sequence[Intervention], layers: Sequence[int]) -> int:
    """Return how many blocks have to be run: up to the last one that is read or that something is added after."""
    return max([*layers, *(layer for term in terms_among(interventions) for layer in term.layers or ())]) + 1


def make_budget(
    model: Model,
    batch_size: int | None,
    batch_tokens: int | None,
    memory: Memory,
    *,
    offload: bool = False,
) -> Budget:
    """Return the budget of a run; tokens are chosen from its memory. Raises UsageError for numbers below 1."""
    for name, value in (("batch size", batch_size), ("batch tokens", batch_tokens)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}", "1 or more", "choose a positive number")
    return Budget(
        _fitting_tokens(model, memory) if batch_tokens is None else batch_tokens, batch_size, _cached(model), offload
    )


def _cached(model: Model) -> float:
    """Return the memory of a cached position in tokens: joined with new ones, and again as the kernel arranges them."""
    return 2 * max(model.cache_widths) / (_COPIES * model.d_model)


def _fitting_tokens(model: Model, memory: Memory) -> int:
    """Return a power of two, so that a run which is gone on with later divides its work alike."""
    per_token = _COPIES * model.d_model * model.backend.dtype.itemsize
    fitting = int(_SHARE * memory.limit) // per_token
    most = _MOST_TOKENS_CPU if model.device.type == "cpu" else _MOST_TOKENS
    return 1 << (min(max(fitting, 1), most).bit_length() - 1)
