"""The page that shows every figure below an output directory, each with its finding and the command that made it."""

from __future__ import annotations

import html
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from analyses.__main__ import summary
from analyses.gallery.budget import note_in
from analyses.kit import earlier
from mechint.base.artefacts import FileKind, reading
from mechint.base.files import write_atomically
from mechint.figures.markup import OWN_TAGS

_STYLE = """
:root { --ink: #222; --soft: #555; --line: #ddd; --ground: #f5f5f5; --link: #0b5394; }
* { box-sizing: border-box; }
body { font-family: Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif; color: var(--ink); line-height: 1.5;
       margin: 0 auto; max-width: 1160px; padding: 1rem; }
a { color: var(--link); }
nav ul { columns: 2; column-gap: 3rem; padding-left: 1.2rem; }
section { border-top: 1px solid var(--line); margin-top: 2.5rem; }
figure { margin: 2rem 0; }
.picture { overflow-x: auto; border: 1px solid var(--line); }
.picture img { display: block; width: 100%; min-width: 44rem; height: auto; }
.picture iframe { display: block; width: 100%; min-width: 44rem; height: 60rem; border: 0; }
figcaption { margin-top: .5rem; }
figcaption small { color: var(--soft); display: block; }
pre { background: var(--ground); padding: .6rem .8rem; overflow-x: auto; }
@media (max-width: 40rem) { nav ul { columns: 1; } h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; } }
"""
INDEX, OVERVIEW = "index.html", "README.md"
_RECORD = FileKind("the record of a run", "a run.json as runs write it", "run the analysis again")
_INTRODUCTION = (
    "Every figure below was made by the command above it, on the model that its second line names. "
    "A picture leads to the same figure with values under the pointer; on a small screen it can be moved sideways."
)


def write_index(out: Path, names: Sequence[str]) -> Path:
    """Write `index.html` for the analyses that have results in `out`; returns its path.

    It says what a budget has cut, and links to galleries of other models, in folders of `out`.
    """
    finished = _finished(out, names)
    links = _links(out, names, INDEX, lambda name, link: f'<a href="{html.escape(link)}">{html.escape(name)}</a>')
    more = "".join(f"<p>{text}</p>\n" for text in (html.escape(note_in(out)), links) if text)
    contents = "".join(f'<li><a href="#{name}">{name}</a>: {html.escape(summary(name))}</li>\n' for name in finished)
    sections = "".join(_section(out, name) for name in finished)
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>mechint: figures</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>Figures</h1>\n"
        f"<p>{_INTRODUCTION}</p>\n{more}<nav>\n<ul>\n{contents}</ul>\n</nav>\n{sections}</body>\n</html>\n"
    )
    return write_atomically(out / INDEX, page)


def write_overview(out: Path, names: Sequence[str], command: str = "make figures") -> Path:
    """Write `README.md`, the same for where repositories are read: pictures, findings, commands; returns its path.

    `command` is what makes the gallery.
    """
    parts = [f"# Figures\n\n`{command}` makes every figure again, and `index.html` with links to its data.\n"]
    links = _links(out, names, OVERVIEW, lambda name, link: f"[{_markdown(name)}](<{link}>)")
    parts += [f"\n{text}\n" for text in (_markdown(html.escape(note_in(out))), links) if text]
    for name in _finished(out, names):
        record = _record(out, name)
        pictures = [file for file in record["files"] if file.endswith(".png")]
        parts.append(f"\n## {summary(name)}\n\n    {_command(name, record)}\n")
        for file in pictures:
            title, _ = _caption((out / name / file).with_suffix(".json"))
            parts.append(f"\n{_markdown(title)}\n\n![{_markdown(title)}]({name}/{file})\n")
    return write_atomically(out / OVERVIEW, "".join(parts))


def _finished(out: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if (out / name / earlier.RECORD).is_file()]


def _links(out: Path, names: Sequence[str], file: str, link: Callable[[str, str], str]) -> str:
    """Return a sentence with links to the galleries of other models beside one; "" where there are none."""
    others = [folder.name for folder in others_in(out, names) if (folder / file).is_file()]
    return f"Figures of other models: {', '.join(link(name, f'{name}/{file}') for name in others)}." if others else ""


def others_in(out: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders in which galleries of other models lie: those with an overview and folders of analyses."""
    folders = [folder for folder in sorted(out.iterdir()) if folder.name not in names and (folder / OVERVIEW).is_file()]
    return [folder for folder in folders if any((folder / name).is_dir() for name in names)]


def _record(out: Path, name: str) -> Mapping[str, Sequence[str]]:
    path = out / name / earlier.RECORD
    with reading(path, _RECORD):
        record = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(record, dict) and all(earlier.is_names(record.get(field)) for field in ("argv", "files"))):
            raise ValueError("it has no argv and files that are lists of names")
    return record


def _command(name: str, record: Mapping[str, Sequence[str]]) -> str:
    return f"python -m analyses.{name} {shlex.join(record['argv'])}".strip()


def _section(out: Path, name: str) -> str:
    record = _record(out, name)
    files = [out / name / file for file in record["files"]]
    html_files = [file for file in files if file.suffix == ".html"]
    figures = "".join(_figure(out, file) for file in html_files if file.with_suffix(".json") in files)
    pages = "".join(f"<p>{_page(out, file)}</p>\n" for file in html_files if file.with_suffix(".json") not in files)
    data = ", ".join(_link(out, file) for file in (*_tables(files), out / name / "run.json"))
    return (
        f'<section id="{name}">\n<h2>{html.escape(summary(name))}</h2>\n'
        f"<pre>{html.escape(_command(name, record))}</pre>\n{figures}{pages}<p>Data: {data}</p>\n</section>\n"
    )


def _tables(files: Sequence[Path]) -> list[Path]:
    return [file for file in files if file.suffix in (".csv", ".parquet")]


def _page(out: Path, file: Path) -> str:
    """Return a link to a page that is no figure, by its own title."""
    title = re.search(r"<title>(.*?)</title>", file.read_text(encoding="utf-8"), re.DOTALL)
    return f'<a href="{_address(out, file)}">{title[1].strip() if title else html.escape(file.name)}</a>'


def _figure(out: Path, file: Path) -> str:
    """Return a picture that leads to the interactive figure; without a picture, the figure itself in a frame."""
    link = html.escape(file.relative_to(out).as_posix())
    title, subtitle = _caption(file.with_suffix(".json"))
    picture = file.with_suffix(".png")
    content = (
        f'<a href="{link}"><img src="{_address(out, picture)}" alt="{title}" loading="lazy"></a>'
        if picture.is_file()
        else f'<iframe src="{link}" title="{title}" loading="lazy"></iframe>'
    )
    more = f'<a href="{link}">interactive</a>, {_link(out, file.with_suffix(".json"))}'
    return (
        f'<figure id="{html.escape(file.stem)}">\n<div class="picture">{content}</div>\n'
        f"<figcaption>{title} ({more})<small>{subtitle}</small></figcaption>\n</figure>\n"
    )


def _address(out: Path, file: Path) -> str:
    return html.escape(file.relative_to(out).as_posix())


def _link(out: Path, file: Path) -> str:
    return f'<a href="{_address(out, file)}">{html.escape(file.name)}</a>'


def _caption(file: Path) -> tuple[str, str]:
    """Return a figure's own title, which says what was found, and what stands below it, as plain text."""
    title = json.loads(file.read_text(encoding="utf-8"))["layout"].get("title", {})
    return _plain(title.get("text", file.stem)), _plain(title.get("subtitle", {}).get("text", ""))


def _plain(text: str) -> str:
    """Return a text of a figure without its markup, as text of a page."""
    own_tags = re.compile(rf"</?(?:{'|'.join(OWN_TAGS)})>")
    return html.escape(html.unescape(own_tags.sub("", text.replace("<br>", " "))))


def _markdown(text: str) -> str:
    """Return text of a page as Markdown that shows it to the letter: entities stay, its own marks are escaped."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text.replace("&#x27;", "'").replace("&quot;", '"'))
