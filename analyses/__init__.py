"""One module per question: frozen Config -> compute() -> table -> figures(). `python -m analyses` lists them."""

from __future__ import annotations

ANALYSES = ("logit_lens",)
