"""What mkdocs adds to the pages while it builds them: options, pictures, and the places of public names.

Nothing of this is committed, so that it cannot go stale. Pages ask for it with `::: mi.NAME`, or with a comment of the
form `<!-- include: gallery -->`.
"""

from __future__ import annotations

import argparse
import ast
import html
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from analyses import ANALYSES, BESIDE
from analyses.__main__ import TOOLS, summary
from analyses.kit import declarations
from analyses.kit.options import Common
from mechint.finetune.registry import recipes

ROOT = Path(__file__).resolve().parent.parent
# Pages that are files elsewhere in the repository.
ELSEWHERE = {"changelog.md": "CHANGELOG.md", "truth.md": "mechint/organisms/TRUTH.md"}
# Figures that no analysis draws: their folder, what they show, and the command.
OTHER_FIGURES = {
    "trial_contrasts": (
        "Do trials differ by prompt, model, concept or steering? Six organisms.",
        "make trials",
    ),
    "finetuning": ("What does finetuning change? Trainings by recipe and seed.", "make finetune-quick"),
    "saes": ("How good are the embedded autoencoders?", "python -m mechint.organisms.sae"),
}
# The gallery of the embedded models, and that of a real one in a folder of it, whose overview has its commands.
FIGURES, REAL = Path("figures"), Path("figures/smollm2")

_NAME = re.compile(r"^::: mi\.(\w+)$", re.MULTILINE)
_INCLUDE = re.compile(r"^<!-- include: (\w+) -->$", re.MULTILINE)
_TAG = re.compile(r"<[^>]+>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pictures of the gallery and pages from elsewhere."""
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    for picture in (*pictures(), *pictures(REAL)):
        files.append(File.generated(config, picture, abs_src_path=str(ROOT / picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in what a page asks for."""
    known = homes()
    markdown = _NAME.sub(lambda found: _documented(found[1], known[found[1]]), markdown)
    return _INCLUDE.sub(lambda found: "\n".join(INCLUDES[found[1]]()), markdown)


def homes() -> dict[str, str]:
    """Return where each public name is defined, as `mechint` says it to type checkers."""
    tree = ast.parse((ROOT / "mechint" / "__init__.py").read_text(encoding="utf-8"))
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "")[:7] == "mechint"
    ]
    return {alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}


def pictures(gallery: Path = FIGURES) -> list[str]:
    """Return the committed pictures of a gallery, by analysis in the order in which they are listed."""
    folders = [ROOT / gallery / name for name in (*ANALYSES, *OTHER_FIGURES)]
    return [path.relative_to(ROOT).as_posix() for folder in folders for path in sorted(folder.glob("*.png"))]


def _place(item: object) -> object:
    """Return the page that an item of a navigation names, or the items of a section."""
    return next(iter(item.values()), None) if isinstance(item, dict) else item


def _documented(name: str, home: str) -> str:
    return f"::: {home}\n    options:\n      heading: mi.{name}\n      toc_label: mi.{name}\n"


def _gallery() -> Iterator[str]:
    for name in (*ANALYSES, *OTHER_FIGURES):
        mine = [picture for picture in pictures() if picture.split("/")[1] == name]
        if not mine:
            continue
        title, command = OTHER_FIGURES.get(name) or (summary(name), _command(name))
        yield f"## {name}\n\n{title}\n\n    {command}\n"
        for picture in mine:
            finding, details = _caption(ROOT / picture)
            shown = f"[![{finding}]({picture}){{ loading=lazy }}]({picture})"
            yield f"**{finding}**\n\n{shown}\n\n<small>{details}</small>\n"


def _real_gallery() -> Iterator[str]:
    """Yield the overview of the real model's gallery without its heading, with pictures as the site has them."""
    overview = (ROOT / REAL / "README.md").read_text(encoding="utf-8")
    yield re.sub(r"\]\((?=\w+/)", f"]({REAL.as_posix()}/", overview.partition("\n\n")[2])


def _command(name: str) -> str:
    return " ".join([f"python -m analyses.{name}", *ANALYSES.get(name, ())])


def _caption(picture: Path) -> tuple[str, str]:
    """Return a figure's title, which says what was found, and what stands below it, as plain text for markdown."""
    title = json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))["layout"].get("title", {})
    texts = title.get("text", picture.stem), title.get("subtitle", {}).get("text", "")
    plain = (html.unescape(_TAG.sub("", text.replace("<br>", " "))) for text in texts)
    finding, details = (re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(text, quote=False)) for text in plain)
    return finding, details


def _common() -> Iterator[str]:
    """Yield the options that all analyses share, by group."""
    for group in _groups(declarations.parser(Common, "analyses", "")):
        yield f"### {_sentence(group.title or '')}\n"
        yield from _options(group)


def _own() -> Iterator[str]:
    """Yield each analysis with the options that it alone has."""
    shared = {group.title for group in _groups(declarations.parser(Common, "analyses", ""))}
    for name in (*ANALYSES, *BESIDE):
        parser = importlib.import_module(f"analyses.{name}").ANALYSIS.parser()
        yield f"### {name}\n\n{summary(name)}\n\n    {_command(name)}\n"
        for group in _groups(parser):
            if group.title not in shared:
                yield from _options(group)


def _gallery_options() -> Iterator[str]:
    """Yield the options that `analyses.all` has besides those of all analyses."""
    shared = {group.title for group in _groups(declarations.parser(Common, "analyses", ""))}
    for group in _groups(importlib.import_module("analyses.all").parser()):
        if group.title not in shared:
            yield from _options(group)


def _tools() -> Iterator[str]:
    yield "| command | does |\n|---|---|"
    yield from (f"| `python -m analyses.{name}` | {summary(name)} |" for name in TOOLS)


def _groups(parser: argparse.ArgumentParser) -> list[argparse._ArgumentGroup]:
    """Return the groups of a parser that hold more than --help."""
    return [group for group in parser._action_groups if any(action.dest != "help" for action in group._group_actions)]


def _options(group: argparse._ArgumentGroup) -> Iterator[str]:
    if group.description:
        yield f"{_sentence(group.description)}\n"
    yield "| option | what it is | default |\n|---|---|---|"
    for action in group._group_actions:
        if action.dest != "help":
            yield f"| {_spelled(action)} | {_cell(action.help or '')} | {_default(action)} |"
    yield ""


def _spelled(action: argparse.Action) -> str:
    """Return an option as it is typed, with its value."""
    name = (action.option_strings or [action.dest])[-1]
    if action.nargs == 0:
        return f"`{name}`"
    values = "|".join(map(str, action.choices)) if action.choices else action.metavar or action.dest.upper()
    return f"`{name} {values}`"


def _default(action: argparse.Action) -> str:
    told = (
        "(default" in (action.help or "") or action.default is None or action.default is False or action.default == []
    )
    return "" if told else f"`{action.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "&#124;").replace("%%", "%").replace("<", "&lt;")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _recipes() -> Iterator[str]:
    """Yield the packaged recipes of finetuning, as their files say how they differ."""
    yield "| recipe | differs in | texts | answers | steps | seen | read at |\n|---|---|---|---|---|---|---|"
    for row in recipes().to_dict("records"):
        differs = f"from `{row['inherits']}` in {row['differs_in']}" if row["inherits"] else "(others differ from it)"
        number = f"{row['number']} " if row["number"] else ""
        name = f"{number}`{row['name']}`: {row['title']}"
        counts = f"{row['prompts']:,} | {row['answers']} | {row['steps']:,} | {row['seen']:,} | {row['read_at']}"
        yield f"| {name} | {differs} | {counts} |"


INCLUDES: Mapping[str, Callable[[], Iterator[str]]] = {
    "gallery": _gallery,
    "real_gallery": _real_gallery,
    "common_options": _common,
    "analyses": _own,
    "gallery_options": _gallery_options,
    "tools": _tools,
    "recipes": _recipes,
}
