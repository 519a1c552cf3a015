"""How far the engine's numbers are from single passes of plain transformers: float32, and bfloat16 against bfloat16.

In bfloat16 two correct ways to compute the same cell differ, since sums are rounded in another order. The yardstick is
how far plain transformers itself moves when only the batch is padded.
"""

from __future__ import annotations

from pathlib import Path

import torch

import mechint as mi
from benchmarks.common import SMALL, Naive, checkpoint, command, injections, plain_model
from mechint.base.files import JSON
from mechint.chat.render import render_all
from mechint.organisms import organism_path
from mechint.prompts.design import PromptDesign
from mechint.prompts.sets import introspection

LAYERS = range(3, 6)


def measure(folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return the largest and the mean difference of P(yes) and of logit_diff, in `sample` cells of each model."""
    by_model: dict[str, dict[str, float]] = {}
    summary = []
    for name, path in (("random", checkpoint(folder, SMALL)), ("organism", organism_path("organism"))):
        for dtype in ("float32", "bfloat16"):
            differences = compare(path, dtype, sample)
            by_model[f"{name} {dtype}"] = differences
            summary.append(f"{name} {dtype} {differences['p_yes_max']:.1e}")
    models: dict[str, JSON] = {name: {**differences} for name, differences in by_model.items()}
    return {"models": models}, "largest difference in P(yes): " + ", ".join(summary)


def compare(path: Path, dtype: str, count: int) -> dict[str, float]:
    """Return differences of the engine to single passes, and of padded single passes to those without padding."""
    model = mi.load(path, dtype=dtype)
    design = PromptDesign.load(model.prompts)
    chats = introspection(design)[:count]
    layers = [layer for layer in LAYERS if layer < model.n_layers]
    (steer,) = injections(model.d_model, model.n_layers, layers, 1)
    table = mi.score(model, chats, steer)
    naive = Naive(plain_model(path).to(getattr(torch, dtype)))
    vectors = {layer: steer.vector.vectors[layer].to(getattr(torch, dtype)) for layer in layers}
    rendered = render_all(model.tokenizer, chats)
    ids = [_yes_no(model, chat) for chat in chats]
    alone = torch.stack([_reading(naive.cell(item, vectors), *pair) for item, pair in zip(rendered, ids, strict=True)])
    padded = torch.stack(
        [_reading(naive.cell(item, vectors, padding=17), *pair) for item, pair in zip(rendered, ids, strict=True)]
    )
    engine = torch.tensor(table[["p_yes", "logit_diff"]].to_numpy(), dtype=torch.float64)
    differences = {}
    for suffix, difference in (("", (engine - alone).abs()), ("_padding", (padded - alone).abs())):
        for column, name in enumerate(("p_yes", "logit_diff")):
            differences[f"{name}{suffix}_max"] = difference[:, column].max().item()
            differences[f"{name}{suffix}_mean"] = difference[:, column].mean().item()
    return differences


def _yes_no(model: mi.Model, chat: mi.Conversation) -> tuple[int, int]:
    texts = (chat.yes_token or " yes", chat.no_token or " no")
    yes = model.tokenizer(texts[0], add_special_tokens=False)["input_ids"][0]
    no = model.tokenizer(texts[1], add_special_tokens=False)["input_ids"][0]
    return yes, no


def _reading(logits: torch.Tensor, yes: int, no: int) -> torch.Tensor:
    double = logits.double()
    return torch.stack([double.softmax(-1)[yes], double[yes] - double[no]])


if __name__ == "__main__":
    command("precision", __doc__, measure, sample=20, sampled="cells of each model")
