"""The page that shows every figure below an output directory, each with its caption and the command that made it."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from analyses.__main__ import summary
from mechint.files import write_atomically

_STYLE = """
body { font-family: Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif; color: #222; margin: 2rem auto;
       max-width: 1160px; padding: 0 1rem; line-height: 1.45; }
figure { margin: 2rem 0; }
figure img { width: 100%; border: 1px solid #ddd; }
figure iframe { width: 100%; height: 960px; border: 1px solid #ddd; }
figcaption { color: #444; margin-top: .4rem; }
pre { background: #f4f4f4; padding: .6rem .8rem; overflow-x: auto; }
"""


def write_index(out: Path, names: Sequence[str]) -> Path:
    """Write `index.html` for the analyses that have results in `out`; returns its path."""
    sections = [_section(out, name) for name in names if (out / name / "run.json").is_file()]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>mechint: figures</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>Figures</h1>\n{''.join(sections)}</body>\n</html>\n"
    )
    return write_atomically(out / "index.html", page)


def _section(out: Path, name: str) -> str:
    record = json.loads((out / name / "run.json").read_text(encoding="utf-8"))
    command = f"python -m analyses.{name} {shlex.join(record['argv'])}".strip()
    files = [out / name / file for file in record["files"] if file.endswith(".html")]
    figures = "".join(_figure(out, file) for file in files)
    return (
        f'<section id="{name}">\n<h2>{html.escape(name)}</h2>\n<p>{html.escape(summary(name))}</p>\n'
        f"<pre>{html.escape(command)}</pre>\n{figures}"
        f'<p><a href="{name}/table.csv">table.csv</a>, <a href="{name}/run.json">run.json</a></p>\n</section>\n'
    )


def _figure(out: Path, file: Path) -> str:
    """Return a picture that leads to the interactive figure; without a picture, the figure itself in a frame."""
    link, caption = file.relative_to(out).as_posix(), html.escape(_caption(file.with_suffix(".json")))
    picture = file.with_suffix(".png")
    shown = (
        f'<a href="{link}"><img src="{picture.relative_to(out).as_posix()}" alt="{caption}" loading="lazy"></a>'
        if picture.is_file()
        else f'<iframe src="{link}" title="{caption}" loading="lazy"></iframe>'
    )
    return f'<figure>\n{shown}\n<figcaption>{caption} (<a href="{link}">interactive</a>)</figcaption>\n</figure>\n'


def _caption(file: Path) -> str:
    """Return a figure's own title as plain text."""
    title = json.loads(file.read_text(encoding="utf-8"))["layout"].get("title", {}).get("text", file.stem)
    return re.sub(r"<[^>]+>", "", title.replace("<br>", " "))
