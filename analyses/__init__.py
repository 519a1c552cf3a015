"""One folder for each question; `python -m analyses` lists them.

python -m analyses.detection --concepts cats,bread              # writes figures, table and record

import analyses
results = analyses.detection.run(concepts=("cats", "bread"))    # results.table, .figures, .facts
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType, ModuleType

# By module: the options with which `python -m analyses.all` runs it for the gallery.
ANALYSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dose": (),
        "calibration": (),
        "detection": (),
        "controls": (),
        "logit_lens": ("--layer-sweep", "--conditions"),
        "model_swap": (),
        "identification": (),
        "location": (),
        "layer_strength": ("--ranges",),
        "steering": (),
        "trials": (),
        "kv_attribution": (),
        "sae_attribution": (),
        "published": (),
    }
)
# With these besides for a model that is not embedded: what it lacks is trained, once.
TRAINED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"model_swap": ("--finetuned=trained",), "sae_attribution": ("--sae=trained",)}
)
# These need no model: of the options that all others share they have --out.
WITHOUT_MODEL = frozenset({"published"})
# Analyses that the gallery leaves out.
BESIDE = ("trial_judges", "trial_contrasts", "finetuning")


def __getattr__(name: str) -> ModuleType:
    """Import an analysis when it is first named."""
    if name in ANALYSES or name in BESIDE:
        return importlib.import_module(f"analyses.{name}")
    raise AttributeError(f"module 'analyses' has no analysis {name!r}; there are {', '.join([*ANALYSES, *BESIDE])}")


def __dir__() -> list[str]:
    return [*globals(), *ANALYSES, *BESIDE]
