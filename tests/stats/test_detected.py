"""Detection over vectors and texts: intervals hold the truth, duplicates count once, a push moves the control too."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import detection_coverage
from benchmarks.common import RESULTS
from mechint.base.errors import UsageError
from mechint.stats.detected import Trials
from mechint.stats.signal_detection import auc

BENCHMARK = json.loads((RESULTS / "detection_coverage.json").read_text(encoding="utf-8"))


def trials(seed: int, gain: float = 1.2) -> Trials:
    return detection_coverage.drawn_trials(np.random.default_rng(seed), gain, 12, 24)


def test_the_area_is_that_of_all_pairs() -> None:
    drawn = trials(0)
    assert float(drawn.area().mean) == auc(drawn.scores[drawn.steered], drawn.scores[~drawn.steered])
    assert drawn.area().n == 12


def test_intervals_hold_what_all_vectors_and_texts_amount_to() -> None:
    covered = detection_coverage.detection(1.2, 8, 24, 12)
    assert min(covered[name] for name in ("area", "hits", "alarms", "d_prime", "criterion")) > 70
    for size, row in BENCHMARK["detection"].items():
        assert min(value for name, value in row.items() if name != "area, trials as units") >= 91, size
    assert min(value for row in BENCHMARK["items"].values() for value in row.values()) >= 90


def test_clean_texts_that_are_repeated_are_no_more_trials() -> None:
    drawn = trials(3)
    clean = ~drawn.steered
    rows = np.concatenate([np.arange(len(drawn.scores)), np.tile(np.flatnonzero(clean), 9)])
    often = Trials(drawn.scores[rows], drawn.steered[rows], drawn.vectors[rows], drawn.texts[rows])
    assert often.clean_texts == drawn.clean_texts
    for name, interval in drawn.rates().items():
        assert float(often.rates()[name].mean) == pytest.approx(float(interval.mean)), name
        assert float(often.rates()[name].high) == pytest.approx(float(interval.high)), name
    few = np.flatnonzero(np.isin(drawn.texts, np.arange(19).astype(str)))
    fewer = Trials(drawn.scores[few], drawn.steered[few], drawn.vectors[few], drawn.texts[few])
    with pytest.raises(UsageError, match="19 distinct clean texts"):
        fewer.rates()


def test_a_perfect_detector_is_not_known_to_be_perfect() -> None:
    drawn = trials(4, gain=20.0)
    rates = drawn.rates(10.0)
    assert rates["hits"].mean == 1.0
    assert rates["alarms"].mean == 0.0
    assert rates["hits"].low < 0.8
    assert rates["alarms"].high > 0.1
    assert np.isinf(rates["d_prime"].high)
    assert rates["d_prime"].low < 2.5
    assert drawn.area().low < 1.0


def test_a_push_moves_the_control_as_much() -> None:
    drawn = trials(5, gain=3.0)
    noise = np.random.default_rng(6).normal(size=len(drawn.scores))
    pushed = replace(drawn, scores=drawn.scores + 0.5 * noise)
    assert drawn.area().low > 0.8
    assert drawn.area_above(pushed).low < 0 < drawn.area_above(pushed).high
    assert drawn.area_above(replace(drawn, scores=noise)).low > 0.2
    perfect = replace(drawn, scores=50.0 * drawn.steered)
    assert perfect.area_above(perfect).low < -0.1
    assert perfect.area_above(perfect).high > 0.1, "two perfect areas are not known to be equal"
    with pytest.raises(UsageError, match="other vectors or texts"):
        drawn.area_above(replace(drawn, texts=drawn.texts[::-1]))


def test_a_threshold_is_set_by_other_texts() -> None:
    drawn = trials(7, gain=3.0)
    dev = np.random.default_rng(8).normal(size=200)
    hits, threshold = drawn.hits_at(dev)
    assert (dev > threshold).mean() == 0.01
    assert float(hits.mean) == (drawn.scores[drawn.steered] > threshold).mean()
    with pytest.raises(UsageError, match="19 distinct clean texts"):
        drawn.hits_at(dev[:19])


def test_trials_of_one_kind_are_refused() -> None:
    drawn = trials(0)
    with pytest.raises(UsageError, match="of one kind"):
        Trials(drawn.scores[:9], drawn.steered[:9], drawn.vectors[:9], drawn.texts[:9])
    with pytest.raises(UsageError, match="without a vector"):
        replace(drawn, vectors=drawn.vectors[::-1])
