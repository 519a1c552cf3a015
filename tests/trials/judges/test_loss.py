"""Coherence by loss: what a model would not have written is unreadable, and everything else is the other judge's."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import load_once

import mechint as mi
from mechint.base.errors import UsageError
from mechint.models.model import Model
from mechint.trials.judges.loss import LossJudge, _best_limit, calibrated_loss, reply_losses
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.labels import Label
from mechint.trials.verdicts import Item, Judge

READABLE = "I notice a pattern in my thoughts and it is about the sea and the waves."
SALAD = "He spoke a marble to my jury and we were seventy on that plenty of sour for you."
ITEMS = [Item("a", "?", READABLE), Item("b", "?", SALAD), Item("c", "?", "No.")]


@pytest.fixture(scope="module")
def model() -> Model:
    return load_once("organism")


def test_losses_are_those_of_the_readout_and_few_words_have_none(model: Model) -> None:
    losses = reply_losses(model, [item.reply for item in ITEMS])
    alone = mi.text_loss(model, READABLE, mi.CLEAN)["loss"].iloc[0]
    assert losses[0] == pytest.approx(alone, abs=1e-4)
    assert losses[1] > losses[0]
    assert np.isnan(losses[2])
    assert len(reply_losses(model, [])) == 0


def test_only_what_is_above_the_limit_changes_and_only_in_coherence(model: Model) -> None:
    limit = float(reply_losses(model, [READABLE, SALAD]).mean())
    judge = LossJudge(model, limit)
    assert isinstance(judge, Judge)
    assert judge.name == "rules+loss:organism"
    plain, joined = RulesJudge().judge(ITEMS), judge.judge(ITEMS)
    assert plain[1].coherent
    assert [verdict.coherent for verdict in joined] == [True, False, True]
    assert [verdict.claims for verdict in joined] == [verdict.claims for verdict in plain]
    assert (joined[0], joined[2]) == (plain[0], plain[2])
    assert LossJudge(model, float("inf")).judge(ITEMS) == plain
    assert len({judge.version, LossJudge(model, limit + 1).version, RulesJudge().version}) == 3


def test_a_limit_refuses_what_is_broken_and_keeps_nine_in_ten_of_the_others() -> None:
    losses = np.arange(40.0)
    truth = losses < 20
    assert _best_limit(losses, truth) == pytest.approx(19.5)
    truth[[25, 26, 27]] = True  # a lower limit would lose three in 23 of them
    assert _best_limit(losses, truth) == pytest.approx(27.5)
    assert _best_limit(losses, np.arange(40) > 19) > 38  # readable ones have the larger losses here


def test_labels_set_a_limit_and_too_few_do_not(model: Model) -> None:
    texts = {"r": READABLE, "s": SALAD}
    items = [Item(f"{kind}{n}", "?", text) for n in range(10) for kind, text in texts.items()]
    labels = {item.id: Label(item.id, "no", coherent=item.id.startswith("r")) for item in items}
    judge = calibrated_loss(model, items, labels)
    assert [verdict.coherent for verdict in judge.judge(ITEMS)] == [True, False, True]
    with pytest.raises(UsageError, match="10 of both"):
        calibrated_loss(model, items[:6], labels)
