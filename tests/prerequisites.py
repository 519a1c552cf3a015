"""The one place where tests are skipped: what TransformerLens 4 has not, and what is not installed."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Generator, Sequence
from typing import Generic, TypeVar

import pytest

from mechint.base.errors import PrerequisiteError
from mechint.models.backends import versions
from mechint.models.packaged_models import packaged_path

_REMOVED = ("HookedTransformer", "transformer_lens.HookedTransformer", "sae_lens")

_T = TypeVar("_T")


class Missing(Generic[_T]):
    """Stands for a class that the installed versions do not have."""


def complete() -> bool:
    """Whether the installed versions have all that the library can use."""
    return versions.has_hooked() and versions.installed("sae-lens") != "not installed"


def reason(error: Exception) -> str | None:
    """Return why a test cannot run with the installed versions, or None for a failure of its own."""
    if complete():
        return None
    if isinstance(error, PrerequisiteError):
        return error.given
    if isinstance(error, ImportError) and error.name is not None and error.name.startswith(_REMOVED):
        return f"{error.name} is not there with transformer-lens {versions.installed('transformer-lens')}"
    return None


def skipping() -> Generator[None]:
    """Run one phase of a test, and skip where it ends in something that the installed versions do not have."""
    try:
        return (yield)
    except (PrerequisiteError, ImportError) as error:
        why = reason(error)
        if why is None:
            raise
        pytest.skip(why)


def bind_types(body: Sequence[ast.stmt], names: dict[str, object]) -> None:
    """Carry out a module's imports for types; nothing is of a type that is not there."""
    for statement in body:
        try:
            exec(compile(ast.Module(body=[statement], type_ignores=[]), "types", "exec"), names)
        except ImportError:
            if complete() or not isinstance(statement, ast.ImportFrom):
                raise
            names |= {alias.asname or alias.name: Missing for alias in statement.names}


def _no_smollm2() -> str:
    """Return why the tests of a real model cannot run; "" if they can."""
    try:
        packaged_path("smollm2")
    except PrerequisiteError as error:
        return error.given
    return ""


needs_smollm2 = pytest.mark.skipif(bool(_no_smollm2()), reason=_no_smollm2() or "it is installed")


def needs(module: str) -> pytest.MarkDecorator:
    """Return the mark of a test that needs an optional module."""
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed")
