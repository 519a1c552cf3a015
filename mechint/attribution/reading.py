"""Reading the rest of one conversation from caches, from any block on and as often as needed: for patches, gradients.

The engine answers tables and shares all that cells have in common. Here one conversation is read again and again with
something changed on the way: the residual stream after some block, or the cache itself. What asks for gradients gets
them: every step is differentiable in the residuals and caches it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.base.errors import UsageError
from mechint.base.progress import Progress
from mechint.chat.conversations import Conversation
from mechint.chat.render import Rendered
from mechint.chat.tokens import Answers
from mechint.engine.answers import AnswerIds, answer_ids
from mechint.engine.engine import make_budget
from mechint.interventions.listing import listed_interventions
from mechint.interventions.prefill import Prefilled, prefill
from mechint.interventions.specifications import Intervention
from mechint.models.backends.blocks import BlockPass
from mechint.models.backends.past import Past, Piece
from mechint.models.cache import KVCache
from mechint.models.capture import EMBED, check_layers
from mechint.models.device_memory import is_out_of_memory
from mechint.models.memory import Memory
from mechint.models.model import Model

# Gets `resid_post` of one block (`row pos d_model`, the read positions) and the rows it belongs to; returns another.
Edit = Callable[[Tensor, Sequence[int]], Tensor]


@dataclass(frozen=True, eq=False)
class Reading:
    """One conversation, its prefix filled under several interventions (one cache row each), the rest yet to be read.

    `read positions` are all after the filled prefix; the last of them is the answer position. `batch_size` limits the
    rows that a block is given at once; with `progress`, what takes many reads of it shows a bar.
    """

    model: Model
    prefilled: Prefilled
    interventions: tuple[Intervention, ...]
    answers: AnswerIds
    batch_size: int | None = None
    progress: Progress | bool | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        conversation: Conversation | Rendered,
        interventions: Intervention | Sequence[Intervention],
        *,
        answers: Answers | None = None,
        batch_size: int | None = None,
        progress: Progress | bool | None = None,
    ) -> Reading:
        """Fill the prefix under each intervention. Raises what `prefill` and `tokens.single_token` raise."""
        listed = listed_interventions(interventions)
        filled = prefill(model, conversation, listed)
        ids = answer_ids(model.tokenizer, filled.rendered, answers)
        return cls(model, filled, listed, ids, batch_size, progress)

    @property
    def rendered(self) -> Rendered:
        """The conversation's tokens and segments."""
        return self.prefilled.rendered

    @property
    def cache(self) -> KVCache:
        """The filled prefix, one row for each intervention."""
        return self.prefilled.cache

    @property
    def names(self) -> tuple[str, ...]:
        """The interventions' names, in the order of the rows."""
        return tuple(intervention.name for intervention in self.interventions)

    @property
    def positions(self) -> range:
        """The read positions, counted from the conversation's first token."""
        return range(self.rendered.prefix_length, len(self.rendered.tokens))

    @property
    def tokens(self) -> Int[Tensor, "1 pos"]:
        """Token ids at the read positions."""
        return self.rendered.token_tensor()[:, self.rendered.prefix_length :]

    def residuals(self, layers: Sequence[int]) -> dict[int, Float[Tensor, "row pos d_model"]]:
        """Return `resid_post` of some layers (EMBED: before block 0) at all read positions, for every cache row."""
        check_layers(layers, self.model.n_layers, lowest=EMBED)
        return self.run(range(len(self.interventions)), keep=layers)

    def run(
        self,
        rows: Sequence[int],
        *,
        resid: Float[Tensor, "row pos d_model"] | None = None,
        layer: int = EMBED,
        cache: KVCache | None = None,
        edits: Mapping[int, Edit] | None = None,
        keep: Sequence[int] | None = None,
    ) -> dict[int, Float[Tensor, "row pos d_model"]]:
        """Read on after block `layer` from `resid` (the embeddings if None), and return `resid_post` of layers `keep`.

        `rows[i]` says which row of `cache` (the filled prefix if None) the i-th row of the stream attends to; it may
        name one row any number of times. `edits` change the stream after a block (`layer` itself included) before
        the next block and `keep` see it. `keep` defaults to the last layer. Rows are run `batch_size` at a time, fewer
        when memory runs out. Raises LayerRangeError, UsageError for shapes that do not fit, and MemoryLimitError.
        """
        if keep is not None and not len(keep):
            raise UsageError("keep=()", "one or more layers", "leave keep out for the last one")
        plan = _Plan(
            layer, cache or self.cache, dict(edits or {}), tuple((self.model.n_layers - 1,) if keep is None else keep)
        )
        check_layers([layer, *plan.edits, *plan.keep], self.model.n_layers, lowest=EMBED)
        self._check(rows, resid, plan)
        budget = make_budget(self.model, self.batch_size, None, Memory.of(self.model, None))
        batches: list[dict[int, Tensor]] = []
        at, n_pos, past = 0, len(self.positions), self.rendered.prefix_length
        while at < len(rows):
            count = budget.rows(n_pos, past)
            span = slice(at, at + count)
            try:
                batches.append(self._run(rows[span], None if resid is None else resid[span], plan))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                budget.halve(min(count, len(rows) - at), n_pos, past, error)
                continue
            at += count
        return {kept: torch.cat([batch[kept] for batch in batches]) for kept in plan.keep}

    def logit_diff(self, resid: Float[Tensor, "row pos d_model"]) -> Float[Tensor, " row"]:
        """Return logit(yes) - logit(no) at the answer position from the last block's `resid_post`, in float32.

        Sets of variants are reduced as `Answers.reduce` says. Raises UsageError if the conversation names no answers.
        """
        return self.model.readout.logit_diff(resid[:, -1], self.answers.yes, self.answers.no, self.answers.reduce)

    def logit_diffs(
        self,
        rows: Sequence[int],
        *,
        resid: Float[Tensor, "row pos d_model"] | None = None,
        layer: int = EMBED,
        cache: KVCache | None = None,
        edits: Mapping[int, Edit] | None = None,
    ) -> Float[Tensor, " row"]:
        """Return `logit_diff` of the last block's stream, run as `run` does with the same arguments."""
        last = self.model.n_layers - 1
        return self.logit_diff(self.run(rows, resid=resid, layer=layer, cache=cache, edits=edits)[last])

    @cached_property
    def _pass(self) -> BlockPass:
        return self.model.blocks.begin(self.tokens, torch.tensor([self.rendered.prefix_length]))

    def _run(self, rows: Sequence[int], resid: Tensor | None, plan: _Plan) -> dict[int, Tensor]:
        prepared = self._pass
        embedded = prepared.resid
        stream = embedded.expand(len(rows), *embedded.shape[1:]) if resid is None else resid.to(embedded.dtype)
        same_tokens = torch.zeros(len(rows), dtype=torch.long)
        kept: dict[int, Tensor] = {}
        for layer in range(plan.layer, max(plan.keep) + 1):
            if layer > plan.layer:
                following, _ = prepared.block(layer, stream, same_tokens, _past(plan.cache, layer, rows))
                assert following is not None  # a block gives none only if it is asked for keys alone
                stream = following
            if layer in plan.edits:
                stream = plan.edits[layer](stream, rows).to(embedded.dtype)
            if layer in plan.keep:
                kept[layer] = stream
        return {layer: tensor.to(self.model.device) for layer, tensor in kept.items()}

    def _check(self, rows: Sequence[int], resid: Tensor | None, plan: _Plan) -> None:
        n_rows, n_layers = plan.cache.batch, plan.cache.n_layers
        if self.rendered.prefix_length and n_layers and not all(0 <= row < n_rows for row in rows):
            raise UsageError(f"rows {sorted(set(rows))}", f"rows 0:{n_rows} of the cache", "choose rows that are there")
        if not rows:
            raise UsageError("no rows to read", "one or more", "name rows of the cache")
        shape = (len(rows), len(self.positions), self.model.d_model)
        if resid is not None and tuple(resid.shape) != shape:
            raise UsageError(f"a stream shaped {tuple(resid.shape)}", f"{shape}", "give one row for each entry of rows")
        if resid is None and plan.layer != EMBED:
            raise UsageError(f"layer {plan.layer} without a stream", "resid=", "give the stream to go on from")
        if max(plan.keep) < plan.layer or any(layer < plan.layer for layer in (*plan.edits, *plan.keep)):
            raise UsageError(
                f"layers {sorted({*plan.edits, *plan.keep})} of a run that begins after block {plan.layer}",
                f"layers from {plan.layer} on",
                "begin at an earlier layer",
            )


@dataclass(frozen=True)
class _Plan:
    """The first block of a run, the caches it attends to, its edits, and the layers it keeps."""

    layer: int
    cache: KVCache
    edits: dict[int, Edit]
    keep: tuple[int, ...]


def _past(cache: KVCache, layer: int, rows: Sequence[int]) -> Past | None:
    if not cache.n_pos:
        return None
    kept = (cache.keys[layer], cache.values[layer])
    return Past(cache.n_pos, [Piece(kept, list(rows), slice(0, len(rows)), 0)])
