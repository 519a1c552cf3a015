"""Plotly figures: tidy frames and arrays in, `Figure` out; no model is needed to draw or redraw any of them."""

from mechint.figures.calibration import calibration
from mechint.figures.files import save, save_all
from mechint.figures.lens import lens_concepts, lens_overview
from mechint.figures.saes import sae_quality
from mechint.figures.sweep import SweepPanel, lens_sweep

__all__ = [
    "SweepPanel",
    "calibration",
    "lens_concepts",
    "lens_overview",
    "lens_sweep",
    "sae_quality",
    "save",
    "save_all",
]
