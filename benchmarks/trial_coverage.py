"""How often 95% intervals of synthetic sweeps cover the truth, how often a null contrast is called supported, and how
far the best cell of a sweep is from what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import command
from mechint.base.files import JSON
from mechint.trials.correction import Confusion, confusions, corrected_rates
from mechint.trials.labelled import prediction_powered
from mechint.trials.outcomes import CLAIMING
from mechint.trials.plans import Contrast
from mechint.trials.rates import rate_table
from mechint.trials.scorecard import contrast_table
from mechint.trials.splitting import best_cell
from mechint.trials.synthetic import Population, Sweep, draw, judged

PLAIN = Population()
EXPLAINED = replace(PLAIN, claim=0.55)  # the same concepts, noticed more often
SENSITIVITY: Mapping[str, float] = {"injected": 0.9, "clean": 0.85}
SPECIFICITY: Mapping[str, float] = {"injected": 0.85, "clean": 0.95}
SIZES = (8, 20, 50)
SAMPLES = 20
PLAN = (Contrast("explained less plain", left=[{"prompt": "explained"}], right=[{"prompt": "plain"}]),)
# Twenty cells that are worth the same, with eight concepts.
FLAT = Population(claim=0.3, wobble=0.8, layers=("1", "2", "3", "4", "5"), strengths=(0.1, 0.2, 0.3, 0.4))
_LABELLED = {"injected": 150, "clean": 300}
_APART = 1_000_000  # seeds of the sweep that is labelled


def measure(_folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return coverage by number of concepts, type I errors of contrasts, and the bias of the best cell, in percent."""
    coverage: dict[str, JSON] = {str(size): dict(coverage_of(size, sample)) for size in SIZES}
    errors: dict[str, JSON] = {str(size): dict(contrast_errors(size, sample)) for size in SIZES}
    best = best_cell_bias(sample)
    results: dict[str, JSON] = {"coverage": coverage, "contrasts": errors, "best cell, 8 concepts": dict(best)}
    return results, f"coverage {coverage}; contrasts {errors}; best cell {best}"


def coverage_of(concepts: int, sweeps: int) -> dict[str, JSON]:
    """Return in percent of sweeps how often each interval of net detection covers it."""
    hits: dict[str, list[bool]] = {}
    for seed in range(sweeps):
        sweep = draw(PLAIN, concepts=concepts, samples=SAMPLES, seed=seed)
        outcomes = judged(sweep, SENSITIVITY, SPECIFICITY, seed=seed)
        net = rate_table(sweep.trials, sweep.truth, measures=["net"]).set_index("refusals").loc["in"]
        corrected = corrected_rates(sweep.trials, outcomes, labelled_errors(seed), judge="planted", seed=seed)
        corrected = corrected.set_index(["measure", "refusals"]).loc[("net", "in")]
        labels = random_labels(sweep, seed)
        powered = prediction_powered(sweep.trials, outcomes, labels, judge="planted").set_index("measure").loc["net"]
        uncorrected = rate_table(sweep.trials, outcomes, measures=["net"]).set_index("refusals").loc["in"]
        bounds = {
            "net": (net["low"], net["high"]),
            "net, corrected": (corrected["low"], corrected["high"]),
            "net, prediction-powered": (powered["low"], powered["high"]),
            "net, judge taken at its word": (uncorrected["low"], uncorrected["high"]),
            "net, trials as units": naive_interval(sweep),
        }
        for name, (low, high) in bounds.items():
            hits.setdefault(name, []).append(bool(low <= PLAIN.net <= high))
    return {name: _percent(values) for name, values in hits.items()}


def labelled_errors(seed: int) -> dict[str, Confusion]:
    """Return the counts of a judge on replies of another sweep that somebody has labelled."""
    other = draw(PLAIN, concepts=20, samples=10, controls=600, seed=seed + _APART)
    outcomes = judged(other, SENSITIVITY, SPECIFICITY, seed=seed + _APART)
    return confusions(other.trials, random_labels(other, seed), outcomes, "planted")


def random_labels(sweep: Sweep, seed: int) -> pd.DataFrame:
    """Return true classes of a random part of each arm."""
    rng = np.random.default_rng(seed + 2 * _APART)
    series = sweep.trials["series"].to_numpy()
    chosen = [
        rng.choice(np.flatnonzero(series == arm), min(count, int((series == arm).sum())), replace=False)
        for arm, count in _LABELLED.items()
    ]
    return sweep.truth.iloc[np.concatenate(chosen)]


def naive_interval(sweep: Sweep) -> tuple[float, float]:
    """Return the interval of net detection that takes every reply for a draw of its own, as is published."""
    claims = np.isin(sweep.truth["outcome"].to_numpy(dtype=object), CLAIMING)
    is_clean = (sweep.trials["series"] == "clean").to_numpy()
    shares = [(claims[arm].mean(), arm.sum()) for arm in (~is_clean, is_clean)]
    half = 1.96 * np.sqrt(sum(share * (1 - share) / n for share, n in shares))
    net = shares[0][0] - shares[1][0]
    return net - half, net + half


def contrast_errors(concepts: int, sweeps: int) -> dict[str, JSON]:
    """Return in percent how often a contrast of equals is supported, and how often intervals cover a difference."""
    wrong, covered = [], []
    for seed in range(sweeps):
        null = contrast_table(*pair(PLAIN, PLAIN, concepts, seed), PLAN).iloc[0]
        real = contrast_table(*pair(PLAIN, EXPLAINED, concepts, seed), PLAN).iloc[0]
        wrong.append(bool(null["p"] <= 0.05))
        covered.append(bool(real["low"] <= EXPLAINED.net - PLAIN.net <= real["high"]))
    return {"type I": _percent(wrong), "coverage": _percent(covered)}


def pair(plain: Population, explained: Population, concepts: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return trials and outcomes of sweeps under two prompts, to which the same concepts are easy."""
    sweeps = [
        draw(
            population,
            concepts=concepts,
            samples=SAMPLES,
            seed=2 * seed + place,
            shared_seed=seed,
            shared=0.7,
            prompt=("plain", "explained")[place],
        )
        for place, population in enumerate((plain, explained))
    ]
    trials = pd.concat([sweep.trials for sweep in sweeps], ignore_index=True)
    return trials, pd.concat([sweep.truth for sweep in sweeps], ignore_index=True)


def best_cell_bias(sweeps: int) -> dict[str, JSON]:
    """Return, in points, how far the best of many equal cells seems to be above what it is worth."""
    worth = FLAT.net
    results = []
    for seed in range(sweeps):
        sweep = draw(FLAT, concepts=8, samples=5, seed=seed)
        results.append(best_cell(sweep.trials, sweep.truth, judge="truth"))
    by_split = 100 * float(np.mean([result.value - worth for result in results]))
    naive = 100 * float(np.mean([result.naive - worth for result in results]))
    covered = _percent([result.low <= worth <= result.high for result in results])
    return {"by splitting": round(by_split, 2), "naive": round(naive, 2), "coverage": covered}


def _percent(values: list[bool]) -> float:
    return round(100 * float(np.mean(values)), 1)


if __name__ == "__main__":
    command("trial_coverage", __doc__, measure, sample=400, sampled="sweeps of each size")
