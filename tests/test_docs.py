"""The documentation builds without a warning, its code runs and prints what it says, and its links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from whole_runs import parser_of

import mechint as mi
from analyses import ANALYSES, BESIDE
from analyses.kit import declarations
from analyses.kit.options import Common
from benchmarks.common import RESULTS
from mechint.figures.style import MINUS
from mechint.models import packaged_models

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRUTH = "mechint/organisms/TRUTH.md"
RUN = re.compile(r"^<!-- run -->\n```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<told>.*?)^```$)?", re.M | re.S)
FILE = re.compile(r"^<!-- file: (?P<name>\S+) -->\n```python\n(?P<code>.*?)^```$", re.M | re.S)
# A block of code in the readme; commands are no Python.
INDENTED = re.compile(r"(?:^    (?!python|make|@|#!|\{).*\n|^\n(?=    ))+", re.M)
COMMAND = re.compile(r"^    python -m analyses\.(\w+)(.*)$", re.M)
NUMBER = re.compile(r"-?\d+\.\d+")
TOLERANCE = 0.02  # of printed numbers, so that another machine's last digits are no change
# Paths of the repository, as texts name them; what stands in <> or runs over several files is none.
NAMED = re.compile(r"`((?:mechint|analyses|tests|benchmarks|docs|notebooks)/[\w./-]*|README\.md|CHANGELOG\.md)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every warning as an error."""
    if missing := [name for name in ("mkdocs", "material", "mkdocstrings_handlers.python") if not _installed(name)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return out


def _installed(name: str) -> bool:
    with contextlib.suppress(ModuleNotFoundError):
        return find_spec(name) is not None
    return False


def test_every_public_name_is_documented(site: Path) -> None:
    pages = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    titles = set(re.findall(r"mi\.(\w+)", "".join(re.findall(r"<h2[^>]*>.*?</h2>", pages, re.S))))
    assert titles >= set(mi.__all__)


def test_every_analysis_has_its_options(site: Path) -> None:
    page = (site / "command-line.html").read_text()
    assert all(f'id="{name}"' in page for name in (*ANALYSES, *BESIDE))
    options = [action.option_strings[-1] for action in declarations.parser(Common, "x", "")._actions]
    assert all(f"<code>{name}" in page for name in options if name != "--help")
    assert "--layer-sweep" in page


def test_every_committed_picture_is_in_the_gallery(site: Path) -> None:
    links = [*_Links.of(site / "gallery.html"), *_Links.of(site / "smollm2.html")]
    pictures = [path.relative_to(ROOT).as_posix() for path in (ROOT / "figures").rglob("*.png")]
    assert pictures
    assert set(pictures) <= set(links)


def test_links_and_pictures_are_there_and_nothing_is_fetched(site: Path) -> None:
    for page in site.rglob("*.html"):
        for link in _Links.of(page):
            assert not link.startswith(("http:", "https:", "//")), f"{page.name} fetches {link}"
            if page.name != "404.html":  # its links are for a server
                assert (page.parent / link).exists(), f"{page.name} leads to {link}"


class _Links(HTMLParser):
    """What a page loads, and the pages of the site that it leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    @classmethod
    def of(cls, page: Path) -> list[str]:
        parser = cls()
        parser.feed(page.read_text())
        return [link.partition("#")[0].partition("?")[0] for link in parser.found if link.partition("#")[0]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            leads_away = tag == "a" and (value or "").startswith("http")
            if name in ("src", "href") and value and not leads_away and not value.startswith("data:"):
                self.found.append(value)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_what_pages_name_is_in_the_repository(page: Path) -> None:
    text = page.read_text()
    assert [name for name in NAMED.findall(text) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_links_of_other_texts_lead_to_files(name: str) -> None:
    assert [link for link in LINK.findall((ROOT / name).read_text()) if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if RUN.search(page.read_text())], ids=lambda page: page.stem)
def test_code_of_pages_runs_and_prints_what_they_say(page: Path, quick: None) -> None:
    names: dict[str, object] = {}
    for block in RUN.finditer(page.read_text()):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block["code"], page.name, "exec"), names)
        if block["told"] is not None:
            _check_same(printed.getvalue(), block["told"])


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_texts_are_understood(page: Path) -> None:
    for name, options in COMMAND.findall(page.read_text().replace("\\\n", "").replace("$SLURM_ARRAY_TASK_ID", "0")):
        if name in (*ANALYSES, *BESIDE) and "--help" not in options:
            parser_of(name).parse_args(shlex.split(options, comments=True))


def test_intervals_of_the_readme_are_those_of_the_gallery() -> None:
    intervals = re.findall(rf"[{MINUS}\d.]+\s\[[{MINUS}\d.]+, [{MINUS}\d.]+\]", README)
    drawn = (ROOT / "figures" / "calibration" / "calibration.json").read_text()
    assert len(intervals) >= 4
    assert [text for text in intervals if " ".join(text.split()) not in drawn] == []


def test_times_of_the_readme_are_those_of_the_benchmark() -> None:
    suite = json.loads((RESULTS / "published_suite.json").read_text())
    seconds, times = suite["engine_seconds"], suite["naive_seconds"] / suite["engine_seconds"]
    for text in (README, (DOCS / "large-tables.md").read_text()):
        assert f"{seconds:.0f} s, {times:.0f} times less" in " ".join(text.split())


def test_architectures_of_the_readme_are_those_of_the_benchmark() -> None:
    rows = json.loads((RESULTS / "architectures.json").read_text())["rows"]
    exact = [row for row in rows if row["group"] != "settings" and row["status"] == "exact"]
    largest = max(max(row["differences"].values()) for row in exact)
    assert f"{len(exact)} architectures of transformers are exact" in README
    assert f"to {largest:.1e} on every exact architecture" in README


def test_truths_of_the_readme_are_those_of_the_measurement() -> None:
    rows = re.findall(r"^\| explained(?:, yes-no)?: P\(yes\), ([^|]+) \| ([\d.]+) ", (ROOT / TRUTH).read_text(), re.M)
    means = {}
    for name, mean in rows:
        means.setdefault(name, float(mean))  # the first table is that of `organism`
    injected, clean, random = means["trained concepts"], means["clean"], means["random directions of equal norm"]
    sentence = f"P(yes) is {injected:.2f} under concepts, {clean:.2f} clean, and {random:.2f} under random directions"
    assert sentence in " ".join(README.split())


def test_code_of_the_readme_runs(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the embedded model: the quickstart notebook, which is run too, asks the real one."""
    monkeypatch.setattr(packaged_models, "is_installed", lambda name: False)
    names: dict[str, object] = {}
    blocks = [block for block in INDENTED.findall(README) if "mi." in block]
    assert blocks
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for block in blocks:
            exec(compile(textwrap.dedent(block), "README.md", "exec"), names)
    assert "tokens" in printed.getvalue()


def _check_same(fresh: str, printed: str) -> None:
    """Compare texts word by word, numbers with a tolerance."""
    assert NUMBER.sub("#", fresh).split() == NUMBER.sub("#", printed).split(), fresh
    pairs = zip(NUMBER.findall(fresh), NUMBER.findall(printed), strict=True)
    assert all(abs(float(new) - float(old)) <= TOLERANCE for new, old in pairs), fresh


def test_the_example_analysis_is_an_analysis(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    block = FILE.search((DOCS / "adding.md").read_text())
    assert block is not None
    names: dict[str, object] = {"__name__": block["name"]}
    exec(compile(block["code"], block["name"], "exec"), names)
    main = names["ANALYSIS"].main  # type: ignore[attr-defined]
    options = ["--concepts", "cats,bread", "--n-random", "2", "--limit", "1", "--out", "out"]
    assert main(options) == 0
    assert capsys.readouterr().out == f"{Path('out/negated/negated.html')}\n"
    assert {file.suffix for file in Path("out/negated").glob("*.*")} == {".html", ".json", ".parquet", ".csv"}
    assert main(["--layers", "7:9"]) == 2
    assert "allowed: 0:8" in capsys.readouterr().err
    table = pd.read_parquet(Path("out/negated/table.parquet"))
    called = names["run"](concepts=("cats", "bread"), n_random=2, limit=1)  # type: ignore[operator]
    pd.testing.assert_frame_equal(called.table, table)
    assert set(called.facts["shift"]) == {"injected", "random", "negated"}


@pytest.fixture
def quick(quick_analyses: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pictures, which take seconds, and where files may be written."""
    monkeypatch.chdir(tmp_path)
