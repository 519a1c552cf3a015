"""Coherence by a model's loss: word salad is what a language model would not have written.

Rules see loops and broken characters and miss salad with small words in it; the mean loss of a reply, read by itself
as plain text, sees that and misses loops, which are easy to foretell. So another judge's coherence and the loss are
joined: a reply can be read if neither objects. The largest loss of a readable reply is set by labels, for each model.

    judge = open_judge("rules+loss:smollm2")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from mechint.base.errors import UsageError
from mechint.base.files import read_json, sha256
from mechint.interventions.specifications import CLEAN
from mechint.models.model import Model, load
from mechint.readouts.text_loss import text_loss
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.labelled_sets import BUNDLED, labelled_set
from mechint.trials.labels import Label
from mechint.trials.verdicts import Item, Judge, Verdict

FEWEST = 10  # labels of either answer that set a limit
_KEPT = 0.9  # readable replies that a limit keeps: of real ones few are broken, so what is lost of others weighs more
_SHORTEST, _LONGEST = 12, 300  # words: the loss of a few says little, and what comes later little more
LIMITS_FILE = "loss_limits.json"


@dataclass(frozen=True)
class LossJudge:
    """Another judge's verdicts, but that a reply whose loss under `model` is above `max_loss` cannot be read.

    `max_loss` is in nats per token.
    """

    model: Model
    max_loss: float
    judge_of_content: Judge = field(default_factory=RulesJudge)

    @classmethod
    def load(cls, name: str) -> LossJudge:
        """Return the rules judge joined with a model, by name or path.

        The limit is the packaged one of this model, or else set by the tuning halves of the bundled labels. Raises
        what `mi.load` and `calibrated_loss` raise.
        """
        model = load(name)
        if (limit := _packaged_limits().get(model.identity)) is not None:
            return cls(model, limit)
        sets = [labelled_set(bundled) for bundled in BUNDLED]
        items = [item for labelled in sets for item in labelled.items("tuning")]
        labels = {key: label for labelled in sets for key, label in labelled.frozen("tuning").items()}
        return calibrated_loss(model, items, labels)

    @property
    def name(self) -> str:
        """The judge's name, such as rules+loss:MODEL."""
        return f"{self.judge_of_content.name}+loss:{self.model.name}"

    @property
    def version(self) -> str:
        """Hash of the other judge, of the weights, of the limit, and of this code."""
        parts = (self.judge_of_content.version, self.model.identity, repr(self.max_loss))
        return sha256(*(text.encode() for text in parts), Path(__file__).read_bytes())[:16]

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """Return a verdict for each reply."""
        losses = reply_losses(self.model, [item.reply for item in items])
        verdicts = self.judge_of_content.judge(items)
        return [self._joined(verdict, loss) for verdict, loss in zip(verdicts, losses, strict=True)]

    def _joined(self, verdict: Verdict, loss: float) -> Verdict:
        if not loss > self.max_loss:
            return verdict
        note = f"a loss of {loss:.2f}"
        return replace(verdict, coherent=False, reason="; ".join(text for text in (note, verdict.reason) if text))


def reply_losses(model: Model, replies: Sequence[str]) -> Float[np.ndarray, " replies"]:
    """Return the mean loss of each reply, in nats per token; NaN for those of fewer than twelve words."""
    split = [reply.split() for reply in replies]
    places = [at for at, listed in enumerate(split) if len(listed) >= _SHORTEST]
    losses = np.full(len(replies), np.nan)
    if places:
        texts = [replies[at] if len(split[at]) <= _LONGEST else " ".join(split[at][:_LONGEST]) for at in places]
        losses[places] = text_loss(model, texts, CLEAN)["loss"].to_numpy()
    return losses


def calibrated_loss(
    model: Model, items: Sequence[Item], labels: Mapping[str, Label], judge: Judge | None = None
) -> LossJudge:
    """Return a judge with the limit by which labels are met best among what `judge` can read (the rules judge).

    It refuses as many broken replies as it can while it keeps nine in ten of those that can be read.

    Give it labels that it is not measured on. Raises UsageError for fewer than ten of either answer.
    """
    content = judge or RulesJudge()
    verdicts = content.judge(items)
    losses = reply_losses(model, [item.reply for item in items])
    counted = [
        at
        for at, (item, verdict) in enumerate(zip(items, verdicts, strict=True))
        if item.id in labels and verdict.coherent and np.isfinite(losses[at])
    ]
    truth = np.array([labels[items[at].id].coherent for at in counted], dtype=bool)
    if min(truth.sum(), (~truth).sum()) < FEWEST:
        fault = f"labels of replies that {content.name} can read: {truth.sum()} coherent and {(~truth).sum()} not"
        raise UsageError(fault, f"{FEWEST} of both at least", "label more replies, or give LossJudge a max_loss")
    return LossJudge(model, _best_limit(losses[counted], truth), content)


def _best_limit(losses: Float[np.ndarray, " replies"], truth: Bool[np.ndarray, " replies"]) -> float:
    """Return the limit that refuses most broken replies and keeps nine in ten readable ones; of several the highest."""
    ordered = np.unique(losses)
    limits = np.concatenate([(ordered[1:] + ordered[:-1]) / 2, [ordered[-1] + 1]])
    kept = np.array([(losses[truth] <= limit).mean() for limit in limits])
    refused = np.array([(losses[~truth] > limit).mean() for limit in limits])
    refused[kept < _KEPT] = -1.0
    return float(limits[refused == refused.max()][-1])


def _packaged_limits() -> dict[str, float]:
    """Return the limits that were set before, by the hash of a model's weights."""
    path = Path(str(resources.files("mechint.trials").joinpath("data", LIMITS_FILE)))
    data = read_json(path)
    assert isinstance(data, dict)
    return {key: float(str(value)) for key, value in data.items()}
