"""Plotly figures: tidy frames and arrays in, `Figure` out; no model is needed to draw or redraw any of them.

`mi.figures` is this package. It imports every floor but the making of the embedded models, and no analysis.
"""

from mechint.figures.calibration import calibration
from mechint.figures.curves import curves
from mechint.figures.dots import dots, mark_rows
from mechint.figures.feature_bars import feature_bars
from mechint.figures.feature_text import Speaker, TextFeature, feature_text
from mechint.figures.files import save, save_all
from mechint.figures.heatmaps import HeatPanel, Scale, frame, hatch, heatmap, line_words, sign_words
from mechint.figures.hits import hits_and_alarms
from mechint.figures.markup import literal
from mechint.figures.panels import Panel
from mechint.figures.plane import plane
from mechint.figures.saes import sae_quality
from mechint.figures.scatter import scatter
from mechint.figures.stacks import Hatch, stacks
from mechint.figures.texts import TextCell, text_table
from mechint.figures.tiles import Lattice, Line, TilePanel, tiles
from mechint.figures.verdicts import VERDICTS, sae_notice
from mechint.figures.waterfall import waterfall

__all__ = [
    "VERDICTS",
    "Hatch",
    "HeatPanel",
    "Lattice",
    "Line",
    "Panel",
    "Scale",
    "Speaker",
    "TextCell",
    "TextFeature",
    "TilePanel",
    "calibration",
    "curves",
    "dots",
    "feature_bars",
    "feature_text",
    "frame",
    "hatch",
    "heatmap",
    "hits_and_alarms",
    "line_words",
    "literal",
    "mark_rows",
    "plane",
    "sae_notice",
    "sae_quality",
    "save",
    "save_all",
    "scatter",
    "sign_words",
    "stacks",
    "text_table",
    "tiles",
    "waterfall",
]
