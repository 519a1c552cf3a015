"""How far a reported distribution is from the actual one, in bits.

Jensen and Shannon's divergence (Lin, 1991) lies between 0 and 1, whatever was left out of a report. Kullback and
Leibler's is infinite where something happens that was not reported; `alpha` adds that much to each side's counts before
(Dirichlet's prior), and what it is then is decided by `alpha` and the coverage more than by anything else.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import special

from mechint.base.errors import UsageError
from mechint.base.signatures import checked

Distribution = Float[np.ndarray, "*cells options"]


@checked
def js_divergence(first: Distribution, second: Distribution) -> Float[np.ndarray, "*cells"]:
    """Return the divergence over the last axis, 0 for the same distribution, 1 for two that share no option.

    Weights are divided by their sums. Raises UsageError for weights that are negative, not finite, or all zero.
    """
    first, second = _normalised(first), _normalised(second)
    middle = (first + second) / 2
    both = special.rel_entr(first, middle) + special.rel_entr(second, middle)
    return np.asarray(np.clip(both.sum(axis=-1) / (2 * np.log(2)), 0.0, 1.0))


@checked
def kl_divergence(actual: Distribution, reported: Distribution, *, alpha: float) -> Float[np.ndarray, "*cells"]:
    """Return the divergence of counts or weights from reported ones, with `alpha` added to each; raises UsageError.

    Infinite for `alpha` 0 where something was not reported at all.
    """
    if not alpha >= 0:
        raise UsageError(f"alpha {alpha}", "0 or more", "give what is added to each weight")
    divergence = special.rel_entr(_normalised(actual + alpha), _normalised(reported + alpha)).sum(axis=-1)
    return np.asarray(np.maximum(divergence / np.log(2), 0.0))


@checked
def coverage(actual: Distribution, reported: Distribution) -> Float[np.ndarray, "*cells"]:
    """Return the share of what happened that was reported at all, whatever its weight."""
    return np.asarray((_normalised(actual) * (reported > 0)).sum(axis=-1))


def _normalised(weights: Distribution) -> Distribution:
    weights = np.asarray(weights, dtype=np.float64)
    total = weights.sum(axis=-1, keepdims=True)
    if not np.isfinite(weights).all() or (weights < 0).any() or (total == 0).any():
        raise UsageError("weights that are no distribution", "finite, none negative, not all zero", "check the report")
    return np.asarray(weights / total)
