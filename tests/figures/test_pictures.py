"""The browser that draws talks to nobody: what it is started with, and that pages which ask for more get nothing."""

from __future__ import annotations

import http.server
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go
import pytest

from analyses.gallery import browser
from mechint import figures
from mechint.base.errors import PrerequisiteError
from mechint.figures.pictures import OFFLINE


@pytest.fixture(scope="module")
def chromium() -> str:
    try:
        return browser.find()
    except PrerequisiteError:
        pytest.skip("no Chrome or Chromium on this machine")


@pytest.fixture
def outside() -> Iterator[tuple[int, list[str]]]:
    """A server that stands for the network: its port, and what it is asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, asked
        server.shutdown()


def _page(port: int, path: Path) -> Path:
    hosts = ("127.0.0.1", "localhost")
    path.write_text("<html>" + "".join(f'<img src="http://{host}:{port}/{host}">' for host in hosts) + "</html>")
    return path


def test_a_page_that_asks_for_more_gets_nothing(
    chromium: str, outside: tuple[int, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, asked = outside
    page = _page(port, tmp_path / "page.html")
    browser.look(chromium, page)
    assert asked == []
    monkeypatch.setattr("mechint.figures.pictures.OFFLINE", ())
    browser.look(chromium, page)
    assert set(asked) == {"/127.0.0.1", "/localhost"}, "without the options it does ask"


def test_pictures_are_drawn_by_a_browser_with_these_options(
    chromium: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    real = subprocess.Popen.__init__

    def init(process: subprocess.Popen[bytes], command: list[str], *args: object, **options: object) -> None:
        started.append([str(part) for part in command])
        real(process, command, *args, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", init)
    figure = go.Figure(go.Scatter(x=[1, 2], y=[1, 2]), {"width": 300, "height": 200})
    figures.save(figure, tmp_path / "drawn", png=True)
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")
    browsers = [command for command in started if "--headless" in command]
    assert len(browsers) == 1
    assert set(OFFLINE) <= set(browsers[0])
    assert not [part for command in started for part in command if "https:" in part]
