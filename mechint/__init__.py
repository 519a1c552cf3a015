"""Ask a language model, from its logits, whether it noticed what was done to its KV cache."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechint import components, explorer, extract, figures, intervals, kv, presets, prompts, sae, stats
    from mechint.cache import KVCache
    from mechint.chat import Conversation, Message, load_conversations, save_conversations
    from mechint.errors import MechintError
    from mechint.explain import Explanation, explain
    from mechint.fill import fill
    from mechint.generate import generate
    from mechint.interventions import CLEAN, Filled, Injection, Swap
    from mechint.job import Request
    from mechint.lens import logit_lens
    from mechint.model import Model, load, wrap
    from mechint.naming import name_log_probs
    from mechint.plot import plot
    from mechint.prefill import prefill
    from mechint.reading import Reading
    from mechint.receipts import Receipt
    from mechint.render import render
    from mechint.score import score
    from mechint.shards import Shard
    from mechint.spans import positions_of
    from mechint.store import CellStore
    from mechint.tables import tables
    from mechint.templates import TemplateOptions
    from mechint.text_loss import text_loss
    from mechint.tokens import Answers
    from mechint.vectors import ConceptVector

__version__ = "0.1.0"

# Names are imported when first used: `import mechint` and --help stay fast, torch comes only with work.
_MODULES = ("components", "explorer", "extract", "figures", "intervals", "kv", "presets", "prompts", "sae", "stats")
_HOME = {
    "KVCache": "cache", "Conversation": "chat", "Message": "chat", "load_conversations": "chat",
    "save_conversations": "chat", "MechintError": "errors", "CLEAN": "interventions", "Injection": "interventions",
    "Filled": "interventions", "Swap": "interventions", "fill": "fill", "logit_lens": "lens",
    "Model": "model", "load": "model", "wrap": "model",
    "Reading": "reading", "Receipt": "receipts", "prefill": "prefill", "render": "render", "score": "score",
    "Answers": "tokens", "ConceptVector": "vectors", "explain": "explain", "Explanation": "explain", "Shard": "shards",
    "CellStore": "store", "Request": "job", "tables": "tables", "name_log_probs": "naming", "positions_of": "spans",
    "TemplateOptions": "templates", "generate": "generate", "text_loss": "text_loss", "plot": "plot",
}  # fmt: skip

__all__ = [
    "CLEAN",
    "Answers",
    "CellStore",
    "ConceptVector",
    "Conversation",
    "Explanation",
    "Filled",
    "Injection",
    "KVCache",
    "MechintError",
    "Message",
    "Model",
    "Reading",
    "Receipt",
    "Request",
    "Shard",
    "Swap",
    "TemplateOptions",
    "components",
    "explain",
    "explorer",
    "extract",
    "figures",
    "fill",
    "generate",
    "intervals",
    "kv",
    "load",
    "load_conversations",
    "logit_lens",
    "name_log_probs",
    "plot",
    "positions_of",
    "prefill",
    "presets",
    "prompts",
    "render",
    "sae",
    "save_conversations",
    "score",
    "stats",
    "tables",
    "text_loss",
    "wrap",
]


class _Package(ModuleType):
    """Imports public names when first used, and keeps `mi.score` the function although a module is called so."""

    def __getattr__(self, name: str) -> object:
        if name in _MODULES:
            return importlib.import_module(f"mechint.{name}")
        if name in _HOME:
            return getattr(importlib.import_module(f"mechint.{_HOME[name]}"), name)
        raise AttributeError(f"module 'mechint' has no attribute {name!r}")

    def __setattr__(self, name: str, value: object) -> None:
        # The import system would set each submodule as an attribute, over the function of that name.
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return [*__all__, "__version__"]


sys.modules[__name__].__class__ = _Package
