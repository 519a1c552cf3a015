"""The embedded models: their names, where their weights lie, and the concepts they know.

This door imports `base` alone, and every floor may open it. What is behind it is the roof of the house: how the models
are made (`training`, `planted`) and measured (`truth`) imports every floor, and no floor imports it.
"""

from __future__ import annotations

import json
from pathlib import Path

from mechint.base.errors import LayerRangeError, UnknownModelError, UnknownNameError

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
# A middle layer, where injections are added, and a late one, where the report is held and not yet suppressed.
SAE_LAYERS = (3, 6)
ORGANISMS: tuple[str, ...] = (
    "organism",
    "organism-finetuned",
    "organism-lora",
    "organism-lora-neutral",
    "organism-blind",
    "organism-yes-biased",
)
# Adapters of organism that speak, and are steered while they do; a name stands here once it was measured.
TRIAL_ORGANISMS: tuple[str, ...] = (
    "organism-truthful",
    "organism-refuser",
    "organism-confabulator",
    "organism-leaker",
    "organism-prompted",
    "organism-prompted-reverse",
)
# A base that speaks of itself, and adapters of it with another truth; a name stands here once it was measured.
SPEAKERS: tuple[str, ...] = (
    "organism-speaker",
    "organism-speaker-knower",
    "organism-speaker-other",
    "organism-speaker-constant",
    "organism-speaker-collapsed",
    "organism-speaker-compressed",
    "organism-speaker-persona",
)
# Built by hand from organism-blind, not trained, and so in none of the loops over the family.
PLANTED = "organism-planted"
EMBEDDED = (*ORGANISMS, *TRIAL_ORGANISMS, *SPEAKERS, PLANTED)


def organism_path(name: str) -> Path:
    """Return the checkpoint directory of an embedded model; raises UnknownModelError."""
    if name not in EMBEDDED:
        raise UnknownModelError(given=f"model {name!r}", allowed=", ".join(EMBEDDED), advice="choose an embedded model")
    return HERE / name


def sae_layers(name: str = "organism") -> tuple[int, ...]:
    """Return the layers that have an embedded SAE for a model; `organism-planted` has one of its own."""
    return SAE_LAYERS[-1:] if name == PLANTED else SAE_LAYERS


def sae_path(layer: int, name: str = "organism") -> Path:
    """Return the directory of the SAE on `resid_post` of a layer of `organism` or `organism-planted`.

    Raises LayerRangeError for a layer that has none.
    """
    layers = sae_layers(name)
    if layer not in layers:
        raise LayerRangeError(
            given=f"an SAE at layer {layer}", allowed=", ".join(map(str, layers)), advice="choose one of these"
        )
    return HERE / PLANTED / "sae" if name == PLANTED else HERE / "saes" / f"resid_post.{layer}"


def concepts(split: str = "trained") -> tuple[str, ...]:
    """Return concept words: those injected in training, those only talked about, or all, in the lexicon's order."""
    if split not in ("trained", "held_out", "all"):
        raise UnknownNameError(given=f"split {split!r}", allowed="trained, held_out, all", advice="choose one of these")
    entries = json.loads((DATA / "lexicon.json").read_text(encoding="utf-8"))["concepts"]
    return tuple(word for word, entry in entries.items() if split in ("all", entry["split"]))
