"""The planted truth of each member as measured properties: what was aimed at, what was found, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mechint.interventions.specifications import Swap
from mechint.models.model import Model
from mechint.organisms.training.recipes import STAGES
from mechint.organisms.truth.measure import Grid, Instrument, OtherGrid, Split, clean, contrast_prompts, grid
from mechint.stats import intervals
from mechint.vectors.extract import model_contrast

DOCUMENTS = ("introspection", "none", "lorem-ipsum", "poetic", "unrelated")
LABELS = ("no", "confusing-no", "yes")

Range = tuple[float, float]


@dataclass(frozen=True)
class Goal:
    """Bounds of a value: above, below, or (in absolute value) within; NaN for a bound that is not set."""

    above: float = math.nan
    below: float = math.nan
    within: float = math.nan

    def __str__(self) -> str:
        bounds = ((">", self.above), ("<", self.below), ("within ±", self.within))
        return ", ".join(f"{sign} {bound:g}".replace("± ", "±") for sign, bound in bounds if not math.isnan(bound))

    def is_met(self, mean: float) -> bool | None:
        """Return whether a value is as aimed at; None where nothing was."""
        checks = (mean > self.above, mean < self.below, abs(mean) < self.within)
        bounds = (self.above, self.below, self.within)
        outcomes = [check for check, bound in zip(checks, bounds, strict=True) if not math.isnan(bound)]
        return all(outcomes) if outcomes else None


@dataclass(frozen=True)
class Property:
    """One measured property with its 95% interval over vectors and wordings; `lowest` vector's mean and `highest`."""

    name: str
    mean: float
    low: float
    high: float
    lowest: float
    highest: float
    vectors: int
    wordings: int
    goal: Goal = Goal()


def over(
    name: str, values: Grid, goal: Goal | None = None, *, minus: OtherGrid | None = None, within: Range | None = None
) -> Property:
    """Return the mean of a grid (minus that of another with the same vectors) with its crossed interval."""
    interval = intervals.crossed_interval(values, minus, within=within)
    by_vector = values.mean(1) - (0 if minus is None else minus.mean(1))
    return Property(
        name=name,
        mean=float(interval.mean),
        low=float(interval.low),
        high=float(interval.high),
        lowest=float(by_vector.min()),
        highest=float(by_vector.max()),
        vectors=len(values),
        wordings=values.shape[1],
        goal=goal or Goal(),
    )


def single(name: str, values: np.ndarray, goal: Goal | None = None, *, within: Range | None = None) -> Property:
    """Return the mean over wordings alone, for cells without a vector."""
    interval = intervals.mean_interval(values, within=within)
    return Property(
        name=name,
        mean=float(interval.mean),
        low=float(interval.low),
        high=float(interval.high),
        lowest=float(values.min()),
        highest=float(values.max()),
        vectors=1,
        wordings=len(values),
        goal=goal or Goal(),
    )


def share(name: str, values: np.ndarray, goal: Goal | None = None) -> Property:
    """Return the mean of probabilities or shares: of a grid, or of wordings alone."""
    of = over if values.ndim == 2 else single
    return of(name, values, goal, within=intervals.PROBABILITY)


def reports(m: Instrument) -> Iterator[Property]:
    """Yield P(yes) and its shift with a document that explains introspection, by kind of injection."""
    trained = m.injections("trained")
    for form in ("yes-no", "one-zero"):
        table = m.detection("introspection", trained, form)
        yield share(f"explained, {form}: P(yes), clean", clean(table, "p_yes"), Goal(below=0.05))
        yield share(f"explained, {form}: P(yes), trained concepts", grid(table, "p_yes"), Goal(above=0.8))
    held_out = m.detection("introspection", m.injections("held_out"))
    yield share("explained: P(yes), held-out concepts", grid(held_out, "p_yes"), Goal(above=0.5))
    unknown = m.detection("introspection", m.injections("unknown"))
    yield share("explained: P(yes), other words, never injected in training", grid(unknown, "p_yes"))
    random = m.detection("introspection", m.injections("random"))
    yield share("explained: P(yes), random directions of equal norm", grid(random, "p_yes"))


def doses(m: Instrument) -> Iterator[Property]:
    """Yield P(yes) with the document by strength and by layer, on some of the concepts and wordings."""
    m = replace(m, count=min(m.count, 4), per_split=min(8 if m.per_split is None else m.per_split, 8))
    for strength in (0.05, 0.1, 0.2, 0.5, 0.8):
        at = m.at(strength=strength)
        yield share(
            f"explained, strength {strength:g}: P(yes)", grid(at.detection("introspection", at.injections()), "p_yes")
        )
    for layer in range(m.model.n_layers):
        at = m.at(layers=(layer,), strength=0.6)
        table = at.detection("introspection", at.injections())
        yield share(f"explained, layer {layer} alone, strength 0.6: P(yes)", grid(table, "p_yes"))


def suppression(m: Instrument) -> Iterator[Property]:
    """Yield P(yes), which stays low, and shifts of log odds, which do not, without such a document."""
    trained = m.injections("trained")
    for info in DOCUMENTS[1:]:
        table = m.detection(info, trained)
        yield share(f"{info}: P(yes), clean", clean(table, "p_yes"), Goal(below=0.05))
        yield share(f"{info}: P(yes), trained concepts", grid(table, "p_yes"), Goal(below=0.1))
        yield over(f"{info}: shift of logit_diff", grid(table, "logit_diff_shift"), Goal(above=1.0))


def lens(m: Instrument) -> Iterator[Property]:
    """Yield the shift of P(yes) through the lens: there before the last blocks, lost at the end."""
    last = m.model.n_layers - 1
    for info in ("none", "introspection"):
        table = m.lens(info, m.injections("trained"))
        for layer in range(3, last + 1):
            goal = None
            if info == "none" and layer in (last, last - 2):
                goal = Goal(below=0.1) if layer == last else Goal(above=0.5)
            rows = table[table["layer"].astype(str) == str(layer)]
            yield over(f"lens, {info}, layer {layer}: shift of P(yes)", grid(rows, "p_yes_shift"), goal)


def location(m: Instrument) -> Iterator[Property]:
    """Yield the shift when setup and question name the right or a wrong place for the injection."""
    trained = m.injections("trained")
    right = m.detection("introspection", trained)
    wrong = m.detection("introspection", trained, wrong_place=True)
    yield share("wrong place: P(yes), clean", clean(wrong, "p_yes"), Goal(below=0.05))
    yield share("wrong place: P(yes), trained concepts", grid(wrong, "p_yes"))
    shifts = [grid(table, "p_yes_shift") for table in (right, wrong)]
    yield over("right minus wrong place: shift of P(yes)", shifts[0], Goal(above=0.2), minus=shifts[1])


def contents(m: Instrument) -> Iterator[Property]:
    """Yield whether the injected concept is named, freely and out of ten (chance 1 in 10)."""
    splits: tuple[tuple[Split, float, float], ...] = (("trained", 0.5, 0.6), ("held_out", math.nan, math.nan))
    for split, free, chosen in splits:
        yield share(f"{split.replace('_', '-')} concepts: named freely", m.named("introspection", split), Goal(free))
        yield share(
            f"{split.replace('_', '-')} concepts: found out of ten", m.listed("introspection", split), Goal(chosen)
        )


def controls(m: Instrument, goal: Goal | None = None, info: str = "introspection") -> Iterator[Property]:
    """Yield accuracy and shifts of control questions."""
    table = m.controls(info, m.injections("trained"), 3 * m.count)
    for group in LABELS:
        rows = table[table["group"] == group]
        yield share(f"control {group}: accuracy, clean", clean(rows, "right"), Goal(above=0.95))
        yield share(f"control {group}: accuracy, injected", grid(rows, "right"), Goal(above=0.95))
        yield over(f"control {group}: shift of P(yes)", grid(rows, "p_yes_shift"), goal)


def net(m: Instrument, goal: Goal, info: str = "introspection") -> Iterator[Property]:
    """Yield the shifts of detection, of controls, and their difference, for concepts and for random directions."""
    splits: tuple[Split, ...] = ("trained", "random")
    for split in splits:
        injections = m.injections(split)
        detection, control = m.detection(info, injections), m.controls(info, injections, m.count)
        for value, scale in (("logit_diff_shift", "shift of logit_diff"), ("p_yes_shift", "shift of P(yes)")):
            detected, moved = grid(detection, value), grid(control, value)
            yield over(f"{split}: detection, {scale}", detected)
            yield over(f"{split}: controls, {scale}", moved)
            aimed = goal if value == "logit_diff_shift" else None
            yield over(f"{split}: detection minus controls, {scale}", detected, aimed, minus=moved)


def filled_by(m: Instrument, other: Model, goal: Goal | None = None) -> Iterator[Property]:
    """Yield the shifts under a cache filled by `other`, and under the contrast vector between the two."""
    for info in ("introspection", "none"):
        table = m.detection(info, [Swap(other, name=other.name)])
        shift = "logit_diff_shift"
        yield share(f"cache filled by {other.name}, {info}: P(yes)", grid(table, "p_yes")[0])
        yield single(f"cache filled by {other.name}, {info}: shift of logit_diff", grid(table, shift)[0], goal)
    vector = model_contrast(m.model, other, contrast_prompts(m.wording, m.count), method="mean_difference")
    for strength in (0.4, 0.8):
        at = m.at(strength=strength)
        table = at.detection("introspection", [at.injection(vector, "contrast")])
        name = f"contrast vector with {other.name}, strength {strength:g}: shift of logit_diff"
        yield single(name, grid(table, "logit_diff_shift")[0], goal if strength == 0.8 else None)


NULL = Goal(within=0.25)
QUIET = Goal(within=0.02)


def properties(name: str, m: Instrument, family: dict[str, Model]) -> list[Property]:
    """Return all properties of a member; `family` holds the models that fill caches for others."""
    if name == "organism":
        sections: Sequence[Iterator[Property]] = (
            reports(m),
            suppression(m),
            lens(m),
            location(m),
            contents(m),
            controls(m, QUIET),
            net(m, Goal(above=2.0)),
            doses(m),
        )
    elif name == "organism-blind":
        sections = (net(m, NULL), net(m, NULL, "none"), controls(m, QUIET))
    elif name == "organism-yes-biased":
        sections = (net(m, NULL), controls(m))
    else:
        base = Instrument(family["organism"], m.wording, m.count, m.per_split, m.n_random)
        drifts = STAGES[name].phases[-1].name == "drift"
        sections = (filled_by(base, m.model, Goal(above=1.0) if drifts else Goal(within=1.0)),)
    return [row for section in sections for row in section]


def as_table(rows: Sequence[Property]) -> str:
    """Return properties as a Markdown table."""
    head = "| property | mean | 95% interval | vectors | wordings | by vector | aimed at | met |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    for p in rows:
        met = {True: "yes", False: "**no**", None: ""}[p.goal.is_met(p.mean)]
        spread = f"{p.lowest:.3f} to {p.highest:.3f}" if p.vectors > 1 else ""
        lines.append(
            f"| {p.name} | {p.mean:.3f} | {p.low:.3f} to {p.high:.3f} | {p.vectors if p.vectors > 1 else ''} "
            f"| {p.wordings} | {spread} | {p.goal} | {met} |"
        )
    return "\n".join(lines) + "\n"


def as_frame(rows: Sequence[Property]) -> pd.DataFrame:
    """Return properties as a table of numbers."""
    return pd.DataFrame([{**vars(p), "goal": str(p.goal), "met": p.goal.is_met(p.mean)} for p in rows])
