"""Figures to files: html beside one shared plotly.min.js, json, and png where a browser can draw it; all atomic."""

import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import plotly.io
from jaxtyping import Bool, Int, UInt8

from mechint.base.errors import PrerequisiteError
from mechint.base.files import remove_file, write_atomically
from mechint.base.signatures import checked
from mechint.figures import pictures
from mechint.figures.pictures import Drawing
from mechint.figures.readable import readable_json

_LOG = logging.getLogger(__name__)
_SCRIPT = "plotly.min.js"
_PNG_SCALE = 1.4  # a gallery of a model in 6 MB
_COLORS, _EXACT_COLORS, _AT_ONCE = 256, 200, 1000
_CODES = 2**24  # colours that there are
_UNSEEN_EDGE, _UNSEEN_FLAT = 24, 8  # of 255, in one colour of one pixel
_NO_BROWSER = (RuntimeError, OSError, ValueError, ImportError, TimeoutError)  # how its absence is told, by version
_HOW = 'pip install "kaleido>=1" and install Chrome or Chromium (or run plotly_get_chrome)'


@checked
def save(figure: go.Figure, path_stem: str | Path, png: bool | None = None) -> list[Path]:
    """Write `<stem>.html`, `<stem>.json` and, unless `png` is False, `<stem>.png`; returns the paths written.

    `png=None`: without kaleido or a browser there is one notice and no png. `png=True`: that is a `PrerequisiteError`.
    A png that is there already is removed if it shows other numbers and is not drawn again.
    """
    stem = Path(path_stem)
    return save_all({stem.name: figure}, stem.parent, png)


@checked
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
    changed = [name for name, text in texts.items() if _read(directory / f"{name}.json") != text]
    # What is drawn is what is written: digits that are left out would still move a line by a hair.
    drawn = {name: json.loads(text) for name, text in texts.items()}
    paths = [path for name in texts for path in _save_text(texts[name], drawn[name], directory / name, script)]
    if png is None or png:
        paths += _save_pngs(drawn, directory, required=bool(png))
    for stale in {directory / f"{name}.png" for name in changed} - set(paths):
        remove_file(stale)  # a picture of other numbers is worse than none
    return paths


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _save_text(text: str, figure: Drawing, stem: Path, script: Path) -> list[Path]:
    source = Path(os.path.relpath(script, stem.parent)).as_posix()
    # A name for the one element of the page, since Plotly's own is another at each call.
    config = {"responsive": True, "displaylogo": False}
    # It was checked when it was made.
    html = plotly.io.to_html(figure, include_plotlyjs=source, config=config, div_id="figure", validate=False)
    return [
        write_atomically(stem.with_name(f"{stem.name}.html"), html),
        write_atomically(stem.with_name(f"{stem.name}.json"), text),
    ]


def _share_script(directory: Path) -> Path:
    from plotly.offline import get_plotlyjs

    script, path = get_plotlyjs(), directory / _SCRIPT
    if not path.exists() or path.stat().st_size != len(script.encode()):
        write_atomically(path, script)
    return path


def _save_pngs(figures: Mapping[str, Drawing], directory: Path, *, required: bool) -> list[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / f"{number}.png" for number, name in enumerate(figures)}
        try:
            _draw(list(figures.values()), list(files.values()))
        except _NO_BROWSER as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            _refuse(f"no png files: {reason}", f"for them, {_HOW}", required=required)
            return []
        # Where a browser cannot draw a figure there is no error, and no file.
        drawn = {name: _compact(file.read_bytes()) for name, file in files.items() if file.is_file()}
    if missing := [name for name in figures if name not in drawn]:
        _refuse(f"no png of {', '.join(missing)}: the browser could not draw it", "open the html", required=required)
    return [write_atomically(directory / f"{name}.png", picture) for name, picture in drawn.items()]


def _refuse(reason: str, advice: str, *, required: bool) -> None:
    """Raise PrerequisiteError where pictures were asked for, else give notice."""
    if required:
        raise PrerequisiteError(reason, "kaleido with a browser", advice)
    _LOG.warning("%s; %s", reason.rstrip("."), advice)


def _compact(picture: bytes) -> bytes:
    """Return a png with a palette, a third of the size; where that could be seen only without its transparency.

    Without Pillow it is returned as it is.

    The palette begins with the commonest colours of flat areas, exactly: pale neighbours on a colour scale show any
    other tint. What is left of it is for the edges of letters and lines, of which a shade is not seen.
    """
    try:
        from PIL import Image
    except ImportError:
        return picture
    with Image.open(io.BytesIO(picture)) as drawn:
        opaque = drawn.convert("RGB")
    pixels = np.asarray(opaque)
    codes = _codes(pixels)
    flat = _is_flat(codes)
    palette = _palette(pixels, codes[flat])
    present = np.flatnonzero(np.bincount(codes.ravel(), minlength=_CODES))
    colors = _of_codes(present)
    nearest = _nearest(colors, palette)
    change = np.abs(palette[nearest].astype(np.int16) - colors.astype(np.int16)).max(axis=-1)
    # What holds of each colour is looked up by its code: sorting millions of pixels takes seconds.
    change_of, entry_of = np.zeros(_CODES, dtype=np.uint8), np.zeros(_CODES, dtype=np.uint8)
    change_of[present], entry_of[present] = change, nearest
    image = Image.fromarray(entry_of[codes])
    image.putpalette(palette.ravel().tolist())
    is_seen = change.max() > _UNSEEN_EDGE or change_of[codes[flat]].max(initial=0) > _UNSEEN_FLAT
    packed = io.BytesIO()
    (opaque if is_seen else image).save(packed, "PNG", optimize=True)
    return packed.getvalue()


def _codes(pixels: UInt8[np.ndarray, "y x 3"]) -> Int[np.ndarray, "y x"]:
    """Return each pixel's colour as one number below `_CODES`."""
    wide = pixels.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _of_codes(codes: Int[np.ndarray, " colors"]) -> UInt8[np.ndarray, "colors 3"]:
    """Return the colours of some numbers."""
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.uint8)


def _is_flat(codes: Int[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """Return which pixels have the colour of their right and lower neighbours."""
    flat = np.zeros(codes.shape, dtype=bool)
    corner = codes[:-1, :-1]
    flat[:-1, :-1] = (corner == codes[:-1, 1:]) & (corner == codes[1:, :-1])
    return flat


def _palette(pixels: UInt8[np.ndarray, "y x 3"], flat: Int[np.ndarray, " pixels"]) -> UInt8[np.ndarray, "colors 3"]:
    """Return the commonest colours of flat areas (codes), and the fewest that come near to all others of a picture."""
    from PIL import Image

    counts = np.bincount(flat, minlength=_CODES)
    colors = np.flatnonzero(counts)
    exact = _of_codes(colors[np.argsort(-counts[colors], kind="stable")][:_EXACT_COLORS])
    # Maximum coverage keeps the steps of colour scales.
    few = Image.fromarray(pixels).quantize(_COLORS - len(exact), Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    others = np.asarray(few.getpalette(), dtype=np.uint8).reshape(-1, 3)[: _COLORS - len(exact)]
    return np.concatenate([exact, others])


def _nearest(
    colors: UInt8[np.ndarray, "colors 3"], palette: UInt8[np.ndarray, "entries 3"]
) -> Int[np.ndarray, " colors"]:
    """Return the place of the nearest entry of a palette for each colour; a thousand at a time, for the memory."""
    entries, starts = palette.astype(np.int32), range(0, len(colors), _AT_ONCE)
    parts = [colors[start : start + _AT_ONCE, None].astype(np.int32) - entries for start in starts]
    return np.concatenate([(part**2).sum(axis=-1).argmin(axis=-1) for part in parts])


def _draw(figures: Sequence[Drawing], files: Sequence[Path]) -> None:
    """Draw all figures with one browser; without sizes Plotly would draw every one at 700 x 500."""
    layouts = [figure["layout"] for figure in figures]
    widths, heights = [layout.get("width") for layout in layouts], [layout.get("height") for layout in layouts]
    with _silenced("choreographer", "kaleido"):
        pictures.write_images(figures, files, scale=_PNG_SCALE, width=widths, height=heights)


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
