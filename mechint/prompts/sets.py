"""Prompt sets: the wording in a design file, and the conversations that it renders to.

The design is that of "Latent Introspection" (arXiv 2602.20031): descriptions of what was done, times info
documents, times answer formats; and the same turns with a control question instead. The wording is this
project's own. `python -m mechint.prompts` writes the rendered files that are committed, `--check` compares.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from mechint.base.errors import MechintError, UnknownNameError, UsageError
from mechint.base.files import JSON
from mechint.base.signatures import checked
from mechint.chat.conversations import Conversation, Message, load_conversations, save_conversations
from mechint.prompts import design as prompt_design
from mechint.prompts.design import PromptDesign, available_sets

Cell = tuple[str, str, str]  # description, info, format


@checked
def introspection(
    design: PromptDesign,
    descriptions: str | Sequence[str] | None = None,
    infos: str | Sequence[str] | None = None,
    formats: str | Sequence[str] | None = None,
) -> list[Conversation]:
    """Return one conversation per description x info x format; None means all, in the order of the file.

    Raises UnknownNameError for a name that the design does not have, and for an empty or repeating selection.
    """
    return [_render(design, cell) for cell in _cells(design, descriptions, infos, formats)]


@checked
def controls(
    design: PromptDesign,
    groups: str | Sequence[str] | None = None,
    descriptions: str | Sequence[str] | None = None,
    infos: str | Sequence[str] | None = None,
    formats: str | Sequence[str] | None = None,
    limit: int | None = None,
) -> list[Conversation]:
    """Return one conversation per description x info x format x control question, the first turns unchanged.

    `limit` is the largest number of questions taken from each group, so that a short run has all groups.
    Raises UnknownNameError as `introspection` does, and UsageError for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(given=f"limit {limit}", allowed="1 or more per group", advice="leave it out for all")
    chosen = _select("control group", groups, design.controls)
    questions = [(g, i) for g in chosen for i in range(len(design.controls[g]))[:limit]]
    cells = _cells(design, descriptions, infos, formats)
    return [_render(design, cell, question) for cell, question in product(cells, questions)]


@checked
def first_turns(design: PromptDesign, description: str, info: str) -> tuple[Message, ...]:
    """Return the turns that are marked: the info document with what was done, and the assistant's reply.

    Raises UnknownNameError for names that the design does not have.
    """
    _check_names("description", [description], list(design.descriptions))
    _check_names("info document", [info], list(design.infos))
    wording, document = design.descriptions[description], design.infos[info]
    return (
        Message("system", design.system),
        Message("user", f"{document}\n\n{wording.setup}" if document else wording.setup, add_injection=True),
        Message("assistant", wording.reply, add_injection=True),
    )


def rendered_files(design: PromptDesign) -> dict[str, list[Conversation]]:
    """Return the conversations of the committed files in `mechint/prompts/prompt_sets/<design>/`, by file name."""
    return {
        "introspection.json": introspection(design),
        "controls.json": controls(design, descriptions=["injection"], infos=["none", "introspection"]),
    }


def _render(design: PromptDesign, cell: Cell, control: tuple[str, int] | None = None) -> Conversation:
    answer = design.formats[cell[2]]
    question = design.controls[control[0]][control[1]] if control else design.descriptions[cell[0]].question
    messages = (
        *first_turns(design, cell[0], cell[1]),
        Message("user", f"{question} {answer.instruction}"),
        Message("assistant", answer.prefix, continue_msg=True),
    )
    extra = _extra(design, cell, control)
    return Conversation(_label(cell, control), messages, answer.yes_token, answer.no_token, extra)


def _label(cell: Cell, control: tuple[str, int] | None) -> str:
    start = f"control-{control[0]}-{control[1]:02d}_" if control else ""
    return f"{start}{cell[0]}_info-{cell[1]}_fmt-{cell[2]}"


def _extra(design: PromptDesign, cell: Cell, control: tuple[str, int] | None) -> dict[str, JSON]:
    kind, group = ("control", control[0]) if control else ("introspection", None)
    extra: dict[str, JSON] = {"prompt_set": design.name, "kind": kind, "group": group}
    extra.update(zip(("description", "info", "format"), cell, strict=True))
    return extra | {"control_question": design.controls[control[0]][control[1]]} if control else extra


def _cells(
    design: PromptDesign,
    descriptions: str | Sequence[str] | None,
    infos: str | Sequence[str] | None,
    formats: str | Sequence[str] | None,
) -> list[Cell]:
    return list(
        product(
            _select("description", descriptions, design.descriptions),
            _select("info document", infos, design.infos),
            _select("answer format", formats, design.formats),
        )
    )


def _select(kind: str, names: str | Sequence[str] | None, allowed: Mapping[str, object]) -> list[str]:
    if names is None:
        return list(allowed)
    chosen = [names] if isinstance(names, str) else list(names)
    _check_names(kind, chosen, list(allowed))
    return chosen


def _check_names(kind: str, names: Sequence[str], allowed: Sequence[str]) -> None:
    unknown = [name for name in names if name not in allowed]
    if names and not unknown and len(set(names)) == len(names):
        return
    fault = f"unknown {kind} {', '.join(map(repr, unknown))}" if unknown else f"{kind}: {list(names)}"
    advice = f"name each {kind} once, as the design file spells it"
    raise UnknownNameError(given=fault, allowed=", ".join(allowed), advice=advice)


def _update(path: Path, conversations: Sequence[Conversation], check: bool) -> bool:
    """Bring one committed file up to date, or only look if `check`; return whether it was."""
    if path.is_file() and load_conversations(path) == list(conversations):
        return True
    if not check:
        save_conversations(conversations, path)
    return False


def main(argv: Sequence[str] | None = None) -> int:
    """Write the rendered files of the packaged prompt sets; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mechint.prompts", description=main.__doc__)
    parser.add_argument("--set", action="append", choices=available_sets(), help="a prompt set (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a file differs")
    options = parser.parse_args(argv)
    try:
        stale = _update_sets(options.set or available_sets(), options.check)
    except MechintError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    verb = "differs" if options.check else "written"
    sys.stdout.write("".join(f"{verb}: {path}\n" for path in stale) or "all rendered files are up to date\n")
    return int(bool(stale) and options.check)


def _update_sets(names: Sequence[str], check: bool) -> list[Path]:
    rendered = {
        prompt_design.packaged_folder() / name / file: conversations
        for name in names
        for file, conversations in rendered_files(PromptDesign.load(name)).items()
    }
    return [path for path, conversations in rendered.items() if not _update(path, conversations, check)]
