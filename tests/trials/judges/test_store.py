"""Kept verdicts: nothing is judged twice, no table has two versions of a judge, half a line spoils nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mechint.base.errors import UsageError
from mechint.trials.judges.store import VerdictStore, judge_all, verdicts_by_id
from mechint.trials.verdicts import VERDICT_COLUMNS, Item, Verdict

ITEMS = [Item(f"id{n}", "Prompt?", f"reply {n}") for n in range(40)]


@dataclass
class Counting:
    """Claims to find something in every second reply; fails where it is told to; counts."""

    version: str = "1"
    failing: frozenset[str] = frozenset()
    name: str = "counting"
    judged: list[str] = field(default_factory=list)

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        self.judged += [item.id for item in items]
        return [
            Verdict("unclear", error="no answer")
            if item.id in self.failing
            else Verdict("yes", named="sea", confidence=0.9)
            for item in items
        ]


def test_a_second_run_judges_nothing_and_gives_the_same_table(tmp_path: Path) -> None:
    store, judge = VerdictStore(tmp_path), Counting()
    first = judge_all(judge, ITEMS, store)
    again = judge_all(judge, ITEMS[::-1], store)
    assert len(judge.judged) == len(ITEMS)
    assert list(first["id"]) == [item.id for item in ITEMS]
    assert verdicts_by_id(first) == verdicts_by_id(again) == store.of(judge)
    assert list(store.table("counting").columns) == list(VERDICT_COLUMNS)


def test_what_failed_is_judged_again(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path)
    table = judge_all(Counting(failing=frozenset({"id3"})), ITEMS, store)
    assert list(table.loc[table["error"] != "", "id"]) == ["id3"]
    repaired = Counting()
    judge_all(repaired, ITEMS, store)
    assert repaired.judged == ["id3"]
    assert len(store.table("counting")) == len(ITEMS)


def test_two_versions_of_a_judge_are_refused_in_one_table(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path)
    judge_all(Counting("1"), ITEMS[:2], store)
    judge_all(Counting("2"), ITEMS[:2], store)
    with pytest.raises(UsageError, match="in 2 versions"):
        store.table("counting")


def test_half_a_line_is_judged_again_and_spoils_no_other(tmp_path: Path) -> None:
    store, judge = VerdictStore(tmp_path), Counting()
    judge_all(judge, ITEMS[:5], store)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-30])
    judge_all(judge, ITEMS[:6], store)
    assert judge.judged[5:] == ["id4", "id5"]
    assert len(store.of(judge)) == 6


def test_a_share_is_judged_twice_the_same_in_every_run(tmp_path: Path) -> None:
    many = [Item(f"r{n}", "Prompt?", "reply") for n in range(400)]
    table = judge_all(Counting(), many, retest=0.05)
    second = table[table["pass_no"] == 1]
    assert 8 <= len(second) <= 34
    assert list(second["id"]) == list(judge_all(Counting(), many, retest=0.05).query("pass_no == 1")["id"])


def test_equal_ids_are_refused() -> None:
    with pytest.raises(UsageError, match="equal ids"):
        judge_all(Counting(), [ITEMS[0], ITEMS[0]])


def test_an_empty_store_has_an_empty_table(tmp_path: Path) -> None:
    assert list(VerdictStore(tmp_path / "none").table().columns) == list(VERDICT_COLUMNS)
