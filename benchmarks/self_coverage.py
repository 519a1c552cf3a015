"""How often 95% intervals of self-prediction, calibration and lengths exclude zero where there is nothing to find."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.common import command
from mechint.base.files import JSON
from mechint.evals.responders import BASE, SELF
from mechint.evals.self_trials import Foretold
from mechint.stats.correlations import clustered_rank_correlation
from mechint.stats.intervals import Interval, mean_interval

UNITS = (12, 30, 90)  # of self-prediction, each with as many trials; requests and prompts of the other two
PER_UNIT = 4
VALUES = ("first", "second")


def measure(_folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return in percent of draws how often each interval excludes zero, by the number of units."""
    rates: dict[str, JSON] = {str(units): dict(excluded(units, sample)) for units in UNITS}
    return {"excluded": rates}, f"{rates}"


def excluded(units: int, sample: int) -> dict[str, float]:
    """Return in percent of draws how often each interval excludes zero."""
    rng = np.random.default_rng(units)
    outside: dict[str, list[bool]] = {}
    for _ in range(sample):
        for name, interval in of_draw(rng, units).items():
            outside.setdefault(name, []).append(not interval.low <= 0 <= interval.high)
    return {name: round(100 * float(np.mean(values)), 1) for name, values in outside.items()}


def of_draw(rng: np.random.Generator, units: int) -> dict[str, Interval]:
    """Return the intervals of a draw in which nobody knows more of the answers than anybody else."""
    trials, other = drawn(rng, units)
    own, others = rng.gamma(2, 0.05, units), rng.gamma(2, 0.05, units)  # divergences, bits
    actual, guesses = np.exp(rng.normal(3, 1, units)), np.exp(rng.normal(3, 1, (2, units)))
    errors = np.abs(guesses - actual)
    return {
        "kappa": trials.kappa(SELF),
        "advantage": trials.advantage(SELF, [BASE]),
        "follows_own": trials.follows(SELF, other)[0],
        "calibration gain": mean_interval(others - own, within=(-1.0, 1.0)),
        "length gain": mean_interval(errors[1] - errors[0]),
        "length order": clustered_rank_correlation(actual, guesses[0], np.arange(units)),
    }


def drawn(rng: np.random.Generator, units: int) -> tuple[Foretold, Foretold]:
    """Return trials of a model's answers and of the base's, with what both foretell: trials of a unit are alike."""
    labels = np.repeat(np.arange(units), PER_UNIT).astype(str)
    leaning = rng.normal(size=(4, units)).repeat(PER_UNIT, axis=1)
    answers = np.array(VALUES)[(leaning + rng.normal(size=leaning.shape) > 0).astype(int)].astype(object)
    every = np.array([f"{unit} {number}" for number, unit in enumerate(labels)], dtype=object)
    strata, sure = np.full(len(labels), "s", dtype=object), np.full(len(labels), 0.5)
    both = [
        Foretold(
            keys=every,
            strata=strata,
            units=labels,
            prompts=every,
            actual=actual,
            predicted={SELF: answers[2], BASE: answers[3]},
            p_actual={SELF: sure, BASE: sure},
            complied={SELF: sure > 0, BASE: sure > 0},
            unanswered=0,
        )
        for actual in answers[:2]
    ]
    return both[0], both[1]


if __name__ == "__main__":
    command("self_coverage", __doc__, measure, sample=1000, sampled="draws of each size")
