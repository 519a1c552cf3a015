"""Types are checked in everything that the tests call: by beartype, and with sizes of axes where arrays are annotated.

jaxtyping's own decorator binds a call's arguments to their names and checks them twice, ten times what beartype's check
takes: that is for its messages, and for axes whose size is the value of an argument, which alone are left to it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from functools import partial
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType
from typing import Any, TypeVar
from unittest.mock import patch

import jaxtyping
from beartype import beartype
from jaxtyping import _import_hook as hook
from jaxtyping import _storage as storage

_T = TypeVar("_T")
_R = TypeVar("_R")
_full = jaxtyping.jaxtyped
_CHECKED = "__beartype_func"  # the option of a check that beartype makes which holds what is checked
_CHECKS: dict[CodeType, Callable[[Callable[..., object]], Callable[..., object]]] = {}  # of functions inside others


def install(package: str) -> hook.ImportHookManager:
    """Check every module of a package that is imported from now on, or until the end of a `with` statement."""
    jaxtyping.jaxtyped = _jaxtyped  # where the hook's decorators look for it
    hook._JaxtypingLoader.exec_module = SourceFileLoader.exec_module
    hook._JaxtypingLoader.get_code = _code
    return jaxtyping.install_import_hook(package, "beartype.beartype")


def _code(loader: hook._JaxtypingLoader, name: str) -> CodeType | None:
    """Return a checked module's code, kept under a name of its own.

    jaxtyping has that name hold for all that the module imports too: libraries of thousands of modules, which are then
    compiled again, though their code is there.
    """
    cache_path = partial(hook._optimized_cache_from_source, loader._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", cache_path):
        return SourceFileLoader.get_code(loader, name)


def _jaxtyped(*decorated: object, **options: object) -> object:
    """Stand for `jaxtyping.jaxtyped`, however it is called."""
    return (
        _full(*decorated, **options) if decorated or options.keys() != {"typechecker"} else partial(_checked, **options)
    )


def _checked(checked: _T, typechecker: Callable[[_T], _T]) -> _T:
    if not inspect.isclass(checked):
        return _checked_function(checked, typechecker)
    # What converts what it is passed may be passed more than it keeps; an inherited __init__ is checked already.
    has_init = dataclasses.is_dataclass(checked) and "__init__" in vars(checked)
    if has_init and not hasattr(checked.__init__, "__checks_arguments__"):
        checked.__init__ = _checked_function(checked.__init__, typechecker)
    return checked


def _checked_function(function: Callable[..., _R], typechecker: Callable[[_T], _T]) -> Callable[..., _R]:
    if any("{" in str(hint) for hint in function.__annotations__.values()):
        return _full(function, typechecker=typechecker)
    if "<locals>" not in function.__qualname__:
        return _check_of(function)(function)
    # It is made anew at each call of what is around it, and to compile its check takes a millisecond.
    if function.__code__ not in _CHECKS:
        _CHECKS[function.__code__] = _check_of(function)
    return _CHECKS[function.__code__](function)


def _check_of(function: Callable[..., object]) -> Callable[[Callable[..., _R]], Callable[..., _R]]:
    """Return what puts the check of a function around it, or around another that is made of the same code."""
    with_axes = _annotates_arrays(function)
    # As jaxtyping does: a name that is imported for the type checker only is not checked.
    function.__annotations__ = {
        name: _resolved(hint, function.__globals__) for name, hint in function.__annotations__.items()
    }
    check = beartype(function)
    if check is function:
        return lambda other: other
    code, names, options = check.__code__, check.__globals__, {**check.__kwdefaults__, _CHECKED: None}

    def around(other: Callable[..., _R]) -> Callable[..., _R]:
        copy = FunctionType(code, names)
        copy.__kwdefaults__ = options | {_CHECKED: other}
        functools.update_wrapper(copy, other)
        return _keeping_axes(copy) if with_axes else copy

    return around


def _keeping_axes(function: Callable[..., _R]) -> Callable[..., _R]:
    """Let the sizes of axes hold for one call."""

    @functools.wraps(function)
    def call(*arguments: object, **options: object) -> _R:
        storage.push_shape_memo({})
        try:
            return function(*arguments, **options)
        finally:
            storage.pop_shape_memo()

    return call


def _annotates_arrays(function: Callable[..., object]) -> bool:
    words = {word for hint in function.__annotations__.values() for word in re.findall(r"\w+", str(hint))}
    return any("jaxtyping" in repr(function.__globals__.get(word)) for word in words)


def _resolved(hint: object, names: dict[str, object]) -> object:
    try:
        return eval(hint, names) if isinstance(hint, str) else hint
    except NameError:
        return Any
