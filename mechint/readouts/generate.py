"""Generation from a prefilled cache: replies after an intervention was taken away, or while it goes on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.progress import Progress, counted
from mechint.base.signatures import Count, Index, Seed, checked
from mechint.chat.conversations import Conversation
from mechint.chat.tokens import Answers
from mechint.engine.explain_replies import AT_ONCE, ReplyMemory
from mechint.engine.reach import warn_unreached
from mechint.engine.replies import ReplyPlan, ReplyRequest, ReplyRow
from mechint.interventions.receipts import Measured, Receipt
from mechint.interventions.specifications import CLEAN, Intervention, terms_among
from mechint.interventions.steering_modes import Steer
from mechint.models.model import Model
from mechint.models.residual_scale import typical_norms, unit_record
from mechint.readouts.decode import Reply
from mechint.readouts.prompt_states import prompt_receipt
from mechint.readouts.sampler import Said, Sampler

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
    steer: Steer = "prefill",
    max_new_tokens: Count = 40,
    temperature: float = 0.0,
    n: Count | Sequence[Index] = 1,
    seed: Seed = 0,
    answers: Answers | None = None,
    end_loops: bool = True,
    batch_size: Count = AT_ONCE,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    steer_reply: bool | None = None,
) -> pd.DataFrame:
    """Return one row per (conversation, intervention, sample): what the model says next.

    `steer` says where interventions act:

    - `"prefill"`: in the marked turns alone; the rest of the prompt, and the reply, are read without them.
    - `"reply"`: from the first token of the reply on. That token is drawn from clean logits; steering begins when it
      is read.
    - `mi.From("text")`: from the token with which this text begins in the rendered conversation, and in the reply.
    - `"everything"`: at all positions of the prompt and of the reply.
    - `"onward"`: in the marked turns, in everything after the last of them, and in the reply (once `steer_reply=True`,
      which still works and warns).

    What a swap does not fill is read, and said, by the model itself. A prompt is read once for all rows that are the
    same there: with `reply` once for all interventions.

    At temperature 0 the likeliest token is taken; else tokens are drawn, by a generator of its own for every (seed,
    conversation label, intervention name, sample), so that a row does not depend on what else is asked for. `n` is the
    number of samples, or a list of their numbers: n=20 gives what twenty calls give, n=[0] to n=[19]. A reply ends
    with one of `decode.end_tokens`, or, unless `end_loops` is False, when its last 40 tokens are an n-gram over and
    over. At most `batch_size` replies are said at once, fewer where `max_memory` (that of `score`) has no room for
    more; when one ends the next takes its place. `progress` is told, whenever some have ended, how many these are and
    how many tokens they have; True shows a bar.

    Columns: `conversation`, `intervention`, `sample`, `steer`, `text` (without the end token), `n_tokens` (with it),
    `stopped` (`end`, `loop`, or `length`: it was cut off), `log_prob` (nats, sum over these tokens, at temperature 1,
    under the model that spoke, steered if it was). With `answers`, `first_p_yes`, `first_logit_diff` and so on are the
    columns of `score` where the first token is said. `table.attrs["receipts"]` holds the receipt of every prompt and,
    where interventions go on, of every reply that was not clean, with the positions that were read (its `row` is the
    sample); `table.attrs["prefills"]` every prompt that was filled, with how many replies it served.

    Raises UsageError for numbers that make no sense, labels or names that occur twice, a prompt too long for the model,
    a text of `From` that is not there, and, where interventions go on, for a narrowed injection or a `Filled`;
    ConversationError where `prefill` and `onward` find no marked turn; ReceiptError if a row was steered that should
    not be; and what `render` and `prefill` raise.
    """
    request = ReplyRequest(
        conversations=conversations,
        interventions=interventions,
        n=n,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        steer=_renamed(steer, steer_reply),
        answers=answers,
        end_loops=end_loops,
    )
    return replies(model, [request], batch_size=batch_size, max_memory=max_memory, progress=progress)


@checked
def replies(
    model: Model,
    requests: ReplyRequest | Sequence[ReplyRequest],
    *,
    batch_size: Count = AT_ONCE,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    ended: Callable[[pd.DataFrame], None] | None = None,
) -> pd.DataFrame:
    """Return the rows of several requests in one table: prompts that they share are read once, batches are common.

    Requests may differ in everything: vectors, strengths, modes, lengths, numbers of samples. The other arguments, and
    the columns, are those of `generate`. `ended` is given the rows that have ended, whenever some have, in the order
    in which they did: whoever keeps them can go on after an interruption. Raises what `generate` raises, and UsageError
    for a row asked for twice.
    """
    plan = ReplyPlan.of(model, (requests,) if isinstance(requests, ReplyRequest) else requests)
    memory = ReplyMemory.of(plan, batch_size, max_memory)
    quiet = {row.cell: (row.rendered, row.intervention) for row in plan.rows if row.request.steer == "prefill"}
    warn_unreached(model, quiet.values())
    sampler, table = Sampler(plan, memory), _Table(model, plan)
    with counted(progress, "replies", len(plan.rows), "reply") as tell:
        for replies_ended in sampler.run():
            rows = [table.add(said) for said in replies_ended]
            if ended is not None:
                ended(pd.DataFrame(rows))
            if tell is not None:
                tell(len(rows), sum(len(said.reply.tokens) for said in replies_ended))
    finished = table.finished()
    finished.attrs["prefills"] = sampler.prefills
    return finished


class _Table:
    """The rows of a table as they come, with the receipt of each prompt and of each steered reply."""

    def __init__(self, model: Model, plan: ReplyPlan) -> None:
        self.model, self.plan = model, plan
        has_terms = bool(terms_among(row.intervention for row in plan.rows))
        self._units = _units(model) if has_terms else None
        self._columns: dict[int, dict[str, str | int | float]] = {}
        self._prompts: dict[tuple[str, ...], Receipt] = {}
        self._replies: dict[int, Receipt] = {}

    def add(self, said: Said) -> dict[str, str | int | float]:
        """Add a reply that has ended, and return its columns."""
        row, reply = said.row, said.reply
        columns = self._columns[said.place] = {
            "conversation": row.rendered.label,
            "intervention": row.intervention.name,
            "sample": row.sample,
            "steer": str(row.request.steer),
            "text": _text(self.model.tokenizer, row, reply),
            "n_tokens": len(reply.tokens),
            "stopped": reply.stopped,
            "log_prob": reply.log_prob,
            **{f"first_{name}": value for name, value in said.first.items()},
        }
        if _prompt_name(row) not in self._prompts:
            self._prompts[_prompt_name(row)] = prompt_receipt(self.model, row, said.prompt_changes, self._units)
        if row.steers:
            self._replies[said.place] = _reply_receipt(said, self._units)
        return columns

    def finished(self) -> pd.DataFrame:
        """Return the table, in the plan's order."""
        places = range(len(self.plan.rows))
        table = pd.DataFrame([self._columns[place] for place in places])
        table.attrs["receipts"] = [receipt.to_dict() for receipt in self._receipts()]
        table.attrs["renderings"] = {row.rendered.label: str(row.rendered) for row in self.plan.rows}
        table.attrs["dtype"] = self.model.dtype_name
        if self._units is not None:
            table.attrs["unit"] = unit_record(self.model)
        return table

    def _receipts(self) -> Iterator[Receipt]:
        """Yield the receipt of each prompt before that of the first reply to it."""
        prompts = dict(self._prompts)
        for place, row in enumerate(self.plan.rows):
            if _prompt_name(row) in prompts:
                yield prompts.pop(_prompt_name(row))
            if place in self._replies:
                yield self._replies[place]


def _units(model: Model) -> Sequence[float | None]:
    """Return the model's unit at each layer; None where it has none."""
    norms = typical_norms(model)
    return [None] * model.n_layers if norms is None else norms


def _prompt_name(row: ReplyRow) -> tuple[str, ...]:
    """Return what receipts of prompts are told apart by: where only replies are steered, all prompts are clean."""
    name = CLEAN.name if row.request.steer == "reply" else row.intervention.name
    return row.rendered.label, name, str(row.request.steer)


def _reply_receipt(said: Said, units: Sequence[float | None] | None) -> Receipt:
    """Return the receipt of the positions of a reply that were read: all but its last token."""
    row, start = said.row, len(said.row.prompt.tokens)
    tokens = [*row.prompt.tokens, *said.reply.tokens[:-1]]
    layers = {layer for term in row.intervention.terms for layer in term.layers or ()}
    changes = {layer: said.reply_changes.get(layer, ()) for layer in layers}
    kind, positions = f"{row.intervention.kind} reply", range(start, len(tokens))
    return Measured(row.reader, tokens, units).receipt(row.cell, kind, len(tokens), positions, changes, row.sample)


def _text(tokenizer: PreTrainedTokenizerBase, row: ReplyRow, reply: Reply) -> str:
    """Return a reply as text, without its end token; other special tokens are shown."""
    context = list(row.prompt.tokens[-_CONTEXT:])
    tokens = reply.tokens[:-1] if reply.stopped == "end" else reply.tokens
    before = str(tokenizer.decode(context, clean_up_tokenization_spaces=False))
    whole = str(tokenizer.decode([*context, *tokens], clean_up_tokenization_spaces=False))
    return whole.removeprefix(before)


def _renamed(steer: Steer, steer_reply: bool | None) -> Steer:
    """Return the mode that the option `steer_reply` stands for, if it is used."""
    if steer_reply is None:
        return steer
    if steer != "prefill":
        raise UsageError(f"steer={steer!s} and steer_reply={steer_reply}", "one of the two", "leave out steer_reply")
    mode: Steer = "onward" if steer_reply else "prefill"
    warnings.warn(f"steer_reply={steer_reply} is now steer={mode!r}", DeprecationWarning, stacklevel=4)
    return mode
