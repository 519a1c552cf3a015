"""Honest statistics of reports: intervals, bands, exact tests, information, detection, agreement; units decide them.

`mi.stats` is this package. It imports `base`, and knows nothing of models.
"""

from mechint.stats.agreement import kappa_interval, mode_baseline
from mechint.stats.bands import BANDS, Marks, difference_bands, mean_bands
from mechint.stats.compression import Compression, compression, matched_contrast
from mechint.stats.correlations import clustered_rank_correlation
from mechint.stats.detected import Trials
from mechint.stats.divergence import coverage, js_divergence, kl_divergence
from mechint.stats.intervals import (
    PROBABILITY,
    Interval,
    binomial_interval,
    correlation_interval,
    crossed_interval,
    difference_interval,
    mean_interval,
    ratio_interval,
)
from mechint.stats.jackknife import jackknife_interval
from mechint.stats.signal_detection import auc, criterion, d_prime, log_linear
from mechint.stats.units import RANGES, group_means, sign_flip_test, strict_means, unit_means

__all__ = [
    "BANDS",
    "PROBABILITY",
    "RANGES",
    "Compression",
    "Interval",
    "Marks",
    "Trials",
    "auc",
    "binomial_interval",
    "clustered_rank_correlation",
    "compression",
    "correlation_interval",
    "coverage",
    "criterion",
    "crossed_interval",
    "d_prime",
    "difference_bands",
    "difference_interval",
    "group_means",
    "jackknife_interval",
    "js_divergence",
    "kappa_interval",
    "kl_divergence",
    "log_linear",
    "matched_contrast",
    "mean_bands",
    "mean_interval",
    "mode_baseline",
    "ratio_interval",
    "sign_flip_test",
    "strict_means",
    "unit_means",
]
