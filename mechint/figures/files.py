"""Figures to files: html beside one shared plotly.min.js, json, and png where a browser can draw it; all atomic."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import plotly.graph_objects as go

from mechint.errors import PrerequisiteError
from mechint.files import write_atomically

_LOG = logging.getLogger(__name__)
_SCRIPT = "plotly.min.js"
_PNG_SCALE = 2
_NO_BROWSER = (RuntimeError, OSError, ValueError, ImportError, TimeoutError)  # how its absence is told, by version
_HOW = 'pip install "kaleido>=1" and install Chrome or Chromium (or run plotly_get_chrome)'


def save(figure: go.Figure, path_stem: str | Path, png: bool | None = None) -> list[Path]:
    """Write `<stem>.html`, `<stem>.json` and, unless `png` is False, `<stem>.png`; returns the paths written.

    `png=None`: without kaleido or a browser there is one notice and no png. `png=True`: that is a `PrerequisiteError`.
    """
    stem = Path(path_stem)
    return save_all({stem.name: figure}, stem.parent, png)


def save_all(figures: Mapping[str, go.Figure], directory: str | Path, png: bool | None = None) -> list[Path]:
    """`save` for several figures by name, which share one start of the browser and one notice without it."""
    directory = Path(directory)
    paths = [path for name, figure in figures.items() for path in _save_text(figure, directory / name)]
    if png is None or png:
        paths += _save_pngs(figures, directory, required=bool(png))
    return paths


def _save_text(figure: go.Figure, stem: Path) -> list[Path]:
    _share_script(stem.parent)
    html = figure.to_html(include_plotlyjs="directory", config={"responsive": True, "displaylogo": False})
    return [
        write_atomically(stem.with_name(f"{stem.name}.html"), html),
        write_atomically(stem.with_name(f"{stem.name}.json"), figure.to_json()),
    ]


def _share_script(directory: Path) -> None:
    from plotly.offline import get_plotlyjs

    script, path = get_plotlyjs(), directory / _SCRIPT
    if not path.exists() or path.stat().st_size != len(script.encode()):
        write_atomically(path, script)


def _save_pngs(figures: Mapping[str, go.Figure], directory: Path, *, required: bool) -> list[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        drawn = [Path(scratch) / f"{number}.png" for number in range(len(figures))]
        try:
            _draw(list(figures.values()), drawn)
            pictures = [file.read_bytes() for file in drawn]
        except _NO_BROWSER as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            if required:
                raise PrerequisiteError(f"png output: {reason}", "kaleido with a browser", _HOW) from error
            _LOG.warning("no png files: %s; for them, %s", reason.rstrip("."), _HOW)
            return []
    named = zip(figures, pictures, strict=True)
    return [write_atomically(directory / f"{name}.png", picture) for name, picture in named]


def _draw(figures: Sequence[go.Figure], files: Sequence[Path]) -> None:
    """Draw all figures with one browser; without sizes Plotly would draw every one at 700 x 500."""
    import plotly.io

    widths, heights = [figure.layout.width for figure in figures], [figure.layout.height for figure in figures]
    with _silenced("choreographer", "kaleido"):
        plotly.io.write_images(list(figures), list(files), scale=_PNG_SCALE, width=widths, height=heights)


@contextmanager
def _silenced(*names: str) -> Iterator[None]:
    """Keep loggers quiet that print tracebacks of errors which they then ignore."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
