"""Ask a language model, from its logits, whether it noticed what was done to its KV cache."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mechint import evals, figures, finetune, prompts, stats, trials
    from mechint.attribution import components, kv, sae
    from mechint.attribution.reading import Reading
    from mechint.base.errors import MechintError
    from mechint.chat.conversations import Conversation, Message, load_conversations, save_conversations
    from mechint.chat.render import render
    from mechint.chat.spans import positions_of
    from mechint.chat.templates import TemplateOptions
    from mechint.chat.tokens import Answers
    from mechint.engine.explain import Explanation, explain
    from mechint.engine.explain_replies import ReplyExplanation
    from mechint.engine.job import Request
    from mechint.engine.replies import ReplyRequest
    from mechint.engine.shards import Shard
    from mechint.engine.store import CellStore
    from mechint.figures import explorer
    from mechint.figures.plot import plot
    from mechint.interventions.ablation import ablate
    from mechint.interventions.fill import fill
    from mechint.interventions.prefill import prefill
    from mechint.interventions.receipts import Receipt
    from mechint.interventions.specifications import CLEAN, Filled, Injection, Intervention, Swap
    from mechint.interventions.steering_modes import From
    from mechint.models.cache import KVCache
    from mechint.models.model import Model, load, wrap
    from mechint.models.packaged_models import is_installed
    from mechint.readouts.generate import generate, replies
    from mechint.readouts.lens import logit_lens
    from mechint.readouts.naming import name_log_probs
    from mechint.readouts.score import score
    from mechint.readouts.tables import tables
    from mechint.readouts.text_loss import text_loss
    from mechint.stats import intervals
    from mechint.vectors import extract, presets, specificity
    from mechint.vectors.concept_vectors import ConceptVector

__version__ = "0.1.0"

# Names are imported when first used: `import mechint` and --help stay fast, torch comes only with work.
_MODULES = {
    "components": "attribution.components",
    "evals": "evals",
    "explorer": "figures.explorer",
    "extract": "vectors.extract",
    "figures": "figures",
    "finetune": "finetune",
    "intervals": "stats.intervals",
    "kv": "attribution.kv",
    "presets": "vectors.presets",
    "prompts": "prompts",
    "sae": "attribution.sae",
    "specificity": "vectors.specificity",
    "stats": "stats",
    "trials": "trials",
}
_NAMES = {
    "base.errors": "MechintError",
    "chat.conversations": "Conversation Message load_conversations save_conversations",
    "chat.render": "render",
    "chat.spans": "positions_of",
    "chat.templates": "TemplateOptions",
    "chat.tokens": "Answers",
    "models.cache": "KVCache",
    "models.model": "Model load wrap",
    "models.packaged_models": "is_installed",
    "vectors.concept_vectors": "ConceptVector",
    "interventions.ablation": "ablate",
    "interventions.fill": "fill",
    "interventions.prefill": "prefill",
    "interventions.receipts": "Receipt",
    "interventions.specifications": "CLEAN Filled Injection Intervention Swap",
    "interventions.steering_modes": "From",
    "engine.explain": "Explanation explain",
    "engine.explain_replies": "ReplyExplanation",
    "engine.job": "Request",
    "engine.replies": "ReplyRequest",
    "engine.shards": "Shard",
    "engine.store": "CellStore",
    "readouts.generate": "generate replies",
    "readouts.lens": "logit_lens",
    "readouts.naming": "name_log_probs",
    "readouts.score": "score",
    "readouts.tables": "tables",
    "readouts.text_loss": "text_loss",
    "attribution.reading": "Reading",
    "figures.plot": "plot",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "CLEAN",
    "Answers",
    "CellStore",
    "ConceptVector",
    "Conversation",
    "Explanation",
    "Filled",
    "From",
    "Injection",
    "Intervention",
    "KVCache",
    "MechintError",
    "Message",
    "Model",
    "Reading",
    "Receipt",
    "ReplyExplanation",
    "ReplyRequest",
    "Request",
    "Shard",
    "Swap",
    "TemplateOptions",
    "ablate",
    "components",
    "evals",
    "explain",
    "explorer",
    "extract",
    "figures",
    "fill",
    "finetune",
    "generate",
    "intervals",
    "is_installed",
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
    "replies",
    "sae",
    "save_conversations",
    "score",
    "specificity",
    "stats",
    "tables",
    "text_loss",
    "trials",
    "wrap",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return importlib.import_module(f"mechint.{_MODULES[name]}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"mechint.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mechint' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
