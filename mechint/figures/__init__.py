"""Plotly figures: tidy frames and arrays in, `Figure` out; no model is needed to draw or redraw any of them.

`mi.figures` is this package. It imports every floor but the making of the embedded models, and no analysis.
"""

from mechint.figures.calibration import calibration
from mechint.figures.cause_curves import cause_curves
from mechint.figures.dots import DotPanel, dots
from mechint.figures.feature_bars import feature_bars
from mechint.figures.feature_scatter import attribution_scatter, discrimination_scatter
from mechint.figures.feature_text import Speaker, TextFeature, feature_text
from mechint.figures.files import save, save_all
from mechint.figures.grid import GridPanel, grid
from mechint.figures.heatmaps import HeatPanel, Scale, heatmaps
from mechint.figures.layers import LayerPanel, layer_curves
from mechint.figures.lens import lens_concepts, lens_overview
from mechint.figures.marks import mark_rows
from mechint.figures.markup import literal
from mechint.figures.plane import plane
from mechint.figures.saes import sae_quality
from mechint.figures.signed import SignedPanel, signed_curves
from mechint.figures.strengths import StrengthPanel, strength_curves
from mechint.figures.sweep import SweepPanel, lens_sweep
from mechint.figures.texts import TextCell, text_table, wrapped_table
from mechint.figures.tiles import Lattice, Line, TilePanel, tiles
from mechint.figures.verdicts import VERDICTS, sae_notice
from mechint.figures.waterfall import waterfall

__all__ = [
    "VERDICTS",
    "DotPanel",
    "GridPanel",
    "HeatPanel",
    "Lattice",
    "LayerPanel",
    "Line",
    "Scale",
    "SignedPanel",
    "Speaker",
    "StrengthPanel",
    "SweepPanel",
    "TextCell",
    "TextFeature",
    "TilePanel",
    "attribution_scatter",
    "calibration",
    "cause_curves",
    "discrimination_scatter",
    "dots",
    "feature_bars",
    "feature_text",
    "grid",
    "heatmaps",
    "layer_curves",
    "lens_concepts",
    "lens_overview",
    "lens_sweep",
    "literal",
    "mark_rows",
    "plane",
    "sae_notice",
    "sae_quality",
    "save",
    "save_all",
    "signed_curves",
    "strength_curves",
    "text_table",
    "tiles",
    "waterfall",
    "wrapped_table",
]
