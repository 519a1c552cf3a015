"""Signal detection: how well two kinds of trials are told apart, and how readily a positive answer is given.

Sensitivity (the area under the curve, d') and criterion are separate: a model that calls everything steered has an area
of 0.5 and a low criterion. The area needs no threshold: it is the share of pairs, one trial of each kind, in which the
positive one has the higher score, ties counted half (Hanley and McNeil, 1982). d' and criterion are those of rates at
one threshold (Green and Swets, 1966), to which half a trial is added on both sides (the log-linear correction; Hautus,
1995), as rates of 0 and 1 have no normal quantile.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

from mechint.base.errors import UsageError
from mechint.base.signatures import checked

Scores = Float[np.ndarray, " trials"]
OtherScores = Float[np.ndarray, " others"]


@checked
def auc(positive: Scores, negative: OtherScores) -> float:
    """Return the area under the curve of two kinds of trials: 0.5 is chance. NaN where one kind has no trials.

    Raises UsageError for scores that are NaN; infinite ones are ranked as they are.
    """
    if np.isnan(positive).any() or np.isnan(negative).any():
        raise UsageError("scores that are NaN", "a score for each trial", "leave trials without a score out")
    if not len(positive) or not len(negative):
        return float("nan")
    ranks = stats.rankdata(np.concatenate([positive, negative]))[: len(positive)]
    above = ranks.sum() - len(positive) * (len(positive) + 1) / 2
    return float(above / (len(positive) * len(negative)))


def log_linear(yes: float, n: int) -> float:
    """Return the rate of `yes` among `n` trials, with half a trial added to either answer: never 0 or 1."""
    return (yes + 0.5) / (n + 1)


def d_prime(hits: float, alarms: float) -> float:
    """Return d' of two rates strictly between 0 and 1."""
    return float(stats.norm.ppf(hits) - stats.norm.ppf(alarms))


def criterion(hits: float, alarms: float) -> float:
    """Return the criterion of two rates strictly between 0 and 1: above 0 for a model that seldom says yes."""
    return float(-(stats.norm.ppf(hits) + stats.norm.ppf(alarms)) / 2)
