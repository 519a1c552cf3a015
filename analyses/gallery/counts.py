"""How much work questions are on a model, in (token x block), counted from their tokens; nothing is run."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from analyses.kit.dose import method_of, other_concepts, vectors_cache
from analyses.kit.record import sparing_threads

if TYPE_CHECKING:
    from analyses.kit.compute import Query
    from analyses.kit.options import Common
    from analyses.kit.subject import Subject
    from mechint.chat.conversations import Conversation
    from mechint.interventions.specifications import Intervention
    from mechint.models.model import Model
    from mechint.vectors.extraction_inputs import Inputs

_TIMES = 7  # that the pace is measured
BLOCK_STEP = 0.02  # seconds of one block in one step of decoding, whose rows are few: the embedded organism, SmolLM2


@dataclasses.dataclass(frozen=True)
class Unread:
    """A prompt that is to be read for vectors: of which model (its identity), and how."""

    model: str
    reading: str
    conversation: Conversation


@dataclasses.dataclass(frozen=True)
class Counts:
    """A model, the seconds of a (token x block) on it, and the work of questions, counted as the engine does it.

    Distinct tokens of conversations pass once for each intervention, through the blocks from its first layer on.
    """

    model: Model
    pace: float
    _tokens: dict[Conversation, tuple[int, ...]] = dataclasses.field(default_factory=dict, repr=False)
    _inputs: dict[str, Inputs] = dataclasses.field(default_factory=dict, repr=False)
    _unread: dict[tuple[str, str], list[Unread]] = dataclasses.field(default_factory=dict, repr=False)

    @classmethod
    def timed(cls, model: Model, config: Common) -> Counts:
        """Return a model with its pace: a text of its prompt set is run through a few blocks, several times.

        The median is taken, since other programs may have the machine for a moment.
        """
        from mechint.engine.forecast import pace
        from mechint.engine.job import Options
        from mechint.prompts.design import PromptDesign

        text = " ".join(PromptDesign.load(model.prompts).infos.values())
        options = Options(config.batch_size, config.batch_tokens, offload=config.offload, max_memory=config.max_memory)
        with sparing_threads(model):
            tokens = model.tokenizer.encode(text)
            return cls(model, statistics.median(pace(model, tokens, options) for _ in range(_TIMES)))

    @cached_property
    def identity(self) -> str:
        """The model's identity, for which all of its weights are hashed."""
        return self.model.identity

    def tokens(self, chat: Conversation) -> tuple[int, ...]:
        """Return the token ids of a conversation."""
        from mechint.chat.render import render

        if chat not in self._tokens:
            self._tokens[chat] = tuple(render(self.model, chat).tokens)
        return self._tokens[chat]

    def length(self, chats: Sequence[Conversation]) -> int:
        """Return the tokens of conversations, each by itself."""
        return sum(len(self.tokens(chat)) for chat in chats)

    def distinct(self, chats: Sequence[Conversation]) -> int:
        """Return the tokens of conversations that differ in what precedes them."""
        rows = sorted(self.tokens(chat) for chat in chats)
        shared = [_n_shared(row, following) for row, following in pairwise(rows)]
        return sum(map(len, rows)) - sum(shared)

    def steered(self, chats: Sequence[Conversation], conditions: int, first_layer: int, layers_read: int = 1) -> float:
        """Return the work of conversations, each under some conditions that act from a layer on."""
        blocks = self.distinct(chats) * (self.model.n_layers - first_layer)
        return conditions * (blocks + len(chats) * layers_read * self.model.readout_work)

    def passes(self, n_tokens: float) -> float:
        """Return the work of so many tokens that pass all blocks, each of which is read."""
        return n_tokens * (self.model.n_layers + self.model.readout_work)

    def decoding(self, n_replies: int, n_tokens: int, at_once: int) -> float:
        """Return the work of so many replies of so many tokens, of which some are decoded at once.

        A step of few rows takes as long as its blocks at least, whatever their work.
        """
        steps = math.ceil(n_replies / at_once) * n_tokens
        return self.passes(n_replies * n_tokens) + steps * self.model.n_layers * BLOCK_STEP / self.pace

    def of_query(self, query: Query) -> float:
        """Return the work of the requests of a query."""
        from mechint.interventions.listing import listed_conversations, listed_interventions

        work = 0.0
        for request in query.requests:
            chats = listed_conversations(request.conversations)
            layers_read = 1 if request.layers is None else len(request.layers)
            for intervention in listed_interventions(request.interventions):
                work += self.steered(chats, 1, _first_layer(intervention), layers_read)
        return work

    def unread(self, subject: Subject, way: str | None = None) -> list[Unread]:
        """Return what is yet to be read of the model for the concept vectors of a run (None: in its usual way).

        Nothing for vectors that are files, or that are kept of earlier runs.
        """
        if subject.config.vectors is not None:
            return []
        extraction = way or method_of(subject.config, self.model, subject.dose)
        prompts = [prompt for name in subject.concepts for prompt in self._unread_of(name, extraction)]
        return list(dict.fromkeys(prompts))

    def _unread_of(self, concept: str, way: str) -> list[Unread]:
        """Return what is yet to be read for the vector of one concept, as it was when this was asked first."""
        if (concept, way) not in self._unread:
            inputs = self._inputs_of(way)
            rows = [prompts for prompts in inputs.prompts_of_rows(concept) if not inputs.is_kept(prompts)]
            reading = f"{inputs.extraction.method}/{inputs.extraction.read}"
            self._unread[concept, way] = [
                Unread(self.identity, reading, prompt.conversation) for prompts in rows for prompt in prompts
            ]
        return self._unread[concept, way]

    def _inputs_of(self, way: str) -> Inputs:
        from mechint.prompts.design import PromptDesign
        from mechint.vectors.extraction import Extraction
        from mechint.vectors.extraction_inputs import Inputs
        from mechint.vectors.kept_rows import KeptRows

        if way not in self._inputs:
            extraction, cache = Extraction.parse(way), vectors_cache()
            others = other_concepts(self.model) if extraction.against == "others" else ()
            kept = None if cache is None else KeptRows(cache)
            self._inputs[way] = Inputs(self.model, PromptDesign.load(self.model.prompts), extraction, others, kept)
        return self._inputs[way]

    def extraction(self, unread: Sequence[Unread]) -> float:
        """Return the work of reading that."""
        return self.length([prompt.conversation for prompt in unread]) * self.model.n_layers


def _n_shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Return with how many equal tokens two rows begin."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (left, right) in enumerate(pairs) if left != right), min(len(first), len(second)))


def _first_layer(intervention: Intervention) -> int:
    """Return the layer from which on an intervention changes anything; a clean one or a swap passes every block."""
    return min((layer for term in intervention.terms for layer in term.layers or ()), default=0)
