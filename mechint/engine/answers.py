"""From a readout to the answer columns of a table: logits, probabilities, mass, entropy, and shifts against clean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.errors import NumericalError, TokenizationError
from mechint.chat.render import Rendered
from mechint.chat.tokens import Answers, single_token
from mechint.models.readout import Readings, Readout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Row = dict[str, str | int | float]

# Characters before an answer that its tokenization is checked in; more would cost and change nothing.
_CONTEXT = 32
_ROUNDING = 1e-3  # of sums of float32 exponentials
SHIFTED = ("p_yes", "p_no", "logit_diff")


@dataclass(frozen=True)
class AnswerIds:
    """Token ids of the answers to one conversation; empty where none are named."""

    yes: tuple[int, ...]
    no: tuple[int, ...]
    choices: tuple[tuple[str, int], ...]
    reduce: str

    def all_ids(self) -> tuple[int, ...]:
        """Every id, in order."""
        return (*self.yes, *self.no, *(token for _, token in self.choices))


def answer_ids(
    tokenizer: PreTrainedTokenizerBase, rendered: Rendered, answers: Answers | AnswerIds | None
) -> AnswerIds:
    """Return the ids of `answers` (which may be ids), or else of the conversation's own yes_token and no_token.

    Raises TokenizationError for an answer that is not a single token, or two answers that are the same token.
    """
    if isinstance(answers, AnswerIds):
        return answers
    if answers is None:
        conversation = rendered.conversation
        answers = Answers(
            yes=(conversation.yes_token,) if conversation.yes_token else (),
            no=(conversation.no_token,) if conversation.no_token else (),
        )
    context = rendered.text[-_CONTEXT:]
    yes = tuple(single_token(tokenizer, text, context) for text in answers.yes)
    no = tuple(single_token(tokenizer, text, context) for text in answers.no)
    choices = tuple(single_token(tokenizer, text, context) for text in answers.choices)
    _check_apart(answers, yes, no, choices)
    # Tokenizers that mark word beginnings write " yes" and "yes" as one token, whose probability counts once.
    merged = [tuple(dict.fromkeys(side)) for side in (yes, no)]
    return AnswerIds(merged[0], merged[1], tuple(zip(answers.choices, choices, strict=True)), answers.reduce)


def _check_apart(answers: Answers, yes: Sequence[int], no: Sequence[int], choices: Sequence[int]) -> None:
    """Raise TokenizationError where yes and no, or two options, are read from one token."""
    options = dict(zip(answers.choices, choices, strict=True))
    pairs = [
        *((a, b, x == y) for a, x in zip(answers.yes, yes, strict=True) for b, y in zip(answers.no, no, strict=True)),
        *((a, b, x == y) for (a, x), (b, y) in combinations(options.items(), 2)),
    ]
    for first, second, same in pairs:
        if same:
            raise TokenizationError(
                given=f"the answers {first!r} and {second!r}, which are one token to this tokenizer",
                allowed="yes and no, and options, that are different tokens",
                advice="leave one of the two out, or spell it otherwise",
            )


def all_answer_ids(
    tokenizer: PreTrainedTokenizerBase, rendered: Sequence[Rendered], answers: Answers | AnswerIds | None
) -> list[AnswerIds]:
    """Return the `answer_ids` of each conversation, worked out once for those that end alike and have like answers."""
    cached: dict[tuple[str, str | None, str | None], AnswerIds] = {}
    ids = []
    for item in rendered:
        key = (item.text[-_CONTEXT:], item.conversation.yes_token, item.conversation.no_token)
        if key not in cached:
            cached[key] = answer_ids(tokenizer, item, answers)
        ids.append(cached[key])
    return ids


def column_names(ids: AnswerIds) -> list[str]:
    """Return the columns of a readout with these answers, in order."""
    yes_no = ["p_yes", "p_no", "logit_yes", "logit_no", "logit_diff", "yes_no_mass"]
    options = [f"{kind}_{text}" for text, _ in ids.choices for kind in ("p", "logit")]
    return [*(yes_no if _asks_yes_no(ids) else []), *options, "entropy"]


def read_rows(readout: Readout, resid: Float[Tensor, "n d_model"], ids: Sequence[AnswerIds]) -> list[dict[str, float]]:
    """Return the answer columns of each residual, whose answers are `ids[i]`; columns without an answer are NaN."""
    tokens = sorted({token for item in ids for token in item.all_ids()})
    place = {token: index for index, token in enumerate(tokens)}
    readings = readout.read(resid, torch.tensor(tokens, dtype=torch.long))
    return [_columns(readings, index, item, place) for index, item in enumerate(ids)]


def add_shifts(table: pd.DataFrame, keys: Sequence[str], clean: npt.NDArray[np.bool_]) -> pd.DataFrame:
    """Add `<column>_shift` = value - value of the row with the same `keys` that is `clean`."""
    columns = [column for column in SHIFTED if column in table]
    reference = table[clean].set_index(list(keys))[columns]
    at = pd.MultiIndex.from_frame(table[list(keys)]) if len(keys) > 1 else table[keys[0]]
    for column in columns:
        table[f"{column}_shift"] = table[column].to_numpy() - reference[column].reindex(at).to_numpy()
    return table


def _asks_yes_no(ids: AnswerIds) -> bool:
    """Whether there are columns of yes and no: not where only options are read."""
    return bool(ids.yes or ids.no or not ids.choices)


def _columns(readings: Readings, index: int, ids: AnswerIds, place: dict[int, int]) -> dict[str, float]:
    logits, total = readings.logits[index].double().cpu(), readings.log_sum_exp[index].double().item()
    row: dict[str, float] = {}
    if _asks_yes_no(ids):
        yes = _reduced(logits, [place[token] for token in ids.yes], ids.reduce)
        no = _reduced(logits, [place[token] for token in ids.no], ids.reduce)
        p_yes, p_no = math.exp(yes - total), math.exp(no - total)
        _check_mass([p for p in (p_yes, p_no) if not math.isnan(p)])
        row = {"p_yes": p_yes, "p_no": p_no, "logit_yes": yes, "logit_no": no}
        row |= {"logit_diff": yes - no, "yes_no_mass": p_yes + p_no}
    _check_mass([math.exp(logits[place[token]].item() - total) for _, token in ids.choices])
    for text, token in ids.choices:
        logit = logits[place[token]].item()
        row |= {f"p_{text}": math.exp(logit - total), f"logit_{text}": logit}
    return row | {"entropy": readings.entropy[index].item()}


def _check_mass(probabilities: Sequence[float]) -> None:
    """Raise NumericalError for probabilities of different tokens that are more than one together, rounding aside."""
    if sum(probabilities) > 1 + _ROUNDING:
        raise NumericalError(
            given=f"answers with a probability of {sum(probabilities):.6g} together",
            allowed="at most 1: each token counts once",
            advice="report this tokenizer and these answers",
        )


def _reduced(logits: Tensor, places: Sequence[int], reduce: str) -> float:
    """The logit of a set of variants: their log-sum-exp, so that probabilities add up, or their maximum."""
    if not places:
        return math.nan
    chosen = logits[list(places)]
    return (chosen.logsumexp(0) if reduce == "sum" else chosen.max()).item()
