"""Figures to files: html beside one shared plotly.min.js, json, and png where a browser can draw it; all atomic."""

import base64
import io
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import plotly.io

from mechint.errors import PrerequisiteError
from mechint.files import write_atomically

_LOG = logging.getLogger(__name__)
_SCRIPT = "plotly.min.js"
_PNG_SCALE = 2
_COLORS = 256
_UNSEEN = 8  # of 255, in one colour of one pixel
_EXACT = 1e15
_NO_BROWSER = (RuntimeError, OSError, ValueError, ImportError, TimeoutError)  # how its absence is told, by version
_HOW = 'pip install "kaleido>=1" and install Chrome or Chromium (or run plotly_get_chrome)'


def save(figure: go.Figure, path_stem: str | Path, png: bool | None = None) -> list[Path]:
    """Write `<stem>.html`, `<stem>.json` and, unless `png` is False, `<stem>.png`; returns the paths written.

    `png=None`: without kaleido or a browser there is one notice and no png. `png=True`: that is a `PrerequisiteError`.
    """
    stem = Path(path_stem)
    return save_all({stem.name: figure}, stem.parent, png)


def save_all(
    figures: Mapping[str, go.Figure],
    directory: str | Path,
    png: bool | None = None,
    *,
    script_in: str | Path | None = None,
) -> list[Path]:
    """`save` for several figures by name, which share one start of the browser and one notice without it.

    `script_in` is where plotly.min.js lies (`directory` if None), so that several directories can share one.
    """
    directory = Path(directory)
    script = _share_script(directory if script_in is None else Path(script_in))
    texts = {name: readable_json(figure) for name, figure in figures.items()}
    # What is drawn is what is written: digits that are left out would still move a line by a hair.
    drawn = {name: plotly.io.from_json(text) for name, text in texts.items()}
    paths = [path for name in texts for path in _save_text(texts[name], drawn[name], directory / name, script)]
    if png is None or png:
        paths += _save_pngs(drawn, directory, required=bool(png))
    return paths


def _save_text(text: str, figure: go.Figure, stem: Path, script: Path) -> list[Path]:
    source = Path(os.path.relpath(script, stem.parent)).as_posix()
    html = figure.to_html(include_plotlyjs=source, config={"responsive": True, "displaylogo": False})
    return [
        write_atomically(stem.with_name(f"{stem.name}.html"), html),
        write_atomically(stem.with_name(f"{stem.name}.json"), text),
    ]


def readable_json(figure: go.Figure) -> str:
    """Return a figure as JSON, one line for each trace, numbers with six digits: small, and readable as a diff."""
    found = json.loads(go.Figure(figure).to_json(), object_hook=_decoded, parse_float=_six_digits)
    rows = ",\n".join(json.dumps(trace, ensure_ascii=False) for trace in found["data"])
    layout = json.dumps(found["layout"], ensure_ascii=False)
    return f'{{"data": [\n{rows}\n],\n"layout": {layout}}}\n'


def _decoded(value: dict[str, object]) -> object:
    """Return an array that Plotly has packed as bytes as the list that it stands for."""
    if set(value) - {"shape"} != {"dtype", "bdata"}:
        return value
    array = np.frombuffer(base64.b64decode(str(value["bdata"])), dtype=np.dtype(str(value["dtype"])))
    if "shape" in value:
        array = array.reshape([int(size) for size in str(value["shape"]).split(",")])
    return _rounded(array.tolist())


def _rounded(value: object) -> object:
    """Return numbers, in lists or alone, with six digits; what is no number is null, as in all of Plotly's JSON."""
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return _six_digits(repr(value)) if math.isfinite(value) else None
    return value


def _six_digits(number: str) -> float | int:
    found = float(f"{float(number):.6g}")
    return int(found) if found.is_integer() and abs(found) < _EXACT else found


def _share_script(directory: Path) -> Path:
    from plotly.offline import get_plotlyjs

    script, path = get_plotlyjs(), directory / _SCRIPT
    if not path.exists() or path.stat().st_size != len(script.encode()):
        write_atomically(path, script)
    return path


def _save_pngs(figures: Mapping[str, go.Figure], directory: Path, *, required: bool) -> list[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        drawn = [Path(scratch) / f"{number}.png" for number in range(len(figures))]
        try:
            _draw(list(figures.values()), drawn)
            pictures = [_compact(file.read_bytes()) for file in drawn]
        except _NO_BROWSER as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            if required:
                raise PrerequisiteError(f"png output: {reason}", "kaleido with a browser", _HOW) from error
            _LOG.warning("no png files: %s; for them, %s", reason.rstrip("."), _HOW)
            return []
    named = zip(figures, pictures, strict=True)
    return [write_atomically(directory / f"{name}.png", picture) for name, picture in named]


def _compact(picture: bytes) -> bytes:
    """Return a png with a palette, a third of the size; as it is where that could be seen, and without Pillow."""
    try:
        from PIL import Image
    except ImportError:
        return picture
    with Image.open(io.BytesIO(picture)) as image:
        whole = image.convert("RGB")
    # Maximum coverage keeps the steps of colour scales, median cut the colours of text.
    for method in (Image.Quantize.MAXCOVERAGE, Image.Quantize.MEDIANCUT):
        few = whole.quantize(_COLORS, method, dither=Image.Dither.NONE)
        change = np.abs(np.asarray(few.convert("RGB"), np.int16) - np.asarray(whole, np.int16))
        if change.max() <= _UNSEEN:
            packed = io.BytesIO()
            few.save(packed, "PNG", optimize=True)
            return packed.getvalue()
    return picture


def _draw(figures: Sequence[go.Figure], files: Sequence[Path]) -> None:
    """Draw all figures with one browser; without sizes Plotly would draw every one at 700 x 500."""
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
