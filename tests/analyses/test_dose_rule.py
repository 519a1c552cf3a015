"""The rule of doses on planted tables: what works, where text is coherent, and what is proposed where neither is."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analyses.kit import dose_rule, facts
from analyses.kit.dose import CalibratedDose, Dose
from analyses.kit.dose_proposal import Measured, Proposal
from analyses.kit.dose_rule import Choice, choose, effects, places, working_range
from analyses.kit.dose_trial import speech, windows
from analyses.kit.naming import repeated
from analyses.kit.record import as_json

CONCEPTS = ("cats", "bread", "oceans", "music")
STRENGTHS = (0.02, 0.05, 0.1)
NOISE = dict(zip(CONCEPTS, (-0.02, 0.0, 0.01, 0.01), strict=True))  # so that intervals have a width
Rises = dict[tuple[str, str], float]


def _row(
    series: str, unit: str, place: tuple[str, str, float], log_p: dict[str, float], loss: float
) -> dict[str, object]:
    extraction, layers, strength = place
    columns = {"extraction": extraction, "injected_layers": layers, "strength": f"{strength:g}"}
    return {"kind": "text", "series": series, "unit": unit, **columns, "loss": loss} | {
        f"log_p_{name}": value for name, value in log_p.items()
    }


def planted(gain: Rises, harm: Rises, random: float = 0.0, common: float = 0.0) -> pd.DataFrame:
    """Return rows of texts: by extraction and layers, own names rise by `gain` and the loss by `harm` per strength.

    All names rise by `common` under concepts; under random vectors the name of cats does by `random`.
    """
    rows = []
    for text, group in (("prose-0", "prose"), ("reply-0", "reply")):
        clean = [_row("clean", "", ("", "", 0.0), dict.fromkeys(CONCEPTS, -8.0), 2.0)]
        steered = []
        for (extraction, layers), by in gain.items():
            for strength in STRENGTHS:
                loss = 2.0 + (harm[extraction, layers] * strength if group == "reply" else 0.0)
                for unit in CONCEPTS:
                    near = dict.fromkeys(CONCEPTS, -8.0 + common)
                    near[unit] += by * strength * (1 + NOISE[unit])
                    near["cats"] += random * strength
                    place = (extraction, layers, strength)
                    steered.append(_row("injected", unit, place, near, loss + NOISE[unit] * strength))
        for layers in dict.fromkeys(layers for _, layers in gain):
            for strength in STRENGTHS:
                near = dict.fromkeys(CONCEPTS, -8.0) | {"cats": -8.0 + random * strength}
                steered.append(_row("random", "random-0", ("", layers, strength), near, 2.0))
        rows += [{**row, "conversation": text, "group": group} for row in clean + steered]
    return pd.DataFrame(rows)


def test_every_measure_is_what_was_planted() -> None:
    table = planted({("a", "1:3"): 20.0}, {("a", "1:3"): 5.0}, random=30.0, common=1.5)
    measured = effects(table).set_index(["series", "unit", "strength"])
    for unit in CONCEPTS:
        row = measured.loc["injected", unit, 0.05]
        assert row["specific"] == pytest.approx(1.0 * (1 + NOISE[unit])), "net of what random vectors do to names"
        assert row["own_first"] == 1.0
        assert row["rise"] == pytest.approx(0.25 + NOISE[unit] * 0.05), "the text that suffers more"
    assert np.isnan(measured.loc["random", "random-0", 0.05]["specific"])
    of = places(effects(table))["a"]
    assert of.layers == ((1, 2),)
    assert of.perplexity.mean[0, 1] == pytest.approx(np.exp(0.25))


def test_vectors_that_raise_every_name_alike_are_not_specific() -> None:
    table = planted({("a", "1:3"): 0.0}, {("a", "1:3"): 0.0}, common=3.0)
    measured = effects(table)
    injected = measured[measured["series"] == "injected"]
    np.testing.assert_allclose(injected["specific"], 0.0, atol=1e-12)
    np.testing.assert_allclose(injected["own_first"], 0.25, err_msg="names that rise alike share the first place")


# By layers: how much own names and the loss rise per strength; which layers and strength the rule chooses, and why.
RULE = {
    "all work: the middle layers, at the largest strength with coherent text": (
        {"0:2": (40, 1), "1:3": (10, 10), "2:4": (90, 1)},
        Choice("a", (1, 1), works=True, coherent=True),
    ),
    "where the middle does not work, layers beside it do": (
        {"0:2": (0, 1), "1:3": (0, 1), "2:4": (30, 10)},
        Choice("a", (2, 1), works=True, coherent=True),
    ),
    "where text is lost in the middle, layers beside it do": (
        {"0:2": (10, 1), "1:3": (90, 50), "2:4": (0, 1)},
        Choice("a", (0, 2), works=True, coherent=True),
    ),
    "works, and text is coherent nowhere": (
        {"0:2": (40, 50), "1:3": (40, 50), "2:4": (40, 50)},
        Choice("a", (1, 0), works=False, coherent=False),
    ),
    "never works: the largest coherent strength at the middle layers": (
        {"0:2": (0, 1), "1:3": (0, 10), "2:4": (0, 1)},
        Choice("a", (1, 1), works=False, coherent=True),
    ),
    "never works, and text is coherent at one end only": (
        {"0:2": (-9, 1), "1:3": (0, 50), "2:4": (-9, 50)},
        Choice("a", (0, 2), works=False, coherent=True),
    ),
}


@pytest.mark.parametrize(("by_layers", "choice"), RULE.values(), ids=RULE)
def test_the_rule_chooses_the_largest_strength_that_works_coherently(
    by_layers: dict[str, tuple[float, float]], choice: Choice
) -> None:
    gain = {("a", layers): rise for layers, (rise, _) in by_layers.items()}
    harm = {("a", layers): rise for layers, (_, rise) in by_layers.items()}
    assert choose(places(effects(planted(gain, harm)))) == choice


def test_the_most_specific_extraction_at_the_layers_is_chosen() -> None:
    gain = {("a", "0:2"): 10.0, ("a", "1:3"): 12.0, ("a", "2:4"): 10.0}
    gain |= {("b", "0:2"): 90.0, ("b", "1:3"): 30.0, ("b", "2:4"): 90.0}
    table = planted(gain, dict.fromkeys(gain, 1.0))
    assert choose(places(effects(table))) == Choice("b", (1, 2), works=True, coherent=True)
    harm = dict.fromkeys(gain, 1.0) | {("b", "1:3"): 50.0}
    assert choose(places(effects(planted(gain, harm)))) == Choice("a", (1, 2), works=True, coherent=True)


def test_text_that_is_lost_stays_lost_and_places_that_were_not_tried_are_none() -> None:
    table = planted({("a", "0:2"): 10.0, ("b", "0:2"): 99.0}, {("a", "0:2"): 1.0, ("b", "0:2"): 1.0})
    middle = (table["extraction"] == "a") & (table["strength"] == "0.05") & (table["group"] == "reply")
    table.loc[middle, "loss"] += 3.0
    table = table[~((table["extraction"] == "b") & (table["strength"] != "0.1"))]
    of = places(effects(table))
    assert of["a"].coherent.tolist() == [[True, False, False]]
    assert of["b"].coherent.tolist() == [[False, False, True]]
    assert working_range(of["a"], 0) == (0.02, 0.02)
    assert choose({"a": of["a"].up_to(0.05)}).at == (0, 0)
    assert working_range(places(effects(planted({("a", "0:2"): 0.0}, {("a", "0:2"): 1.0})))["a"], 0) is None


def test_one_concept_has_no_interval_and_is_judged_by_its_mean() -> None:
    table = planted({("a", "0:2"): 10.0}, {("a", "0:2"): 1.0})
    alone = table[table["unit"].isin(["", "cats", "random-0"])]
    of = places(effects(alone))["a"]
    assert np.isnan(of.specific.low).all()
    assert choose({"a": of}) == Choice("a", (0, 2), works=True, coherent=True)
    assert of.measured((0, 2))["specific"].low is None


def test_windows_are_spread_over_the_depth_and_lie_where_vectors_are() -> None:
    assert windows(5, 30, range(30)) == tuple(tuple(range(at, at + 10)) for at in (0, 5, 10, 15, 20))
    assert windows(5, 4, range(1, 4)) == ((1, 2), (2, 3))
    assert windows(1, 30, range(30)) == (tuple(range(10)),)


def test_what_replies_name_and_repeat() -> None:
    replies = pd.DataFrame(
        {"unit": ["cats", "cats", "bread"], "said": ["cats, bread", "", "cats"], "repeated": [0.5, 0.0, 0.25]}
    )
    measured = {name: values.tolist() for name, values in speech(replies).items()}
    assert measured == {"named": [0.5, 0.0], "others_named": [0.5, 1.0], "repeated": [0.25, 0.25]}
    assert repeated("the cat sat the cat sat the cat sat") == pytest.approx(1 - 3 / 7)
    assert (repeated("a b c d"), repeated("a b"), repeated("")) == (0.0, 0.0, 0.0)


def proposal(**changes: object) -> Proposal:
    measured = {"specific": Measured(1.0, 0.5, 1.5), "perplexity": Measured(1.3, None, None)}
    values: dict[str, object] = {
        "layers": (1, 2),
        "relative_strength": 0.05,
        "extraction": "paired_pca/reply/baseline",
        "works": True,
        "coherent": True,
        "strengths": (0.02, 0.05),
        "concepts": CONCEPTS,
        "measured": measured,
        "rule": dose_rule.WORDS,
    }
    return Proposal(**{**values, **changes})  # type: ignore[arg-type]


def test_a_calibrated_dose_is_read_back_from_its_record_and_others_as_they_are() -> None:
    dose = CalibratedDose.of(proposal())
    union = CalibratedDose | Dose
    assert facts.read(union, json.loads(json.dumps(as_json(dose)))) == dose  # type: ignore[arg-type]
    plain = Dose((1, 2), None, 0.4, "--relative-strength")
    assert facts.read(union, as_json(plain)) == plain  # type: ignore[arg-type]
    assert isinstance(dose.times(2).at((3,)), CalibratedDose)


def test_captions_say_who_chose_the_dose_and_if_it_is_not_felt() -> None:
    assert (
        CalibratedDose.of(proposal())
        .caption()
        .endswith("(calibrated by analyses.dose: the largest at which vectors work and text is coherent)")
    )
    assert "NOT FELT" in CalibratedDose.of(proposal(works=False)).caption()
    assert "NO coherent text" in CalibratedDose.of(proposal(works=False, coherent=False)).caption()
    assert Dose((1,), 2.0, None, "--strength").caption().endswith("(--strength)")
    assert "layers 1:3, relative strength 0.05, paired_pca/reply/baseline: own names rise by +1.00" in proposal().text
