"""What a design can find, before anything is sampled: the smallest p there can be, and how wide intervals will be.

The units are concepts. Replies of one concept share its vector, so that with four concepts no number of replies makes
an interval narrow: at a spread of 25 points between concepts its half is 40 points wide, with thirty concepts 9.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.trials.design import TrialDesign

SPREAD = 0.25  # standard deviation of a share between concepts, of the size that published sweeps have
_SHARE = 0.5  # of replies that claim, where noise is largest


@checked
@dataclass(frozen=True)
class Power:
    """What a design can find of net detection under one prompt.

    `smallest_p` is that of a two-sided sign flip over `n_concepts`. `half_width` is the half of the 95% interval that
    is expected where shares of concepts have a standard deviation of `spread`, each of `replies` of a concept and
    of `clean` clean ones is drawn by itself, and half of them claim, at most; NaN for a single concept.
    """

    n_concepts: int
    replies: int
    clean: int
    spread: float

    @classmethod
    def of(cls, design: TrialDesign, n_places: int, spread: float = SPREAD) -> Power:
        """Return what a design can find that has so many places on a model. Raises UsageError for a negative spread."""
        if not 0 <= spread <= _SHARE:
            raise UsageError(
                given=f"a spread of {spread:g} between concepts",
                allowed="0 to 0.5, as the standard deviation of shares",
                advice=f"give {SPREAD:g}, unless a pilot says otherwise",
            )
        return cls(len(design.concepts), n_places * design.samples, design.controls.clean, spread)

    @property
    def smallest_p(self) -> float:
        """The least two-sided p of flipping the signs of all concepts."""
        return min(1.0, 2.0 ** (1 - self.n_concepts))

    @property
    def half_width(self) -> float:
        """Half of the 95% interval that is expected, at most."""
        if self.n_concepts < 2:
            return float("nan")
        noise = _SHARE * (1 - _SHARE)
        variance = (self.spread**2 + noise / self.replies) / self.n_concepts
        variance += noise / self.clean if self.clean else 0.0
        return float(stats.t.ppf(0.975, self.n_concepts - 1) * np.sqrt(variance))

    def __str__(self) -> str:
        width = "no interval: one concept" if self.n_concepts < 2 else f"about {self.half_width:.2f} on either side"
        return (
            f"{self.n_concepts} concepts, {self.replies} replies of each to a prompt, {self.clean} clean ones\n"
            f"smallest p (sign flip over concepts): {self.smallest_p:.2g}\n"
            f"95% interval of net detection, where concepts differ by {self.spread:g} (sd): {width}"
        )
