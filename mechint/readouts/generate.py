"""Generation from a prefilled cache: replies after an intervention was taken away, or while it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.progress import Progress, counted
from mechint.base.signatures import Count, Seed, checked
from mechint.chat.conversations import Conversation
from mechint.chat.render import Rendered, render_all
from mechint.engine.reach import warn_unreached
from mechint.interventions.listing import check_at_least, listed_conversations, listed_interventions
from mechint.interventions.prefill import check_fits, check_readable, prefill
from mechint.interventions.receipts import Measured, Receipt
from mechint.interventions.specifications import Intervention, terms_among
from mechint.interventions.steered_reading import ActiveSteering, SteeredRow, added_vectors, check_everywhere, reader_of
from mechint.models.model import Model
from mechint.models.residual_scale import unit_record
from mechint.models.row_memory import fitting_rows
from mechint.readouts.decode import Reply, Sampling, Start, decode, end_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens of the prompt that a reply is decoded with: some tokenizers write a first token without its space.
_CONTEXT = 8


@checked
def generate(
    model: Model,
    conversations: Conversation | Sequence[Conversation],
    interventions: Intervention | Sequence[Intervention],
    *,
    max_new_tokens: Count = 40,
    temperature: float = 0.0,
    n: Count = 1,
    seed: Seed = 0,
    steer_reply: bool = False,
    batch_size: Count = 64,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
) -> pd.DataFrame:
    """Return one row per (conversation, intervention, sample): what the model says next.

    The cache is filled up to the end of the last marked message under the intervention, as `prefill` does it; the rest
    of the conversation is read, and the reply generated, without it. With `steer_reply` (active steering) an injection
    goes on over the rest of the prompt and over the reply, in the same amounts. The rest and the reply to a swap are
    then the other model's.

    At temperature 0 the likeliest token is taken; else tokens are drawn, by a generator of its own for every (seed,
    conversation label, intervention name, sample), so that a row does not depend on what else is asked for. A reply
    ends with one of `decode.end_tokens`. At most `batch_size` replies are generated at once, fewer where `max_memory`
    (that of `score`) has no room for more; `progress` is told, whenever some have ended, how many these are and how
    many tokens they have; True shows a bar.

    Columns: `conversation`, `intervention`, `sample`, `text` (without the end token), `n_tokens` (with it), `stopped`
    (it ended by itself), `log_prob` (nats, sum over these tokens, at temperature 1, under the model that spoke, steered
    if it was). `table.attrs["receipts"]` holds the receipt of every prefill and, with `steer_reply`, of every reply
    that was not clean (its `row` is the sample).

    Raises UsageError for numbers that make no sense, labels or names that occur twice, a prompt too long for the model,
    and with `steer_reply` for a narrowed injection or a `Filled`; and what `render` and `prefill` raise.
    """
    listed, requested = listed_conversations(conversations), listed_interventions(interventions)
    sampling = Sampling(max_new_tokens, temperature, seed)
    _check_samples(n, temperature)
    check_at_least("batch_size", batch_size)
    rendered = render_all(model, listed)
    _check_cells(model, rendered, requested, sampling, steer_reply=steer_reply)
    if not steer_reply:
        warn_unreached(model, product(rendered, requested))
    rows = [_Row(*cell) for cell in product(rendered, requested, range(n))]
    longest = max(len(item.tokens) for item in rendered) + max_new_tokens
    at_once = fitting_rows(model, max_memory, longest, batch_size, "replies")
    spoken: dict[int, _Spoken] = {}
    with counted(progress, "replies", len(rows), "reply") as tell:
        for reader, places in _batches(model, rows, at_once, steer_reply=steer_reply):
            batch = [rows[place] for place in places]
            replies = _spoken(model, reader, batch, sampling, tell, steer_reply=steer_reply)
            spoken |= dict(zip(places, replies, strict=True))
    table = _table(model, [spoken[place] for place in range(len(rows))])
    table.attrs["renderings"] = {item.label: str(item) for item in rendered}
    if terms_among(requested):
        table.attrs["unit"] = unit_record(model)
    return table


@dataclass(frozen=True)
class _Row:
    """One reply that is asked for."""

    rendered: Rendered
    intervention: Intervention
    sample: int

    @property
    def cell(self) -> tuple[str, str]:
        """The conversation's label and the intervention's name, which samples of one cell share."""
        return self.rendered.label, self.intervention.name


@dataclass(frozen=True)
class _Spoken:
    """A reply with the receipts of its prefill (the first sample has it) and of itself."""

    row: _Row
    reply: Reply
    receipts: tuple[Receipt, ...]


def _batches(
    model: Model, rows: Sequence[_Row], batch_size: int, *, steer_reply: bool
) -> Iterator[tuple[Model, list[int]]]:
    """Yield rows that are generated together, with the model that speaks: the swapped one only where that goes on."""
    places: dict[Model, list[int]] = {}
    for place, row in enumerate(rows):
        reader = reader_of(model, row.intervention) if steer_reply else model
        places.setdefault(reader, []).append(place)
    for reader, of_reader in places.items():
        for start in range(0, len(of_reader), batch_size):
            yield reader, of_reader[start : start + batch_size]


def _spoken(
    model: Model, reader: Model, rows: Sequence[_Row], sampling: Sampling, tell: Progress | None, *, steer_reply: bool
) -> list[_Spoken]:
    """Return the replies of some rows; a conversation is prefilled and read once for all of its samples."""
    starts: list[Start] = []
    receipts: dict[tuple[str, str], Receipt] = {}
    for rendered, interventions in _prompts(rows):
        start, filled = _start(model, reader, rendered, interventions, steer_reply=steer_reply)
        starts.append(start)
        receipts |= {(receipt.conversation, receipt.intervention): receipt for receipt in filled}
    order = {cell: index for index, cell in enumerate(receipts)}
    together = Start.joined(starts, [order[row.cell] for row in rows])
    replies = [Reply(sampling.generator(*row.cell, row.sample)) for row in rows]
    decode(reader, together, replies, sampling, end_tokens(reader), tell)
    spoken = []
    for row, reply, steered in zip(rows, replies, together.steering.rows, strict=True):
        of_prefill = receipts[row.cell]
        goes_on = steer_reply and row.intervention.kind != "clean"
        of_reply = (_reply_receipt(reader, row, reply, steered, of_prefill),) if goes_on else ()
        spoken.append(_Spoken(row, reply, of_reply if row.sample else (of_prefill, *of_reply)))
    return spoken


def _prompts(rows: Sequence[_Row]) -> list[tuple[Rendered, list[Intervention]]]:
    """Return each conversation among the rows with its interventions, each once."""
    prompts: dict[str, tuple[Rendered, dict[str, Intervention]]] = {}
    for row in rows:
        prompts.setdefault(row.rendered.label, (row.rendered, {}))[1][row.intervention.name] = row.intervention
    return [(rendered, list(interventions.values())) for rendered, interventions in prompts.values()]


def _start(
    model: Model, reader: Model, rendered: Rendered, interventions: Sequence[Intervention], *, steer_reply: bool
) -> tuple[Start, list[Receipt]]:
    """Prefill a conversation and read the rest of it, one row for each intervention."""
    filled = prefill(model, rendered, interventions)
    rows = [SteeredRow(added_vectors(model, item) if steer_reply else {}) for item in interventions]
    rest = rendered.token_tensor()[:, rendered.prefix_length :].expand(len(rows), -1)
    steering = ActiveSteering(rows)
    # Left where it is unless it has to move: a large model has its layers on several devices.
    cache = filled.cache if reader is model else filled.cache.to(reader.device)
    cache, stream = steering.read(reader, rest, cache)
    # The row of a prefill's batch says nothing here, and depends on how the replies are batched.
    return Start(cache, stream[:, -1], steering), [replace(receipt, row=0) for receipt in filled.receipts]


def _reply_receipt(reader: Model, row: _Row, reply: Reply, steered: SteeredRow, of_prefill: Receipt) -> Receipt:
    """Return the receipt of all positions after the prefill: the rest of the prompt, the reply but its last token."""
    tokens, start = [*row.rendered.tokens, *reply.tokens[:-1]], row.rendered.prefix_length
    changes = {layer: [of_pass.moved(start) for of_pass in passes] for layer, passes in steered.changes.items()}
    kind, positions = f"{of_prefill.kind} reply", range(start, len(tokens))
    return Measured(reader, tokens).receipt(row.cell, kind, len(tokens), positions, changes, row.sample)


def _table(model: Model, replies: Sequence[_Spoken]) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "conversation": spoken.row.rendered.label,
            "intervention": spoken.row.intervention.name,
            "sample": spoken.row.sample,
            "text": _text(model.tokenizer, spoken),
            "n_tokens": len(spoken.reply.tokens),
            "stopped": spoken.reply.stopped,
            "log_prob": spoken.reply.log_prob,
        }
        for spoken in replies
    )
    table.attrs["receipts"] = [receipt.to_dict() for spoken in replies for receipt in spoken.receipts]
    table.attrs["dtype"] = model.dtype_name
    return table


def _text(tokenizer: PreTrainedTokenizerBase, spoken: _Spoken) -> str:
    """Return a reply as text, without its end token; other special tokens are shown."""
    context = list(spoken.row.rendered.tokens[-_CONTEXT:])
    tokens = spoken.reply.tokens[:-1] if spoken.reply.stopped else spoken.reply.tokens
    before = str(tokenizer.decode(context, clean_up_tokenization_spaces=False))
    whole = str(tokenizer.decode([*context, *tokens], clean_up_tokenization_spaces=False))
    return whole.removeprefix(before)


def _check_samples(n: int, temperature: float) -> None:
    check_at_least("n", n)
    if n > 1 and temperature == 0:
        raise UsageError(
            given=f"n={n} samples at temperature 0, which are all the same",
            allowed="n=1 at temperature 0, or a higher temperature",
            advice="set temperature=1.0 for samples",
        )


def _check_cells(
    model: Model,
    rendered: Sequence[Rendered],
    interventions: Sequence[Intervention],
    sampling: Sampling,
    *,
    steer_reply: bool,
) -> None:
    """Raise, before the first pass, the errors of cells that cannot be generated from."""
    for intervention in interventions:
        check_fits(model, intervention)
    if steer_reply:
        check_everywhere(interventions)
    for item in rendered:
        check_readable(item, interventions)
        model.backend.context.check(len(item.tokens) + sampling.max_new_tokens - 1, f"conversation {item.label!r}")
