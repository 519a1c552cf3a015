"""What is minimised at the answer, and what is reported of it whatever is minimised."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def answer_losses(
    logits: Float[Tensor, "row d_vocab"],
    answers: Int[Tensor, "row answer"],
    targets: Float[Tensor, "row answer"],
    over: Literal["vocabulary", "pair"],
) -> Float[Tensor, " row"]:
    """Return the cross-entropy of each row's answer against its targets, in nats.

    Over the vocabulary every other token counts as wrong. Over the pair (or the options) the answers alone are
    compared, as published: what the model says otherwise is left free, and may become anything.
    """
    of_answers = logits.gather(1, answers)
    log_probs = of_answers - (logits if over == "vocabulary" else of_answers).logsumexp(1, keepdim=True)
    return -(targets * log_probs).sum(1)


@torch.no_grad()
def answer_mass(logits: Float[Tensor, "row d_vocab"], answers: Int[Tensor, "row answer"]) -> Float[Tensor, " row"]:
    """Return the probability that each row gives to its answers together."""
    return (logits.gather(1, answers).logsumexp(1) - logits.logsumexp(1)).exp()


@torch.no_grad()
def is_right(
    logits: Float[Tensor, "row d_vocab"], answers: Int[Tensor, "row answer"], targets: Float[Tensor, "row answer"]
) -> Bool[Tensor, " row"]:
    """Return whether the likeliest of each row's answers is the one that it is to give; a tie is not."""
    of_answers = logits.gather(1, answers)
    place = targets.argmax(1, keepdim=True)
    others = of_answers.scatter(1, place, -torch.inf).amax(1)
    return of_answers.gather(1, place)[:, 0] > others


def divergences(
    adapted: Float[Tensor, "token d_vocab"], base: Float[Tensor, "token d_vocab"]
) -> Float[Tensor, " token"]:
    """Return KL(base || adapted) at each token, in nats: by how much the adapter changes what comes next."""
    expected = base.log_softmax(1)
    return (expected.exp() * (expected - adapted.log_softmax(1))).sum(1)
