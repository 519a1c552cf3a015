"""Figures as JSON that people can read, with nothing in it that a browser could not draw."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import plotly.graph_objects as go

from mechint.figures.markup import drawable
from mechint.figures.rounding import remove_noise, six_digits

# What models say may hold characters that no picture may: they are shown as the symbols that stand for them.
_UNDRAWABLE = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n\r"} | {0x7F: 0x2421}
_UNDRAWABLE |= dict.fromkeys([*range(0xD800, 0xE000), 0xFFFE, 0xFFFF], 0xFFFD)


def readable_json(figure: go.Figure) -> str:
    """Return a figure as JSON, one line for each trace, its numbers rounded: small, and readable as a diff."""
    written = go.Figure(figure).to_json()
    content = _printable(json.loads(written, object_hook=_decoded, parse_float=lambda text: six_digits(float(text))))
    assert isinstance(content, dict)
    remove_noise(content["data"], content["layout"])
    rows = ",\n".join(json.dumps(trace, ensure_ascii=False) for trace in content["data"])
    layout = json.dumps(content["layout"], ensure_ascii=False)
    return f'{{"data": [\n{rows}\n],\n"layout": {layout}}}\n'


def _decoded(value: dict[str, object]) -> object:
    """Return an array that Plotly has packed as bytes as the list that it stands for."""
    if set(value) - {"shape"} != {"dtype", "bdata"}:
        return value
    array = np.frombuffer(base64.b64decode(str(value["bdata"])), dtype=np.dtype(str(value["dtype"])))
    if "shape" in value:
        array = array.reshape([int(size) for size in str(value["shape"]).split(",")])
    return _rounded(array.tolist())


def _rounded(value: object) -> object:
    """Return numbers, in lists or alone, with six digits; what is no number is null, as in all of Plotly's JSON."""
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return six_digits(value) if math.isfinite(value) else None
    return value


def _printable(value: object) -> object:
    """Return the same with all characters drawable and no markup but a figure's own, wherever a text stands."""
    if isinstance(value, str):
        return drawable(value).translate(_UNDRAWABLE)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    return value
