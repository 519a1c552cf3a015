"""How often 95% intervals of detection, agreement and compression cover the truth, over vectors and texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.common import command
from mechint.base.files import JSON
from mechint.stats.agreement import kappa_interval
from mechint.stats.compression import compression
from mechint.stats.detected import Trials
from mechint.stats.intervals import Interval

SIZES = ((8, 24), (24, 60))
GAINS = (0.0, 1.2, 2.5)
PER_VECTOR = 4  # texts of each vector
SPREAD = 0.8  # of vectors, and of texts, in units of a trial's noise
THRESHOLD = 0.5
_STEERED, _CLEAN = float(np.sqrt(1 + 2 * SPREAD**2)), float(np.sqrt(1 + SPREAD**2))


def measure(_folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return coverage in percent by gain, vectors and texts; of kappa and of compression by items."""
    tables: dict[str, JSON] = {}
    for vectors, texts in SIZES:
        for gain in GAINS:
            tables[f"{vectors} vectors, {texts} texts, gain {gain:g}"] = dict(detection(gain, vectors, texts, sample))
    items: dict[str, JSON] = {str(count): dict(of_items(count, sample)) for count in (12, 24, 60)}
    return {"detection": tables, "items": items}, f"{tables}; items {items}"


def drawn_trials(rng: np.random.Generator, gain: float, vectors: int, texts: int) -> Trials:
    """Return trials with normal scores: each vector on a few texts, each text clean too."""
    of_text = SPREAD * rng.normal(size=texts)
    which = rng.permuted(np.tile(np.arange(texts), (vectors, 1)), axis=1)[:, :PER_VECTOR]
    of_vector = gain + SPREAD * rng.normal(size=(vectors, 1))
    steered = of_vector + of_text[which] + rng.normal(size=which.shape)
    names = [f"v{number}" for number in np.repeat(np.arange(vectors), PER_VECTOR)] + [""] * texts
    return Trials(
        np.concatenate([steered.ravel(), of_text + rng.normal(size=texts)]),
        np.arange(len(names)) < which.size,
        np.array(names),
        np.concatenate([which.ravel(), np.arange(texts)]).astype(str),
    )


def truths(gain: float) -> dict[str, float]:
    """Return what all vectors and texts together amount to."""
    hits, alarms = stats.norm.sf(THRESHOLD, gain, _STEERED), stats.norm.sf(THRESHOLD, 0.0, _CLEAN)
    z = stats.norm.ppf([hits, alarms])
    area = float(stats.norm.cdf(gain / np.hypot(_STEERED, _CLEAN)))
    values = {"area": area, "hits": hits, "alarms": alarms, "d_prime": z[0] - z[1], "criterion": -z.mean()}
    return {name: float(value) for name, value in values.items()}


def detection(gain: float, vectors: int, texts: int, sample: int) -> dict[str, float]:
    """Return in percent of draws how often each interval of detection covers, and the area's with trials as units."""
    rng, expected = np.random.default_rng(vectors), truths(gain)
    covered: dict[str, list[bool]] = {}
    for _ in range(sample):
        trials = drawn_trials(rng, gain, vectors, texts)
        intervals = {"area": trials.area(), **trials.rates(THRESHOLD)}
        for name, interval in intervals.items():
            covered.setdefault(name, []).append(holds(interval, expected[name]))
        covered.setdefault("area, trials as units", []).append(holds(_as_single(trials), expected["area"]))
    return {name: round(100 * float(np.mean(values)), 1) for name, values in covered.items()}


def of_items(count: int, sample: int) -> dict[str, float]:
    """Return in percent of draws how often kappa, shift and slope over items cover."""
    rng = np.random.default_rng(count)
    covered: dict[str, list[bool]] = {"kappa": [], "shift": [], "slope": []}
    for _ in range(sample):
        base = rng.normal(-2, 2, count)
        line = compression(base, 0.3 + 0.8 * base + rng.normal(size=count), np.arange(count))
        actual, knows = rng.random(count) < 0.4, rng.random(count) < 0.6
        predicted = np.where(knows, actual, rng.random(count) < 0.4)
        covered["kappa"].append(holds(kappa_interval(actual, predicted, [np.arange(count)]), 0.6))
        covered["shift"].append(holds(line.shift, 0.3))
        covered["slope"].append(holds(line.slope, 0.8))
    return {name: round(100 * float(np.mean(values)), 1) for name, values in covered.items()}


def holds(interval: Interval, value: float) -> bool:
    """Whether an interval has bounds and holds a value."""
    return bool(interval.low <= value <= interval.high)


def _as_single(trials: Trials) -> Interval:
    """Return the area's interval as if each trial had a vector and a text of its own."""
    rows = np.arange(len(trials.scores)).astype(str)
    return Trials(trials.scores, trials.steered, np.where(trials.steered, rows, ""), rows).area()


if __name__ == "__main__":
    command("detection_coverage", __doc__, measure, sample=200, sampled="draws of each size")
