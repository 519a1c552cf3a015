"""Saying replies: rows of any prompts, vectors, layers and strengths in one batch, whose places are filled as they end.

A row's first token is chosen from what was made of its prompt, which is filled once for all rows that share it. Then it
takes a place in the batch; each step reads the last token of every row there, under the row's own vectors, and chooses
its next. A row that has ended leaves, and the next that waits takes its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.files import JSON
from mechint.engine.explain_replies import ReplyMemory
from mechint.engine.replies import ReplyPlan, ReplyRow
from mechint.interventions.receipts import StreamChange
from mechint.interventions.reply_steering import ReplySteering
from mechint.interventions.steered_reading import added_vectors
from mechint.models.block_run import run_blocks
from mechint.models.model import Model
from mechint.readouts.decode import Reply, end_tokens, say
from mechint.readouts.prompt_states import PromptStates
from mechint.readouts.reply_cache import ReplyCaches


@dataclass(frozen=True)
class Said:
    """A reply that has ended: the row's place in its plan, and what was read (`first`) and changed on the way."""

    place: int
    row: ReplyRow
    reply: Reply
    first: Mapping[str, float]
    prompt_changes: Mapping[int, StreamChange]
    reply_changes: Mapping[int, Sequence[StreamChange]]


@dataclass
class _Speaker:
    """A row in the batch."""

    place: int
    row: ReplyRow
    reply: Reply
    first: Mapping[str, float]
    prompt_changes: Mapping[int, StreamChange]

    def said(self, reply_changes: Mapping[int, Sequence[StreamChange]]) -> Said:
        """Return the reply, which has ended."""
        return Said(self.place, self.row, self.reply, self.first, self.prompt_changes, reply_changes)


class Sampler:
    """Says the rows of a plan; `prefills` counts the prompts that were filled for it, one entry for each."""

    def __init__(self, plan: ReplyPlan, memory: ReplyMemory) -> None:
        self.plan, self.memory = plan, memory
        self.prefills: list[dict[str, JSON]] = []

    def run(self) -> Iterator[list[Said]]:
        """Yield the replies that end at each step at which some do. Raises what passes, receipts and readouts raise."""
        self.plan.model.check_no_hooks("before replies")
        for reader, places in self.plan.batches():
            batch = _Batch(self.plan, reader, places, self.memory, self.prefills)
            yield from batch.run()


class _Batch:
    """The rows of a plan that one model says."""

    def __init__(
        self,
        plan: ReplyPlan,
        reader: Model,
        places: Sequence[int],
        memory: ReplyMemory,
        prefills: list[dict[str, JSON]],
    ) -> None:
        self.reader, self.rows, self.n_places = reader, plan.rows, memory.rows
        rows = [plan.rows[place] for place in places]
        self.ends, self.waiting = end_tokens(reader), deque(places)
        self.states = PromptStates(plan.model, reader, rows, memory.fills, prefills)
        self.caches = ReplyCaches(memory.rows, memory.n_pos, memory.n_prompt, shared=memory.shared)
        self.vectors = _Vectors(plan.model)
        layers = sorted({layer for row in rows if row.steers for layer in self.vectors.of(row)})
        n_steps = max(row.request.max_new_tokens for row in rows)
        self.steering = ReplySteering(layers, memory.rows, n_steps, plan.model.d_model)
        self.speakers: list[_Speaker] = []

    def run(self) -> Iterator[list[Said]]:
        while self.waiting or self.speakers:
            ended = self._admit()
            if self.speakers:
                ended += self._step()
            if ended:
                yield ended

    def _admit(self) -> list[Said]:
        """Let waiting rows say their first tokens, and those that go on take free places; return those that do not."""
        ended = []
        while self.waiting and len(self.speakers) < self.n_places:
            place = self.waiting.popleft()
            row = self.rows[place]
            state, reply = self.states.of(row), Reply(row.generator(), row.request.sampling)
            speaker = _Speaker(place, row, reply, state.answers(row.answers), state.changes)
            say([reply], state.logits[None], self.ends)
            if reply.stopped:
                ended.append(speaker.said({}))
                continue
            self.caches.admit(state.cache)
            self.steering.admit(self._added(row))
            self.speakers.append(speaker)
        return ended

    def _step(self) -> list[Said]:
        """Read the last token of each row and choose the next; rows that end leave, and are returned."""
        tokens = torch.tensor([[speaker.reply.tokens[-1]] for speaker in self.speakers])
        steps = torch.tensor([len(speaker.reply.tokens) - 1 for speaker in self.speakers])

        def change(layer: int, resid: Tensor) -> Tensor:
            return self.steering.add(layer, resid, steps)

        lengths = torch.tensor(self.caches.lengths)
        _, resid = run_blocks(self.reader, tokens, lengths, change, self.caches.past)
        self.caches.advance()
        say([speaker.reply for speaker in self.speakers], self.reader.readout.logits(resid[:, -1]), self.ends)
        ended = []
        for place in reversed(range(len(self.speakers))):
            speaker = self.speakers[place]
            if speaker.reply.stopped:
                start, n_read = len(speaker.row.prompt.tokens), len(speaker.reply.tokens) - 1
                changes = self.steering.changes(place, self._added(speaker.row), start, n_read)
                ended.append(speaker.said(changes))
                self._remove(place)
        return ended

    def _added(self, row: ReplyRow) -> dict[int, Float[Tensor, " d_model"]]:
        return self.vectors.of(row) if row.steers else {}

    def _remove(self, place: int) -> None:
        self.caches.remove(place)
        self.steering.remove(place)
        self.speakers[place] = self.speakers[-1]
        self.speakers.pop()


class _Vectors:
    """The vectors that each intervention adds, worked out once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._added: dict[str, dict[int, Float[Tensor, " d_model"]]] = {}

    def of(self, row: ReplyRow) -> dict[int, Float[Tensor, " d_model"]]:
        """Return the sum of an intervention's injections by layer."""
        name = row.intervention.name
        if name not in self._added:
            self._added[name] = added_vectors(self.model, row.intervention)
        return self._added[name]
