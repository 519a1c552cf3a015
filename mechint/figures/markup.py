"""Texts of users and models in figures: shown to the letter, whatever Plotly would take for markup in them.

Plotly reads a little HTML in every text: `<b>` is bold, `<a href=...>` a link, an unknown tag vanishes. A figure's own
words may use the few tags of `OWN_TAGS`; names, labels and replies that come from elsewhere may use none. They are
taken in by `literal`, which puts stand-ins of one character for what could be markup, so that texts keep their lengths
and can still be compared; `drawable` writes these as the entities that Plotly shows as the characters themselves:

    literal("<b>cats</b>")               # a text without any tag
    drawable("<b>" + literal("<x>"))     # "<b>&lt;x&gt;"
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go

OWN_TAGS = ("b", "i", "br", "sub", "sup", "extra")

# Private-use characters, which no font has and no text needs; `%` only where it would begin a value of a hover text.
_STAND_INS = {"<": "\ue3c1", ">": "\ue3c2", "&": "\ue3c3", "%{": "\ue3c4{"}
_ENTITIES = {"\ue3c1": "&lt;", "\ue3c2": "&gt;", "\ue3c3": "&amp;", "\ue3c4": "&#37;"}
_FOREIGN_TAG = re.compile(rf"<(?!/?(?:{'|'.join(OWN_TAGS)})>)")

Value = TypeVar("Value")


def literal(value: Value) -> Value:
    """Return texts, wherever they stand in `value`, with stand-ins for what Plotly would read as markup.

    `value` is a text, mappings, lists and tuples of texts, a table (its columns, index and their names), or a dataclass
    of these; anything else is returned as it is.
    """
    return _literal(value)  # type: ignore[return-value]


def drawable(text: str) -> str:
    """Return a text for Plotly: stand-ins as entities, and no tag but a figure's own."""
    for stand_in, entity in _ENTITIES.items():
        text = text.replace(stand_in, entity)
    return _FOREIGN_TAG.sub("&lt;", text)


def drawable_figure(figure: go.Figure) -> go.Figure:
    """Return a figure with every text drawable, for where it is shown without being written to a file."""
    traces = [_drawable(trace.to_plotly_json()) for trace in figure.data]
    return go.Figure({"data": traces, "layout": _drawable(figure.layout.to_plotly_json())})


class DrawableFigures(Mapping[str, go.Figure]):
    """Figures by name, each made drawable when it is first looked at: a run that writes files looks at none."""

    def __init__(self, figures: Mapping[str, go.Figure]) -> None:
        self._figures, self._drawable = dict(figures), dict[str, go.Figure]()

    def __getitem__(self, name: str) -> go.Figure:
        if name not in self._drawable:
            self._drawable[name] = drawable_figure(self._figures[name])
        return self._drawable[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)


def plain(value: object) -> object:
    """Return what `literal` has taken in, in mappings, lists and tuples, as it was."""
    return _each_text(value, _plain_text)


def _drawable(value: object) -> object:
    return _each_text(value, drawable)


def _each_text(value: object, change: Callable[[str], str]) -> object:
    """Return mappings, lists, tuples, arrays and dataclasses with each text changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_each_text(key, change): _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_each_text(item, change) for item in value)
    if isinstance(value, np.ndarray) and value.dtype == object:
        return np.array([_each_text(item, change) for item in value.ravel()], dtype=object).reshape(value.shape)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(value, **{name: _each_text(getattr(value, name), change) for name in names})
    return value


def _plain_text(text: str) -> str:
    for markup, stand_in in _STAND_INS.items():
        text = text.replace(stand_in, markup)
    return text


def _literal(value: object) -> object:
    if isinstance(value, pd.DataFrame):
        return _literal_table(value)
    return _each_text(value, _literal_text)


def _literal_text(text: str) -> str:
    for markup, stand_in in _STAND_INS.items():
        text = text.replace(markup, stand_in)
    return text


def _literal_table(table: pd.DataFrame) -> pd.DataFrame:
    texts = {name: _literal_column(table[name]) for name in table.columns if not _is_number(table[name])}
    return table.assign(**texts).rename(columns=_literal_key, index=_literal_key)


def _literal_column(column: pd.Series) -> pd.Series:
    """Return a column with each text changed; a category stays one."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.rename_categories(_literal_key)
    return column.map(_literal_key)


def _literal_key(key: object) -> object:
    return _literal_text(key) if isinstance(key, str) else key


def _is_number(column: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column))  # which truth values are, too
