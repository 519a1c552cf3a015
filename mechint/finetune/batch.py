"""The data of a step: a function of the seed and the number of the step, so that a training can go on anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechint.base.errors import UsageError
from mechint.chat.conversations import Conversation
from mechint.chat.render import render
from mechint.models.model import Model

_NO_LABEL = -100  # as torch's cross-entropy has it


@dataclass(frozen=True)
class Example:
    """The tokens of a conversation; those from `start` on are what is learned."""

    tokens: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Batch:
    """Examples side by side, padded on the right: tokens, which of them are real, and the tokens to be predicted."""

    tokens: Int[Tensor, "row pos"]
    real: Bool[Tensor, "row pos"]
    labels: Int[Tensor, "row pos"]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Batch:
        """Return some examples as a batch."""
        rows = [torch.tensor(example.tokens, dtype=torch.long) for example in examples]
        lengths = torch.tensor([len(row) for row in rows])
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        places = torch.arange(tokens.shape[1])[None, :]
        real = places < lengths[:, None]
        starts = torch.tensor([example.start for example in examples])
        learned = real & (places >= starts[:, None])
        return cls(tokens, real, tokens.masked_fill(~learned, _NO_LABEL))


def example_of(model: Model, conversation: Conversation) -> Example:
    """Return a conversation whose last message is learned, as the model reads it; raises UsageError for an empty one.

    Where the message is closed, what the template writes to close it is learned too.
    """
    last = len(conversation.messages) - 1
    rendered = render(model, conversation)
    before = render(model, Conversation(conversation.label, conversation.messages[:last])).tokens
    start = next(
        (at for at, (token, other) in enumerate(zip(rendered.tokens, before, strict=False)) if token != other),
        min(len(rendered.tokens), len(before)),
    )
    if not last or start >= len(rendered.tokens):
        raise UsageError(
            given=f"conversation {conversation.label!r}, which ends with nothing to learn",
            allowed="a conversation that ends with a reply",
            advice="add the reply, or leave the conversation out",
        )
    return Example(tuple(rendered.tokens), start)


def rows_of_step(seed: int, step: int, count: int, batch: int) -> list[int]:
    """Return which of `count` examples are learned in a step: each once before any comes again, in a drawn order."""
    orders: dict[int, list[int]] = {}
    rows = []
    for place in range(step * batch, (step + 1) * batch):
        epoch, at = divmod(place, count)
        if epoch not in orders:
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            orders[epoch] = torch.randperm(count, generator=generator).tolist()
        rows.append(orders[epoch][at])
    return rows
