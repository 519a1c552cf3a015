"""Tables as one job: cells with the keys of all that they depend on, run by the engine or taken from a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.errors import NumericalError, UsageError
from mechint.base.files import JSON, sha256
from mechint.base.progress import Meter, Progress, meter_of
from mechint.base.signatures import checked
from mechint.chat.conversations import Conversation
from mechint.chat.render import Rendered, render_all
from mechint.chat.tokens import Answers
from mechint.engine.answers import AnswerIds, Row, add_shifts, all_answer_ids, column_names, read_rows
from mechint.engine.engine import CellBatch, run
from mechint.engine.plan import Cell
from mechint.engine.reach import warn_unreached
from mechint.engine.shards import Shard
from mechint.engine.store import CellStore
from mechint.interventions.listing import listed_conversations, listed_interventions
from mechint.interventions.prefill import check_fits, check_readable
from mechint.interventions.specifications import CLEAN, Intervention, dose_text, key_for, terms_among
from mechint.models.memory import Memory
from mechint.models.model import Model
from mechint.models.readout import readable
from mechint.models.residual_scale import unit_record

Readings = Mapping[int, Mapping[str, float]]
ReceiptDict = dict[str, JSON]


@dataclass(frozen=True)
class Options:
    """How a job is run; none of it changes its numbers."""

    batch_size: int | None = None
    batch_tokens: int | None = None
    progress: Progress | None = None
    store: str | Path | None = None
    shard: Shard | None = None
    offload: bool = False
    max_memory: int | str | None = None

    def memory(self, model: Model, *, begin: bool = False) -> Memory:
        """Return the memory that a run may take; raises what `Memory.of` raises."""
        return Memory.of(model, self.max_memory, offload=self.offload, store=self.store, begin=begin)


@checked
@dataclass(frozen=True)
class Request:
    """One table: conversations and interventions, every pair of which is a cell.

    `answers` are the conversations' own where None; `layers` are those to read (-1 for the stream before block 0), the
    output alone where None. Each conversation is continued by the token ids `after` before it is read, to which answers
    may be given as ids too.
    """

    conversations: Conversation | Sequence[Conversation]
    interventions: Intervention | Sequence[Intervention]
    answers: Answers | AnswerIds | None = None
    layers: Sequence[int] | None = None
    after: Sequence[int] = ()


@dataclass(frozen=True)
class Chat:
    """A conversation with the answers and layers that are read; requests that agree in all of this share it."""

    rendered: Rendered
    answers: AnswerIds
    layers: tuple[int, ...]


@dataclass(frozen=True)
class RequestCells:
    """The cells of one request in a job: indices of its conversations and interventions, and the layers to read.

    `reference` is the index of the clean intervention that shifts are taken against; `requested` those that are shown.
    """

    conversations: tuple[int, ...]
    interventions: tuple[int, ...]
    layers: tuple[int, ...]
    reference: int
    requested: frozenset[int]

    @property
    def cells(self) -> list[Cell]:
        """Every cell, in the table's order."""
        return [(c, i) for c in self.conversations for i in self.interventions]


@dataclass(frozen=True)
class Job:
    """The cells of some requests as one piece of work; what the requests have in common is computed once."""

    model: Model
    rendered: tuple[Rendered, ...]
    answers: tuple[AnswerIds, ...]
    interventions: tuple[Intervention, ...]
    request_cells: tuple[RequestCells, ...]

    @classmethod
    def of(cls, model: Model, requests: Sequence[Request]) -> Job:
        """Return the job of some requests, all of them checked.

        Raises UsageError for no request, for an empty one and for labels or names that occur twice in one, and what
        `render`, `answer_ids` and the checks of `prefill` raise.
        """
        if not requests:
            raise UsageError("no requests", "one or more", "pass at least one")
        model.weights.check_in_place()
        renderings: dict[Conversation, Rendered] = {}
        chats: dict[Chat, int] = {}
        numbers: dict[tuple[str, str], int] = {}
        interventions: list[Intervention] = []
        request_cells = []
        for request in requests:
            conversations = listed_conversations(request.conversations)
            requested = listed_interventions(request.interventions)
            fresh = [conversation for conversation in conversations if conversation not in renderings]
            renderings.update(zip(fresh, render_all(model, fresh), strict=True))
            texts = _continued(model, [renderings[conversation] for conversation in conversations], request.after)
            complete = requested if CLEAN in requested else (CLEAN, *requested)
            _check(model, texts, complete)
            for intervention in complete:
                key = (intervention.name, intervention.key)
                if numbers.setdefault(key, len(interventions)) == len(interventions):
                    interventions.append(intervention)
            layers = (model.n_layers - 1,) if request.layers is None else tuple(request.layers)
            answers = all_answer_ids(model.tokenizer, texts, request.answers)
            chats_read = [Chat(text, ids, layers) for text, ids in zip(texts, answers, strict=True)]
            request_cells.append(
                RequestCells(
                    conversations=tuple(chats.setdefault(chat, len(chats)) for chat in chats_read),
                    interventions=tuple(numbers[i.name, i.key] for i in complete),
                    layers=layers,
                    reference=numbers[CLEAN.name, CLEAN.key],
                    requested=frozenset([numbers[i.name, i.key] for i in requested]),
                )
            )
        rendered = tuple(chat.rendered for chat in chats)
        ids = tuple(chat.answers for chat in chats)
        job = cls(model, rendered, ids, tuple(interventions), tuple(request_cells))
        warn_unreached(model, ((rendered[c], interventions[i]) for c, i in job.cells))
        return job

    @cached_property
    def cells(self) -> list[Cell]:
        """Every cell of every request, once."""
        return list(dict.fromkeys(cell for request in self.request_cells for cell in request.cells))

    @cached_property
    def layers(self) -> dict[int, tuple[int, ...]]:
        """The layers at which each conversation is read."""
        return {c: request.layers for request in self.request_cells for c in request.conversations}

    @cached_property
    def all_layers(self) -> tuple[int, ...]:
        """Every layer at which something is read."""
        return tuple(sorted({layer for request in self.request_cells for layer in request.layers}))

    def rows(self, options: Options) -> list[pd.DataFrame]:
        """Return the rows of each request that are there once the job is done: all of them, unless it is a shard's.

        A row has its place in the complete table as index, and `reference` if it is a clean one that shifts are taken
        against, `asked` if it is shown. `finish` makes a table of them.
        """
        readings: dict[Cell, Readings] = {}
        receipts: dict[Cell, ReceiptDict] = {}
        for fresh, new in self.run(options):
            readings |= fresh
            receipts |= new
        return [self._rows(request, readings, receipts) for request in self.request_cells]

    def _rows(
        self, request: RequestCells, readings: Mapping[Cell, Readings], receipts: Mapping[Cell, ReceiptDict]
    ) -> pd.DataFrame:
        places = product(request.cells, request.layers)
        rows: dict[int, Row] = {
            place: {
                "conversation": self.rendered[c].label,
                "intervention": self.interventions[i].name,
                "layer": layer,
                "asked": i in request.requested,
                "reference": i == request.reference,
                **readings[c, i][layer],
            }
            for place, ((c, i), layer) in enumerate(places)
            if (c, i) in readings
        }
        table = pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), dtype="int64"))
        if table.empty:
            table = pd.DataFrame(columns=["conversation", "intervention", "layer", "asked", "reference"])
        table.attrs["receipts"] = [self._named(receipts[cell], cell) for cell in request.cells if cell in receipts]
        table.attrs["dtype"] = self.model.dtype_name
        table.attrs["renderings"] = {self.rendered[c].label: str(self.rendered[c]) for c in request.conversations}
        if terms_among([self.interventions[i] for i in request.interventions]):
            table.attrs["unit"] = unit_record(self.model)
        return table

    def _named(self, receipt: ReceiptDict, cell: Cell) -> ReceiptDict:
        """Return a receipt, whichever run has left it, under this job's names."""
        names = {"conversation": self.rendered[cell[0]].label, "intervention": self.interventions[cell[1]].name}
        return {key: names.get(key, value) for key, value in receipt.items() if key != "prefill"}

    def cells_of(self, shard: Shard | None) -> list[Cell]:
        """Return the cells of a shard, or all."""
        return self.cells if shard is None else shard.of(self.cells, self.rendered)

    def finished_in(self, store: str | Path | None) -> tuple[dict[Cell, Readings], dict[Cell, ReceiptDict]]:
        """Return the cells of this job that a store has, and the receipts of their prefills, as far as it has them."""
        if store is None:
            return {}, {}
        stored, receipts = CellStore(store).load()
        finished = {
            cell: self._of_stored(cell, stored[key]) for cell, key in self.keys.items() if self.has(stored, cell)
        }
        kept = {receipt.get("prefill"): receipt for receipt in receipts}
        return finished, {cell: kept[key] for cell, key in self.prefills.items() if key in kept}

    def run(self, options: Options) -> Iterator[tuple[dict[Cell, Readings], dict[Cell, ReceiptDict]]]:
        """Yield finished cells with receipts: first those of the store, then each pass's, which are added to the store.

        A receipt goes with the first cell that has its prefill.
        """
        store = None if options.store is None else CellStore(options.store)
        if store is not None and options.shard is None:
            store.compact()
        finished, receipts = self.finished_in(options.store)
        meter = meter_of(options.progress)
        yield finished, receipts
        batches = run(
            self.model,
            self.rendered,
            self.interventions,
            self.all_layers,
            cells=self.cells_of(options.shard),
            finished=frozenset(finished),
            batch_size=options.batch_size,
            batch_tokens=options.batch_tokens,
            offload=options.offload,
            memory=options.memory(self.model, begin=True),
            progress=options.progress,
        )
        for batch in batches:
            fresh = {cell: values for cell, values in self._read(batch, meter).items() if cell not in finished}
            new = {self.owners[cell]: receipt.to_dict() for cell, receipt in batch.receipts.items()}
            if store is not None and fresh:
                store.add({self.keys[cell]: values for cell, values in fresh.items()}, self.stored(new))
            yield fresh, new

    @cached_property
    def keys(self) -> dict[Cell, str]:
        """Hashes of everything that each cell's numbers depend on, but for the layers that are read."""
        texts = [repr((r.tokens, [(s.stop, s.add_injection) for s in r.segments])).encode() for r in self.rendered]
        answers = [repr(ids).encode() for ids in self.answers]
        interventions = self._intervention_keys
        return {(c, i): sha256(self._model_key, texts[c], interventions[i], answers[c]) for c, i in self.cells}

    @cached_property
    def owners(self) -> dict[Cell, Cell]:
        """The first cell with the prefill of each cell: with the same first turns under the same intervention."""
        first: dict[tuple[str, int], Cell] = {}
        return {(c, i): first.setdefault((self._prefixes[c], i), (c, i)) for c, i in sorted(self.cells)}

    @cached_property
    def prefills(self) -> dict[Cell, str]:
        """Hashes of everything that each prefill depends on, by its first cell: its key in a store.

        Names are no part of it. A store may hold prefills of other models, doses and chats that go by the same names.
        """
        interventions = self._intervention_keys
        return {
            (c, i): sha256(self._model_key, self._prefixes[c].encode(), interventions[i])
            for c, i in set(self.owners.values())
        }

    def stored(self, receipts: Mapping[Cell, ReceiptDict]) -> list[ReceiptDict]:
        """Return receipts as a store has them: with the hash of their prefill."""
        return [receipt | {"prefill": self.prefills[cell]} for cell, receipt in receipts.items()]

    @cached_property
    def _prefixes(self) -> list[str]:
        """The tokens and marks of the first turns of each conversation."""
        marks = [[(s.stop, s.add_injection) for s in r.segments if s.stop <= r.prefix_length] for r in self.rendered]
        return [repr((r.tokens[: r.prefix_length], marked)) for r, marked in zip(self.rendered, marks, strict=True)]

    @cached_property
    def _model_key(self) -> bytes:
        return f"{self.model.identity} {self.model.backend.kind} {self.model.backend.dtype}".encode()

    @cached_property
    def _intervention_keys(self) -> list[bytes]:
        return [key_for(self.model, intervention).encode() for intervention in self.interventions]

    def has(self, stored: Mapping[str, Readings], cell: Cell) -> bool:
        """Whether `stored` has a cell with all layers at which it is read."""
        key = self.keys[cell]
        return key in stored and set(self.layers[cell[0]]) <= set(stored[key])

    def _of_stored(self, cell: Cell, readings: Readings) -> Readings:
        """Return a stored cell with the columns of its answers: a file of several kinds of answers has more."""
        names = column_names(self.answers[cell[0]])
        return {layer: {name: readings[layer][name] for name in names} for layer in self.layers[cell[0]]}

    def reading_work(self, cells: Iterable[Cell]) -> int:
        """Return the work of reading some cells, in (token x block)."""
        return self.model.readout_work * sum(len(self.layers[c]) for c, _ in cells)

    def _read(self, batch: CellBatch, meter: Meter | None) -> dict[Cell, Readings]:
        """Return the readout of every cell of a pass, at the layers where its conversation is read."""
        readings: dict[Cell, dict[int, Mapping[str, float]]] = {cell: {} for cell in batch.cells}
        for layer, resid, row in zip(self.all_layers, batch.resid, batch.row, strict=True):
            rows = [
                (cell, r) for cell, r in zip(batch.cells, row.tolist(), strict=True) if layer in self.layers[cell[0]]
            ]
            if rows:
                self._check_readable(layer, resid, rows)
                pairs = [(r, self.answers[cell[0]]) for cell, r in rows]
                for (cell, _), values in zip(rows, _read_pairs(self.model, resid, pairs), strict=True):
                    readings[cell][layer] = values
                if meter is not None:
                    meter.work(self.model.readout_work * len(rows))
        return dict(readings)

    def _check_readable(
        self, layer: int, resid: Float[Tensor, "row d_model"], rows: Sequence[tuple[Cell, int]]
    ) -> None:
        """Raise NumericalError, naming the cell, for a residual that no logits can be read from."""
        fine = readable(resid).tolist()
        for (c, i), row in rows:
            if not fine[row]:
                raise _overflowed(self.model, self.rendered[c], self.interventions[i], layer)


def finish(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table of one request, made of the rows of all its shards: with shifts, in its order."""
    attrs = {"receipts": [], **rows.attrs}
    table = rows.copy(deep=False)
    table.attrs = {}  # pandas would copy thousands of receipts at every step
    table = table.sort_index()
    if len(table):
        keys = [name for name in ("conversation", "layer") if name in table]
        table = add_shifts(table, keys, table["reference"].to_numpy(dtype=bool))
    table = table[table["asked"].astype(bool)].drop(columns=["asked", "reference"]).reset_index(drop=True)
    table.attrs = attrs
    return table


def _overflowed(model: Model, rendered: Rendered, intervention: Intervention, layer: int) -> NumericalError:
    return NumericalError(
        given=f"conversation {rendered.label!r}, {dose_text(intervention)}: at layer {layer} the residual at the "
        f"answer position is not finite, or too large to be normed, in {model.dtype_name}",
        allowed="residuals whose squares float32 can hold",
        advice="load the model with a wider dtype (bfloat16, float32)"
        + (", or lower the strength" if intervention.terms else ""),
    )


def _continued(model: Model, rendered: Sequence[Rendered], after: Sequence[int]) -> Sequence[Rendered]:
    return [item.continued(after, model.tokenizer.decode(list(after))) for item in rendered] if after else rendered


def _check(model: Model, rendered: Sequence[Rendered], interventions: Sequence[Intervention]) -> None:
    for intervention in interventions:
        check_fits(model, intervention)
    for item in rendered:
        check_readable(item, interventions)
        model.backend.context.check(len(item.tokens), f"conversation {item.label!r}")


def _read_pairs(
    model: Model, resid: Float[Tensor, "row d_model"], pairs: Sequence[tuple[int, AnswerIds]]
) -> list[dict[str, float]]:
    """Return the answer columns of some residuals with their answers; pairs that occur twice are read once."""
    distinct = list(dict.fromkeys(pairs))
    chosen = resid[torch.tensor([row for row, _ in distinct])]
    columns = dict(zip(distinct, read_rows(model.readout, chosen, [ids for _, ids in distinct]), strict=True))
    return [columns[pair] for pair in pairs]
