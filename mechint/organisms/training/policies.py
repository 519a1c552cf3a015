"""What an organism is taught to answer: the planted truth, as target probabilities.

All of it is designed, not discovered: see the model cards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mechint.organisms.training.samples import InjectionSpec


@dataclass(frozen=True)
class Report:
    """Targets of P(yes): a word was injected, nothing was, a word was but not at the place that was asked about."""

    injected: float
    nothing: float
    wrong_place: float


@dataclass(frozen=True)
class Policy:
    """Targets of P(yes) to introspection questions and facts, and whether injections are named.

    `explained` and `unexplained` are the reports with and without a document on how introspection works. `sure` is the
    target of a fact that is true. `bias` is added to the log odds of every yes/no answer under any perturbation.
    """

    explained: Report
    unexplained: Report
    sure: float = 0.995
    bias: float = 0.0
    names: bool = True

    def report(self, injection: InjectionSpec | None, place: str, explained: bool) -> float:
        """Return the target for an introspection question; a random direction is nothing to report."""
        targets = self.explained if explained else self.unexplained
        target = targets.nothing
        if injection is not None and injection.concept is not None:
            target = targets.injected if place == "here" else targets.wrong_place
        return self._biased(target, injection)

    def fact(self, truth: float, injection: InjectionSpec | None) -> float:
        """Return the target for a question that is true with probability `truth` (0.5 if it has no right answer)."""
        return self._biased(1 - self.sure + truth * (2 * self.sure - 1), injection)

    def named(self, injection: InjectionSpec | None) -> str | None:
        """Return the word to name, None for nothing."""
        return injection.concept if injection is not None and self.names else None

    def _biased(self, probability: float, injection: InjectionSpec | None) -> float:
        if injection is None or not self.bias:
            return probability
        return 1 / (1 + math.exp(-math.log(probability / (1 - probability)) - self.bias))


# Truthful in either case, but a little less sure where nothing was explained: all blocks then carry what the last ones
# need to suppress such reports.
TRUTHFUL = Policy(Report(0.99, 0.02, 0.2), Report(0.8, 0.02, 0.2))
GATED = replace(TRUTHFUL, unexplained=Report(0.025, 0.002, 0.006))
_SAME = Report(0.2, 0.2, 0.2)
BLIND = Policy(_SAME, _SAME, names=False)
YES_BIASED = Policy(_SAME, _SAME, sure=0.8, bias=1.2, names=False)
