"""How series of trials are called and drawn in every figure of them."""

from __future__ import annotations

from mechint.figures.style import SERIES

SERIES_WORDS = {"clean": "clean", "random": "random vector", "injected": "concept injected"}
LOOKS = {name: SERIES[name] for name in ("clean", "injected", "random")}
CLASS_WORDS = {
    "incoherent": "cannot be read",
    "refuses": "refuses",
    "denies": "denies",
    "leaks": "denies, with the concept in it",
    "claims": "claims, names nothing",
    "names wrongly": "claims, names another",
    "names rightly": "claims, names the concept",
}
