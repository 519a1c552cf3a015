"""No default takes the place of 0 or of an empty list: `x or default` on numbers and sequences that may be None."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import conversation, vector

import mechint as mi
from analyses.kit.dose import Dose
from analyses.kit.subject import Subject
from mechint.attribution import reading
from mechint.base.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
FILES = [file for tree in ("mechint", "analyses") for file in sorted((ROOT / tree).rglob("*.py"))]
_NUMBERS = {"int", "float", "Count", "Index", "Seed", "Bound"}
_SEQUENCES = {"Sequence", "Iterable", "Collection", "tuple", "list", "set", "frozenset", "range", "Mapping", "dict"}
# Fields of other libraries that have the name of one of ours.
ALLOWED = {"bridge.cfg.d_mlp or 4 * self.d_model", "cfg.d_mlp or 4 * cfg.d_model"}


def _names(annotation: ast.expr) -> set[str]:
    """The alternatives of an annotation by their outermost names: `Sequence[int] | None` is Sequence and None."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _names(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp):
        return _names(annotation.left) | _names(annotation.right)
    if isinstance(annotation, ast.Subscript):
        inner = annotation.slice.elts[0] if isinstance(annotation.slice, ast.Tuple) else annotation.slice
        outer = _names(annotation.value)
        return _names(inner) if outer == {"Annotated"} else outer
    return {ast.unparse(annotation).rpartition(".")[2]}


def _is_counted(annotation: ast.expr | None) -> bool:
    """Whether something may be a number or a sequence, of which 0 and the empty one are as false as None."""
    return annotation is not None and bool(_names(annotation) & (_NUMBERS | _SEQUENCES))


def fields(trees: list[ast.Module]) -> set[str]:
    """The names of annotated fields and properties of classes that are numbers or sequences."""
    numbers = set()
    for tree in trees:
        for owner in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
            for node in owner.body:
                if isinstance(node, ast.AnnAssign) and _is_counted(node.annotation):
                    numbers.add(ast.unparse(node.target))
    return numbers


def slips(tree: ast.Module, counted: set[str]) -> Iterator[str]:
    """Every `x or default` of a parameter, variable or field that is a number or sequence."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.Module):
            yield from _slips_in(node, counted)


def _slips_in(scope: ast.FunctionDef | ast.Lambda | ast.Module, counted: set[str]) -> Iterator[str]:
    inside = list(_own_nodes(scope))
    local = {ast.unparse(n.target) for n in inside if isinstance(n, ast.AnnAssign) and _is_counted(n.annotation)}
    if isinstance(scope, ast.FunctionDef):
        every = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
        local |= {argument.arg for argument in every if _is_counted(argument.annotation)}
    questions = {question for node in [scope, *inside] for question in _questions(node)}
    for node in inside:
        if not isinstance(node, ast.BoolOp) or not isinstance(node.op, ast.Or) or _is_false(node.values[-1]):
            continue
        if node in questions:
            continue
        for value in node.values[:-1]:
            name = value.attr if isinstance(value, ast.Attribute) else value.id if isinstance(value, ast.Name) else ""
            if name in (counted if isinstance(value, ast.Attribute) else local):
                yield f"{ast.unparse(node)}"


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            yield child
            yield from _own_nodes(child)
        elif isinstance(child, ast.Lambda):
            yield from _own_nodes(child)


def _is_false(default: ast.expr) -> bool:
    """Whether a default is what an empty value would be anyway: (), [], {}, 0, or a message for people."""
    if isinstance(default, ast.Tuple | ast.List | ast.Set):
        return not default.elts
    return (isinstance(default, ast.Dict) and not default.keys) or (
        isinstance(default, ast.Constant) and (not default.value or isinstance(default.value, str))
    )


def _questions(node: ast.AST) -> list[ast.expr]:
    """What a node asks whether it is true, rather than for its value."""
    if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
        return [node.test]
    if isinstance(node, ast.comprehension):
        return node.ifs
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return [node.operand]
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "bool":
        return node.args
    return node.values if isinstance(node, ast.BoolOp) else []


def test_no_default_takes_the_place_of_zero_or_nothing() -> None:
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
    counted = fields(list(trees.values()))
    assert {"layers", "strength", "limit", "concepts", "batch_size"} <= counted
    all_slips = [f"{file.relative_to(ROOT)}: {slip}" for file, tree in trees.items() for slip in slips(tree, counted)]
    assert sorted({line for line in all_slips if line.partition(": ")[2] not in ALLOWED}) == []


@pytest.mark.parametrize(
    ("source", "is_slip"),
    [
        ("def f(x: int | None): return x or 3", True),
        ("def f(x: 'Sequence[int] | None'): return x or usual()", True),
        ("def f(*, x: Annotated[int, Within(1)] | None = None): return g(x or usual)", True),
        ("def f(a): return a.layers or a.usual", True),
        ("def f(a): return lambda: (a.layers or a.usual)", True),
        ("def f(x: int | None): return x or 0", False),
        ("def f(x: Sequence[int] | None): return x or ()", False),
        ("def f(x: str | None): return x or 'name'", False),
        ("def f(x: Model | None): return x or load()", False),
        ("def f(a): return a.title or a.usual", False),
        ("def f(x: int, y: int): return 1 if x or y == 2 else 0", False),
        ("def f(x: int | None): return 3 if x is None else x", False),
    ],
)
def test_what_is_such_a_default_is_known(source: str, is_slip: bool) -> None:
    assert bool(list(slips(ast.parse(source), {"layers"}))) == is_slip


def test_no_layers_are_not_all_layers(model: mi.Model) -> None:
    vectors = {"cats": vector(model)}
    subject = Subject(None, model, Dose((1, 2), 1.0, None, ""), vectors, {})  # type: ignore[arg-type]
    (condition,) = subject.conditions(["injected"])
    assert condition.intervention.layers == (1, 2)
    with pytest.raises(UsageError, match="one or more layers"):
        subject.conditions(["injected"], layers=())


def test_no_layers_to_keep_are_not_the_last_one(model: mi.Model) -> None:
    read = reading.Reading.of(model, conversation("a"), [mi.Injection(vector(model), [1], 1.0)])
    assert list(read.run([0])) == [model.n_layers - 1]
    with pytest.raises(UsageError, match="one or more layers"):
        read.run([0], keep=())
