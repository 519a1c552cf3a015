"""Look at a written gallery as a browser does, and say which pages it could not draw.

Needs Chrome or Chromium, as png output does; nothing is fetched from anywhere.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analyses.kit import cli, declarations, option_types
from mechint.base.errors import PrerequisiteError, UsageError

# A message that a page writes to its console, as the browser logs it.
_CONSOLE = re.compile(r"CONSOLE[:(]\d+\)?\]? (?P<text>.*)")
_DRAWN = 'class="main-svg"'
_SECONDS = 120
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0", "--dump-dom")


@dataclass(frozen=True)
class Page:
    """What a browser made of a page: its messages, and whether everything it should show is there."""

    path: Path
    messages: tuple[str, ...]
    complete: bool

    @property
    def good(self) -> bool:
        """Whether nothing is missing and nothing was complained about."""
        return self.complete and not self.messages


def find() -> str:
    """Return the path of a browser; raises PrerequisiteError if there is none."""
    try:
        from choreographer.browsers.chromium import Chromium
    except ImportError as error:
        raise _missing() from error
    browser = Chromium.find_browser(skip_local=False)
    if browser is None:
        raise _missing()
    return str(browser)


def look(browser: str, path: Path) -> Page:
    """Return what a browser makes of a page on disk: a figure must be drawn, every picture of any page be there."""
    from mechint.figures import pictures

    options = (*_OPTIONS, *pictures.OFFLINE)
    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.run(
            [browser, *options, f"--user-data-dir={profile}", "--virtual-time-budget=10000", path.resolve().as_uri()],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    messages = tuple(dict.fromkeys(message["text"].strip() for message in _CONSOLE.finditer(process.stderr)))
    source = path.read_text(encoding="utf-8")
    drawn = _DRAWN in process.stdout or "Plotly.newPlot" not in source
    return Page(path, messages, drawn and not _absent(path, source) and "</html>" in process.stdout)


def _absent(path: Path, source: str) -> list[str]:
    """Return what a page links to beside itself that is not there."""
    links = re.findall(r'(?:src|href)="([^"#:]+)"', source)
    return [link for link in links if not (path.parent / link).exists()]


def check(out: Path) -> list[Page]:
    """Return every html page below a directory as a browser sees it. Raises UsageError if there is none."""
    pages = sorted(out.rglob("*.html"))
    if not pages:
        raise UsageError(
            f"no html below {out}", "a directory that python -m analyses.all has written", "write it first"
        )
    browser = find()
    return [look(browser, page) for page in pages]


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = declarations.Parser(prog="python -m analyses.gallery.browser", description=__doc__, allow_abbrev=False)
    options.add_argument(
        "out", type=option_types.path, nargs="?", default=Path("figures"), help="directory with the pages"
    )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code: 1 if a page is not as it should be."""
    pages: list[Page] = []
    if code := cli.guarded(lambda: pages.extend(check(_parsed(argv).out))):
        return code
    for page in pages:
        problem = "" if page.good else f": {'; '.join(page.messages) or 'incomplete'}"
        sys.stdout.write(f"{'ok' if page.good else 'FAILED'} {page.path}{problem}\n")
    return 0 if all(page.good for page in pages) else 1


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    return parser().parse_args(sys.argv[1:] if argv is None else list(argv))


def _missing() -> PrerequisiteError:
    return PrerequisiteError(
        "no browser", "Chrome or Chromium, and kaleido", 'pip install "kaleido>=1", plotly_get_chrome'
    )


if __name__ == "__main__":
    sys.exit(main())
