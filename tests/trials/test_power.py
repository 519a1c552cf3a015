"""What a design can find: known cases, and limits that replies cannot get past."""

from __future__ import annotations

import math

import pytest

from mechint.base.errors import UsageError
from mechint.trials.design import Controls, TrialDesign
from mechint.trials.power import Power


def design(concepts: int, samples: int = 20, clean: int = 400) -> TrialDesign:
    names = tuple(f"c{number}" for number in range(concepts))
    return TrialDesign(concepts=names, layers=("1",), strengths=(0.1,), samples=samples, controls=Controls(clean=clean))


@pytest.mark.parametrize(("concepts", "points"), [(4, 40), (30, 9)])
def test_no_number_of_replies_helps_few_concepts(concepts: int, points: int) -> None:
    many = Power.of(design(concepts, samples=10**7, clean=10**8), 1, 0.25)
    assert round(100 * many.half_width) == points
    assert Power.of(design(concepts), 1, 0.25).half_width > many.half_width


def test_smallest_p_is_that_of_all_signs() -> None:
    assert Power.of(design(5), 3).smallest_p == 2 / 2**5
    assert Power.of(design(1), 3).smallest_p == 1
    assert math.isnan(Power.of(design(1), 3).half_width)
    assert "no interval" in str(Power.of(design(1), 3))


def test_spread_beyond_shares_is_refused() -> None:
    with pytest.raises(UsageError, match="spread"):
        Power.of(design(5), 1, 0.7)
