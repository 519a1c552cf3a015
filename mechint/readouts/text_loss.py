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

from mechint.base.errors import UsageError
from mechint.base.progress import Progress, counted
from mechint.base.signatures import Count, checked
from mechint.chat.conversations import Conversation
from mechint.chat.render import render
from mechint.chat.spans import positions_of
from mechint.interventions.listing import check_at_least, listed_interventions
from mechint.interventions.prefill import check_fits
from mechint.interventions.specifications import Intervention, terms_among
from mechint.interventions.steered_reading import ActiveSteering, SteeredRow, added_vectors, check_everywhere, reader_of
from mechint.models.model import Model
from mechint.models.residual_scale import unit_record
from mechint.models.row_memory import fitting_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The ids of one text; several texts are of several lengths.
Tokens = Int[Tensor, " _"]

# Positions whose logits over the whole vocabulary are held at once: 128 x 152,000 of them are 78 MB.
_POSITIONS = 128


@checked
def text_loss(
    model: Model,
    texts: str | Conversation | Sequence[str | Conversation],
    interventions: Intervention | Sequence[Intervention],
    *,
    words: Mapping[str, str] = MappingProxyType({}),
    batch_size: Count = 16,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
) -> pd.DataFrame:
    """Return one row per (text, intervention): the loss of the text's tokens, each predicted from those before it.

    Texts are read without a chat template; special tokens are added only if the tokenizer adds them by itself. A
    conversation may stand for a text: that of its last message, read after all that stands before it. An injection acts
    at every position, a relative strength in the amounts that `prefill` adds. Under a swap the loss is the other
    model's. At most `batch_size` texts are read at once, fewer where `max_memory` (that of `score`) has no room for
    more; `progress` is told after each batch how many rows are done, and how many tokens they have; True shows a bar.

    Columns: `text` (its number), `intervention`, `n_tokens` (those that are predicted: all but the first; of a
    conversation those of its last message), `loss` (mean negative log-likelihood, nats per token, from float32 logits),
    `perplexity` (exp of the loss). For each of `words`, by label, there is `log_p_<label>`: the log-probability
    (natural) of its first token, as the tokenizer writes it by itself (" cats" begins with a space), averaged over the
    positions from which a token is predicted. It tells how near a word is to being said, whatever the text says.

    Raises UsageError for words without a token, for texts without a token to predict or too long for the model, names
    that occur twice, narrowed injections and `Filled`; VectorMismatchError or SwapError for interventions that do not
    fit; and for conversations what `render` and `positions_of` raise.
    """
    requested = listed_interventions(interventions)
    check_at_least("batch_size", batch_size)
    for intervention in requested:
        check_fits(model, intervention)
    check_everywhere(requested)
    tokenized = _texts(model, [texts] if isinstance(texts, str | Conversation) else texts)
    watched = _first_tokens(model.tokenizer, words)
    rows = [
        _Row(number, intervention, tokenized[number])
        for number, intervention in product(range(len(tokenized)), requested)
    ]
    longest = max(len(text.tokens) for text in tokenized)
    at_once = fitting_rows(model, max_memory, longest, batch_size, "texts", n_logits=min(longest, _POSITIONS))
    means: dict[int, _Means] = {}
    with counted(progress, "loss", len(rows), "text") as tell:
        for places in _batches(model, rows, at_once):
            means |= dict(zip(places, _means(model, [rows[place] for place in places], watched), strict=True))
            if tell is not None:
                tell(len(places), sum(len(rows[place].text.tokens) for place in places))
    table = pd.DataFrame([_columns(row, means[place], list(words)) for place, row in enumerate(rows)])
    if terms_among(requested):
        table.attrs["unit"] = unit_record(model)
    table.attrs["dtype"] = model.dtype_name
    return table


@dataclass(frozen=True)
class _Means:
    """Means over the positions of one row: of the loss, and of the log-probabilities of the tokens that are watched."""

    loss: float
    log_p: tuple[float, ...]


@dataclass(frozen=True)
class _Text:
    """The tokens of a text, of which those at `start:stop` are predicted, from the positions before them."""

    tokens: Tokens
    start: int
    stop: int

    @property
    def predicted(self) -> Tokens:
        """The tokens that are predicted."""
        return self.tokens[self.start : self.stop]


@dataclass(frozen=True)
class _Row:
    """One text, number `number`, under one intervention."""

    number: int
    intervention: Intervention
    text: _Text

    def reader(self, model: Model) -> Model:
        """Return the model that reads the text: the other one under a swap."""
        return reader_of(model, self.intervention)


def _texts(model: Model, texts: Sequence[str | Conversation]) -> list[_Text]:
    """Return each text as tokens."""
    if not texts:
        raise UsageError("no texts", "one or more", "pass at least one")
    tokenized = [
        _of_conversation(model, text) if isinstance(text, Conversation) else _encoded(model.tokenizer, text)
        for text in texts
    ]
    for number, (text, source) in enumerate(zip(tokenized, texts, strict=True)):
        if text.start >= text.stop:
            raise UsageError(
                given=f"text {number} ({str(source)[:40]!r}) of {len(text.tokens)} tokens",
                allowed="two tokens or more: the first is not predicted",
                advice="leave it out, or join it to another",
            )
        model.backend.context.check(len(text.tokens), f"text {number}")
    return tokenized


def _encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> _Text:
    ids = list(tokenizer(text)["input_ids"])
    return _Text(torch.tensor(ids, dtype=torch.long), 1, len(ids))


def _of_conversation(model: Model, conversation: Conversation) -> _Text:
    rendered, last = render(model, conversation), len(conversation.messages) - 1
    positions = positions_of(model.tokenizer, rendered, conversation.messages[last].content, message=last)
    return _Text(torch.tensor(rendered.tokens, dtype=torch.long), max(1, positions[0]), positions[-1] + 1)


def _first_tokens(tokenizer: PreTrainedTokenizerBase, words: Mapping[str, str]) -> list[int]:
    """Return the first token of each word."""
    ids = [list(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words.values()]
    if silent := [label for label, of_it in zip(words, ids, strict=True) if not of_it]:
        raise UsageError(f"words without a token: {silent}", "texts of one token or more", "leave them out")
    return [int(of_it[0]) for of_it in ids]


def _batches(model: Model, rows: Sequence[_Row], batch_size: int) -> Iterator[list[int]]:
    """Yield places of rows that one model reads together, alike in length."""
    places: dict[Model, list[int]] = {}
    for place in sorted(range(len(rows)), key=lambda place: len(rows[place].text.tokens)):
        places.setdefault(rows[place].reader(model), []).append(place)
    for of_reader in places.values():
        for start in range(0, len(of_reader), batch_size):
            yield of_reader[start : start + batch_size]


def _means(model: Model, rows: Sequence[_Row], watched: Sequence[int]) -> list[_Means]:
    """Return the means of each row. Padding on the right changes nothing before it."""
    reader = rows[0].reader(model)
    padded = torch.nn.utils.rnn.pad_sequence([row.text.tokens for row in rows], batch_first=True)
    steering = ActiveSteering([SteeredRow(added_vectors(reader, row.intervention)) for row in rows])
    _, stream = steering.read(reader, padded)
    return [_mean(reader, resid, row.text, watched) for resid, row in zip(stream, rows, strict=True)]


def _mean(model: Model, resid: Float[Tensor, "pos d_model"], text: _Text, watched: Sequence[int]) -> _Means:
    loss, log_p = 0.0, torch.zeros(len(watched), dtype=torch.float64)
    predicted, before = text.predicted.to(model.device), resid[text.start - 1 : text.stop - 1]
    for chunk, targets in zip(torch.split(before, _POSITIONS), torch.split(predicted, _POSITIONS), strict=True):
        logits = model.readout.logits(chunk)
        loss += torch.nn.functional.cross_entropy(logits, targets.to(logits.device), reduction="sum").item()
        if watched:
            log_p += (logits[:, list(watched)] - logits.logsumexp(-1, keepdim=True)).sum(0).double().cpu()
    return _Means(loss / len(predicted), tuple((log_p / len(predicted)).tolist()))


def _columns(row: _Row, means: _Means, words: Sequence[str]) -> dict[str, str | int | float]:
    # Beyond the largest number that a float holds, e to that power is as good as infinite.
    perplexity = math.exp(means.loss) if means.loss < 700 else math.inf
    columns: dict[str, str | int | float] = {"text": row.number, "intervention": row.intervention.name}
    columns |= {"n_tokens": len(row.text.predicted), "loss": means.loss, "perplexity": perplexity}
    return columns | {f"log_p_{word}": value for word, value in zip(words, means.log_p, strict=True)}
