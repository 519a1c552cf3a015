"""Questions that list options with digits: the same options in several orders, and answers by option, not by digit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from analyses.kit.study import Value

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Float, Int

    from mechint.chat.conversations import Conversation
    from mechint.chat.tokens import Answers

_READ = ("p", "logit")


@dataclass(frozen=True)
class Listing:
    """A conversation that lists options; `order` has the number of the option at each digit."""

    chat: Conversation
    order: tuple[int, ...]

    @classmethod
    def of(cls, chat: Conversation, order: tuple[int, ...], /, **columns: Value) -> Listing:
        """Return the listing of a conversation, with what the table says of it (see `with_extra`)."""
        return cls(replace(chat, extra=columns), order)


@dataclass(frozen=True)
class Choice:
    """Listings of the same options, the digits that answer them, and what the table calls the options."""

    listings: Sequence[Listing]
    answers: Answers
    options: Sequence[str]

    @property
    def conversations(self) -> list[Conversation]:
        """The conversations of all listings."""
        return [listing.chat for listing in self.listings]

    def by_option(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return rows with `p_<option>` and `logit_<option>` in place of `p_<digit>` and `logit_<digit>`."""
        order_of = {listing.chat.label: listing.order for listing in self.listings}
        orders = [order_of[label] for label in rows["conversation"]]
        at = np.array(orders, dtype=np.int64).reshape(len(rows), len(self.options))
        columns: dict[str, np.ndarray] = {}
        for read in _READ:
            digits = [f"{read}_{digit}" for digit in self.answers.choices]
            by_digit = rows.reindex(columns=digits).to_numpy(dtype=np.float64)
            rows = rows.drop(columns=digits, errors="ignore")
            of_options = np.empty_like(by_digit)
            np.put_along_axis(of_options, at, by_digit, axis=1)
            columns |= {f"{read}_{option}": of_options[:, number] for number, option in enumerate(self.options)}
        return rows.assign(**columns)


def orders(n_options: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """Return `count` orders of options: rows of random Latin squares, one square after another.

    In every `n_options` of them each option stands at each place once; in fewer, at most once. Two options have two
    orders, and these in turn.
    """
    return list(islice(_rows_of_squares(n_options, np.random.default_rng(seed)), count))


def _rows_of_squares(n_options: int, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    while True:
        options = rng.permutation(n_options)
        rows = rng.permutation(n_options)
        columns = rng.permutation(n_options)
        for row in rows:
            yield tuple(int(option) for option in options[(row + columns) % n_options])


def with_extra(rows: pd.DataFrame, chats: Sequence[Conversation]) -> pd.DataFrame:
    """Add what conversations say of themselves in `extra`."""
    extra_of = {chat.label: chat.extra for chat in chats}
    extras = [extra_of[label] for label in rows["conversation"]]
    names = dict.fromkeys(name for chat in chats for name in chat.extra)
    return rows.assign(**{name: [extra.get(name) for extra in extras] for name in names})


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
