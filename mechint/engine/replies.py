"""What sampled replies are asked for, as rows with keys of their own, and the prompts that they have in common."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from mechint.base.errors import UsageError
from mechint.base.files import sha256
from mechint.base.signatures import Count, Index, Seed, checked
from mechint.chat.conversations import Conversation
from mechint.chat.render import Rendered, render_all
from mechint.chat.tokens import Answers
from mechint.engine.answers import AnswerIds, all_answer_ids
from mechint.engine.effect import Term, as_bits, terms_of
from mechint.interventions.listing import check_at_least, check_each_once, listed_conversations, listed_interventions
from mechint.interventions.prefill import check_fits
from mechint.interventions.specifications import Intervention
from mechint.interventions.steered_reading import reader_of
from mechint.interventions.steering_modes import Steer, check_mode, prompt_positions, steers_reply
from mechint.models.model import Model


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: at temperature 0 the likeliest, else drawn. Raises UsageError for impossible numbers."""

    max_new_tokens: int = 40
    temperature: float = 0.0
    seed: int = 0
    end_loops: bool = True

    def __post_init__(self) -> None:
        check_at_least("max_new_tokens", self.max_new_tokens)
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"temperature={self.temperature}", "0 or more", "choose 0 for the likeliest token")

    def generator(self, *name: str | int) -> torch.Generator:
        """Return the generator of the row that is called `name`; it depends on nothing else but the seed."""
        digest = sha256(repr((self.seed, *name)).encode())
        return torch.Generator().manual_seed(int(digest[:15], 16))


@checked
@dataclass(frozen=True)
class ReplyRequest:
    """Replies to conversations under interventions, every pair of which is a cell with `n` samples.

    The arguments are those of `mi.generate`: `n` is how many samples, or a list of their numbers, `steer` where
    interventions act, and `answers` what is read at the first token of a reply.
    """

    conversations: Conversation | Sequence[Conversation]
    interventions: Intervention | Sequence[Intervention]
    n: Count | Sequence[Index] = 1
    max_new_tokens: Count = 40
    temperature: float = 0.0
    seed: Seed = 0
    steer: Steer = "prefill"
    answers: Answers | None = None
    end_loops: bool = True

    @property
    def samples(self) -> tuple[int, ...]:
        """The numbers of the samples."""
        return tuple(range(self.n)) if isinstance(self.n, int) else tuple(self.n)

    @cached_property
    def sampling(self) -> Sampling:
        """How the tokens are chosen."""
        return Sampling(self.max_new_tokens, self.temperature, self.seed, self.end_loops)


@dataclass(frozen=True)
class PromptKey:
    """What tells the filled cache of a prompt from others: its tokens, and what was done to which of them.

    `changes` are empty where nothing was done, or zeros were added: such prompts are clean, whatever they are for.
    """

    tokens: tuple[int, ...]
    changes: tuple[tuple[int, int, str], ...] = ()
    filled: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether the prompt is as the model itself reads it."""
        return not self.changes and not self.filled


@dataclass(frozen=True)
class ReplyRow:
    """One reply: of the cell of a conversation and an intervention, sample number `sample`."""

    rendered: Rendered
    intervention: Intervention
    sample: int
    request: ReplyRequest = field(compare=False)
    prompt: PromptKey = field(compare=False)
    reader: Model = field(compare=False)
    answers: AnswerIds | None = field(default=None, compare=False)

    @property
    def cell(self) -> tuple[str, str]:
        """The conversation's label and the intervention's name, which samples of one cell share."""
        return self.rendered.label, self.intervention.name

    @property
    def n_pos(self) -> int:
        """How many positions the prompt and the longest reply have."""
        return len(self.rendered.tokens) + self.request.max_new_tokens

    @property
    def steers(self) -> bool:
        """Whether something is done while the reply is said."""
        return steers_reply(self.request.steer) and self.intervention.kind != "clean"

    def generator(self) -> torch.Generator:
        """Return the row's own generator: its numbers depend on its names and seed, not on what else is asked for."""
        return self.request.sampling.generator(*self.cell, self.sample)


@dataclass(frozen=True)
class ReplyPlan:
    """The rows of some requests, in the table's order, and the order in which they are said."""

    model: Model
    rows: tuple[ReplyRow, ...]

    @classmethod
    def of(cls, model: Model, requests: Sequence[ReplyRequest]) -> ReplyPlan:
        """Return the rows of requests, all of them checked. Raises what `mi.generate` raises, before any pass."""
        if not requests:
            raise UsageError("no requests", "one or more", "pass at least one")
        rows = tuple(row for request in requests for row in _rows(model, request))
        _check_apart(rows)
        return cls(model, rows)

    @property
    def longest(self) -> int:
        """The most positions that a row may have."""
        return max(row.n_pos for row in self.rows)

    @property
    def prompts(self) -> list[tuple[Model, PromptKey]]:
        """Each prompt that is filled, with the model that goes on from there; each is filled once."""
        return list(dict.fromkeys((row.reader, row.prompt) for row in self.rows))

    def batches(self) -> Iterator[tuple[Model, list[int]]]:
        """Yield each model that speaks, with places of its rows: those with one prompt follow each other."""
        places: dict[Model, dict[PromptKey, list[int]]] = {}
        for place, row in enumerate(self.rows):
            places.setdefault(row.reader, {}).setdefault(row.prompt, []).append(place)
        for reader, by_prompt in places.items():
            yield reader, [place for of_prompt in by_prompt.values() for place in of_prompt]


def _rows(model: Model, request: ReplyRequest) -> Iterator[ReplyRow]:
    listed, requested = listed_conversations(request.conversations), listed_interventions(request.interventions)
    _check_samples(request)
    rendered = render_all(model, listed)
    for intervention in requested:
        check_fits(model, intervention)
    for item in rendered:
        check_mode(model, item, requested, request.steer, request.max_new_tokens)
        model.backend.context.check(len(item.tokens) + request.max_new_tokens - 1, f"conversation {item.label!r}")
    keyed = [(intervention, terms_of(intervention)) for intervention in requested]
    answers = None if request.answers is None else all_answer_ids(model.tokenizer, rendered, request.answers)
    for at, item in enumerate(rendered):
        ids = None if answers is None else answers[at]
        for intervention, terms in keyed:
            prompt = _prompt(model, item, intervention, terms, request.steer)
            reader = reader_of(model, intervention) if steers_reply(request.steer) else model
            for sample in request.samples:
                yield ReplyRow(item, intervention, sample, request, prompt, reader, ids)


def _prompt(
    model: Model, rendered: Rendered, intervention: Intervention, terms: Sequence[Term], steer: Steer
) -> PromptKey:
    if intervention.filler is not None:
        bits = as_bits(prompt_positions(model, rendered, steer).tolist())
        filler = intervention.filler.for_conversation(rendered)
        return PromptKey(rendered.tokens, filled=f"{filler.identity}/{bits:x}" if bits else "")
    changes = []
    for term in terms:
        bits = as_bits(prompt_positions(model, rendered, steer, term.injection).tolist())
        changes += [(layer, bits, key) for layer, key in term.keys.items() if bits]
    return PromptKey(rendered.tokens, tuple(sorted(changes)))


def _check_samples(request: ReplyRequest) -> None:
    check_each_once("samples", [str(sample) for sample in request.samples])
    if len(request.samples) > 1 and request.sampling.temperature == 0:
        raise UsageError(
            given=f"n={len(request.samples)} samples at temperature 0, which are all the same",
            allowed="n=1 at temperature 0, or a higher temperature",
            advice="set temperature=1.0 for samples",
        )


def _check_apart(rows: Sequence[ReplyRow]) -> None:
    """Raise UsageError for rows that a table could not tell apart: one label of two conversations, a cell twice."""
    texts: dict[str, str] = {}
    keys: dict[str, str] = {}
    for row in rows:
        label, name = row.cell
        if texts.setdefault(label, row.rendered.text) != row.rendered.text:
            raise _twice(f"two conversations with the label {label!r}")
        if keys.setdefault(name, row.intervention.key) != row.intervention.key:
            raise _twice(f"two interventions with the name {name!r}")
    settings = ((row.cell, row.sample, str(row.request.steer), row.request.sampling) for row in rows)
    repeated = [setting for setting, count in Counter(settings).items() if count > 1]
    if repeated:
        raise _twice(f"sample {repeated[0][1]} of {repeated[0][0]} more than once")


def _twice(given: str) -> UsageError:
    return UsageError(given, "requests whose rows can be told apart", "rename one, or leave it out")
