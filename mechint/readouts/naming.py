"""Free naming: how likely the model is to go on with each of some names, of any number of tokens.

A name's log-probability is the sum of those of its tokens, each read after the ones before it (teacher forcing). The
engine reads one position of a conversation, so a name of m tokens takes m of them: the conversation as it stands, then
continued by the name's first token, and so on. Names that begin alike share what they can, and all share their caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mechint.base.errors import TokenizationError, UsageError
from mechint.base.progress import Progress
from mechint.base.signatures import Count, checked
from mechint.chat.conversations import Conversation
from mechint.chat.render import Rendered, render_all
from mechint.engine.answers import AnswerIds
from mechint.engine.job import Request
from mechint.engine.store import each_once
from mechint.interventions.specifications import Intervention
from mechint.models.model import Model
from mechint.readouts.tables import tables

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = tuple[int, ...]
# What is written for each name: names may be their own texts, or labels of them.
Names = Sequence[str] | Mapping[str, str]
_KEYS = ("conversation", "intervention", "layer")


@dataclass(frozen=True)
class Naming:
    """Requests that read the tokens of some names after some conversations; `log_probs` sums them up by name.

    `tokens` are those of each name, by conversation and name: they may depend on the text before them.
    """

    requests: tuple[Request, ...]
    tokens: Mapping[str, Mapping[str, Tokens]]

    def log_probs(self, read: pd.DataFrame | Sequence[pd.DataFrame]) -> pd.DataFrame:
        """Return one row for each (conversation, intervention, layer, name), of the tables of all requests.

        `read` is what `tables` returns for `requests`, or these tables in one; other rows and columns do not matter.
        Columns: `conversation`, `intervention`, `layer` if the tables have it, `name`, `log_p` (natural log; NaN where
        a row that is needed is not there, as in a shard), `n_tokens`. Raises UsageError if a column is not there.
        """
        table = read if isinstance(read, pd.DataFrame) else pd.concat(read, ignore_index=True)
        columns = self._columns()
        if missing := [name for name in [*_KEYS[:2], *columns] if name not in table]:
            raise UsageError(f"no column {missing[0]!r}", "the tables of all requests", "pass all of them")
        keys = [key for key in _KEYS if key in table]
        rows = table[table["conversation"].isin(list(self.tokens))].dropna(subset=list(columns), how="all")
        wide = rows.groupby(keys, sort=False)[list(columns)].first()
        with np.errstate(divide="ignore"):
            logs = np.log(wide.to_numpy(dtype=np.float64))
        cells = wide.reset_index()[keys]
        parts = [self._of_conversation(label, cells, logs, columns) for label in self.tokens]
        return pd.concat(parts, ignore_index=True)

    def _columns(self) -> dict[str, int]:
        """Number the columns that hold the probability of each token of a name after those before it."""
        beginnings = (
            tokens[:n] for names in self.tokens.values() for tokens in names.values() for n in _lengths(tokens)
        )
        return {f"p_{_column(beginning)}": number for number, beginning in enumerate(dict.fromkeys(beginnings))}

    def _of_conversation(
        self, label: str, cells: pd.DataFrame, logs: np.ndarray, columns: Mapping[str, int]
    ) -> pd.DataFrame:
        rows, names = np.flatnonzero(cells["conversation"] == label), self.tokens[label]
        places = [[columns[f"p_{_column(tokens[:n])}"] for n in _lengths(tokens)] for tokens in names.values()]
        log_p = np.stack([logs[rows][:, of_name].sum(axis=1) for of_name in places], axis=1)
        return cells.iloc[np.repeat(rows, len(names))].assign(
            name=np.tile(np.array(list(names), dtype=object), len(rows)),
            log_p=log_p.ravel(),
            n_tokens=np.tile([len(of_name) for of_name in places], len(rows)),
        )


@checked
def naming_requests(
    model: Model,
    conversations: Conversation | Sequence[Conversation],
    names: Names,
    interventions: Intervention | Sequence[Intervention],
    *,
    layers: Sequence[int] | None = None,
) -> Naming:
    """Return the requests that read the log-probability of each name right after each conversation.

    `names` are written to the letter (" cats" after "The concept is"); a mapping gives each text a label, by which the
    table calls it. `layers` are those to read (-1 for the stream before block 0), the output alone where None.

    Raises UsageError for no conversations or names and for names that are empty or repeat, TokenizationError where the
    tokenizer would write a conversation otherwise if the name followed it, and what `render` raises.
    """
    texts = _texts(names)
    listed = [conversations] if isinstance(conversations, Conversation) else list(conversations)
    if not listed or len({conversation.label for conversation in listed}) < len(listed):
        raise UsageError(
            f"{len(listed)} conversations, or labels that repeat", "one or more, each with its own label", "rename one"
        )
    rendered = render_all(model, listed)
    tokens = [_tokens(model.tokenizer, item, texts) for item in rendered]
    alike: dict[tuple[Tokens, ...], list[Conversation]] = {}
    for conversation, of_it in zip(listed, tokens, strict=True):
        alike.setdefault(tuple(of_it.values()), []).append(conversation)
    requests = [
        Request(group, interventions, answers, layers, after)
        for of_names, group in alike.items()
        for after, answers in _reads(of_names)
    ]
    return Naming(tuple(requests), {item.label: of_it for item, of_it in zip(rendered, tokens, strict=True)})


@checked
def name_log_probs(
    model: Model,
    conversations: Conversation | Sequence[Conversation],
    names: Names,
    interventions: Intervention | Sequence[Intervention],
    *,
    layers: Sequence[int] | None = None,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
) -> pd.DataFrame:
    """Return the log-probability of each name right after each conversation under each intervention.

    One row per (conversation, intervention, name): `conversation`, `intervention`, `layer` where `layers` are given,
    `name`, `log_p` (natural log, summed over the name's tokens), `n_tokens`. It is that of an answer that begins with
    the name, so that of "cat" includes that of "cats" if both begin with the same tokens. `attrs["receipts"]` holds the
    receipts. The other arguments are those of `score`. Raises what `naming_requests` and `score` raise.
    """
    naming = naming_requests(model, conversations, names, interventions, layers=layers)
    read = tables(
        model,
        naming.requests,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        offload=offload,
        max_memory=max_memory,
        progress=progress,
        store=store,
    )
    attrs, pairs = read[0].attrs, list(zip(naming.requests, read, strict=True))
    # Of a conversation that is continued by some of a name's tokens, the text is shown as it was before.
    renderings = {k: v for request, table in pairs if not request.after for k, v in table.attrs["renderings"].items()}
    receipts = each_once([receipt for table in read for receipt in table.attrs["receipts"]])
    for table in read:
        table.attrs = {}  # pandas would compare thousands of receipts to put the tables together
    log_probs = naming.log_probs(read)
    log_probs.attrs = {**attrs, "receipts": receipts, "renderings": renderings}
    return log_probs


def name_probabilities(table: pd.DataFrame, *, baseline: str | None = None) -> pd.DataFrame:
    """Add `p`: how probable each name is among the names of its conversation, intervention and layer (softmax).

    With `baseline`, an intervention of the table, `log_p_shift` is added, log_p less that of the same name under the
    baseline, and `p` is its softmax: names that are frequent or short do not win by that (pointwise mutual information:
    Holtzman et al., 2021, "Surface Form Competition"). Raises UsageError if the baseline is not there for every row.
    """
    keys = [key for key in _KEYS if key in table]
    scored, column = table, "log_p"
    if baseline is not None:
        scored, column = table.assign(log_p_shift=_shift(table, baseline)), "log_p_shift"
    groups = [scored[key] for key in keys]
    weight = np.exp(scored[column] - scored[column].groupby(groups, sort=False).transform("max"))
    return scored.assign(p=weight / weight.groupby(groups, sort=False).transform(lambda w: w.sum(skipna=False)))


def _shift(table: pd.DataFrame, baseline: str) -> np.ndarray:
    keys = [key for key in ("conversation", "layer", "name") if key in table]
    reference = table[table["intervention"] == baseline].set_index(keys)["log_p"]
    index = pd.MultiIndex.from_frame(table[keys])
    if not index.isin(reference.index).all():
        raise UsageError(
            given=f"baseline {baseline!r}, which some rows have no counterpart under",
            allowed=f"an intervention of the table: {', '.join(map(str, table['intervention'].unique()))}",
            advice="compute it for all conversations, layers and names",
        )
    shift: np.ndarray = table["log_p"].to_numpy() - reference.reindex(index).to_numpy()
    return shift


def _texts(names: Names) -> dict[str, str]:
    """Return the text of each name, by its label."""
    labels = [] if isinstance(names, str) else list(names)
    texts = list(names.values()) if isinstance(names, Mapping) else labels
    if not labels or "" in texts or len(set(texts)) < len(texts):
        raise UsageError(f"names {names!r}", "a list of one or more, each once, none empty", "pass such a list")
    return dict(zip(labels, texts, strict=True))


def _tokens(tokenizer: PreTrainedTokenizerBase, rendered: Rendered, texts: Mapping[str, str]) -> dict[str, Tokens]:
    """Return the tokens that each name adds to a conversation."""
    whole = tokenizer([rendered.text + text for text in texts.values()], add_special_tokens=False)["input_ids"]
    n_pos = len(rendered.tokens)
    for text, written in zip(texts.values(), whole, strict=True):
        if tuple(written[:n_pos]) != rendered.tokens or len(written) == n_pos:
            raise TokenizationError(
                given=f"the name {text!r} after {rendered.text[-20:]!r} (conversation {rendered.label!r}): the "
                "tokenizer does not write the same tokens and then some for the name",
                allowed="names that add tokens to those of the conversation",
                advice="let the name begin with the space, not the conversation end with it",
            )
    return {name: tuple(written[n_pos:]) for name, written in zip(texts, whole, strict=True)}


def _reads(of_names: Sequence[Tokens]) -> Iterator[tuple[Tokens, AnswerIds]]:
    """Yield each beginning that a conversation is to be continued by, and the tokens to be read after it."""
    following: dict[Tokens, dict[int, None]] = {}
    for tokens in of_names:
        for n in _lengths(tokens):
            following.setdefault(tokens[: n - 1], {})[tokens[n - 1]] = None
    for after, ids in following.items():
        yield after, AnswerIds((), (), tuple((_column((*after, token)), token) for token in ids), "sum")


def _lengths(tokens: Tokens) -> range:
    return range(1, len(tokens) + 1)


def _column(beginning: Tokens) -> str:
    """Name the last token of a beginning, so that no two that follow different ones are mistaken for each other."""
    return f"tokens {' '.join(map(str, beginning))}"
