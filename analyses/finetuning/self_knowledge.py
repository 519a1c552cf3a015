"""What models know of their own answers, odds and lengths, beside what knows nothing of them, as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING

from analyses.finetuning.looks import BASE_LOOK, caption, last_steps, measured, recipes_of, seed_looks, seed_name
from mechint.evals.subjects import BASE
from mechint.figures import Panel, dots
from mechint.figures.style import INK
from mechint.figures.words import signed

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from analyses.finetuning.options import Facts

_WHOLE = (-0.03, 1.03)
_OWN, _OTHERS = "its answers", "the base's answers"


@dataclass(frozen=True)
class _Shown:
    """A panel: of which parts of an evaluation it has which measure, by the second line of a row's name.

    `references` are other measures of the same parts, drawn as lines across rows, means over seeds, by what they are;
    `within` are ends of the axis, for measures that are to be seen on their whole scale.
    """

    panel: Panel
    measure: str
    parts: Mapping[str, str]
    references: Mapping[str, str]
    within: tuple[float, float] | None = None


_ANSWERS = (
    _Shown(
        Panel("by-self", "Foretold by itself", "accuracy, share of trials", references=()),
        "accuracy",
        {_OWN: "self by self", _OTHERS: "base by self"},
        {"baseline": "the commonest answer"},
        _WHOLE,
    ),
    _Shown(
        Panel("by-base", "Foretold by the base", "accuracy, share of trials", references=()),
        "accuracy",
        {_OWN: "self by base", _OTHERS: "base by base"},
        {"baseline": "the commonest answer"},
        _WHOLE,
    ),
    _Shown(Panel("advantage", "Itself beyond the base", "accuracy, difference"), "advantage", {_OWN: ""}, {}),
    _Shown(Panel("gain", "Itself beyond all", "accuracy, difference"), "gain", {_OWN: ""}, {}),
)
_REPORTS = {
    "js_uniform": "all answers as common",
    "js_base_actual": "what the base does",
    "js_other": "the base's own report",
}
_ODDS = (
    _Shown(
        Panel("choice", "Choices, closed", "JS, bits", references=()), "js", {"": "choice closed"}, _REPORTS, _WHOLE
    ),
    _Shown(Panel("verbal", "Lists, closed", "JS, bits", references=()), "js", {"": "verbal closed"}, _REPORTS, _WHOLE),
    _Shown(Panel("open", "Lists, open", "JS, bits", references=()), "js", {"": "verbal open"}, _REPORTS, _WHOLE),
    _Shown(Panel("gain", "Choices: gain", "bits nearer than the base's"), "gain", {"": "choice closed"}, {}),
    _Shown(
        Panel("failure", "Closed: unreadable", "share of lists", references=()),
        "failure",
        {"": "verbal closed"},
        {},
        _WHOLE,
    ),
)
_GUESSES = (
    _Shown(
        Panel("error", "Guesses of length: error", "words", references=(0.0,)),
        "error",
        {"": "length"},
        {"error_constant": "one guess for all: the median, the commonest word", "error_base": "the base's guesses"},
    ),
    _Shown(Panel("gain", "Nearer than either", "words"), "gain", {"": "length"}, {}),
    _Shown(Panel("spearman", "Order of lengths", "rank correlation"), "spearman", {"": "length"}, {}),
    _Shown(
        Panel("word", "First word guessed", "share of replies", references=()),
        "accuracy",
        {"": "first-word"},
        {"baseline": "one guess for all: the median, the commonest word", "accuracy_base": "the base's guesses"},
    ),
)
_DASHES = ("dash", "dot", "dashdot")


def answers(units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return who foretells whose answers, with the commonest answer as a line; a dot for each seed."""
    last = last_steps(units[units["evaluation"] == "self_prediction"])
    silent = _below(last, "compliance", 0.5)
    return _drawn(
        last,
        _ANSWERS,
        surely(last, "", "gain", "foretells its own answers beyond the base, the commonest answer and the text"),
        f"{caption(last, facts)}. Bars: 95% over questions. Rows: whose answers; the first two panels: who foretells "
        "them. All: the base, the commonest answer, and a classifier that has the question's text alone"
        f"{silent}",
        (_OWN, _OTHERS),
    )


def odds(units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return how far reports of own odds are from what is done, with what knows nothing of them as lines."""
    last = last_steps(units[units["evaluation"] == "calibration"])
    return _drawn(
        last,
        _ODDS,
        surely(last, "choice closed", "gain", "reports its own odds better than the base's report does", " bits"),
        f"{caption(last, facts)}. JS: divergence (Jensen, Shannon) of what is reported, in lists or in choices between "
        "two, from what is done; 0 is the same, 1 another altogether. Gain: JS of the base's report, less that of its "
        "own. Bars: 95% over requests. Unreadable lists have no dot",
        ("",),
    )


def guesses(units: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return how well lengths and first words of replies are guessed, with one guess for all as a line."""
    last = last_steps(units[units["evaluation"] == "lengths"])
    cut = _range(100 * measured(last, "lengths", "length", "censored")["value"], 0)
    return _drawn(
        last,
        _GUESSES,
        guesses_title(last),
        f"{caption(last, facts)}. Bars: 95% over prompts. Nearer than either: error of the better of the median and "
        f"the base, less its own. Cut off: {cut}% of replies; a guess above what was said "
        "of these is no error",
        ("",),
    )


def guesses_title(last: pd.DataFrame) -> str:
    """Return which recipes guess lengths better than by one number, and how large the errors of both are."""
    finding = surely(last, "length", "gain", "guesses its lengths better than the median and the base", " words")
    trained = last[last["trained_by"] != BASE]
    own = measured(trained, "lengths", "length", "error")["value"].dropna()
    constant = measured(trained, "lengths", "length", "error_constant")["value"].dropna()
    return f"{finding}. Errors {_range(own, 1)} words, of the median {_range(constant, 1)}" if len(own) else finding


def _range(values: pd.Series, digits: int) -> str:
    ends = [f"{value:.{digits}f}" for value in (values.min(), values.max())]
    return " to ".join(dict.fromkeys(ends))


def surely(last: pd.DataFrame, part: str, measure: str, does: str, unit: str = "") -> str:
    """Return of which recipes a measure is above 0 by every seed; of none, how large it might be all the same."""
    values = last[(last["part"] == part) & (last["measure"] == measure) & (last["trained_by"] != BASE)]
    bounded = values.dropna(subset=["low", "high"])
    if bounded.empty:
        return f"No recipe was read that {does}"
    low = bounded.groupby("trained_by", sort=False)["low"].min()
    names = [str(name).rpartition("/")[2] for name in low.index[low > 0]]
    if not names:
        return f"No recipe surely {does} (by {signed(float(bounded['high'].max()), 2)}{unit} at most)"
    return f"{does[0].upper()}{does[1:]}: {', '.join(names)}" if len(names) < len(low) else f"Each recipe {does}"


def _below(last: pd.DataFrame, measure: str, least: float) -> str:
    values = measured(last, "self_prediction", "", measure)
    low = [str(name) for name in dict.fromkeys(values.loc[values["value"] < least, "trained_by"])]
    return f". Would hardly say any of the values: {', '.join(low)}" if low else ""


def _drawn(last: pd.DataFrame, shown: Sequence[_Shown], title: str, subtitle: str, seconds: Sequence[str]) -> go.Figure:
    """Return the figure: rows are recipes, and within them `seconds`; panels in which nothing is are left out."""
    import pandas as pd

    recipes = [*recipes_of(last), *([BASE] if (last["trained_by"] == BASE).any() else [])]
    rows = [(name, second) for name in recipes for second in (seconds if name != BASE else seconds[:1])]
    parts = [_rows(last, each, part, second) for each in shown for second, part in each.parts.items()]
    table = pd.concat(parts, ignore_index=True).dropna(subset="mean")
    order = [_row(*row) for row in rows]
    table["row"] = pd.Categorical(table["row"], order, ordered=True)
    table = table.sort_values("row", kind="stable").astype({"row": str})
    used = [each for each in shown if (table["panel"] == each.panel.key).any()]
    looks = {**seed_looks(sorted({int(seed) for seed in last["seed"] if seed >= 0})), BASE: BASE_LOOK}
    figure = dots(
        table,
        pd.DataFrame(columns=["panel", "row", "series", "unit", "value"]),
        [each.panel for each in used],
        looks,
        title=title,
        subtitle=subtitle,
        packed=True,
        legend_lines=2,
    )
    drawn_rows = [row for row in rows if (table["row"] == _row(*row)).any()]
    dashes: dict[str, str] = {}
    for column, each in enumerate(used, start=1):
        figure.update_xaxes(range=each.within, row=1, col=column)
        for measure, label in each.references.items():
            dash = dashes.setdefault(label, _DASHES[len(dashes) % len(_DASHES)])
            values = [_reference(last, each, measure, row) for row in drawn_rows]
            is_first = label not in {trace.name for trace in figure.data}
            figure.add_trace(_lines(values, label, dash, legend=is_first), row=1, col=column)
    return figure.update_xaxes(nticks=5, tickangle=0)


def _rows(last: pd.DataFrame, shown: _Shown, part: str, second: str) -> pd.DataFrame:
    import pandas as pd

    chosen = last[(last["part"] == part) & (last["measure"] == shown.measure)]
    is_base = chosen["trained_by"] == BASE
    return pd.DataFrame(
        {
            "panel": shown.panel.key,
            "row": [_row(str(name), second) for name in chosen["trained_by"]],
            "series": chosen["seed"].map(seed_name).where(~is_base, BASE),
            "mean": chosen["value"],
            "low": chosen["low"].astype(float),
            "high": chosen["high"].astype(float),
        }
    )


def _row(name: str, second: str) -> str:
    return f"{name}<br>{second}" if second else name


def _reference(last: pd.DataFrame, shown: _Shown, measure: str, row: tuple[str, str]) -> float:
    """Return a reference of a recipe, a mean over seeds; NaN without any, which is no line."""
    name, second = row
    if second not in shown.parts:
        return float("nan")
    is_it = (last["part"] == shown.parts[second]) & (last["measure"] == measure) & (last["trained_by"] == name)
    return float(last[is_it]["value"].mean())


def _lines(values: Sequence[float], label: str, dash: str, *, legend: bool) -> go.Scatter:
    """Return a line across each row that has a value, the first row at the top."""
    import plotly.graph_objects as go

    places = [(value, len(values) - 1 - at) for at, value in enumerate(values) if not isnan(value)]
    return go.Scatter(
        x=[x for value, _ in places for x in (value, value, None)],
        y=[y for _, height in places for y in (height - 0.45, height + 0.45, None)],
        mode="lines",
        line={"color": INK, "width": 2, "dash": dash},
        name=label,
        legendgroup=label,
        showlegend=legend,
        hoverinfo="skip",
    )
