"""Questions that list options with digits: the same options in several orders, and answers by option, not by digit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analyses.kit.study import Value

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Float, Int

    from mechint.chat.conversations import Conversation

_LISTED = "listed"  # in a conversation's extra: the number of the option at each digit
_READ = ("p", "logit")


def orders(n_options: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """Return `count` orders of options: rows of random Latin squares, one square after another.

    In every `n_options` of them each option stands at each place once; in fewer, at most once. Two options have two
    orders, and these in turn.
    """
    return [row for _, row in zip(range(count), _squares(n_options, np.random.default_rng(seed)), strict=False)]


def _squares(n_options: int, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    while True:
        options, rows, columns = (rng.permutation(n_options) for _ in range(3))
        for row in rows:
            yield tuple(int(option) for option in options[(row + columns) % n_options])


def listed(chat: Conversation, order: Sequence[int], /, **columns: Value) -> Conversation:
    """Return a conversation that knows the order in which it lists its options, and what the table says of it."""
    return dataclasses.replace(chat, extra={_LISTED: list(order), **columns})


def with_extra(rows: pd.DataFrame, chats: Sequence[Conversation]) -> pd.DataFrame:
    """Add what conversations say of themselves in `extra`."""
    extra_of = {chat.label: chat.extra for chat in chats}
    extras = [extra_of[label] for label in rows["conversation"]]
    names = dict.fromkeys(name for chat in chats for name in chat.extra if name != _LISTED)
    return rows.assign(**{name: [extra.get(name) for extra in extras] for name in names})


def by_option(
    rows: pd.DataFrame, chats: Sequence[Conversation], digits: Sequence[str], options: Sequence[str]
) -> pd.DataFrame:
    """Return rows with `p_<option>` and `logit_<option>` in place of `p_<digit>` and `logit_<digit>`."""
    order_of = {chat.label: _order(chat) for chat in chats}
    at = np.array([order_of[label] for label in rows["conversation"]], dtype=np.int64).reshape(len(rows), len(options))
    columns: dict[str, np.ndarray] = {}
    for read in _READ:
        by_digit = rows.reindex(columns=[f"{read}_{digit}" for digit in digits]).to_numpy(dtype=np.float64)
        of_options = np.empty_like(by_digit)
        np.put_along_axis(of_options, at, by_digit, axis=1)
        columns |= {f"{read}_{option}": of_options[:, number] for number, option in enumerate(options)}
    gone = [f"{read}_{digit}" for read in _READ for digit in digits]
    return rows.drop(columns=gone, errors="ignore").assign(**columns)


def _order(chat: Conversation) -> list[int]:
    order = chat.extra[_LISTED]
    return [int(str(option)) for option in order] if isinstance(order, list) else []


def logits(table: pd.DataFrame, options: Sequence[str]) -> Float[np.ndarray, "row option"]:
    """Return the logits of the options' digits."""
    return np.asarray(table[[f"logit_{option}" for option in options]], dtype=np.float64)


def among_options(table: pd.DataFrame, options: Sequence[str]) -> Float[np.ndarray, "row option"]:
    """Return how probable each option is among the options, whatever mass their digits have together (softmax)."""
    values = logits(table, options)
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def right(scores: Float[np.ndarray, "row option"], truth: Int[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Return 1.0 where the highest score is the true option's, else 0.0; a tie for the highest is a miss."""
    rows = np.arange(len(truth))
    others = scores.copy()
    others[rows, truth] = -np.inf
    return np.asarray(scores[rows, truth] > others.max(axis=1), dtype=np.float64)
