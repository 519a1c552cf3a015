"""How often 95% intervals cover the mean of what they were drawn from, and how often bands of a sweep are wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.common import command
from benchmarks.resampling import METHODS
from mechint.base.files import JSON
from mechint.stats.bands import difference_bands, mean_bands
from mechint.stats.intervals import Interval, crossed_interval, difference_interval, mean_interval

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
SHAPES: dict[str, Draw] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "exponential": lambda rng, size: rng.exponential(size=size),
    "gamma, shape 1/2": lambda rng, size: rng.gamma(0.5, size=size),
    "log-normal": lambda rng, size: rng.lognormal(size=size),
    "beta(0.5, 0.5)": lambda rng, size: rng.beta(0.5, 0.5, size=size),
    "beta(0.3, 0.9)": lambda rng, size: rng.beta(0.3, 0.9, size=size),
    "logistic-normal": lambda rng, size: 1 / (1 + np.exp(-rng.normal(-1.5, 1.5, size))),
    "uniform": lambda rng, size: rng.uniform(size=size),
    "two points with noise": lambda rng, size: (rng.random(size) < 0.5) + 0.05 * rng.normal(size=size),
}
FEW = ("normal", "exponential", "log-normal", "logistic-normal")
UNITS = (4, 6, 8, 12, 16, 32)
SIZES = ((6, 6), (8, 8), (8, 16), (8, 32))
DESIGNS = ((6, 4), (8, 2), (8, 4), (8, 8), (16, 4), (16, 8))
CELLS = 40
_SWEEPS = 4  # draws of an interval for each sweep of bands


@functools.cache
def true_mean(shape: str) -> float:
    """Return the mean of a shape; that of the logistic-normal one from 4 million draws."""
    means = {"normal": 0.0, "exponential": 1.0, "log-normal": float(np.exp(0.5)), "beta(0.3, 0.9)": 0.25}
    if shape == "logistic-normal":
        return float(SHAPES[shape](np.random.default_rng(99), (4_000_000,)).mean())
    return means.get(shape, 0.5)


def measure(_folder: Path, sample: int) -> tuple[dict[str, JSON], str]:
    """Return coverage in percent: of means, differences and crossed designs; and of sweeps with a wrong band."""
    means = _means(sample)
    tables: dict[str, JSON] = {
        "means": means,
        "differences": _differences(sample),
        "crossed": _crossed(sample),
        "bands": _bands(sample),
        "cells": CELLS,
        "sweeps": sample // _SWEEPS,
    }
    eight = {name: row for name in FEW if isinstance(row := means[f"{name}, 8"], dict)}
    summary = ", ".join(f"{name} {row['percentiles']} -> {row['mechint']}" for name, row in eight.items())
    return tables, f"eight units, percentiles before and intervals now: {summary}"


def _percent(hits: np.ndarray | list[np.bool_]) -> float:
    return round(100 * float(np.mean(hits)), 1)


def _covered(interval: Interval, mean: float) -> float:
    return _percent((interval.low <= mean) & (interval.high >= mean))


def _means(sample: int) -> dict[str, JSON]:
    rows: dict[str, JSON] = {}
    for shape, draw in SHAPES.items():
        mean = true_mean(shape)
        for units in UNITS:
            values = draw(np.random.default_rng(units), (sample, units))
            row: dict[str, JSON] = {}
            for name, method in METHODS.items():
                low, high = method(values)
                row[name] = _percent((low <= mean) & (high >= mean))
            interval = mean_interval(values)
            plain = METHODS["t"](values)
            row["mechint"] = _covered(interval, mean)
            row["width"] = round(float(np.median(interval.high - interval.low) / np.median(plain[1] - plain[0])), 2)
            rows[f"{shape}, {units}"] = row
    return rows


def _differences(sample: int) -> dict[str, JSON]:
    rows: dict[str, JSON] = {}
    for shape in FEW:
        draw, mean = SHAPES[shape], true_mean(shape)
        row: dict[str, JSON] = {}
        for first, second in SIZES:
            for spread in (1, 3):
                rng = np.random.default_rng(first * second)
                pair = spread * draw(rng, (sample, first)), draw(rng, (sample, second))
                times = f", spread x{spread}" if spread > 1 else ""
                row[f"{first} and {second}{times}"] = _covered(difference_interval(*pair), (spread - 1) * mean)
        rows[shape] = row
    return rows


def _crossed(sample: int) -> dict[str, JSON]:
    rows: dict[str, JSON] = {}
    for shape in FEW:
        draw, mean = SHAPES[shape], true_mean(shape)
        row: dict[str, JSON] = {}
        for units, items in DESIGNS:
            rng = np.random.default_rng(units * items)
            parts = [draw(rng, (sample, *size)) - mean for size in ((units, 1), (1, items), (units, items))]
            values = parts[0] + parts[1] + 0.5 * parts[2]
            row[f"{units} by {items}"] = _covered(crossed_interval(values), 0.0)
            row[f"{units} by {items}, units alone"] = _covered(mean_interval(values.mean(axis=-1)), 0.0)
        rows[shape] = row
    return rows


def _bands(sample: int) -> dict[str, JSON]:
    """Return the percentage of sweeps without an effect in which any cell is marked."""
    rows: dict[str, JSON] = {}
    for shape in FEW:
        for shared in (0.0, 0.5, 0.9):
            row: dict[str, JSON] = {}
            for units in (8, 16):
                sweeps = [_sweep(shape, shared, units, seed) for seed in range(sample // _SWEEPS)]
                row[f"{units}, single"] = _percent([mean_interval(cells).excludes_zero().any() for cells in sweeps])
                row[f"{units}, bands"] = _percent(
                    [mean_bands(cells, flips=1024).excludes_zero().any() for cells in sweeps]
                )
            pairs = [
                (_sweep(shape, shared, 8, seed), _sweep(shape, shared, 32, seed + sample))
                for seed in range(sample // 8)
            ]
            row["8 and 32, bands"] = _percent(
                [difference_bands(*pair, flips=512).excludes_zero().any() for pair in pairs]
            )
            rows[f"{shape}, {shared:.0%} shared"] = row
    return rows


def _sweep(shape: str, shared: float, units: int, seed: int) -> np.ndarray:
    """Return cells without an effect that share a part of the variance over units."""
    rng, mean = np.random.default_rng(seed), true_mean(shape)
    both, cells = SHAPES[shape](rng, (1, units)) - mean, SHAPES[shape](rng, (CELLS, units)) - mean
    return np.asarray(np.sqrt(shared) * both + np.sqrt(1 - shared) * cells)


if __name__ == "__main__":
    command("coverage", __doc__, measure, sample=4000, sampled="draws of each shape and size")
