"""Where features are active: a conversation's tokens in lines, shaded by activation, clean above injected."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.colors import sample_colorscale

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.figures.heatmaps import SEQUENTIAL
from mechint.figures.markup import plain
from mechint.figures.style import INK, WIDTH, finish
from mechint.figures.texts import text_width

_RIGHT = 100  # pixels for the colour bar
_EDGE = 12.0  # pixels
_ROW, _PAIR_GAP, _HEAD, _BLOCK_GAP = 20.0, 7.0, 30.0, 16.0  # pixels
_TITLES = 30  # pixels that other figures have for the titles of panels
_PADDING, _SMALLEST, _LONGEST = 6.0, 14.0, 12  # pixels around a token, its least width; characters of a special token
_DARK = 0.55  # share of the scale from which text is white
_SPECIAL = re.compile(r"<[^<>\s]*[^<>\s\d][^<>\s]*>")
_SHORT = {"\n": "↵", "\t": "⇥"}


@checked
@dataclass(frozen=True)
class TextFeature:
    """One feature: its name (with whatever is to be said of it) and its activations by run, one for each token.

    NaN is a token at which the feature was not read.
    """

    name: str
    acts: Mapping[str, Float[np.ndarray, " pos"]]


@checked
@dataclass(frozen=True)
class Speaker:
    """Who speaks from token `start` to `stop`, e.g. "user, injected"."""

    name: str
    start: int
    stop: int


@checked
def feature_text(
    tokens: Sequence[str], speakers: Sequence[Speaker], features: Sequence[TextFeature], *, title: str, subtitle: str
) -> go.Figure:
    """Return the figure: for every feature the text, each line once for each run, runs one above the other.

    Messages begin on lines of their own. Shades are relative to the feature's largest activation here, which stands
    beside its name. Special tokens are shortened. Raises UsageError for no tokens or features, and for lengths that
    differ.
    """
    _check(tokens, speakers, features)
    texts = [_written(token) for token in tokens]
    left = _left(speakers, features)
    lines = _lines(texts, speakers, WIDTH - left - _RIGHT)
    page, top = _Page(left), 0.0
    for feature in features:
        top = page.add(feature, texts, lines, top) + _BLOCK_GAP
    figure = go.Figure([*page.bars(), _scale_alone()])
    figure.update_layout(
        annotations=page.notes,
        barmode="overlay",
        showlegend=False,
        coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": _COLORBAR},
    )
    height = round(top - _BLOCK_GAP)
    done = finish(figure, title, subtitle, height=height, bottom=20, right=_RIGHT)
    # Notes outside of the axes would not be drawn.
    done.update_xaxes(range=[-left, WIDTH - left - _RIGHT], visible=False)
    done.update_yaxes(range=[height, 0], visible=False)
    above = int(done.layout.margin.t) - _TITLES
    whole = int(done.layout.height) - _TITLES
    return done.update_layout(margin={"l": 0, "t": above}, height=whole)


def _scale_alone() -> go.Scatter:
    """Return a trace that draws nothing but the colour bar."""
    marker = {"color": [0], "coloraxis": "coloraxis"}
    return go.Scatter(x=[None], y=[None], mode="markers", marker=marker, hoverinfo="skip")


_COLORBAR = {
    "title": {"text": "share of the largest activation", "side": "right", "font": {"size": 13}},
    "thickness": 14,
    "outlinewidth": 1,
    "len": 240,
    "lenmode": "pixels",
    "y": 1,
    "yanchor": "top",
    "x": 1.0,
    "tickformat": ".0%",
}


@dataclass(frozen=True)
class _Token:
    """Token number `at` begins at pixel `left` of its line."""

    at: int
    left: float
    width: float


@dataclass(frozen=True)
class _Line:
    """Tokens of one line; `speaker` is named where a message begins."""

    speaker: str
    tokens: Sequence[_Token]


@dataclass
class _Page:
    """Bars and notes as they are placed, from the top down; text begins `left` pixels from the edge."""

    left: float
    places: list[tuple[float, float, float]] = field(default_factory=list)  # left, width, middle
    texts: list[str] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    hovers: list[str] = field(default_factory=list)
    notes: list[dict[str, object]] = field(default_factory=list)

    def add(self, feature: TextFeature, texts: Sequence[str], lines: Sequence[_Line], top: float) -> float:
        """Place one feature's text below `top`; returns where it ends."""
        largest = max((float(np.nanmax(acts, initial=0.0)) for acts in feature.acts.values()), default=0.0)
        heading = f"<b>{html.escape(feature.name)}</b>   largest activation {largest:.3g}"
        self._note(heading, _EDGE - self.left, top + 12, size=14)
        top += _HEAD
        for line in lines:
            if line.speaker:
                self._note(f"<b>{html.escape(line.speaker)}</b>", _EDGE - self.left, top + _ROW / 2)
            for run, acts in feature.acts.items():
                self._note(html.escape(run), -8.0, top + _ROW / 2, anchor="right")
                for token in line.tokens:
                    self._place(token, texts[token.at], float(acts[token.at]), largest, run, top + _ROW / 2)
                top += _ROW
            top += _PAIR_GAP
        return top

    def bars(self) -> list[go.Bar]:
        """Return all tokens as two traces: those with an activation, and those at which nothing was read."""
        read = ~np.isnan(self.shares)
        return [
            self._bar(np.flatnonzero(mask), is_read) for mask, is_read in ((read, True), (~read, False)) if mask.any()
        ]

    def _bar(self, chosen: np.ndarray, is_read: bool) -> go.Bar:
        left, width, middle = np.array(self.places)[chosen].T
        shares = np.array(self.shares)[chosen]
        ink = np.where(shares > _DARK, "#FFFFFF", INK).tolist() if is_read else "#888888"
        line = {"width": 0.5, "color": "#BBBBBB"}
        # Colours themselves: bars with text know no colour axis, and complain to the browser for every token.
        color = {
            "color": sample_colorscale([list(stop) for stop in SEQUENTIAL], np.clip(shares, 0, 1))
            if is_read
            else "#F4F4F4"
        }
        return go.Bar(
            x=width,
            base=left,
            y=middle,
            width=_ROW - 2,
            orientation="h",
            marker={**color, "line": line},
            text=[self.texts[at] for at in chosen],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            constraintext="none",
            insidetextfont={"size": 12, "color": ink},
            hoverinfo="text",
            hovertext=[self.hovers[at] for at in chosen],
            customdata=shares,
        )

    def _place(self, token: _Token, text: str, act: float, largest: float, run: str, middle: float) -> None:
        self.places.append((token.left, token.width, middle))
        self.texts.append(html.escape(text, quote=False))
        self.shares.append(act / largest if largest > 0 else act)
        reading = "not read" if np.isnan(act) else f"{act:.4g}"
        self.hovers.append(f"{run}, token {token.at}: {reading}")

    def _note(self, text: str, x: float, y: float, *, size: int = 12, anchor: str = "left") -> None:
        self.notes.append(
            {"text": text, "x": x, "y": y, "xref": "x", "yref": "y", "xanchor": anchor, "showarrow": False}
            | {"font": {"size": size, "color": INK}, "align": "left"}
        )


def _check(tokens: Sequence[str], speakers: Sequence[Speaker], features: Sequence[TextFeature]) -> None:
    lengths = {len(acts) for feature in features for acts in feature.acts.values()}
    if not tokens or lengths != {len(tokens)}:
        raise UsageError(
            given=f"{len(tokens)} tokens, activations of length {', '.join(map(str, sorted(lengths))) or 'none'}",
            allowed="one token or more, one feature or more, an activation for each token",
            advice="give all the same positions",
        )
    covered = [at for speaker in speakers for at in range(speaker.start, speaker.stop)]
    if covered != list(range(len(tokens))):
        raise UsageError("speakers that leave tokens out", f"0:{len(tokens)}, each token once", "check their spans")


def _written(token: str) -> str:
    """Return a token as it is written: special ones shortened, line breaks visible."""
    # Its brackets may be the stand-ins of a text that was taken in as literal.
    bare = str(plain(token)).strip()
    if _SPECIAL.fullmatch(bare):
        inner = bare.strip("<>|")
        return f"[{inner if len(inner) <= _LONGEST else inner[: _LONGEST - 1] + '…'}]"
    return "".join(_SHORT.get(letter, letter) for letter in token).strip(" ") or "␣"


def _left(speakers: Sequence[Speaker], features: Sequence[TextFeature]) -> float:
    """Return the room beside the text: for who speaks (in bold), and for which run it is."""
    names, runs = [speaker.name for speaker in speakers], [run for feature in features for run in feature.acts]
    widest = 1.15 * max(map(text_width, names), default=0.0) + max(map(text_width, runs))
    return _EDGE + 25 + widest


def _lines(texts: Sequence[str], speakers: Sequence[Speaker], room: float) -> list[_Line]:
    """Return tokens in lines of `room` pixels; every speaker begins a line."""
    lines = []
    for speaker in speakers:
        line: list[_Token] = []
        name, left = speaker.name, 0.0
        for at in range(speaker.start, speaker.stop):
            width = min(max(text_width(texts[at]) + _PADDING, _SMALLEST), room)
            if line and left + width > room:
                lines.append(_Line(name, line))
                line, name, left = [], "", 0.0
            line.append(_Token(at, left, width))
            left += width
        if line:
            lines.append(_Line(name, line))
    return lines
