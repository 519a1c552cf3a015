"""The page on which replies are read: its data are the tables', and a headless browser filters them."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from analyses.gallery import browser as headless
from mechint.base.errors import PrerequisiteError, UsageError
from mechint.trials.browser import browser_page, write_browser
from mechint.trials.verdicts import Item, Verdict, verdict_table
from tests.trials.trial_tables import trial, trials

HOSTILE = "</script><script>document.title='taken'</script> <b>bold</b> \u2028 \\ \" ' é"


class _Fixed:
    """A judge whose verdicts are given."""

    version = "1"

    def __init__(self, name: str) -> None:
        self.name = name

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        raise AssertionError("its verdicts are given")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Four steered replies and two clean ones."""
    return trials(
        trial(0),
        trial(1, reply="Nothing is unusual."),
        trial(2, reply="Waves, waves and the deep sea."),
        trial(3, reply=HOSTILE),
        trial(0, steered=False, reply="Nothing."),
        trial(1, steered=False, reply=""),
    )


@pytest.fixture(scope="module")
def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Two judges, who differ on the third reply; the second judge has not read the last."""
    items = [Item(key, "", reply) for key, reply in zip(table["id"], table["reply"], strict=True)]
    naming = Verdict("yes", named="the sea", claim_first=True, confidence=0.9)
    denial = Verdict("no", confidence=0.1)
    strict = [naming, denial, denial, denial, denial, Verdict("no", coherent=False)]
    lenient = [naming, denial, naming, denial, denial]
    return pd.concat(
        [
            verdict_table(_Fixed("strict"), items, strict),
            verdict_table(_Fixed("lenient"), items[:-1], lenient),
        ]
    )


def _data(page: str) -> dict:
    element = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(element[1])


def _displayed(path: Path, address: str = "") -> str:
    """Return the page's elements after its script has run, as text of HTML."""
    try:
        chromium = headless.find()
    except PrerequisiteError:
        pytest.skip("no Chrome or Chromium on this machine")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=3000")
    url = f"{path.resolve().as_uri()}{address}"
    done = subprocess.run([chromium, *options, url], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.split("<script", 1)[0]


def test_the_data_are_those_of_the_tables(table: pd.DataFrame, verdicts: pd.DataFrame) -> None:
    data = _data(browser_page(table, verdicts, title="six", prompts={"plain": "Do you notice anything?"}))
    assert data["replies"] == table["reply"].tolist()
    concepts = data["columns"]["concept"]
    assert [concepts["values"][code] for code in concepts["codes"]] == ["oceans"] * 4 + [""] * 2
    names = [look["name"] for look in data["classes"]]
    strict, lenient = data["judges"]
    assert [names[code] for code in strict["outcomes"]] == [
        "names rightly",
        "denies",
        "leaks",
        "denies",
        "denies",
        "incoherent",
    ]
    assert [names[code] for code in lenient["outcomes"][:3]] == ["names rightly", "denies", "names rightly"]
    assert lenient["outcomes"][-1] == -1, "a reply that a judge has not read has no class"
    assert lenient["fields"]["claims"][-1] is None


def test_nothing_that_a_reply_holds_is_markup(table: pd.DataFrame, verdicts: pd.DataFrame, tmp_path: Path) -> None:
    page = browser_page(table, verdicts, title="<i>six</i>")
    assert HOSTILE not in page
    assert "<title>&lt;i&gt;six&lt;/i&gt;</title>" in page
    assert "http" not in page, "nothing is fetched"
    path = write_browser(tmp_path / "page.html", table, verdicts, title="<i>six</i>")
    assert path.read_text(encoding="utf-8") == page
    elements = _displayed(path)
    assert "taken" not in elements.split("<body", 1)[0]
    assert html.escape("<b>bold</b>", quote=False) in elements


@pytest.mark.parametrize(
    ("address", "summary", "replies"),
    [
        ("", "6 of 6 replies, 1 vector or concept", 6),
        ("#f.class=names+rightly&judge=lenient", "2 of 6 replies, 1 vector or concept", 2),
        ("#agree=no&text=WAVES&f.concept=oceans", "1 of 6 replies, 1 vector or concept", 1),
        ("#f.series=nonsense&page=9", "0 of 6 replies", 0),
    ],
)
def test_an_address_says_what_is_shown(
    table: pd.DataFrame, verdicts: pd.DataFrame, tmp_path: Path, address: str, summary: str, replies: int
) -> None:
    path = write_browser(tmp_path / "page.html", table, verdicts, title="six")
    elements = _displayed(path, address)
    assert f">{summary}<" in elements
    assert elements.count("<article") == replies


def test_a_table_without_trials_or_of_something_else_is_refused(table: pd.DataFrame, verdicts: pd.DataFrame) -> None:
    with pytest.raises(UsageError, match="without a trial"):
        browser_page(table.iloc[:0], verdicts.iloc[:0], title="none")
    with pytest.raises(UsageError, match="has extra"):
        browser_page(table.assign(extra=1), verdicts, title="more")
    with pytest.raises(UsageError, match="verdicts on trials that are not"):
        browser_page(table.iloc[:2], verdicts, title="others")
