"""Choosing the tokens of replies, each with random numbers of its own, and knowing when a reply has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from mechint.base.errors import ChatTemplateError
from mechint.chat.conversations import Conversation, Message
from mechint.chat.render import render
from mechint.engine.replies import Sampling
from mechint.models.model import Model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# A reply loops if its last so many tokens are an n-gram over and over, three times or more.
LOOP, _LONGEST_NGRAM = 40, 13
# Probabilities that are worked on at once, in float64 and with their sums.
_ENTRIES = 1 << 21

Stopped = Literal["", "end", "loop", "length"]


@dataclass
class Reply:
    """The tokens of a reply so far, its end token included; `log_prob` is in nats, at temperature 1.

    `stopped` is empty while it goes on; then `end` (it said an end token), `loop` or `length`.
    """

    generator: torch.Generator
    sampling: Sampling
    tokens: list[int] = field(default_factory=list)
    log_prob: float = 0.0
    stopped: Stopped = ""

    def say(self, token: int, log_prob: float, ends: frozenset[int]) -> None:
        """Add a token, and see whether the reply has ended."""
        self.tokens.append(token)
        self.log_prob += log_prob
        if token in ends:
            self.stopped = "end"
        elif self.sampling.end_loops and loops(self.tokens):
            self.stopped = "loop"
        elif len(self.tokens) == self.sampling.max_new_tokens:
            self.stopped = "length"


def loops(tokens: Sequence[int]) -> bool:
    """Whether the last 40 tokens are an n-gram of at most 13 tokens over and over."""
    tail = list(tokens[-LOOP:])
    return len(tail) == LOOP and any(tail[size:] == tail[:-size] for size in range(1, _LONGEST_NGRAM + 1))


def say(replies: Sequence[Reply], logits: Float[Tensor, "batch d_vocab"], ends: frozenset[int]) -> None:
    """Let each reply say its next token, chosen from its row of the logits."""
    temperatures = [reply.sampling.temperature for reply in replies]
    chosen = choose(logits, temperatures, [reply.generator for reply in replies])
    at = chosen.to(logits.device)[:, None]
    log_probs = logits.gather(1, at)[:, 0] - logits.logsumexp(-1)
    for reply, token, log_prob in zip(replies, chosen.tolist(), log_probs.tolist(), strict=True):
        reply.say(token, log_prob, ends)


def choose(
    logits: Float[Tensor, "batch d_vocab"], temperatures: Sequence[float], generators: Sequence[torch.Generator]
) -> Int[Tensor, " batch"]:
    """Return the likeliest token of each row at temperature 0, else one drawn with the row's own generator.

    The vocabulary is halved again and again, each half being taken with its share of the probability and by a number of
    its own. So a row takes as many numbers for each token, whatever else is in the batch, and rounding, which depends
    on the batch, changes the choice only where it moves one of some twenty shares across such a number. (Inverting the
    cumulative distribution at one number, it would where it moves any of all its steps: in a large vocabulary there are
    thousands of them within the rounding.)
    """
    chosen = logits.argmax(-1).cpu()
    drawn = [row for row, temperature in enumerate(temperatures) if temperature > 0]
    at_once = max(1, _ENTRIES // logits.shape[-1])
    for start in range(0, len(drawn), at_once):
        rows = drawn[start : start + at_once]
        heat = torch.tensor([temperatures[row] for row in rows], dtype=torch.float64)
        chosen[rows] = _drawn(logits[rows].cpu(), heat, [generators[row] for row in rows])
    return chosen


def _drawn(
    logits: Float[Tensor, "batch d_vocab"], heat: Float[Tensor, " batch"], generators: Sequence[torch.Generator]
) -> Int[Tensor, " batch"]:
    depth = max(1, (logits.shape[-1] - 1).bit_length())
    weights = ((logits - logits.amax(-1, keepdim=True)).double() / heat[:, None]).exp()
    sums = [pad(weights, (0, (1 << depth) - logits.shape[-1]))]
    for _ in range(depth - 1):
        sums.append(sums[-1][:, 0::2] + sums[-1][:, 1::2])
    numbers = torch.stack([torch.rand(depth, generator=generator, dtype=torch.float64) for generator in generators])
    place = torch.zeros(len(logits), dtype=torch.long)
    for halves, number in zip(reversed(sums), numbers.T, strict=True):
        left, right = halves.gather(1, torch.stack([2 * place, 2 * place + 1], dim=1)).unbind(1)
        # A half without probability is never taken, whatever rounding makes of the product.
        place = 2 * place + ((number * (left + right) >= left) & (right > 0)).long()
    return place


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
