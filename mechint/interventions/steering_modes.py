"""Where an intervention acts while a model reads a prompt and replies: one word, or the text from which on it acts.

    mode         prompt                              reply
    prefill      marked turns                        nowhere
    reply        nowhere                             from the first token on, once that is said
    From(text)   from where the text begins          everywhere
    onward       marked turns, and all after them    everywhere
    everything   everywhere                          everywhere

A reply's first token is chosen from what the model made of the prompt, so with `reply` it is drawn from clean logits.
Positions are absolute: they are those of the rendered conversation, however it is passed through the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from mechint.base.errors import UsageError
from mechint.base.signatures import Index, checked
from mechint.chat.render import Rendered
from mechint.chat.spans import beginning_of
from mechint.interventions.prefill import check_readable, injected_positions
from mechint.interventions.specifications import Injection, Intervention
from mechint.interventions.steered_reading import check_everywhere
from mechint.models.model import Model


@checked
@dataclass(frozen=True)
class From:
    """Steering from the token with which `text` begins in the rendered conversation, and through the reply.

    The text may be of a message or of what the template writes. It must stand there once, unless `occurrence` says
    which of several it is, counted from 0.
    """

    text: str
    occurrence: Index | None = None

    def __str__(self) -> str:
        which = "" if self.occurrence is None else f" ({self.occurrence})"
        return f"from {self.text!r}{which}"


Steer = Literal["prefill", "reply", "everything", "onward"] | From


def prompt_positions(
    model: Model, rendered: Rendered, steer: Steer, term: Injection | None = None
) -> Bool[Tensor, " pos"]:
    """True at the positions of a prompt that an intervention acts on, or one of its injections, `term`.

    Raises UsageError for a text that is not there, and for positions that are not marked.
    """
    if steer == "prefill":
        return rendered.marked() if term is None else injected_positions(rendered, term)
    positions = torch.zeros(len(rendered.tokens), dtype=torch.bool)
    if isinstance(steer, From):
        positions[beginning_of(model.tokenizer, rendered, steer.text, occurrence=steer.occurrence) :] = True
    elif steer == "onward":
        positions = rendered.marked()
        positions[rendered.prefix_length :] = True
    elif steer == "everything":
        positions[:] = True
    return positions


def steers_reply(steer: Steer) -> bool:
    """Whether an intervention goes on while the model speaks."""
    return steer != "prefill"


def check_mode(
    model: Model, rendered: Rendered, interventions: Sequence[Intervention], steer: Steer, max_new_tokens: int
) -> None:
    """Raise ConversationError where a mode needs marked turns, and UsageError for what cannot act where it says."""
    prompt_positions(model, rendered, steer)
    if steers_reply(steer):
        check_everywhere(interventions)
    if steer in ("prefill", "onward"):
        check_readable(rendered, interventions)
    if steer == "reply" and max_new_tokens == 1 and any(item.kind != "clean" for item in interventions):
        raise UsageError(
            given="steer='reply' with max_new_tokens=1: the first token of a reply is drawn from clean logits",
            allowed="replies of two tokens or more, or a mode that acts on the prompt",
            advice="raise max_new_tokens, or choose steer='everything'",
        )
