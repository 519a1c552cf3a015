"""What an evaluation reads from: a model, through the engine, or an oracle, which answers the same requests at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.progress import Progress
from mechint.engine.job import Request
from mechint.engine.replies import ReplyRequest
from mechint.engine.shards import Shard
from mechint.models.model import Model
from mechint.readouts.tables import tables


class Oracle(ABC):
    """A responder without weights: it answers requests with the tables that `mechint.readouts.tables` makes.

    `d_model` and `n_layers` are the shape that vectors and ranges of layers must fit, `prompts` the prompt set whose
    texts suit it, as for a model.
    """

    name: str
    d_model: int = 16
    n_layers: int = 8
    prompts: str = "small"

    @abstractmethod
    def tables(self, requests: Sequence[Request]) -> list[pd.DataFrame]:
        """Return a table for each request, with a row for each conversation and intervention, in this order."""

    def spoken(self, requests: Sequence[ReplyRequest]) -> pd.DataFrame:
        """Return a row for each reply to some requests, as `mi.replies` does; raises UsageError where it has none."""
        raise UsageError(
            given=f"replies of the oracle {self.name!r}, which has none",
            allowed="oracles that reply, such as those of mechint.evals.oracles",
            advice="give it a method `spoken`",
        )


Responder = Model | Oracle
SELF, BASE = "self", "base"  # the names of the model that is asked of itself, and of that which it is compared with


@dataclass(frozen=True)
class Running:
    """How an evaluation is run on a model, with the arguments of `mi.score`; none of it changes a number."""

    batch_size: int | None = None
    batch_tokens: int | None = None
    offload: bool = False
    max_memory: int | str | None = None
    progress: Progress | bool | None = None
    store: str | Path | None = None
    shard: Shard | None = None


def compared(model: Responder, base: Responder, others: Mapping[str, Responder]) -> dict[str, Responder]:
    """Return the models of a comparison by name; the base has no row of its own where it is the model itself.

    Raises UsageError for others with the name of one of both.
    """
    if taken := sorted({SELF, BASE} & set(others)):
        raise UsageError(f"another model of the name {taken[0]!r}", "other names", "rename it in others=")
    return {SELF: model, **({} if base is model else {BASE: base}), **others}


def answered(responder: Responder, requests: Sequence[Request], running: Running) -> pd.DataFrame:
    """Return the rows of all requests in one table, in order; `attrs["receipts"]` has the receipts of every prefill.

    Of a shard it has the cells that the store has by then. Raises what `mi.score` raises.
    """
    if isinstance(responder, Oracle):
        parts = responder.tables(requests)
    else:
        parts = tables(responder, requests, **vars(running))
    receipts = [receipt for part in parts for receipt in part.attrs.get("receipts", [])]
    for part in parts:
        part.attrs = {}  # pandas would compare all receipts to put the tables together
    table = pd.concat(parts, ignore_index=True)
    table.attrs["receipts"] = receipts
    return table
