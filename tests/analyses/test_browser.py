"""The gallery as a browser sees it: every figure drawn, nothing missing, no message on the console."""

from __future__ import annotations

import json
from pathlib import Path

import plotly.graph_objects as go
import pytest

from analyses.gallery import browser
from analyses.gallery import page as gallery
from mechint import figures
from mechint.base.errors import PrerequisiteError


@pytest.fixture(scope="module")
def chromium() -> str:
    try:
        return browser.find()
    except PrerequisiteError:
        pytest.skip("no Chrome or Chromium on this machine")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A gallery of one analysis with one figure and no picture."""
    figure = go.Figure(go.Scatter(x=[1, 2], y=[1, 2]))
    figure.update_layout(title={"text": "<b>It rises</b>", "subtitle": {"text": "a < b"}})
    directory = tmp_path / "logit_lens"
    paths = figures.save_all({"rise": figure}, directory, png=False, script_in=tmp_path)
    record = {"argv": ["--limit", "2"], "files": [path.name for path in paths] + ["table.csv"]}
    (directory / "run.json").write_text(json.dumps(record))
    (directory / "table.csv").write_text("a\n1\n")
    gallery.write_index(tmp_path, ["logit_lens", "detection"])
    return tmp_path


def test_the_page_says_what_was_found_how_and_where_the_data_are(out: Path) -> None:
    page = (out / "index.html").read_text()
    assert "It rises (" in page
    assert "a &lt; b" in page
    assert "python -m analyses.logit_lens --limit 2" in page
    for link in ("logit_lens/rise.html", "logit_lens/rise.json", "logit_lens/table.csv", "logit_lens/run.json"):
        assert f'"{link}"' in page
    assert "width=device-width" in page
    assert "detection" not in page, "an analysis without results is left out"
    assert "http" not in page, "nothing is fetched"


def test_a_browser_draws_every_page(chromium: str, out: Path) -> None:
    pages = browser.check(out)
    assert [page.path.name for page in pages] == ["index.html", "rise.html"]
    assert all(page.good for page in pages), pages


def test_what_a_browser_cannot_draw_is_told(chromium: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / "plotly.min.js").unlink()
    (out / "logit_lens" / "run.json").unlink()
    assert browser.main([str(out)]) == 1
    told = capsys.readouterr().out
    assert told.count("FAILED") == 2
    assert "Plotly is not defined" in told


def test_a_directory_without_pages_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert browser.main([str(tmp_path)]) == 2
    assert "no html" in capsys.readouterr().err
