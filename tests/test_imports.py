"""The house: lower floors never import upper ones, nothing heavy happens at import, the library never prints."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Lowest first. A module may import those before it, and nothing after it.
FLOORS = (
    "errors", "arguments", "signatures", "artefacts", "files", "tensor_files", "gguf_files", "gguf_models",
    "gguf_rotary", "gguf_configs", "gguf_weights", "gguf_tokenizers", "sizes", "progress",
    "html",
    "organisms", "sources", "chat", "sandbox", "templates", "offsets", "turns", "render", "spans", "tokens",
    "cache", "readout", "backends", "weights", "checkpoint_files", "tokenizer_files", "tokenizer_identity",
    "merging", "loading", "model", "memory", "row_memory", "validation",
    "saving", "adapters", "residual_scale", "capture", "receipts", "steering", "vectors", "prompt_fields",
    "prompt_tasks", "prompt_design", "prompts", "prompt_questions", "presets", "activations",
    "contrast", "extract", "fill_files", "stored_pass", "interventions", "prefill", "reach", "fill", "given", "active",
    "states", "prefix_tree", "rows", "plan", "passes", "step_receipts",
    "footprint", "division", "engine", "answers", "shards", "store", "job",
    "explain", "forecast", "tables", "naming", "ray_engine", "score", "lens", "decode", "generate", "text_loss",
    "estimates", "intervals", "bands", "stats",
    "information", "reading", "frozen", "features", "sae", "components", "kv", "published", "figures", "plot",
    "explorer", "organisms.tools",
)  # fmt: skip
# Taken only inside functions: model.py checks, measures and saves models, and puts adapters on them, with these.
LATE = {("model", "validation"), ("model", "adapters"), ("model", "residual_scale"), ("model", "saving")}


# How the embedded models are made and measured stands above the library; what they are called and where, below.
TOOLS = "organisms.tools"


def imports(path: Path) -> set[str]:
    """The parts of mechint that a file imports anywhere, at run time or for types."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ("mechint", "analyses"):
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            if parts[:2] == ["mechint", "organisms"] and len(parts) > 2:
                names = [TOOLS]
            found |= {parts[0] if parts[0] == "analyses" else name for name in names}
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mechint.")}
    return found


def part_of(path: Path) -> str:
    inside = path.relative_to(ROOT / "mechint").parts
    if inside[0] == "organisms" and inside[1] != "__init__.py":
        return TOOLS
    return inside[0].removesuffix(".py")


MODULES = [path for path in sorted((ROOT / "mechint").rglob("*.py")) if path != ROOT / "mechint" / "__init__.py"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lower_floors_import_no_upper_ones(path):
    part = part_of(path)
    assert part in FLOORS, f"give {part} a floor"
    upper = {
        name
        for name in imports(path)
        if name != part and (name == "analyses" or FLOORS.index(name) > FLOORS.index(part))
    }
    assert not {name for name in upper if (part, name) not in LATE}


@pytest.mark.parametrize("path", [p for p in MODULES if part_of(p) not in ("model", "cache", "backends", "loading")])
def test_only_the_seam_knows_transformer_lens(path):
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
    code = f"import sys, mechint, mechint.errors, mechint.sources; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def test_public_names_are_what_they_say():
    import mechint as mi

    for name in mi.__all__:
        assert getattr(mi, name) is not None
    import mechint.score  # the submodule may not take the place of the function

    assert callable(mi.score)
    assert callable(mi.prefill)
    with pytest.raises(AttributeError, match="scroe"):
        _ = mi.scroe
