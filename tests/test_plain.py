"""Plain lines: names are not unpacked from a loop, a choice is written as one, and the formatter lays lines out."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# How many there may be in each folder. A limit only falls.
UNPACKED = {"mechint": 0, "analyses": 0, "benchmarks": 0, "tests": 0}
MULTIPLIED = {"mechint": 0, "analyses": 0, "benchmarks": 0, "tests": 0}
UNFORMATTED = 8  # in all folders together


def places(folder: str, matches: Callable[[ast.AST], bool]) -> list[str]:
    """Return where in the modules of a folder the nodes of a kind are."""
    return [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if matches(node)
    ]


def is_unpacked_loop(node: ast.AST) -> bool:
    """Whether several names are bound by one loop: `a, b = (f(x) for x in (p, q))` and not `a = f(p)`, `b = f(q)`."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.GeneratorExp | ast.ListComp):
        return False
    target = node.targets[0]
    # One name in brackets says that there is exactly one.
    return isinstance(target, ast.Tuple | ast.List) and len(target.elts) > 1


def is_choice_by_product(node: ast.AST) -> bool:
    """Whether a text or a list is multiplied by true or false: `[x] * (x > 0)`, not `[x] if x > 0 else []`."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Mult):
        return False
    sides = (node.left, node.right)
    return any(_is_sequence(side) for side in sides) and any(_is_choice(side) for side in sides)


def _is_sequence(node: ast.AST) -> bool:
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return is_text or isinstance(node, ast.JoinedStr | ast.List | ast.Tuple)


def _is_choice(node: ast.AST) -> bool:
    """Whether a node is one by how it is written; of attributes those count as numbers whose names say so."""
    if isinstance(node, ast.Attribute):
        return not node.attr.startswith(("n_", "num_", "width"))
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("bool", "isinstance", "any", "all", "hasattr")
    negated = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    return negated or isinstance(node, ast.Compare | ast.BoolOp)


@pytest.mark.parametrize("folder", UNPACKED)
def test_names_are_not_unpacked_from_a_loop(folder: str) -> None:
    unpacked = places(folder, is_unpacked_loop)
    assert len(unpacked) <= UNPACKED[folder], "\n".join(unpacked)


@pytest.mark.parametrize("folder", MULTIPLIED)
def test_a_choice_is_no_product(folder: str) -> None:
    multiplied = places(folder, is_choice_by_product)
    assert len(multiplied) <= MULTIPLIED[folder], "\n".join(multiplied)


def test_the_formatter_lays_out_all_but_a_few_tables() -> None:
    mark = "fmt: " + "skip"
    texts = {path: path.read_text(encoding="utf-8") for folder in UNPACKED for path in (ROOT / folder).rglob("*.py")}
    marked = {str(path.relative_to(ROOT)): text.count(mark) for path, text in texts.items() if mark in text}
    assert sum(marked.values()) <= UNFORMATTED, marked


@pytest.mark.parametrize(
    ("line", "is_golf"),
    [
        ("a, b = (f(x) for x in (p, q))", True),
        ("[a, b] = [f(x) for x in (p, q)]", True),
        ("a, b = f(p), f(q)", False),
        ("values = [f(x) for x in (p, q)]", False),
        ("[x] * (x > 0)", True),
        ("'-dirty' * bool(changes)", True),
        ("', injected' * segment.add_injection", True),
        ("[0] * (n - len(row))", False),
        ("(None,) * cfg.n_layers", False),
        ("width * (x > 0)", False),
    ],
)
def test_both_kinds_are_seen(line: str, is_golf: bool) -> None:
    nodes = list(ast.walk(ast.parse(line)))
    assert any(is_unpacked_loop(node) or is_choice_by_product(node) for node in nodes) == is_golf
