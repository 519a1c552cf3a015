"""Plotly figures: tidy frames and arrays in, `Figure` out; no model is needed to draw or redraw any of them."""

from mechint.figures.calibration import calibration
from mechint.figures.dots import DotPanel, dots
from mechint.figures.files import save, save_all
from mechint.figures.grid import GridPanel, grid
from mechint.figures.lens import lens_concepts, lens_overview
from mechint.figures.plane import plane
from mechint.figures.saes import sae_quality
from mechint.figures.sweep import SweepPanel, lens_sweep
from mechint.figures.text import text_table

__all__ = [
    "DotPanel",
    "GridPanel",
    "SweepPanel",
    "calibration",
    "dots",
    "grid",
    "lens_concepts",
    "lens_overview",
    "lens_sweep",
    "plane",
    "sae_quality",
    "save",
    "save_all",
    "text_table",
]
