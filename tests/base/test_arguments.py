"""Every public function: a wrong value for any argument is one message that names it, and right ones pass.

Which values are wrong is worked out here from the annotations, by other rules than the library's own.
"""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import conversation, vector

import mechint as mi
from mechint.base import arguments
from mechint.base.errors import MechintError, UsageError
from mechint.base.signatures import Count, Seed, Within, checked, converter

MODULES = ("extract", "sae", "kv", "components", "prompts", "presets", "stats", "trials", "figures")
# What the library makes and hands out; nobody calls these.
BY_LIBRARY = {
    "Model",
    "KVCache",
    "Reading",
    "Receipt",
    "Explanation",
    "ReplyExplanation",
    "Intervention",
    "MechintError",
    "Dictionary",
    "States",
    "Quality",
    "Case",
}
BY_LIBRARY |= {"Activations"}


def public() -> Iterator[tuple[str, Callable[..., object]]]:
    """Every function and class that users call, by its name."""
    for name in mi.__all__:
        value = getattr(mi, name)
        if callable(value) and name not in BY_LIBRARY:
            yield name, value
    for module in MODULES:
        home = getattr(mi, module)
        names = getattr(home, "__all__", None) or [
            name for name, value in vars(home).items() if getattr(value, "__module__", "") == home.__name__
        ]
        for name in names:
            value = getattr(home, name)
            if callable(value) and name not in BY_LIBRARY and hasattr(_inner(value), "__checks_arguments__"):
                yield f"{module}.{name}", value


def _inner(value: Callable[..., object]) -> object:
    return value.__init__ if inspect.isclass(value) else value


PUBLIC = dict(public())
POOL: list[object] = [
    object(), None, True, "x", "\ud800", "", b"x", 1.5, 1j, math.nan, math.inf, -1, 2**70, 10**400, [], [object()],
    [1.5], [True], ["a", 3], [None], {}, {"a": object()}, {1: "b"}, Decimal(1), lambda: 0, np.float32("nan"),
    torch.ones(2, 2), int,
]  # fmt: skip


def hints_of(function: Callable[..., object]) -> dict[str, object]:
    """The annotations that can be evaluated, by parameter."""
    inner = inspect.unwrap(typing.cast(Callable[..., object], _inner(function)))
    hints = {}
    for name, parameter in inspect.signature(inner).parameters.items():
        hint = parameter.annotation
        try:
            hints[name] = eval(hint, inner.__globals__) if isinstance(hint, str) else hint
        except NameError:
            continue
    hints = {name: hint for name, hint in hints.items() if hint is not typing.Any}
    return {name: hint for name, hint in hints.items() if name != "self" and hint is not inspect.Parameter.empty}


def is_right(hint: object, value: object) -> bool:  # noqa: PLR0911, PLR0912 - a branch for each kind
    """Whether a value of the pool is of a type: in doubt it is, and nothing is said of it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        low, high = inner[1].least, inner[1].most
        return is_right(inner[0], value) and low <= value <= high  # type: ignore[operator]
    if origin in (Union, types.UnionType):
        return any(is_right(kind, value) for kind in inner)
    if hint in (None, types.NoneType):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and value not in (10**400,)
            and abs(value) < 1e300
        )
    if hint is str:
        return isinstance(value, str) and value != "\ud800"
    if hint is Path:
        return isinstance(value, str) and value == "x"
    if origin is Literal:
        return value in inner if isinstance(value, str | int) else False
    if origin in (Sequence, Iterable, list, tuple):
        if isinstance(value, torch.Tensor):  # rows of numbers: in doubt they are what is meant
            return True
        fine = isinstance(value, list | dict)
        return fine and all(is_right(inner[0], item) for item in typing.cast(Iterable[object], value))
    if origin is Mapping:
        return isinstance(value, dict) and all(
            is_right(inner[0], k) and is_right(inner[1], v) for k, v in value.items()
        )
    if origin is Callable:
        return callable(value)
    if origin is dict:
        return isinstance(value, dict)
    if hasattr(hint, "array_type"):
        return isinstance(value, torch.Tensor | list)
    return hint is typing.Any or hint is object or (isinstance(hint, type) and isinstance(value, hint))


class Maker:
    """Right values by type."""

    def __init__(self, model: mi.Model) -> None:
        self.known = [model, conversation(), mi.CLEAN, vector(model), pd.DataFrame({"a": [1.0]}), model.tokenizer]

    def __call__(self, hint: object) -> object:  # noqa: PLR0911 - a branch for each kind
        """Return some value that a type allows."""
        origin, inner = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return max(inner[1].least, 1)
        if origin in (Union, types.UnionType):
            return self(inner[0])
        plain = {int: 1, float: 0.5, str: "x", bool: True, Path: Path("x"), types.NoneType: None}
        if hint in plain:
            return plain[typing.cast(type, hint)]
        if origin is Literal:
            return inner[0]
        if origin in (Sequence, Iterable, list):
            return [self(inner[0])]
        if origin is tuple:
            return [self(kind) for kind in inner if kind is not ...]
        if origin is Mapping:
            return {self(inner[0]): self(inner[1])}
        if origin is Callable:
            return lambda *_: None
        if isinstance(hint, type) and hint is not typing.Any:
            return next((value for value in self.known if isinstance(value, hint)), None)
        return None


def calls(name: str, model: mi.Model) -> Iterator[dict[str, object]]:
    """Arguments with every wrong value of the pool for every parameter, among right ones for the others."""
    function, make = PUBLIC[name], Maker(model)
    hints = hints_of(function)
    needed = {
        key: make(hints.get(key, object))
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.default is inspect.Parameter.empty
    }
    for key, hint in hints.items():
        for value in POOL:
            if not is_right(hint, value):
                # Another may be of a type that only the library makes, and be refused before: one message, too.
                yield {**needed, key: value}


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "wrap"])
def test_a_wrong_value_is_one_message(name: str, model: mi.Model):
    count = 0
    for call in calls(name, model):
        with pytest.raises(MechintError) as error:
            PUBLIC[name](**call)
        assert error.value.given.encode(), "it can be written anywhere"
        assert len(str(error.value)) < 2000
        count += 1
    assert count or not inspect.signature(PUBLIC[name]).parameters


def test_what_is_no_model_of_transformer_lens_is_not_wrapped():
    for value in POOL:
        with pytest.raises(UsageError, match="HookedTransformer"):
            mi.wrap(value)


def test_nothing_that_users_call_is_left_out():
    """What is neither checked nor made by the library, of all that `mi` names."""
    left_out = [name for name, value in PUBLIC.items() if not hasattr(_inner(value), "__checks_arguments__")]
    assert left_out == []
    assert len(PUBLIC) > 60


def test_the_message_names_the_argument(model: mi.Model):
    for value, message in [
        ({"layers": [1.5]}, r"layers\[0\]=1.5"),
        ({"layers": "12"}, "layers='12'"),
        ({"batch_size": 2.0}, "batch_size=2.0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"offload": "no"}, "offload='no'"),
        ({"store": 3}, "store=3"),
    ]:
        with pytest.raises(UsageError, match=message):
            mi.logit_lens(model, conversation(), mi.CLEAN, **value)
    with pytest.raises(UsageError, match="conversations=<object>"):
        mi.score(model, object(), mi.CLEAN)
    with pytest.raises(UsageError, match="interventions"):
        mi.score(model, conversation(), ["clean"])
    with pytest.raises(UsageError, match=r"model='organism'"):
        mi.score("organism", conversation(), mi.CLEAN)
    with pytest.raises(UsageError, match=r"no requests|requests"):
        mi.tables(model, [])
    for seed in (-1, 2**63, 1.0, True, "0"):
        with pytest.raises(UsageError, match="seed"):
            mi.extract.random_controls(model, seed=seed)


def test_right_values_pass_in_every_shape(model: mi.Model):
    steer = mi.Injection(vector(model), layers=np.arange(2), strength=np.float32(1), name="a")
    expected = mi.logit_lens(model, conversation(), [mi.CLEAN, steer], layers=[1, 3])
    for conversations in ([conversation()], (chat for chat in [conversation()]), (conversation(),)):
        table = mi.logit_lens(
            model,
            conversations,
            (intervention for intervention in (mi.CLEAN, steer)),
            layers=np.array([1, 3]),
            batch_size=np.int64(2),
        )
        pd.testing.assert_frame_equal(table, expected)
    assert len(mi.extract.random_controls(model, n=np.int32(2), seed=2**63 - 1)) == 2


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (float, 2, 2.0),
        (float, np.float32(0.5), 0.5),
        (float, torch.tensor(0.5), 0.5),
        (int, np.int8(3), 3),
        (Count, np.int64(1), 1),
        (Seed, 2**63 - 1, 2**63 - 1),
        (Sequence[int], range(3), (0, 1, 2)),
        (Sequence[float], np.array([1, 2]), (1.0, 2.0)),
        (str | Sequence[str], "ab", "ab"),
        (str | Sequence[str], ["a", "b"], ("a", "b")),
        (str | Path | None, Path("a"), Path("a")),
        (tuple[int, int | None], [1, None], (1, None)),
        (Mapping[str, float], {"a": 1}, {"a": 1.0}),
        (Annotated[float, Within(0.0)], 0, 0.0),
    ],
)
def test_values_become_what_the_annotation_says(hint: object, value: object, expected: object):
    converted = converter(hint)("x", value)
    assert converted == expected
    assert type(converted) is type(expected)


def test_endless_and_huge_lists_end():
    import itertools

    for values in (itertools.count(), range(10**12)):
        with pytest.raises(UsageError, match="at most 1,000,000"):
            arguments.wholes("layers", values)


def test_every_annotation_can_be_held_against_a_value():
    """But that of what `wrap` takes and that of SAEs, which are looked at by hand: their packages may not be there."""
    code = (
        "import inspect, sys; sys.path.insert(0, 'tests'); import mechint as mi; from mechint.base import signatures\n"
        "for home in [mi, *(getattr(mi, name) for name in sys.argv[1:])]:\n"
        "    for name in getattr(home, '__all__', None) or vars(home):\n"
        "        value = getattr(home, name)\n"
        "        inner = getattr(value, '__init__', None) if inspect.isclass(value) else value\n"
        "        if hasattr(inner, '__checks_arguments__'):\n"
        "            for key, parameter in inspect.signature(inner).parameters.items():\n"
        "                if key != 'self' and signatures._evaluated(parameter, inner) is object:\n"
        "                    print(name, key)\n"
    )
    command = [sys.executable, "-c", code, *MODULES]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[2])
    assert sorted(set(out.stdout.splitlines())) == ["use sae", "wrap handle"]


def test_a_type_that_is_not_there_is_not_looked_at():
    @checked
    def function(a: NotImported, b: int) -> object:  # type: ignore[name-defined]
        return a, b

    assert function("anything", b=np.int64(2)) == ("anything", 2)
    with pytest.raises(UsageError, match="b='2'"):
        function(1, "2")
    with pytest.raises(TypeError):
        function(1)
