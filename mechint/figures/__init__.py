"""Plotly figures: tidy frames and arrays in, `Figure` out; no model is needed to draw or redraw any of them."""

from mechint.figures.calibration import calibration
from mechint.figures.dots import DotPanel, dots
from mechint.figures.files import save, save_all
from mechint.figures.grid import GridPanel, grid
from mechint.figures.heatmaps import HeatPanel, Scale, heatmaps
from mechint.figures.layers import LayerPanel, layer_curves
from mechint.figures.lens import lens_concepts, lens_overview
from mechint.figures.marks import mark_rows
from mechint.figures.plane import plane
from mechint.figures.saes import sae_quality
from mechint.figures.signed import SignedPanel, signed_curves
from mechint.figures.strengths import StrengthPanel, strength_curves
from mechint.figures.sweep import SweepPanel, lens_sweep
from mechint.figures.texts import TextCell, text_table, wrapped_table

__all__ = [
    "DotPanel",
    "GridPanel",
    "HeatPanel",
    "LayerPanel",
    "Scale",
    "SignedPanel",
    "StrengthPanel",
    "SweepPanel",
    "TextCell",
    "calibration",
    "dots",
    "grid",
    "heatmaps",
    "layer_curves",
    "lens_concepts",
    "lens_overview",
    "lens_sweep",
    "mark_rows",
    "plane",
    "sae_quality",
    "save",
    "save_all",
    "signed_curves",
    "strength_curves",
    "text_table",
    "wrapped_table",
]
