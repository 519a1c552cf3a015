"""One module per question: frozen Config -> compute() -> table -> figures(). `python -m analyses` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# By module: the options with which `python -m analyses.all` runs it for the gallery.
ANALYSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "calibration": (),
        "detection": (),
        "controls": (),
        "logit_lens": ("--layer-sweep", "--conditions"),
        "model_swap": (),
        "identification": (),
        "location": (),
        "layer_strength": ("--ranges",),
        "steering": (),
        "kv_attribution": (),
        "sae_attribution": (),
        "published": (),
    }
)
# These need no model: of the options that all others share they have --out.
WITHOUT_MODEL = frozenset({"published"})
