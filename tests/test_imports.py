"""The house: lower floors never import upper ones, nothing heavy happens at import, the library never prints."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The folders of `mechint/`, lowest first. A module may import its own floor and those before it, nothing after it.
# The embedded models' names are needed below; how they are made and measured stands above everything: the roof.
ROOF = "the roof of organisms"
FLOORS = (
    "base",
    "organisms",
    "stats",
    "chat",
    "prompts",
    "models",
    "vectors",
    "interventions",
    "engine",
    "readouts",
    "trials",
    "attribution",
    "finetune",
    "evals",
    "figures",
    ROOF,
)
MODULES = [path for path in sorted((ROOT / "mechint").rglob("*.py")) if path != ROOT / "mechint" / "__init__.py"]


def imports(path: Path) -> set[str]:
    """The dotted names of this project that a file imports anywhere, at run time or for types."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("mechint", "analyses")}


def height(name: str) -> int:
    """On which floor a dotted name lies; the public face (`import mechint`) and the analyses lie above the house."""
    package, floor, *inside = [*name.split("."), "", ""][:4]
    if package == "analyses" or not floor:
        return FLOORS.index(ROOF)
    folder = ROOT / "mechint" / floor / inside[0]
    if floor == "organisms" and (folder.with_suffix(".py").exists() or folder.is_dir()) and inside[0]:
        return FLOORS.index(ROOF)
    return FLOORS.index(floor)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lower_floors_import_no_upper_ones(path: Path):
    assert not {name for name in imports(path) if height(name) > height(name_of(path))}
    assert not {name for name in imports(path) if name.split(".")[0] == "analyses"}


def test_every_floor_has_a_door_that_says_what_it_may_import():
    folders = {path.name for path in (ROOT / "mechint").iterdir() if (path / "__init__.py").exists()}
    assert folders == {*FLOORS} - {ROOF}
    assert not [path for path in (ROOT / "mechint").glob("*.py") if path.name != "__init__.py"]
    for folder in folders:
        door = ast.get_docstring(ast.parse((ROOT / "mechint" / folder / "__init__.py").read_text()))
        assert door is not None
        assert "mports" in door, folder


@pytest.mark.parametrize("path", [p for p in MODULES if not name_of(p).startswith("mechint.models.")])
def test_only_the_models_know_transformer_lens(path: Path):
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in typing_only and node.module:
            assert node.module.split(".")[0] != "transformer_lens"


def test_import_is_light():
    heavy = "{'torch', 'transformers', 'transformer_lens', 'pandas', 'plotly'}"
    modules = "sys, mechint, mechint.base.errors, mechint.models.model_names"
    code = f"import {modules}; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_public_names_are_what_they_say():
    import mechint as mi

    for name in mi.__all__:
        assert getattr(mi, name) is not None
    with pytest.raises(AttributeError, match="scroe"):
        _ = mi.scroe
