"""Settings that published experiments used, with their source, and where to start with other models."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mechint.base.errors import LayerRangeError
from mechint.base.signatures import checked

# |added| / `model.residual_norms` at each injected layer, where no preset applies. This project's choice, not a
# published value, and meant as the middle of a sweep: what it does depends on the model and on the layers.
DEFAULT_RELATIVE_STRENGTH = 0.05

_PAPER = "Latent Introspection (arXiv 2602.20031)"
_POST = "Small models can introspect, too (post)"


@dataclass(frozen=True)
class Preset:
    """Where and how strongly published work injected into one model.

    A strength multiplies vectors as the source computes them: `strength` concept vectors (paired PCA),
    `contrast_strength` the contrast of a finetuned model and its base. For another model, or for vectors of
    another norm, the numbers mean nothing.
    """

    model: str
    layers: range
    strength: float
    contrast_strength: float | None
    source: str


PRESETS = (
    Preset("Qwen/Qwen2.5-Coder-32B-Instruct", range(21, 43), 20.0, 10.0, f"{_POST}; {_PAPER}"),
    Preset("meta-llama/Llama-3.3-70B-Instruct", range(26, 54), 2.5, None, _PAPER),
    Preset("Qwen/Qwen2.5-72B-Instruct", range(26, 54), 10.0, None, _PAPER),
)


@checked
def preset_for(model_name: str) -> Preset | None:
    """Return the preset of a hub id or checkpoint directory, or None.

    The last part of the path must equal the model's name, in upper or lower case: a quantised, finetuned or
    renamed copy is another model and gets no preset.
    """
    last = re.split(r"[/\\]", model_name.rstrip("/\\"))[-1].lower()
    return next((preset for preset in PRESETS if preset.model.split("/")[-1].lower() == last), None)


@checked
def middle_third(n_layers: int) -> range:
    """Return the middle third of a model's layers, rounded outwards: 64 -> 21:43, 80 -> 26:54.

    That is, from n_layers/3 rounded down to 2*n_layers/3 rounded up (exclusive), as in every preset. Raises
    LayerRangeError for a model without layers.
    """
    if n_layers < 1:
        raise LayerRangeError(given=f"{n_layers} layers", allowed="1 or more", advice="give the model's layer count")
    return range(n_layers // 3, -(-2 * n_layers // 3))
