"""Carrying out steps of a plan: several nodes in one padded batch, block by block, with rows that part on the way.

The example in `plan` takes two passes. The first runs the tokens 0:40: block 0 one row, which then parts into rows 0
(clean) and 1, to which the vector is added. The second runs 40:51 and 40:56 together, 16 positions a row:

    level     rows of 40:51   rows of 40:56   cached rows of 0:40 that they continue
    0         0               1               0, 0
    1, ...    0, 1            2, 3            0, 1, 0, 1

After block 0 of the second pass, rows 0, 0, 1, 1 go on as rows 0 to 3. Nothing is added to them: the vector acts
through the cached row 1. Steps with pasts of different lengths would have the shorter padded on the left and masked.
Packed steps (see `packing`) continue one past and stand in one row, one after another, with nothing padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.base.progress import Meter
from mechint.engine.branching import Indices
from mechint.engine.effect import Effect, as_positions
from mechint.engine.plan import Step
from mechint.engine.stored_pass import StoredPass
from mechint.interventions.addition import Steering, Term
from mechint.interventions.fill_files import StoredPrefix
from mechint.interventions.receipts import StreamChange
from mechint.models.backends.blocks import BlockPass, moved
from mechint.models.backends.past import KeyValues, Past, Piece, take
from mechint.models.capture import EMBED
from mechint.models.device_memory import is_out_of_memory, out_of_memory
from mechint.models.model import Model


@dataclass
class StepResult:
    """The results of a step: caches by block, measured changes by layer and row, residuals at its last position.

    Caches and residuals have one row for each row of the step at that layer.
    """

    stored: dict[int, KeyValues] = field(default_factory=dict)
    changes: dict[tuple[int, int], StreamChange] = field(default_factory=dict)
    resid: dict[int, Float[Tensor, "row d_model"]] = field(default_factory=dict)


@dataclass
class Budget:
    """How many tokens (and rows, if that is limited) a block is given at once; halved when memory runs out.

    A cached position that is attended to counts as `cached` of a token. With `offload`, caches that later passes need
    are kept in the computer's memory instead of the device's.
    """

    tokens: int
    max_rows: int | None = None
    cached: float = 0.0
    offload: bool = False

    def rows(self, n_pos: int, past: int) -> int:
        """Rows of `n_pos` tokens after `past` cached ones that fit."""
        fitting = max(1, int(self.tokens / (n_pos + self.cached * past)))
        return fitting if self.max_rows is None else min(fitting, self.max_rows)

    def halve(self, rows: int, n_pos: int, past: int, error: BaseException) -> None:
        """Allow half of the rows that were just too many. Raises MemoryLimitError if that was a single row."""
        if rows == 1:
            raise out_of_memory(1) from error
        self.tokens = max(1, int(rows * (n_pos + self.cached * past) / 2))


class Pass:
    """One run over some steps, all of whose parents are done."""

    def __init__(
        self,
        model: Model,
        steps: Sequence[Step],
        done: Mapping[Step, StepResult],
        budget: Budget,
        meter: Meter | None = None,
        *,
        packed: bool = False,
    ) -> None:
        self.model, self.steps, self.done, self.budget, self.meter = model, steps, done, budget, meter
        self.packed = packed
        # The steps that have rows of their own: packed ones stand in those of the first, one after another.
        self.owners = steps[:1] if packed else steps
        stops = list(accumulate(step.n_tokens for step in steps))
        self.starts = [0, *stops[:-1]] if packed else [0] * len(steps)
        self.n_pos = stops[-1] if packed else max(step.n_tokens for step in steps)
        self.past = torch.tensor([step.node.start for step in self.owners])
        self.longest = int(self.past.max())
        self.passes: dict[Model | StoredPrefix, BlockPass] = {}

    def run(self, depth: int, layers: Sequence[int]) -> list[StepResult]:
        """Run blocks 0 to `depth`, keeping the last position's residual at `layers` where a step is read."""
        results = [StepResult() for _ in self.steps]
        resid = self._embedded()
        self._keep(results, EMBED, resid, layers)
        for layer in range(depth):
            ahead = layer + 1 < depth or any(step.rows.steered[layer] or step.node.ends for step in self.steps)
            out, cached = self._block(layer, resid, keys_only=not ahead)
            for result, (rows, positions), step in zip(results, self._places(layer), self.steps, strict=True):
                if step.children and cached is not None:
                    kept = (cached[0][rows, :, positions], cached[1][rows, :, positions])
                    result.stored[layer] = moved(kept, torch.device("cpu")) if self.budget.offload else kept
            if out is None:
                break
            resid = out
            del out  # the stream is the largest thing in a pass: none may stay that is not needed
            self._keep(results, layer, resid, layers)
            resid = self._parted(results, layer, resid)
        return results

    def _spans(self, level: int) -> list[tuple[int, int]]:
        """Return where the rows of each of the owners lie at a level."""
        stops = list(accumulate(step.rows.counts[level] for step in self.owners))
        return list(zip([0, *stops[:-1]], stops, strict=True))

    def _places(self, level: int) -> list[tuple[slice, slice]]:
        """Return the rows and the positions in them of each step at a level."""
        spans = self._spans(level) * (len(self.steps) if self.packed else 1)
        return [
            (slice(*span), slice(start, start + step.n_tokens))
            for span, start, step in zip(spans, self.starts, self.steps, strict=True)
        ]

    def _filler(self, step: Step, state: Effect) -> Model | StoredPrefix:
        """Return the model or the file that fills a step's positions in a state."""
        if state.filler is None or not state.swapped >> step.node.start & 1:
            return self.model
        return state.filler if isinstance(state.filler, StoredPrefix) else state.filler.model

    def _fillers(self, level: int) -> list[Model | StoredPrefix]:
        """Return the model or the file that fills each row of a level."""
        return [self._filler(step, step.states[state]) for step in self.owners for state in step.rows.example(level)]

    def _embedded(self) -> Float[Tensor, "row pos d_model"]:
        fillers = self._fillers(0)
        for filler in dict.fromkeys(fillers):
            self.passes[filler] = self._begun(filler)
        source = self._sources(0)
        if len(self.passes) == 1:
            return self.passes[fillers[0]].resid[source]
        parts = [
            self.passes[filler].resid[row].to(self.model.device) for filler, row in zip(fillers, source, strict=True)
        ]
        return torch.stack(parts)

    def _begun(self, filler: Model | StoredPrefix) -> BlockPass:
        if isinstance(filler, Model):
            filler.backend.context.check(max(step.node.stop for step in self.steps))
            tokens = [step.node.tokens for step in self.steps]
            if self.packed:
                return filler.blocks.packed(tokens, self.longest)
            rows = [torch.tensor(row) for row in tokens]
            return filler.blocks.begin(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), self.past)
        return StoredPass(filler, self.past, self.n_pos, self.model)

    def _sources(self, level: int) -> Int[Tensor, " row"]:
        """Return the owner that each row of a level belongs to."""
        return torch.arange(len(self.owners)).repeat_interleave(
            torch.tensor([step.rows.counts[level] for step in self.owners])
        )

    def _block(
        self, layer: int, resid: Float[Tensor, "row pos d_model"], *, keys_only: bool
    ) -> tuple[Tensor | None, KeyValues | None]:
        """Run one block over all rows, as many at a time as the budget allows; caches are kept if they are needed."""
        gathered = _Gathered(len(resid), keep=any(step.children for step in self.steps))
        source, fillers = self._sources(layer), self._fillers(layer) if len(self.passes) > 1 else []
        for filler, prepared in self.passes.items():
            rows_of_filler = [row for row, its in enumerate(fillers) if its == filler] if fillers else range(len(resid))
            at = 0
            while at < len(rows_of_filler):
                rows = rows_of_filler[at : at + self._at_once(len(rows_of_filler) - at)]
                chosen = take(resid, rows)
                try:
                    out, cached = prepared.block(
                        layer, chosen, source[list(rows)], self._past_of(layer, rows), keys_only=keys_only
                    )
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    self.budget.halve(len(rows), self.n_pos, self.longest, error)
                    continue
                gathered.put(rows, out, cached)
                if self.meter is not None and isinstance(filler, Model):
                    self.meter.work(len(rows) * self.n_pos)
                at += len(rows)
        return gathered.out, gathered.cached

    def _at_once(self, n_rows: int) -> int:
        """Return how many of some rows a block is given at once: as many as the budget allows, in even batches."""
        most = self.budget.rows(self.n_pos, self.longest)
        return -(-n_rows // -(-n_rows // most))

    def _past_of(self, layer: int, rows: Sequence[int]) -> Past | None:
        """Return the keys and values of some rows before this pass, shorter pasts padded on the left."""
        if not self.longest:
            return None
        pieces: list[Piece] = []
        padding: list[tuple[slice, int]] = []
        chosen, at = np.asarray(rows), 0
        for step, (start, stop) in zip(self.owners, self._spans(layer), strict=True):
            rows_of_step = chosen[(chosen >= start) & (chosen < stop)] - start
            if len(rows_of_step):
                places = slice(at, at + len(rows_of_step))
                at = places.stop
                padding.append((places, self.longest - step.node.start))
                pieces += self._pieces(step, layer, rows_of_step, places)
        return Past(self.longest, pieces, padding)

    def _pieces(self, step: Step, layer: int, rows: Indices, places: slice) -> Iterator[Piece]:
        """Yield the keys and values of all steps before a step for some of its rows, which become the rows `places`."""
        start = self.longest - step.node.start
        for before, there in step.past(layer):
            yield Piece(self.done[before].stored[layer], there[rows].tolist(), places, start)
            start += before.n_tokens

    def _keep(self, results: Sequence[StepResult], layer: int, resid: Tensor, layers: Sequence[int]) -> None:
        if layer in layers:
            for result, step, (rows, positions) in zip(results, self.steps, self._places(max(layer, 0)), strict=True):
                if step.node.ends:
                    result.resid[layer] = resid[rows, positions.stop - 1].clone()

    def _parted(self, results: Sequence[StepResult], layer: int, out: Tensor) -> Tensor:
        """Return the rows of the next level: those that go on as they are, and those to which something is added."""
        origin = np.concatenate(
            [step.rows.origin[layer] + start for step, (start, _) in zip(self.owners, self._spans(layer), strict=True)]
        )
        if not any(step.rows.steered[layer] for step in self.steps):
            return take(out, origin.tolist())
        # Where all rows go on, once each, they are changed where they are; not where gradients need them as they were.
        goes_on = len(origin) == len(out) and bool((origin == np.arange(len(out))).all())
        following = out if goes_on and not out.requires_grad else out[torch.from_numpy(origin)]
        for result, step, (after, _) in zip(results, self.steps, self._spans(layer + 1), strict=True):
            for rows in self._batches(step.rows.steered[layer]):
                steering = self._steering(step, layer, [step.states[state] for state in rows.values()])
                steering.apply_to(layer, [following[row + after, : step.n_tokens] for row in rows])
                steering.check()
                for number, row in enumerate(rows):
                    result.changes[layer, row] = steering.changes(number)[layer].moved(step.node.start)
        return following

    def _batches(self, rows: Mapping[int, int]) -> Iterator[dict[int, int]]:
        """Yield rows to which something is added, as many at a time as a block is given: each takes copies."""
        size = self.budget.rows(self.n_pos, self.longest)
        items = list(rows.items())
        for start in range(0, len(items), size):
            yield dict(items[start : start + size])

    def _steering(self, step: Step, layer: int, states: Sequence[Effect]) -> Steering:
        steering = Steering(len(states), step.n_tokens, self.model.d_model)
        for row, state in enumerate(states):
            for term, bits in zip(state.terms, state.positions, strict=True):
                positions = as_positions(bits >> step.node.start & ((1 << step.n_tokens) - 1))
                if layer in term.keys and positions:
                    mask = torch.zeros(step.n_tokens, dtype=torch.bool)
                    mask[positions] = True
                    steering.add(Term(row, mask, {layer: term.injection.amount(layer, self.model)}))
        return steering


class _Gathered:
    """The results of a block, put together as they come: written once, and where they stay."""

    def __init__(self, n_rows: int, *, keep: bool) -> None:
        self.n_rows, self.keep = n_rows, keep
        self.out: Tensor | None = None
        self.cached: KeyValues | None = None

    def put(self, rows: Sequence[int], out: Tensor | None, cached: KeyValues) -> None:
        """Add the output and the caches of a block for some rows."""
        if out is not None:
            self.out = self._with(self.out, rows, out)
        if self.keep:
            keys, values = (None, None) if self.cached is None else self.cached
            self.cached = (self._with(keys, rows, cached[0]), self._with(values, rows, cached[1]))

    def _with(self, whole: Tensor | None, rows: Sequence[int], values: Tensor) -> Tensor:
        """Return the whole with the values of some rows, on the device that the first of them were on."""
        if whole is None:
            if len(rows) == self.n_rows and list(rows) == list(range(self.n_rows)):
                return values
            whole = values.new_empty((self.n_rows, *values.shape[1:]))
        contiguous = rows[-1] - rows[0] == len(rows) - 1 and all(row == rows[0] + at for at, row in enumerate(rows))
        whole[slice(rows[0], rows[-1] + 1) if contiguous else list(rows)] = values.to(whole.device)
        return whole
