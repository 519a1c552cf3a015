"""Numbers of the model-swap table: values by wording, control question or random vector, and what was detected."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.kit.dose import Dose
from mechint import stats
from mechint.figures.names import mapped
from mechint.figures.style import MINUS, layer_position
from mechint.stats import intervals

# What is drawn of a row: the answer of a control question, or what was done under an introspection question.
ANSWERS = {"no": "no", "confusing-no": "no", "yes": "yes"}
DRAWN = {"clean": "clean", "swapped": "question", "contrast": "question", "random": "random"}
VALUES = ("logit_diff", "logit_diff_shift", "p_yes")
# Series of the table, and what is drawn of them, that each part of the verdict is about.
PARTS = {
    "swap": ("swapped", ("question",)),
    "swap, controls": ("swapped", ("no", "yes")),
    "contrast": ("contrast", ("question",)),
    "contrast, controls": ("contrast", ("no", "yes")),
    "random": ("random", ("random",)),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as figures tell of it: the model that reads, the one that has filled, the contrast vector's usual dose.

    `remark` is what is to be said of the one that has filled, in brackets.
    """

    model: str
    finetuned: str
    dose: Dose
    remark: str = ""

    def strength(self, value: float) -> str:
        """Return a strength with its sign and unit."""
        unit = " x median |residual|" if self.dose.is_relative else ""
        return f"{value:+g}{unit}".replace("-", MINUS)


def by_unit(table: pd.DataFrame) -> pd.DataFrame:
    """Return series, info, condition, strength (NaN: swap), layer, unit, and the values of each.

    The unit is the wording of an introspection question, a control question (mean over formats), a random vector (mean
    over wordings and both signs, as a random direction has none). Controls are those to be answered with yes or no.
    """
    introspection, random = table["kind"] == "introspection", table["series"] == "random"
    worded = (table["description"] + " " + table["format"]).where(table["description"] != "", table["conversation"])
    unit = worded.where(introspection, table["question"]).where(~random, table["unit"])
    series = table["group"].map(ANSWERS).where(~introspection, mapped(table["series"], DRAWN, "series"))
    rows = table.assign(unit=unit, condition=table["series"], series=series, strength=pd.to_numeric(table["strength"]))
    rows = rows[rows["series"].notna()]
    parts = [_averaged(rows[rows["condition"] != "random"])]
    unsigned = rows[rows["condition"] == "random"]
    for strength in dict.fromkeys(unsigned["strength"]):
        both = unsigned[unsigned["strength"].abs() == abs(strength)]
        parts.append(_averaged(both.assign(strength=strength)))
    return pd.concat(parts, ignore_index=True)


def _averaged(rows: pd.DataFrame) -> pd.DataFrame:
    keys = ["series", "info", "condition", "strength", "layer", "unit"]
    return pd.concat([stats.strict_means(rows, keys, name) for name in VALUES], axis=1).reset_index()


def at_output(units: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last layer, which is the model's own output."""
    return units[units["layer"] == max(units["layer"], key=layer_position)]


def usual_strength(units: pd.DataFrame, dose: Dose) -> float:
    """Return the strength above zero that is nearest to the usual dose."""
    above = sorted(amount for amount in set(units["strength"]) if amount > 0)
    return float(min(above, key=lambda amount: abs(amount - dose.amount)))


def verdict(units: pd.DataFrame, dose: Dose) -> dict[str, dict[str, dict[str, float]]]:
    """Return shifts of logit_diff at the output by info document: of swap, contrast and random vectors, and controls.

    The vectors are those of the usual dose. "swap minus controls" has its interval over wordings and over control
    questions, drawn independently.
    """
    last, usual = at_output(units), usual_strength(units, dose)
    usually = last[last["strength"].isna() | (last["strength"] == usual)]
    return {str(info): _verdict(usually[usually["info"] == info]) for info in dict.fromkeys(last["info"])}


def _verdict(units: pd.DataFrame) -> dict[str, dict[str, float]]:
    parts = {name: _shifts(units, condition, series) for name, (condition, series) in PARTS.items()}
    summary = {name: intervals.mean_interval(values) for name, values in parts.items() if len(values)}
    if len(parts["swap, controls"]):
        summary["swap minus controls"] = intervals.difference_interval(parts["swap"], parts["swap, controls"])
    return {
        name: {
            "mean": float(interval.mean),
            "low": float(interval.low),
            "high": float(interval.high),
            "units": interval.n,
        }
        for name, interval in summary.items()
    }


def _shifts(units: pd.DataFrame, condition: str, series: Sequence[str]) -> Float[np.ndarray, " units"]:
    rows = units[(units["condition"] == condition) & units["series"].isin(series)]
    return np.asarray(rows["logit_diff_shift"], dtype=np.float64)
