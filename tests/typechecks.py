"""Types are checked in everything that the tests call: by jaxtyping where arrays are annotated, else by beartype alone.

jaxtyping's decorator binds the sizes of axes at every call, ten times what beartype's own check takes. Most functions
annotate no array and have no axes to bind.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from importlib.machinery import SourceFileLoader
from types import CodeType
from typing import Any, TypeVar
from unittest.mock import patch

import jaxtyping
from beartype import beartype
from jaxtyping import _import_hook as hook

_T = TypeVar("_T")
_full = jaxtyping.jaxtyped


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
    own = partial(hook._optimized_cache_from_source, loader._typechecker.get_hash())
    with patch("importlib._bootstrap_external.cache_from_source", own):
        return SourceFileLoader.get_code(loader, name)


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
