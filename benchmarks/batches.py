"""How far a row's number moves with what it is computed beside: by dtype, in a dense model and in ones with experts.

A kernel adds in another order for another shape of batch. In float32 that is rounding; in bfloat16 it shows, and where
a router is close to a tie another expert is chosen.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import mechint as mi
from benchmarks.common import command, injections
from benchmarks.tiny_models import Settings, tiny_config, tiny_model, write_checkpoint
from mechint.base.files import JSON
from mechint.prompts.design import PromptDesign
from mechint.prompts.sets import introspection

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MODELS = {"dense (Qwen2)": "qwen2", "4 experts (Mixtral)": "mixtral", "4 experts, normed (Qwen3-MoE)": "qwen3_moe"}
# Wide enough that kernels choose another order of sums.
WIDE: Settings = {"hidden_size": 128, "intermediate_size": 352, "moe_intermediate_size": 128, "head_dim": 32}
INIT: Settings = {"initializer_range": 0.06}
LAYERS = (1, 2)


def measure(folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return, by model and dtype, the largest difference between rows alone and rows in one batch."""
    rows: dict[str, JSON] = {}
    for name, kind in MODELS.items():
        path = write_checkpoint(folder / kind, tiny_model(_wide(kind)))
        for dtype in ("float32", "bfloat16"):
            rows[f"{name}, {dtype}"] = dict(differences(path, dtype, sample))
    return {"models": rows}, f"{len(rows)} models and dtypes"


def _wide(kind: str) -> PretrainedConfig:
    """Return a configuration with the sizes of `WIDE` that it has."""
    names = tiny_config(kind).to_dict()
    return tiny_config(kind, {name: size for name, size in (WIDE | INIT).items() if name in names})


def differences(path: Path, dtype: str, count: int) -> dict[str, float]:
    """Return the largest difference of `logit_diff` and of its shift, and how large shifts are."""
    model = mi.load(path, dtype=dtype)
    chats = introspection(PromptDesign.load(model.prompts))[:count]
    (steer,) = injections(model.d_model, model.n_layers, LAYERS, 1)
    together = mi.score(model, chats, [mi.CLEAN, steer])
    alone = pd.concat([mi.score(model, chat, [mi.CLEAN, steer], batch_size=1) for chat in chats], ignore_index=True)
    shift = "logit_diff_shift"
    return {
        "logit_diff_max": float((together.logit_diff - alone.logit_diff).abs().max()),
        "shift_max": float((together[shift] - alone[shift]).abs().max()),
        "shift_mean_size": float(together[shift][together.intervention != "clean"].abs().mean()),
    }


if __name__ == "__main__":
    command("batches", __doc__, measure, sample=20, sampled="conversations for each model")
