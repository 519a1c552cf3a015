"""How well sparse autoencoders rebuild the residual stream, and how often their features are active."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mechint.base.signatures import checked
from mechint.figures.style import BLUE, MINUS, VERMILION, finish

_LOOKS = ((VERMILION, "solid"), (BLUE, "dash"))
_PANELS = ("Error of single tokens", "Activity of single features")


@checked
def sae_quality(
    error: Mapping[str, Sequence[float]], frequency: Mapping[str, Sequence[float]], *, title: str, subtitle: str
) -> go.Figure:
    """Return cumulative curves of |x - x'| / |x| over tokens, and of the share of tokens over features, by SAE.

    Features that are never active are left out of the second panel, which has a logarithmic axis; the subtitle should
    count them.
    """
    figure = make_subplots(rows=1, cols=2, subplot_titles=[f"<b>{panel}</b>" for panel in _PANELS])
    for (name, values), (color, dash) in zip(error.items(), _LOOKS, strict=False):
        line = {"color": color, "dash": dash, "width": 2.5}
        common = {"mode": "lines", "line": {**line, "shape": "hv"}, "name": name, "legendgroup": name}
        x, y = _cumulative(np.asarray(values))
        figure.add_trace(go.Scatter(x=x, y=y, **common), row=1, col=1)
        x, y = _cumulative(np.asarray([share for share in frequency[name] if share > 0]))
        figure.add_trace(go.Scatter(x=x, y=y, showlegend=False, **common), row=1, col=2)
    figure.update_xaxes(title=f"relative error |x {MINUS} x'| / |x|", rangemode="tozero", row=1, col=1)
    figure.update_xaxes(
        title="share of tokens on which a feature is active", type="log", tickformat=".2~%", row=1, col=2
    )
    figure.update_yaxes(title="share of tokens with less", tickformat=".0%", range=[0, 1.02], row=1, col=1)
    figure.update_yaxes(title="share of active features with less", tickformat=".0%", range=[0, 1.02], row=1, col=2)
    return finish(figure, title, subtitle, height=340, bottom=110)


def _cumulative(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ordered = np.sort(values)
    return ordered, np.arange(1, len(ordered) + 1) / len(ordered)
