"""The loss on plain text while vectors are added at every position: at which strength coherence is lost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechint.active import ActiveSteering, SteeredRow, added_vectors, check_everywhere, relative_layers
from mechint.capture import mean_norms
from mechint.engine import Progress
from mechint.errors import UsageError
from mechint.given import check_at_least, check_context, listed_interventions
from mechint.interventions import Intervention, Swap
from mechint.model import Model
from mechint.prefill import check_fits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The ids of one text; several texts are of several lengths.
Tokens = Int[Tensor, " _"]

# Positions whose logits over the whole vocabulary are held at once: 128 x 152,000 of them are 78 MB.
_POSITIONS = 128


def text_loss(
    model: Model,
    texts: str | Sequence[str],
    interventions: Intervention | Sequence[Intervention],
    *,
    words: Mapping[str, str] = MappingProxyType({}),
    batch_size: int = 16,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return one row per (text, intervention): the loss of the text's tokens, each predicted from those before it.

    Texts are read without a chat template; special tokens are added only if the tokenizer adds them by itself. An
    injection acts at every position, and a relative strength is relative to the mean clean residual norm over all of
    them. Under a swap the loss is the other model's. `batch_size` texts are read at once; `progress` is told after each
    batch how many rows are done, and how many tokens they have.

    Columns: `text` (its number), `intervention`, `n_tokens` (those that are predicted: all but the first), `loss` (mean
    negative log-likelihood, nats per token, from float32 logits), `perplexity` (exp of the loss). For each of `words`, by
    label, there is `log_p_<label>`: the log-probability (natural) of its first token, as the tokenizer writes it by
    itself (" cats" begins with a space), averaged over the positions from which a token is predicted. It tells how near
    a word is to being said, whatever the text says.

    Raises UsageError for words without a token, for texts of less than two tokens or too long for the model, names that occur twice, narrowed
    injections and `Filled`; VectorMismatchError or SwapError for interventions that do not fit.
    """
    wanted = listed_interventions(interventions)
    check_at_least("batch_size", batch_size)
    for intervention in wanted:
        check_fits(model, intervention)
    check_everywhere(wanted)
    tokens = _tokens(model, [texts] if isinstance(texts, str) else texts)
    norms, watched = _norms(model, tokens, wanted), _first_tokens(model.tokenizer, words)
    rows = [
        _Row(text, intervention, tokens[text], norms[text])
        for text, intervention in product(range(len(tokens)), wanted)
    ]
    found: dict[int, _Means] = {}
    for places in _batches(model, rows, batch_size):
        found |= dict(zip(places, _means(model, [rows[place] for place in places], watched), strict=True))
        if progress is not None:
            progress(len(places), sum(len(rows[place].tokens) for place in places))
    return pd.DataFrame([_columns(row, found[place], list(words)) for place, row in enumerate(rows)])


@dataclass(frozen=True)
class _Means:
    """Means over the positions of one row: of the loss, and of the log-probabilities of the tokens that are watched."""

    loss: float
    log_p: tuple[float, ...]


@dataclass(frozen=True)
class _Row:
    """One text under one intervention."""

    text: int
    intervention: Intervention
    tokens: Tokens
    norms: Mapping[int, float]

    def reader(self, model: Model) -> Model:
        """The model that reads it."""
        return self.intervention.model if isinstance(self.intervention, Swap) else model


def _tokens(model: Model, texts: Sequence[str]) -> list[Tokens]:
    """Return the token ids of each text."""
    if not texts:
        raise UsageError("no texts", "one or more", "pass at least one")
    found = [_encoded(model.tokenizer, text) for text in texts]
    for number, ids in enumerate(found):
        if len(ids) < 2:
            raise UsageError(
                given=f"text {number} ({texts[number][:40]!r}) of {len(ids)} tokens",
                allowed="two tokens or more: the first is not predicted",
                advice="leave it out, or join it to another",
            )
        check_context(model, len(ids), f"text {number}")
    return found


def _encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> Tokens:
    return torch.tensor(list(tokenizer(text)["input_ids"]), dtype=torch.long)


def _first_tokens(tokenizer: PreTrainedTokenizerBase, words: Mapping[str, str]) -> list[int]:
    """Return the first token of each word."""
    ids = [list(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words.values()]
    if silent := [label for label, of_it in zip(words, ids, strict=True) if not of_it]:
        raise UsageError(f"words without a token: {silent}", "texts of one token or more", "leave them out")
    return [int(of_it[0]) for of_it in ids]


def _norms(model: Model, tokens: Sequence[Tokens], interventions: Sequence[Intervention]) -> list[dict[int, float]]:
    """Return for each text the mean clean residual norms that relative strengths need, by layer."""
    layers = relative_layers(interventions)
    return [mean_norms(model, ids[None], torch.arange(len(ids)), layers) if layers else {} for ids in tokens]


def _batches(model: Model, rows: Sequence[_Row], batch_size: int) -> Iterator[list[int]]:
    """Yield places of rows that one model reads together, alike in length."""
    places: dict[Model, list[int]] = {}
    for place in sorted(range(len(rows)), key=lambda place: len(rows[place].tokens)):
        places.setdefault(rows[place].reader(model), []).append(place)
    for mine in places.values():
        for start in range(0, len(mine), batch_size):
            yield mine[start : start + batch_size]


def _means(model: Model, rows: Sequence[_Row], watched: Sequence[int]) -> list[_Means]:
    """Return the means of each row. Padding on the right does not matter to what stands before it."""
    reader = rows[0].reader(model)
    padded = torch.nn.utils.rnn.pad_sequence([row.tokens for row in rows], batch_first=True)
    steering = ActiveSteering([SteeredRow(added_vectors(row.intervention, row.norms)) for row in rows])
    _, stream = steering.read(reader, padded)
    return [
        _mean(reader, resid[: len(row.tokens)], row.tokens, watched) for resid, row in zip(stream, rows, strict=True)
    ]


def _mean(
    model: Model, resid: Float[Tensor, "pos d_model"], tokens: Int[Tensor, " pos"], watched: Sequence[int]
) -> _Means:
    loss, log_p = 0.0, torch.zeros(len(watched), dtype=torch.float64)
    predicted = tokens[1:].to(model.device)
    for here, there in zip(torch.split(resid[:-1], _POSITIONS), torch.split(predicted, _POSITIONS), strict=True):
        logits = model.readout.logits(here)
        loss += torch.nn.functional.cross_entropy(logits, there.to(logits.device), reduction="sum").item()
        if watched:
            log_p += (logits[:, list(watched)] - logits.logsumexp(-1, keepdim=True)).sum(0).double().cpu()
    return _Means(loss / len(predicted), tuple((log_p / len(predicted)).tolist()))


def _columns(row: _Row, found: _Means, words: Sequence[str]) -> dict[str, str | int | float]:
    # Beyond the largest number that a float holds, e to that power is as good as infinite.
    perplexity = math.exp(found.loss) if found.loss < 700 else math.inf
    columns: dict[str, str | int | float] = {"text": row.text, "intervention": row.intervention.name}
    columns |= {"n_tokens": len(row.tokens) - 1, "loss": found.loss, "perplexity": perplexity}
    return columns | {f"log_p_{word}": value for word, value in zip(words, found.log_p, strict=True)}
