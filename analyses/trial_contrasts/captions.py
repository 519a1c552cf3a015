"""What figures of contrasts say: counts, the judge, and titles that the scorecard carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mechint.figures.style import MINUS
from mechint.figures.words import counted

if TYPE_CHECKING:
    from analyses.trial_contrasts.material import Material

_MANY = 2  # contrasts, whose names would fill a title
_MARKED = "files kept that do not hold what they say"
AS_COUNTED = "As counted by the judge; refusals count as denials"


@dataclass(frozen=True)
class Words:
    """The title of a figure where nothing was declared, and what contrasts of its kind are shown to do, or not."""

    question: str
    effect: str
    nothing: str


WORDS = {
    "category": Words(
        "Does detection depend on what kind of concept was injected?",
        "Categories of concepts differ in {measure}",
        "No category of concepts is shown to differ from the others in {measure}",
    ),
    "prompt": Words(
        "What does a single change of the prompt do?",
        "Single changes of the prompt change {measure}",
        "No single change of the prompt is shown to change {measure}",
    ),
    "asymmetry": Words(
        "Do prompts act on one model as they do on another?",
        "What a prompt does to {measure} depends on the model",
        "No prompt is shown to act on one model otherwise than on another",
    ),
    "steer": Words(
        "Does it matter where steering acts?",
        "Where steering acts changes {measure}",
        "Where steering acts is not shown to change {measure}",
    ),
    "model": Words(
        "Do models differ in detection?",
        "Models differ in {measure}",
        "Models are not shown to differ in {measure}",
    ),
}
_MEASURES = {"net": "net detection", "hits": "the share of claims"}


def caption(material: Material, rows: pd.DataFrame | None = None) -> str:
    """Return the models, numbers of concepts and replies, controls, and the judge with its errors.

    They are those of `rows`, where a figure has some of the steered replies alone.
    """
    steered, facts = material.steered if rows is None else rows, material.facts
    names = [name for name in material.models if (steered["model"] == name).any()]
    clean = material.clean[material.clean["model"].isin(names)]
    models = f"{', '.join(names)}; " if len(names) <= 3 else f"{len(names)} models; "
    numbers = f"{counted(steered['concept'].nunique(), 'concept')} injected, {len(steered):,} replies; controls: "
    marked = sum(len(source.marked_files) for source in facts.sources)
    kept = f"; {marked} {_MARKED}" if marked else ""
    pilots = "".join(f"; {source.pilot}" for source in facts.sources if source.pilot)
    return f"{models}{numbers}{len(clean):,} clean replies; {facts.judge.caption}{kept}{pilots}"


def title(material: Material, kind: str) -> str:
    """Return what the declared contrasts of a kind carry: what is supported, that nothing is, or that none can be."""
    words, rows = WORDS[kind], material.verdicts(kind)
    if rows.empty:
        return f"{words.question} No contrast of it was declared"
    measures = set(rows["measure"])
    measure = _MEASURES.get(measures.pop(), "what was measured") if len(measures) == 1 else "what was measured"
    supported = rows[rows["verdict"] == "supported"]
    if len(supported):
        share = "" if len(supported) == len(rows) else f"{len(supported)} of {len(rows)} contrasts; "
        return f"{words.effect.format(measure=measure)}: {share}{_listed(supported)}"
    testable = rows[rows["verdict"] != "not testable"]
    if testable.empty:
        return f"{words.question} This design cannot test it: no p below {rows['smallest_p'].min():.2g}"
    if (untested := len(rows) - len(testable)) and len(testable):
        return f"{words.nothing.format(measure=measure)}; {untested} of {len(rows)} contrasts cannot be tested"
    return words.nothing.format(measure=measure)


def scorecard_title(scorecard: pd.DataFrame) -> str:
    """Return how many contrasts came to what."""
    counts = scorecard["verdict"].value_counts()
    texts = [f"{counts.get(name, 0)} {name}" for name in ("supported", "not supported", "not testable")]
    return f"Of {counted(len(scorecard), 'declared contrast')}: {', '.join(texts)}"


def points(value: float) -> str:
    """Return a difference of shares in percentage points, with its sign; with a digit more close to zero."""
    of_hundred = 100 * round(float(value), 12) + 0.0
    return f"{of_hundred:+.{1 if 0 < abs(of_hundred) < 1 else 0}f}".replace("-", MINUS)


def p_words(p: float) -> str:
    """Return a p for a table."""
    return "\N{EM DASH}" if np.isnan(p) else "<0.001" if p < 0.001 else f"{p:.2g}"


def _listed(rows: pd.DataFrame) -> str:
    """Return the largest effects by name, with their size."""
    order = rows.reindex(rows["value"].abs().sort_values(ascending=False, kind="stable").index)
    names = [f"{name} ({points(value)} points)" for name, value in zip(order["name"], order["value"], strict=True)]
    more = len(names) - _MANY
    return "; ".join(names) if more <= 0 else f"{'; '.join(names[:_MANY])}; and {more} more"
