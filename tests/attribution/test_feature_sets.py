"""Setting features is an explicit edit, cases are rows, random sets are fair, and necessity is what ablating says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import unwrap

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Load, conversation, vector
from small_saes import dictionary

import mechint as mi
from mechint.attribution.features.cases import cases_of, clean_row, concept_of, series_of
from mechint.attribution.features.clamping import mask_of, set_features, values_of
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.features.random_sets import active_features, mass, matched_sets, random_sets
from mechint.attribution.features.verdict import Rule, ablate, clamp, curves, measure, necessity, sufficiency, trials
from mechint.attribution.reading import Reading
from mechint.base.errors import UnknownNameError, UsageError

BACKENDS = ("bridge", "hooked")


def states_of(model: mi.Model, kind: str = "standard", layer: int = 1, **options: object) -> FeatureReading:
    steers = [mi.Injection(vector(model, seed), range(3), 1.0, name=f"steer {seed}") for seed in range(2)]
    return FeatureReading.of(
        Reading.of(model, conversation(), [mi.CLEAN, *steers], **options), dictionary(model, layer, kind)
    )


def changed(states: FeatureReading, row: int = 1) -> list[int]:
    """Features that differ most between a row and the clean one, first the most."""
    order = (states.acts[row] - states.acts[0]).abs().sum(0).argsort(descending=True)
    return [int(feature) for feature in order]


# --- setting features


def test_nothing_and_own_values_change_nothing(model: mi.Model):
    states = states_of(model)
    injected, top = float(states.logit_diffs[1]), changed(states)[:5]
    assert ablate(states, 1, []) == injected
    assert ablate(states, 0, top, to="clean") == float(states.logit_diffs[0])
    assert clamp(states, 1, top, to="injected", injected=1) == injected
    same = set_features(states, 1, [[], top, top[:1]], states.acts[1], mask_of(states, "read"))
    assert same.tolist() == [injected] * 3
    assert abs(ablate(states, 1, top) - injected) > 1e-3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["standard", "topk", "layer_norm"])
@pytest.mark.parametrize("to", ["zero", "clean", "clean_mean", "injected", "injected_mean"])
@pytest.mark.parametrize("where", ["read", "answer", "mask"])
def test_equals_an_explicit_edit(tiny_model: Load, kind: str, backend: str, to: str, where: str):
    states = states_of(tiny_model("qwen2", backend), kind)
    n_pos = states.resid.shape[1]
    mask = torch.arange(n_pos) % 2 == 0 if where == "mask" else torch.arange(n_pos) >= (n_pos - 1) * (where == "answer")
    row = 0 if to.startswith("injected") else 1
    top = [f for f in changed(states) if (states.acts[:2, mask, f] > 0).any(1).all()][:3]
    values = {"zero": torch.zeros(n_pos, 3), "clean": states.acts[0][:, top], "injected": states.acts[1][:, top]}
    target = values[to] if to in values else values[to.removesuffix("_mean")][mask].mean(0).expand(n_pos, 3)

    def edit(resid: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        edited = resid.clone()
        for position in range(n_pos):
            for n, feature in enumerate(top):
                move = target[position, n] - states.acts[row, position, feature]
                if mask[position]:
                    edited[0, position] += move * states.dictionary.decoder[feature]
        return edited

    expected = float(states.reading.logit_diffs([row], edits={states.dictionary.layer: edit})[0])
    positions = mask if where == "mask" else where
    if to.startswith("injected"):
        logit_diff = clamp(states, row, top, to=to, injected=1, positions=positions)
    else:
        logit_diff = ablate(states, row, top, to=to, positions=positions)
    assert logit_diff == pytest.approx(expected, abs=1e-4)
    assert abs(logit_diff - float(states.logit_diffs[row])) > 1e-6


def test_sets_in_pieces_are_sets_at_once(model: mi.Model):
    states, small = states_of(model), states_of(model, batch_size=2)
    sets = [[feature] for feature in changed(states)[:7]] + [[], changed(states)[:7]]
    results = [
        set_features(reading, 1, sets, values_of(reading, 0, mask_of(reading, "read")), mask_of(reading, "read"))
        for reading in (states, small)
    ]
    assert torch.allclose(*results, atol=1e-4)
    alone = [ablate(states, 1, features) for features in sets]
    assert results[0].tolist() == pytest.approx(alone, abs=1e-4)
    assert len({round(value, 4) for value in alone}) > 4


def test_all_features_and_what_they_leave_out(model: mi.Model):
    """With every feature at its clean value only the SAE's error and the caches are still those of the injected run."""
    states = states_of(model)
    everything = list(range(states.dictionary.d_sae))
    rest = states.rest
    stream = (states.acts[0] @ states.dictionary.decoder + rest[1])[None]
    expected = float(states.reading.logit_diffs([1], resid=stream, layer=states.dictionary.layer)[0])
    assert ablate(states, 1, everything) == pytest.approx(expected, abs=1e-4)


# --- cases


def test_cases_are_the_rows_of_a_series(model: mi.Model):
    drawn = mi.Injection(mi.extract.random_controls(model, n=1)[0], range(3), 1.0, name="noise")
    cats = mi.Injection(replace(vector(model), name="cats"), range(3), 1.0, name="cats x1")
    reading = Reading.of(model, conversation(), [drawn, mi.CLEAN, cats, cats + drawn])
    states = FeatureReading.of(reading, dictionary(model))
    series = [series_of(intervention) for intervention in reading.interventions]
    assert series == ["random", "clean", "injected", "injected"]
    assert clean_row(states) == 1
    assert [(case.injected, case.concept) for case in cases_of(states)] == [(2, "cats"), (3, "cats x1 + noise")]
    assert [(case.injected, case.concept) for case in cases_of(states, series="random")] == [(0, "random-0")]
    named = cases_of(states, concepts={"cats x1": "cats", "cats x1 + noise": "cats"})
    assert {case.concept for case in named} == {"cats"}
    assert named[0].shift == pytest.approx(float(states.logit_diffs[2] - states.logit_diffs[1]), abs=1e-6)
    assert named[0].conversation == conversation().label
    assert concept_of(mi.CLEAN) == "clean"


# --- random sets


def test_random_sets_are_of_equal_size_different_and_active(model: mi.Model):
    case = cases_of(states_of(model))[0]
    mask, rng = mask_of(case.states, "read"), np.random.default_rng(0)
    active = active_features(case, mask)
    both = case.states.acts[[0, 1]]
    assert active.tolist() == [f for f in range(48) if bool((both[..., f] != 0).any())]
    drawn = random_sets(active, 4, 20, rng)
    assert len(set(drawn)) == 20
    assert all(len(set(features)) == 4 and set(features) <= set(active.tolist()) for features in drawn)
    assert len(random_sets(np.arange(3), 2, 20, rng)) == 3
    assert random_sets(np.arange(3), 3, 20, rng) == [(0, 1, 2)]


def test_mass_is_the_change_or_the_activation(model: mi.Model):
    case = cases_of(states_of(model))[0]
    mask = mask_of(case.states, "answer")
    clean = case.states.acts[0, -1].double().numpy()
    injected = case.states.acts[1, -1].double().numpy()
    assert np.allclose(mass(case, mask), np.abs(injected - clean))
    assert np.allclose(mass(case, mask, "activation"), (np.abs(injected) + np.abs(clean)) / 2)


@pytest.mark.parametrize("size", [1, 4, 16])
def test_matched_sets_have_the_mass(size: int):
    rng = np.random.default_rng(size)
    masses = rng.lognormal(0, 1.5, 400)
    order = np.argsort(-masses)
    chosen = order[20 : 20 + 2 * size : 2]  # among the largest, but not the very largest
    pool = np.setdiff1d(np.arange(400), chosen)
    drawn = matched_sets(pool, chosen.tolist(), masses, 20, rng)
    assert len(set(drawn)) == len(drawn) >= 8
    totals = np.array([masses[list(features)].sum() for features in drawn])
    assert all(len(features) == size and not set(features) & set(chosen.tolist()) for features in drawn)
    assert totals.mean() == pytest.approx(masses[chosen].sum(), rel=0.1)
    unmatched = [masses[list(features)].sum() for features in random_sets(pool, size, 20, rng)]
    assert np.mean(unmatched) < 0.5 * masses[chosen].sum()


def test_a_mass_beyond_all_others_is_matched_as_far_as_it_can_be():
    masses = np.array([100.0, *np.linspace(1, 2, 20)])
    drawn = matched_sets(np.arange(1, 21), [0], masses, 20, np.random.default_rng(0))
    assert sorted(drawn) == [(feature,) for feature in range(13, 21)]


# --- necessity and sufficiency


def test_necessity_and_sufficiency_are_ablating_and_clamping(model: mi.Model):
    states = states_of(model)
    order, ks = changed(states)[:8], [0, 1, 8]
    lost = necessity(states, 0, 1, order, ks, n_random=3)
    gained = sufficiency(states, 0, 1, order, ks, n_random=3)
    clean, injected = states.logit_diffs.double()[:2].tolist()
    top = lost[lost.kind == "top"].set_index("k")
    assert top.logit_diff[0] == injected
    assert top.effect[0] == 0
    for k in (1, 8):
        assert top.logit_diff[k] == pytest.approx(ablate(states, 1, order[:k]), abs=1e-4)
        assert top.effect[k] == pytest.approx(injected - top.logit_diff[k], abs=1e-6)
        assert top.fraction[k] == pytest.approx(top.effect[k] / (injected - clean), rel=1e-5)
    last = gained[(gained.kind == "top") & (gained.k == 8)].iloc[0]
    assert last.logit_diff == pytest.approx(clamp(states, 0, order, to="injected", injected=1), abs=1e-4)
    assert last.effect == pytest.approx(last.logit_diff - clean, abs=1e-6)
    assert lost.groupby(["k", "kind"]).size().to_dict() == {
        (0, "top"): 1,
        (1, "top"): 1,
        (1, "random"): 3,
        (1, "mass-matched"): 3,
        (8, "top"): 1,
        (8, "random"): 3,
        (8, "mass-matched"): 3,
    }
    assert lost.mass.tolist() == gained.mass.tolist()  # the same sets
    pd.testing.assert_frame_equal(lost, necessity(states, 0, 1, order, ks, n_random=3))
    other = necessity(states, 0, 1, order, ks, n_random=3, seed=1)
    assert other.mass.tolist() != lost.mass.tolist()


def test_a_set_larger_than_what_is_left_has_no_random_ones(model: mi.Model):
    states = states_of(model)
    case = cases_of(states)[0]
    order = active_features(case, mask_of(states, "read")).tolist()
    removed = necessity(states, 0, 1, order, [len(order)], n_random=3)
    assert removed.kind.tolist() == ["top"]


def test_no_fraction_of_no_shift(model: mi.Model):
    states = states_of(model)
    same = FeatureReading(states.reading, states.dictionary, states.resid[[0, 0, 0]], states.acts[[0, 0, 0]])
    same.__dict__["logit_diffs"] = states.logit_diffs[[0, 0, 0]]
    removed = necessity(same, 0, 1, changed(states)[:4], [4], n_random=0)
    assert removed.effect.tolist() == [0]
    assert removed.fraction.isna().all()


# --- bad input; what type checking would refuse before us in the tests is given to the function under it


@pytest.mark.parametrize(
    "call",
    [
        lambda s: ablate(s, 9, [1]),
        lambda s: ablate(s, 1, [99]),
        lambda s: ablate(s, 1, [2, 2]),
        lambda s: unwrap(ablate)(s, 1, [1], to="none"),
        lambda s: ablate(s, 1, [1], clean=7),
        lambda s: unwrap(mask_of)(s, "all"),
        lambda s: ablate(s, 1, [1], positions=torch.zeros(s.resid.shape[1], dtype=torch.bool)),
        lambda s: ablate(s, 1, [1], positions=torch.ones(2, dtype=torch.bool)),
        lambda s: clamp(s, 0, [1], injected=5),
        lambda s: unwrap(clamp)(s, 0, [1], injected=1, to="clean"),
        lambda s: necessity(s, 0, 0, [1], [1]),
        lambda s: necessity(s, 0, 1, [1], [2]),
        lambda s: necessity(s, 0, 1, [1], []),
        lambda s: necessity(s, 0, 1, [1, 2], [1, 1]),
        lambda s: necessity(s, 0, 1, [], [0]),
        lambda s: sufficiency(s, 0, 1, [1], [1], n_random=-1),
        lambda s: unwrap(mass)(cases_of(s)[0], mask_of(s, "read"), "weight"),
        lambda s: cases_of(s, series="clean"),
        lambda s: unwrap(cases_of)(s, series="none"),
        lambda s: cases_of([]),
        lambda s: measure([], [1], [1]),
        lambda s: measure([*cases_of(s), *cases_of(s)], [1], [1]),
        lambda s: trials(cases_of(s), []),
        lambda s: trials(cases_of(s), {}),
        lambda s: trials(cases_of(s), {"all": range(48)}),
        lambda s: trials(cases_of(s), [1], n_random=0),
        lambda s: curves(pd.DataFrame({"k": [1]})),
        lambda s: Rule(alpha=0.0),
        lambda s: Rule(least_shift=-1.0),
        lambda s: Rule(negligible=0.5),
        lambda s: random_sets(np.arange(3), 4, 1, np.random.default_rng(0)),
    ],
)
def test_bad_input(model: mi.Model, call: Callable[[FeatureReading], object]):
    with pytest.raises(UsageError):
        call(states_of(model))


def test_cases_must_go_together(model: mi.Model):
    first, second = states_of(model), states_of(model)
    with pytest.raises(UsageError, match="one dictionary"):
        cases_of([first, second])
    with pytest.raises(UnknownNameError, match="steer 1"):
        cases_of(first, concepts={"steer 0": "cats"})
    with pytest.raises(UsageError, match="0 clean rows"):
        cases_of(
            FeatureReading.of(Reading.of(model, conversation(), [first.reading.interventions[1]]), first.dictionary)
        )
