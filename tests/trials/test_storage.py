"""Tables on disk: read back equal in every format, and refused where they are none."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mechint.base.errors import UsageError
from mechint.trials.records import checked_trials
from mechint.trials.storage import checked_verdicts, read_trials, read_verdicts, write_trials, write_verdicts
from mechint.trials.verdicts import Item, Verdict, verdict_table
from tests.trials.trial_tables import trial, trials

# Line ends, quotes, commas, other scripts, what looks like a number or like nothing.
REPLIES = ['a,"b"\nc', "x\u2028y\r\nz", "\u6d77 \U0001f30a", "NaN", "", "1.0", "null", "  two  "]
TRIALS = checked_trials(
    trials(
        *[trial(at, reply=reply, steered=at % 2 == 0, log_prob=0.1 + 1e-17 * at) for at, reply in enumerate(REPLIES)]
    )
)


class _Judge:
    name, version = "hand", "1"

    def judge(self, items: list[Item]) -> list[Verdict]:
        return [Verdict("no") for _ in items]


VERDICTS = verdict_table(
    _Judge(),
    [Item(name, "?", "!") for name in "abcd"],
    [
        Verdict("yes", named="the sea", claim_first=True, confidence=0.75, reason="it says so"),
        Verdict("no", refused=True),
        Verdict("unclear", coherent=False, claim_first=False, confidence=0.0),
        Verdict("unclear", error="no answer"),
    ],
)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_trials_are_read_back_equal(tmp_path: Path, suffix: str) -> None:
    path = write_trials(TRIALS, tmp_path / f"trials{suffix}")
    pd.testing.assert_frame_equal(read_trials(path), TRIALS, check_exact=True)


def test_trials_are_read_from_csv(tmp_path: Path) -> None:
    TRIALS.to_csv(tmp_path / "trials.csv", index=False)
    pd.testing.assert_frame_equal(read_trials(tmp_path / "trials.csv"), TRIALS, check_exact=True)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_verdicts_are_read_back_equal(tmp_path: Path, suffix: str) -> None:
    path = write_verdicts(VERDICTS, tmp_path / f"verdicts{suffix}")
    back = read_verdicts(path)
    pd.testing.assert_frame_equal(back, checked_verdicts(VERDICTS), check_exact=True)
    assert back["named"].tolist() == ["the sea", None, None, None]
    assert back["claim_first"].tolist() == [True, None, False, None]


def test_nothing_is_written_of_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lacks reply"):
        write_trials(TRIALS.drop(columns="reply"), tmp_path / "trials.parquet")
    with pytest.raises(UsageError, match=r"\.parquet or \.jsonl"):
        write_trials(TRIALS, tmp_path / "trials.xlsx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"claims": "maybe"}, "claims is 'maybe'"),
        ({"refused": "no"}, "refused is 'no'"),
        ({"named": 3}, "named is 3"),
        ({"confidence": 2.0}, "confidence is 2.0"),
        ({"pass_no": -1}, "pass_no is -1"),
        ({"error": None}, "error is None"),
        ({"id": "a"}, "two verdicts on 'a' in one pass"),
    ],
)
def test_verdicts_that_cannot_be_are_named(change: dict[str, object], complaint: str) -> None:
    rows = VERDICTS.to_dict("records")
    table = pd.DataFrame([rows[0], {**rows[1], **change}])
    with pytest.raises(UsageError, match=complaint):
        checked_verdicts(table)
    with pytest.raises(UsageError, match="unknown mood"):
        checked_verdicts(VERDICTS.assign(mood=1))


def test_files_that_cannot_be_read_are_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{\n")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for name in ("a.jsonl", "a.parquet", "none.csv", "a.txt"):
        with pytest.raises(UsageError):
            read_trials(tmp_path / name)
