"""Functions whose arguments are turned into what their annotations say before they run, or refused in one message.

`@checked` stands on everything that users call. The annotations are all that it knows: `int` is a whole number,
`Sequence[int]` a list, range, array or generator of such, `Seed` one that every generator of random numbers takes.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, overload

from mechint.base import arguments
from mechint.base.errors import UsageError

_P = ParamSpec("_P")
_T = TypeVar("_T")
# Takes the name of an argument and its value; returns what the function gets, or raises UsageError.
Converter = Callable[[str, object], object]
_LISTS: tuple[object, ...] = (Sequence, Iterable)


@dataclass(frozen=True)
class Within:
    """Bounds of a number, both included."""

    least: int | float
    most: int | float = math.inf


Count = Annotated[int, Within(1)]
Index = Annotated[int, Within(0)]
Seed = Annotated[int, Within(0, 2**63 - 1)]


@overload
def checked(function: type[_T]) -> type[_T]: ...
@overload
def checked(function: Callable[_P, _T]) -> Callable[_P, _T]: ...
def checked(function: object) -> object:
    """Return a function, or a class, that converts its arguments as annotated; raises UsageError for those that do not.

    A parameter whose annotation cannot be evaluated (a type that is imported for type checkers only) is not looked at.
    """
    if isinstance(function, type):
        function.__init__ = _converting(function.__init__)  # type: ignore[misc]
        return function
    assert isinstance(function, types.FunctionType)
    return _converting(function)


def _converting(function: Callable[_P, _T]) -> Callable[_P, _T]:
    signature = inspect.signature(function)

    @functools.cache
    def converters() -> dict[str, Converter]:
        hints = {name: _evaluated(parameter, function) for name, parameter in signature.parameters.items()}
        return {name: converter(hint) for name, hint in hints.items()}

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        bound = signature.bind(*args, **kwargs)
        convert = converters()
        bound.arguments = {name: convert[name](name, value) for name, value in bound.arguments.items()}
        return function(*bound.args, **bound.kwargs)

    call.__checks_arguments__ = True  # type: ignore[attr-defined]
    return call


def _evaluated(parameter: inspect.Parameter, function: Callable[..., object]) -> object:
    hint = parameter.annotation
    if hint is inspect.Parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return object
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, inspect.unwrap(function).__globals__, _Late())
    except NameError:
        return object


class _Late(dict[str, object]):
    """Types that are imported only once something is called: they take seconds."""

    def __missing__(self, name: str) -> object:
        if name != "PreTrainedTokenizerBase":
            raise KeyError(name)
        from transformers import PreTrainedTokenizerBase

        return PreTrainedTokenizerBase


def converter(hint: object) -> Converter:
    """Return the converter of an annotation: it takes a name and a value, and returns the value converted or raises."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin = get_origin(hint)
    if origin in _GENERIC:
        return _GENERIC[origin](get_args(hint))
    return _array(hint) if hasattr(hint, "array_type") else _instance(hint)


def _bounded(inner: Sequence[object]) -> Converter:
    hint, bounds = inner
    assert isinstance(bounds, Within)
    convert = arguments.whole if hint is int else arguments.number
    return lambda name, value: convert(name, value, bounds.least, bounds.most)


def _any_of(hints: Sequence[object]) -> Converter:
    # A text is a list of texts too, so lists are tried last; where paths may be texts, a text has to be a path.
    ordered = sorted(hints, key=lambda hint: get_origin(hint) in _LISTS)
    converters = [_path_or_text if hint is str and Path in hints else converter(hint) for hint in ordered]

    def convert(name: str, value: object) -> object:
        refusals = []
        for candidate in converters:
            try:
                return candidate(name, value)
            except UsageError as error:
                refusals.append(error)
        if inside := [error for error in refusals if error.given.startswith(f"{name}[")]:
            raise inside[-1]  # a list was meant, and one of its values is wrong
        allowed = [error.allowed.removeprefix(f"{name}: ") for error in refusals]
        raise arguments.wrong(name, value, ", or ".join(dict.fromkeys(allowed)))

    return convert


def _path_or_text(name: str, value: object) -> object:
    """Return a path as it was given: names of models and published files may stand in its place."""
    arguments.path(name, arguments.text(name, value))
    return value


def _one_of(allowed: Sequence[object], name: str, value: object) -> object:
    if not isinstance(value, str | int) or value not in allowed:
        raise arguments.wrong(name, value, " or ".join(map(repr, allowed)))
    return value


def _sequence(inner: Sequence[object]) -> Converter:
    kind = inner[0]
    plural = _PLURAL.get(kind) or (f"{kind.__name__}s" if isinstance(kind, type) else "values")
    return functools.partial(_each, converter(kind), plural)


def _tuple(inner: Sequence[object]) -> Converter:
    return _sequence(inner) if inner[1:] == (...,) else functools.partial(_fixed, [converter(hint) for hint in inner])


def _each(convert: Converter, plural: str, name: str, values: object) -> tuple[object, ...]:
    return tuple([convert(f"{name}[{at}]", value) for at, value in enumerate(arguments.several(name, values, plural))])


def _fixed(converters: Sequence[Converter], name: str, values: object) -> tuple[object, ...]:
    listed = arguments.several(name, values)
    if len(listed) != len(converters):
        raise arguments.wrong(name, values, f"{len(converters)} values")
    pairs = enumerate(zip(converters, listed, strict=True))
    return tuple([convert(f"{name}[{at}]", value) for at, (convert, value) in pairs])


def _mapping(key: Converter, value: Converter, name: str, values: object) -> object:
    if not isinstance(values, Mapping):
        raise arguments.wrong(name, values, "a mapping")
    return {key(f"a key of {name}", k): value(f"{name}[{arguments.shown(k)}]", v) for k, v in values.items()}


def _callable(name: str, value: object) -> object:
    if not callable(value):
        raise arguments.wrong(name, value, "a function")
    return value


def _array(hint: object) -> Converter:
    """Return the converter of arrays whose shape and dtype jaxtyping describes; lists of numbers become NumPy's."""
    of_numpy = getattr(hint, "array_type", type).__module__ == "numpy"

    def convert(name: str, value: object) -> object:
        listed = _numpy(name, value) if of_numpy else value
        if not isinstance(listed, typing.cast(type, hint)):
            raise arguments.wrong(name, value, f"an array {getattr(hint, '__name__', hint)}")
        return listed

    return convert


def _numpy(name: str, value: object) -> object:
    """Return lists and whole numbers as NumPy's arrays of float64; anything else as it is."""
    import numpy as np

    if not isinstance(value, list | tuple | np.ndarray):
        return value
    try:
        array = np.asarray(value)
        return array.astype(np.float64) if array.dtype.kind in "iu" else array
    except ValueError as error:  # rows of several lengths
        raise arguments.wrong(name, value, "an array, all rows of which are of one length") from error


def _instance(hint: object) -> Converter:
    if not isinstance(hint, type) or hint is typing.Any:  # a type variable too: nothing to hold a value against
        return _anything

    def convert(name: str, value: object) -> object:
        if not isinstance(value, hint):
            raise arguments.wrong(name, value, f"{'an' if hint.__name__[0] in 'AEIO' else 'a'} {hint.__name__}")
        return value

    return convert


def _nothing(name: str, value: object) -> object:
    if value is not None:
        raise arguments.wrong(name, value, "None")
    return value


def _anything(name: str, value: object) -> object:
    return value


_PLAIN: dict[object, Converter] = {
    int: arguments.whole,
    float: arguments.number,
    str: arguments.text,
    bool: arguments.flag,
    Path: arguments.path,
    types.NoneType: _nothing,
    None: _nothing,
    object: _anything,
}
_PLURAL: dict[object, str] = {int: "whole numbers", float: "numbers", str: "texts", bool: "truth values"}
_GENERIC: dict[object, Callable[[Sequence[object]], Converter]] = {
    Annotated: _bounded,
    Union: _any_of,
    types.UnionType: _any_of,
    Literal: lambda inner: functools.partial(_one_of, inner),
    Sequence: _sequence,
    Iterable: _sequence,
    list: _sequence,
    tuple: _tuple,
    dict: lambda inner: _instance(dict),
    Mapping: lambda inner: functools.partial(_mapping, converter(inner[0]), converter(inner[1])),
    Callable: lambda inner: _callable,
}
