"""Verdicts that are kept: by trial, judge, version and pass, written as they come, so that a run can go on.

store = VerdictStore(Path("verdicts"))
judge_all(RulesJudge(), items, store)             # what is there is not judged again
judge_all(judge, items, store, retest=0.05)       # and 5% a second time, as pass 1
store.table("rules")                              # VERDICT_COLUMNS
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.files import write_atomically
from mechint.base.progress import Progress
from mechint.trials.verdicts import VERDICT_COLUMNS, Item, Judge, Verdict, verdict_table

_AT_ONCE = 16  # so few are lost where a server goes away
_MAY_BE_MISSING = ("named", "claim_first", "confidence")
_LAST_PLACE = 2**32


@dataclass(frozen=True)
class VerdictStore:
    """A folder with a file of JSON lines for each judge and version; `folder` need not exist yet."""

    folder: Path

    def table(self, judge: str | None = None) -> pd.DataFrame:
        """Return the verdicts of a judge, or of all (`VERDICT_COLUMNS`).

        Raises UsageError where one judge has verdicts of two versions: their errors differ, and no table may mix them.
        """
        tables = [_read(path) for path in sorted(self.folder.glob("*.jsonl"))]
        kept = [table for table in tables if len(table) and (judge is None or table["judge"].iloc[0] == judge)]
        if not kept:
            return pd.DataFrame(columns=list(VERDICT_COLUMNS))
        return one_version_each(pd.concat(kept, ignore_index=True))

    def of(self, judge: Judge, pass_no: int = 0) -> dict[str, Verdict]:
        """Return what this version of a judge has said in a pass, by id, without what failed."""
        return verdicts_by_id(_read(self._path(judge)), pass_no)

    def add(self, judge: Judge, items: Sequence[Item], verdicts: Sequence[Verdict], pass_no: int = 0) -> None:
        """Write verdicts after those that are there."""
        rows = verdict_table(judge, items, verdicts, pass_no).to_dict("records")
        path = self._path(judge)
        if not path.exists():
            write_atomically(path, "")
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        # What a killed process has left of a line is ended, so that it spoils no other.
        ended = path.stat().st_size == 0 or path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="utf-8") as file:
            file.write(lines if ended else "\n" + lines)

    def _path(self, judge: Judge) -> Path:
        return self.folder / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', judge.name)}-{judge.version}.jsonl"


def judge_all(
    judge: Judge,
    items: Sequence[Item],
    store: VerdictStore | None = None,
    *,
    retest: float = 0.0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return the verdicts of a judge on items, some of them twice (`VERDICT_COLUMNS`).

    What `store` has of this judge and version is not judged again; verdicts with an error are. `retest` is the share
    of items, drawn by a hash of their ids, that get a second verdict as pass 1. `progress` is told how many are done.
    Raises UsageError for ids that occur twice.
    """
    if len({item.id for item in items}) < len(items):
        raise UsageError("items with equal ids", "each reply once", "give each trial once")
    tables = []
    for pass_no, chosen in _passes(items, retest).items():
        verdicts = store.of(judge, pass_no) if store else {}
        missing = [item for item in chosen if item.id not in verdicts]
        for start in range(0, len(missing), _AT_ONCE):
            batch = missing[start : start + _AT_ONCE]
            judged = judge.judge(batch)
            if store:
                store.add(judge, batch, judged, pass_no)
            verdicts |= {item.id: verdict for item, verdict in zip(batch, judged, strict=True)}
            if progress:
                progress(len(batch), 0)
        tables.append(verdict_table(judge, chosen, [verdicts[item.id] for item in chosen], pass_no))
    return pd.concat(tables, ignore_index=True)


def unread(judge: Judge, items: Sequence[Item], store: VerdictStore, *, retest: float = 0.0) -> list[Item]:
    """Return what `judge_all` would have read by the judge: what is not kept, twice where it is to be read twice."""
    missing = []
    for pass_no, chosen in _passes(items, retest).items():
        verdicts = store.of(judge, pass_no)
        missing += [item for item in chosen if item.id not in verdicts]
    return missing


def _passes(items: Sequence[Item], retest: float) -> dict[int, list[Item]]:
    again = [item for item in items if _share(item.id) < retest]
    return {0: list(items), 1: again} if again else {0: list(items)}


def verdicts_by_id(table: pd.DataFrame, pass_no: int = 0) -> dict[str, Verdict]:
    """Return the verdicts of a table of one judge by id, without those that have an error."""
    rows = table[(table["pass_no"] == pass_no) & (table["error"] == "")]
    return {str(row["id"]): _verdict(row) for _, row in rows.iterrows()}


def one_version_each(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Return a table of verdicts in which each judge has one version; raises UsageError for a judge with two."""
    versions = verdicts.groupby("judge")["version"].unique()
    for judge, known in versions.items():
        if len(known) > 1:
            raise UsageError(
                given=f"verdicts of the judge {judge} in {len(known)} versions: {', '.join(map(str, known))}",
                allowed="one version of a judge in a table",
                advice="judge all replies with one of them, or remove the file of the other",
            )
    return verdicts


def _read(path: Path) -> pd.DataFrame:
    """Return the verdicts of a file, the last of each reply and pass; half a line is none."""
    rows: dict[tuple[str, int], dict[str, object]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows[row["id"], row["pass_no"]] = row
    return pd.DataFrame(list(rows.values()), columns=list(VERDICT_COLUMNS))


def _verdict(row: pd.Series) -> Verdict:
    """Return the verdict of a row; tables turn what is missing into NaN."""
    values = {name: None if pd.isna(row[name]) else row[name] for name in _MAY_BE_MISSING}
    first, confidence = values["claim_first"], values["confidence"]
    return Verdict(
        claims=row["claims"],
        named=values["named"],
        claim_first=None if first is None else bool(first),
        refused=bool(row["refused"]),
        coherent=bool(row["coherent"]),
        confidence=None if confidence is None else float(confidence),
        reason=row["reason"],
    )


def _share(trial_id: str) -> float:
    return int.from_bytes(hashlib.sha256(f"retest {trial_id}".encode()).digest()[:4], "big") / _LAST_PLACE
