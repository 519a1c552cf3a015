"""Decoding: token after token from filled caches, rows of different lengths in one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from mechint.base.errors import ChatTemplateError, UsageError
from mechint.base.files import sha256
from mechint.base.progress import Progress
from mechint.chat.conversations import Conversation, Message
from mechint.chat.render import render
from mechint.interventions.listing import check_at_least
from mechint.interventions.steered_reading import ActiveSteering
from mechint.models.cache import KVCache, concatenate
from mechint.models.model import Model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: at temperature 0 the likeliest, else drawn. Raises UsageError for impossible numbers."""

    max_new_tokens: int = 40
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least("max_new_tokens", self.max_new_tokens)
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"temperature={self.temperature}", "0 or more", "choose 0 for the likeliest token")

    def generator(self, *name: str | int) -> torch.Generator:
        """Return the generator of the row that is called `name`; it depends on nothing else but the seed."""
        digest = sha256(repr((self.seed, *name)).encode())
        return torch.Generator().manual_seed(int(digest[:15], 16))


@dataclass
class Reply:
    """The tokens of one row's reply so far, its end token included; `log_prob` is in nats, at temperature 1."""

    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    log_prob: float = 0.0
    stopped: bool = False


@dataclass(frozen=True)
class Start:
    """Rows that have been read to the end of their prompt: caches, and the last block's `resid_post` there."""

    cache: KVCache
    resid: Float[Tensor, "batch d_model"]
    steering: ActiveSteering

    @classmethod
    def joined(cls, starts: Sequence[Start], rows: Sequence[int]) -> Start:
        """Return `rows` of all starts together, which may be of different lengths; a row may be taken repeatedly."""
        index, steered = torch.tensor(rows), [row for start in starts for row in start.steering.rows]
        resid = torch.cat([start.resid for start in starts])
        return cls(
            cache=left_padded([start.cache for start in starts]).select(index),
            resid=resid[index.to(resid.device)],
            steering=ActiveSteering([steered[row].copy() for row in rows]),
        )


def decode(
    model: Model,
    start: Start,
    replies: Sequence[Reply],
    sampling: Sampling,
    ends: frozenset[int],
    tell: Progress | None = None,
) -> None:
    """Let each reply go on until it says a token of `ends` or is as long as allowed; rows that have ended drop out.

    The last token of a reply is never read. `tell` is told how many replies have just ended, and how many tokens they
    have.
    """
    cache, resid, steering, speaking = start.cache, start.resid, start.steering, list(replies)
    for left in reversed(range(sampling.max_new_tokens)):
        logits = model.readout.logits(resid)
        chosen = choose(logits, sampling.temperature, [reply.generator for reply in speaking])
        _say(speaking, chosen, logits, ends)
        going = [row for row, reply in enumerate(speaking) if not reply.stopped]
        ended = [reply for reply in speaking if reply.stopped or not left]
        if tell is not None and ended:
            tell(len(ended), sum(len(reply.tokens) for reply in ended))
        if not going or not left:
            return
        if len(going) < len(speaking):
            rows = torch.tensor(going)
            cache, chosen, steering = cache.select(rows), chosen[rows], steering.select(going)
            speaking = [speaking[row] for row in going]
        cache, stream = steering.read(model, chosen[:, None], cache)
        resid = stream[:, -1]


def choose(
    logits: Float[Tensor, "batch d_vocab"], temperature: float, generators: Sequence[torch.Generator]
) -> Int[Tensor, " batch"]:
    """Return the likeliest token of each row at temperature 0, else one drawn with the row's own generator.

    A draw inverts the cumulative distribution at one uniform number, so a row takes as many numbers as it has tokens,
    whatever else is in the batch.
    """
    if temperature == 0:
        return logits.argmax(-1).cpu()
    cumulative = (logits.cpu().double() / temperature).softmax(-1).cumsum(-1)
    drawn = torch.cat([torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators])
    # Scaled to the last sum, which rounding may leave below one: a token without probability is never chosen.
    place = torch.searchsorted(cumulative, drawn[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return place.clamp_max(logits.shape[-1] - 1)


def left_padded(caches: Sequence[KVCache]) -> KVCache:
    """Return one cache with the rows of all, shorter ones padded on the left and masked there."""
    longest = max(cache.n_pos for cache in caches)
    if all(cache.n_pos == longest for cache in caches):
        return concatenate(caches)
    return concatenate([_padded(cache, longest) for cache in caches])


def end_tokens(model: Model) -> frozenset[int]:
    """Return the tokens that end a reply.

    These are the tokenizer's end-of-sequence token, those of the generation config where the model has one, and the
    special token that the chat template writes after an assistant message.
    """
    ids = {model.tokenizer.eos_token_id, _closing_token(model.tokenizer)}
    if isinstance(model.backend, _Configured):
        config = model.backend.hf_model.generation_config
        named = None if config is None else config.eos_token_id
        ids |= set(named) if isinstance(named, list) else {named}
    return frozenset(int(token) for token in ids if token is not None)


@runtime_checkable
class _Configured(Protocol):
    """A backend that holds a Hugging Face model, whose generation config may name several end tokens."""

    hf_model: PreTrainedModel


def _closing_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the special token with which the chat template closes an assistant message, if it does so."""
    question = Message("user", "one")
    opened = Message("assistant", "two", continue_msg=True)
    closed = Message("assistant", "two", continue_msg=False)
    try:
        before = render(tokenizer, Conversation("end", (question, opened))).text
        after = render(tokenizer, Conversation("end", (question, closed))).text
    except ChatTemplateError:
        return None
    rest = after.removeprefix(before).lstrip()
    ids = tokenizer(rest, add_special_tokens=False)["input_ids"] if after.startswith(before) else []
    special = tokenizer.added_tokens_decoder.get(ids[0]) if ids else None
    return ids[0] if special is not None and special.special else None


def _say(
    replies: Sequence[Reply],
    chosen: Int[Tensor, " batch"],
    logits: Float[Tensor, "batch d_vocab"],
    ends: frozenset[int],
) -> None:
    at = chosen.to(logits.device)[:, None]
    log_probs = logits.gather(1, at)[:, 0] - logits.logsumexp(-1)
    for reply, token, log_prob in zip(replies, chosen.tolist(), log_probs.tolist(), strict=True):
        reply.tokens.append(token)
        reply.log_prob += log_prob
        reply.stopped = token in ends


def _padded(cache: KVCache, n_pos: int) -> KVCache:
    """Return a cache of `n_pos` positions, the first of them empty and masked."""
    empty = n_pos - cache.n_pos
    keys = tuple(pad(tensor, (0, 0, empty, 0)) for tensor in cache.keys)
    values = tuple(pad(tensor, (0, 0, empty, 0)) for tensor in cache.values)
    mask = cache.keys[0].new_ones((cache.batch, cache.n_pos), dtype=torch.bool) if cache.mask is None else cache.mask
    return KVCache(keys, values, pad(mask, (empty, 0), value=False))
