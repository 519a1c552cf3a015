"""Honest statistics of reports: intervals, bands, exact tests, mutual information; the unit is the concept.

`mi.stats` is this package. It imports `base`, and knows nothing of models.
"""

from mechint.stats.bands import BANDS, Marks, difference_bands, mean_bands
from mechint.stats.correlations import clustered_rank_correlation
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
from mechint.stats.units import RANGES, group_means, sign_flip_test, strict_means, unit_means

__all__ = [
    "BANDS",
    "PROBABILITY",
    "RANGES",
    "Interval",
    "Marks",
    "binomial_interval",
    "clustered_rank_correlation",
    "correlation_interval",
    "crossed_interval",
    "difference_bands",
    "difference_interval",
    "group_means",
    "mean_bands",
    "mean_interval",
    "ratio_interval",
    "sign_flip_test",
    "strict_means",
    "unit_means",
]
