"""Names say what a thing is: few bindings are called by a word that could stand for anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VAGUE = frozenset(
    [
        "about",
        "asked",
        "found",
        "given",
        "here",
        "known",
        "made",
        "mine",
        "one",
        "own",
        "part",
        "said",
        "seen",
        "shown",
        "some",
        "theirs",
        "thing",
        "things",
        "those",
        "told",
        "wanted",
        "what",
    ]
)
# Shares of all bindings. Of tests 0.01 is aimed at: the rest is in tests/analyses and tests/figures.
MOST = {"mechint": 0.005, "analyses": 0.005, "benchmarks": 0.005, "tests": 0.018}


def bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that is bound: variables, parameters, functions and classes, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name


@pytest.mark.parametrize("folder", MOST)
def test_few_names_could_stand_for_anything(folder: str) -> None:
    count, vague = 0, []
    for path in sorted((ROOT / folder).rglob("*.py")):
        for line, name in bindings(ast.parse(path.read_text(encoding="utf-8"))):
            count += 1
            if name.strip("_").lower() in VAGUE:
                vague.append(f"{path.relative_to(ROOT)}:{line} {name}")
    assert len(vague) < MOST[folder] * count, "\n".join(vague)
