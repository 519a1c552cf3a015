"""How far the toolkit's numbers are from plain Hugging Face for one checkpoint, by what it does with the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

import mechint as mi
from benchmarks.plain import NOTHING, Addition, Plain
from mechint.chat.conversations import Message
from mechint.chat.render import Rendered, render_all
from mechint.interventions.specifications import Intervention
from mechint.models.backends.base import Hook

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

LAYERS = (1, 2)
_READ = ("logit_yes", "logit_no", "entropy")


def chats() -> list[mi.Conversation]:
    """Return conversations of three lengths, two of which begin alike; the first two messages are marked."""
    turns = {
        "short": ("Tell me about the sea.", "The sea is wide."),
        "long": ("Tell me about cats and bread. " * 4, "Cats sleep. Bread rises. " * 3),
        "longer": ("Tell me about cats and bread. " * 4, "Cats sleep. Bread rises. " * 5),
    }
    return [
        mi.Conversation(
            label,
            (
                Message("user", setup, add_injection=True),
                Message("assistant", reply, add_injection=True),
                Message("user", "Do you notice a thought that is not yours?"),
                Message("assistant", "The answer is", continue_msg=True),
            ),
            yes_token=" yes",
            no_token=" no",
        )
        for label, (setup, reply) in turns.items()
    ]


@dataclass(frozen=True)
class Subject:
    """A model as the toolkit has it, and the same in plain Hugging Face."""

    model: mi.Model
    plain: Plain

    @cached_property
    def rendered(self) -> tuple[Rendered, ...]:
        """The conversations, as both of them get them."""
        return render_all(self.model.tokenizer, chats())

    @cached_property
    def steer(self) -> mi.Injection:
        """A random vector at two layers, half as long as the stream there."""
        streams = self.plain.streams(self.rendered[0].tokens)
        generator = torch.Generator().manual_seed(0)
        rows = {}
        for layer in LAYERS:
            row = torch.randn(self.model.d_model, generator=generator)
            size = streams[layer + 1][0].float().norm(dim=-1).median()
            rows[layer] = row / row.norm() * size / 2
        return mi.Injection(mi.ConceptVector(rows, "random", self.model.n_layers), strength=1.0, name="steer")

    def addition(self, rendered: Rendered, name: str) -> Addition:
        """Return the addition of an intervention to a conversation, for plain Hugging Face."""
        if name != self.steer.name:
            return NOTHING
        return Addition(self.steer.vector.vectors, rendered.marked().nonzero()[:, 0].tolist())

    @cached_property
    def truth(self) -> dict[tuple[str, str], Float[Tensor, "row d_vocab"]]:
        """The lens of plain Hugging Face by conversation and intervention; the last row is the output."""
        return {
            (item.label, name): self.plain.lens(item.tokens, self.addition(item, name))
            for item in self.rendered
            for name in ("clean", self.steer.name)
        }

    @cached_property
    def spread(self) -> float:
        """The spread of logits, if that is more than one: differences are told in it."""
        return max(1.0, *(float(rows[-1].std()) for rows in self.truth.values()))


def differences(subject: Subject) -> dict[str, float]:
    """Return the largest difference to plain Hugging Face in each way to compute, as a share of the logits' spread."""
    return {name: check(subject) / subject.spread for name, check in CHECKS.items()}


def _clean(subject: Subject) -> float:
    return _scored(subject, [mi.CLEAN])


def _steered(subject: Subject) -> float:
    return _scored(subject, [mi.CLEAN, subject.steer])


def _alone(subject: Subject) -> float:
    """One row at a time."""
    return _scored(subject, [mi.CLEAN, subject.steer], batch_size=1)


def _scored(subject: Subject, interventions: Sequence[Intervention], batch_size: int | None = None) -> float:
    table = mi.score(subject.model, chats(), interventions, batch_size=batch_size)
    return max(_distance(subject, row, subject.truth[row.conversation, row.intervention][-1]) for row in _rows(table))


def _lens(subject: Subject) -> float:
    table = mi.logit_lens(subject.model, chats(), [mi.CLEAN, subject.steer])
    worst = 0.0
    for row in _rows(table):
        at = 0 if row.layer == "embed" else int(row.layer) + 1
        worst = max(worst, _distance(subject, row, subject.truth[row.conversation, row.intervention][at]))
    return worst


def _rows(table: pd.DataFrame) -> list[pd.Series]:
    return [row for _, row in table.iterrows()]


def _distance(subject: Subject, row: pd.Series, logits: Tensor) -> float:
    """Return the largest difference between a row's numbers and those of logits."""
    yes = subject.model.tokenizer.encode(" yes", add_special_tokens=False)[0]
    no = subject.model.tokenizer.encode(" no", add_special_tokens=False)[0]
    log_p = logits.double().log_softmax(-1)
    expected = (logits[yes], logits[no], -(log_p.exp() * log_p).sum())
    return max(abs(float(row[name]) - float(value)) for name, value in zip(_READ, expected, strict=True))


def _cached(subject: Subject) -> float:
    """Filled under hooks by `prefill`, then read by the model's own forward from that cache."""
    worst = 0.0
    for item in subject.rendered:
        filled = mi.prefill(subject.model, item, [mi.CLEAN, subject.steer])
        rest = item.token_tensor()[:, item.prefix_length :].expand(2, -1)
        read = subject.model.readout.logits(_last(subject.model, rest, filled.cache))
        for logits, name in zip(read, ("clean", subject.steer.name), strict=True):
            worst = max(worst, float((logits.cpu() - subject.truth[item.label, name][-1]).abs().max()))
    return worst


def _padded(subject: Subject) -> float:
    """All conversations in one batch of the model's own forward, padded on the left, in two steps."""
    longest = max(len(item.tokens) for item in subject.rendered)
    missing = [longest - len(item.tokens) for item in subject.rendered]
    rows = [item.token_tensor()[0] for item in subject.rendered]
    tokens = torch.stack([torch.nn.functional.pad(row, (count, 0)) for row, count in zip(rows, missing, strict=True)])
    mask, cut = torch.arange(longest) >= torch.tensor(missing)[:, None], longest - 5
    cache = subject.model.forward(tokens[:, :cut], mask=mask[:, :cut])
    read = subject.model.readout.logits(_last(subject.model, tokens[:, cut:], cache))
    truth = torch.stack([subject.truth[item.label, "clean"][-1] for item in subject.rendered])
    return float((read.cpu() - truth).abs().max())


def _last(model: mi.Model, tokens: Tensor, cache: mi.KVCache) -> Float[Tensor, "row d_model"]:
    kept: list[Tensor] = []

    def keep(activation: Tensor, /, *, hook: HookPoint) -> None:
        kept.append(activation[:, -1])

    hooks: list[Hook] = [(model.resid_post(model.n_layers - 1), keep)]
    model.forward(tokens, cache, hooks=hooks)
    return kept[0]


CHECKS: dict[str, Callable[[Subject], float]] = {
    "clean": _clean,
    "steered": _steered,
    "one by one": _alone,
    "cached": _cached,
    "left-padded": _padded,
    "lens": _lens,
}
