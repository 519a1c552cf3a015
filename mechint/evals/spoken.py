"""What a responder says: a model's replies, kept as requests end, or an oracle's, for the same requests.

Replies of one request are kept together under a hash of all that they depend on: the model with its software, every
prompt as it is read, what is added, and how tokens are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import StaleArtefactError, UsageError
from mechint.base.files import replace_atomically, sha256
from mechint.chat.conversations import Conversation
from mechint.chat.render import render_all
from mechint.engine.explain_replies import AT_ONCE
from mechint.engine.replies import ReplyRequest
from mechint.engine.store import each_once
from mechint.evals.responders import Oracle, Responder, Running
from mechint.interventions.specifications import Intervention, key_for
from mechint.models.model import Model
from mechint.models.surroundings import surroundings
from mechint.readouts.generate import replies

# The floors whose code a reply depends on: kept replies of other code are sampled again.
FLOORS = ("models", "interventions", "engine", "readouts")
_KIND = FileKind(
    description="replies of a store",
    allowed="files that an evaluation has written, as it has written them",
    advice="remove the file: its replies are sampled again",
    error=StaleArtefactError,
)
_ROW = ["conversation", "intervention", "steer", "sample"]


def spoken(responder: Responder, requests: Sequence[ReplyRequest], running: Running) -> pd.DataFrame:
    """Return the replies to all requests in one table, with the columns of `mi.generate`; receipts in `attrs`.

    Every request has one mode of steering, and conversations that no other has in that mode. Of a shard it has the
    requests whose replies the store has by then. Raises what `mi.replies` raises, UsageError for a store in which other
    cells are split, and StaleArtefactError for a damaged store.
    """
    if isinstance(responder, Oracle):
        return responder.spoken(requests)
    if running.offload:
        raise UsageError("offload with replies", "a model that is in memory while it speaks", "leave offload out")
    store = _Store(responder, None if running.store is None else Path(running.store))
    kept = {at: store.read(request) for at, request in enumerate(requests)}
    wanted = [at for at, rows in kept.items() if rows is None and _is_of(running, at)]
    if wanted:
        fresh = _sampled(responder, [requests[at] for at in wanted], store, running)
        kept |= dict(zip(wanted, fresh, strict=True))
    parts = [rows for rows in kept.values() if rows is not None]
    receipts = [receipt for part in parts for receipt in part.attrs.get("receipts", [])]
    for part in parts:
        part.attrs = {}
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_ROW)
    table.attrs["receipts"] = each_once(receipts)
    return table


def _is_of(running: Running, at: int) -> bool:
    """Whether a request is of the shard: they are dealt out in turn."""
    return running.shard is None or at % running.shard.count == running.shard.index


def _sampled(
    model: Model, requests: Sequence[ReplyRequest], store: _Store, running: Running
) -> list[pd.DataFrame | None]:
    """Return what is said to each request, sampled together; each is kept as soon as all of its replies have ended."""
    place = {(label, str(request.steer)): at for at, request in enumerate(requests) for label in _labels(request)}
    waiting: dict[int, list[pd.DataFrame]] = {at: [] for at in range(len(requests))}

    def ended(rows: pd.DataFrame) -> None:
        if store.folder is None:
            return
        owners = [place[key] for key in zip(rows["conversation"], rows["steer"], strict=True)]
        for at, members in rows.groupby(pd.Series(owners, index=rows.index)):
            waiting[at].append(members)
            if sum(map(len, waiting[at])) == _count(requests[at]):
                store.write(requests[at], pd.concat(waiting.pop(at), ignore_index=True))

    table = replies(
        model,
        requests,
        batch_size=AT_ONCE if running.batch_size is None else running.batch_size,
        max_memory=running.max_memory,
        progress=running.progress,
        ended=ended,
    )
    receipts, table.attrs = table.attrs["receipts"], {}
    owners = pd.Series([place[key] for key in zip(table["conversation"], table["steer"], strict=True)])
    parts = []
    for at, request in enumerate(requests):
        rows = table[(owners == at).to_numpy()].reset_index(drop=True).dropna(axis=1, how="all")
        labels = set(_labels(request))
        rows.attrs["receipts"] = [receipt for receipt in receipts if receipt["conversation"] in labels]
        store.write(request, rows)
        parts.append(rows)
    return list(parts)


def _labels(request: ReplyRequest) -> list[str]:
    return [chat.label for chat in _conversations(request)]


def _conversations(request: ReplyRequest) -> list[Conversation]:
    chats = request.conversations
    return [chats] if isinstance(chats, Conversation) else list(chats)


def _interventions(request: ReplyRequest) -> list[Intervention]:
    added = request.interventions
    return [added] if isinstance(added, Intervention) else list(added)


def _count(request: ReplyRequest) -> int:
    return len(_conversations(request)) * len(_interventions(request)) * len(request.samples)


@dataclass(frozen=True)
class _Store:
    """Replies by request, in files of a folder; none are kept where there is no folder."""

    model: Model
    folder: Path | None
    _around: dict[str, str] = field(default_factory=dict)

    def read(self, request: ReplyRequest) -> pd.DataFrame | None:
        """Return the replies to a request, None where they are not there."""
        if self.folder is None or not (path := self._path(self.folder, request)).is_file():
            return None
        with reading(path, _KIND):
            return pd.read_parquet(path)

    def write(self, request: ReplyRequest, rows: pd.DataFrame) -> None:
        """Keep the replies to a request; those that end without receipts are written again with them."""
        if self.folder is not None:
            replace_atomically(self._path(self.folder, request), lambda path: rows.to_parquet(path, index=False))

    def _path(self, folder: Path, request: ReplyRequest) -> Path:
        if "key" not in self._around:
            self._around["key"] = surroundings(self.model, self.model.identity, FLOORS)
        rendered = render_all(self.model, _conversations(request))
        texts = [(r.label, r.tokens, [(s.stop, s.add_injection) for s in r.segments]) for r in rendered]
        added = [(item.name, key_for(self.model, item)) for item in _interventions(request)]
        drawn = (request.samples, vars(request.sampling), str(request.steer), request.answers)
        key = sha256(self._around["key"].encode(), repr((texts, added, drawn)).encode())
        return folder / f"replies-{key[:32]}.parquet"
