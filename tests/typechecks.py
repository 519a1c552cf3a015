"""Types are checked in everything that the tests call: by jaxtyping where arrays are annotated, else by beartype alone.

jaxtyping's decorator binds the sizes of axes at every call, ten times what beartype's own check takes. Most functions
annotate no array and have no axes to bind.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jaxtyping
from beartype import beartype

_T = TypeVar("_T")
_full = jaxtyping.jaxtyped


def install(package: str) -> None:
    """Check every module of a package that is imported from now on."""
    jaxtyping.jaxtyped = _jaxtyped  # where the hook's decorators look for it
    jaxtyping.install_import_hook(package, "beartype.beartype")


def _jaxtyped(*decorated: object, **options: object) -> object:
    """Stand for `jaxtyping.jaxtyped`, however it is called."""
    return (
        _full(*decorated, **options) if decorated or options.keys() != {"typechecker"} else partial(_checked, **options)
    )


def _checked(checked: _T, typechecker: Callable[[_T], _T]) -> _T:
    if inspect.isclass(checked) and hasattr(checked.__init__, "__checks_arguments__"):
        return checked  # it converts what it is given, which may be more than it keeps
    if inspect.isclass(checked) or _annotates_arrays(checked):
        return _full(checked, typechecker=typechecker)
    # As jaxtyping does: a name that is imported for the type checker only is not checked.
    checked.__annotations__ = {
        name: _resolved(hint, checked.__globals__) for name, hint in checked.__annotations__.items()
    }
    return beartype(checked)


def _annotates_arrays(function: Callable[..., object]) -> bool:
    words = {word for hint in function.__annotations__.values() for word in re.findall(r"\w+", str(hint))}
    return any("jaxtyping" in repr(function.__globals__.get(word)) for word in words)


def _resolved(hint: object, names: dict[str, object]) -> object:
    try:
        return eval(hint, names) if isinstance(hint, str) else hint
    except NameError:
        return Any
