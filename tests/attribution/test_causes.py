"""Causes and correlates: each is called by its name, where it is known and on the embedded models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Load, conversation, vector
from small_saes import dictionary

import mechint as mi
from mechint.attribution.features import loading
from mechint.attribution.features import verdict as causes
from mechint.attribution.features.cases import Case, cases_of
from mechint.attribution.features.dictionary import Dictionary
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.features.verdict import Rule, curves, judge, measure, trials, verdict
from mechint.attribution.reading import Reading
from mechint.base.errors import FeatureWarning, UsageError
from mechint.organisms.truth.wording import Wording

# --- a toy whose causes are known

CAUSE, CORRELATE, OPPOSES, SPARE, SPARE_TOO, QUIET = 3, 7, 5, 11, 12, 20
ALL = [CAUSE, CORRELATE, OPPOSES, SPARE, SPARE_TOO, QUIET]


class Toy(Reading):
    """A reading that answers from the stream as it says: one cause, one that opposes, and two that stand in."""

    scale = 1.0

    def logit_diffs(self, rows, *, resid=None, layer=-1, cache=None, edits=None) -> torch.Tensor:
        means = resid.mean(1)
        either = torch.maximum(means[:, SPARE], means[:, SPARE_TOO])
        return self.scale * (2 * means[:, CAUSE] - 0.8 * means[:, OPPOSES] + 2 * either) - 3


@pytest.fixture(scope="module")
def identity(tiny_model: Load) -> Dictionary:
    """Each dimension of the stream is a feature."""
    sae = dictionary(tiny_model("qwen2"), d_sae=32).sae
    with torch.no_grad():
        for name, weight in sae.named_parameters():
            weight.copy_(torch.eye(32) if name.startswith("W") else torch.zeros_like(weight))
    return loading.use(tiny_model("qwen2"), sae, "identity")


def toy_cases(model: mi.Model, identity: Dictionary, *, scale: float = 1.0, concepts: int = 8) -> list[Case]:
    """Two conversations, clean and under each concept, in which features rise as their names say."""
    steers = [mi.Injection(vector(model, n), range(3), 1.0, name=f"c{n}") for n in range(concepts)]
    generator, cases = torch.Generator().manual_seed(0), []
    for label in ("a", "b"):
        read = Reading.of(model, conversation(label), [mi.CLEAN, *steers])
        reading = Toy(read.model, read.prefilled, read.interventions, read.answers)
        object.__setattr__(reading, "scale", scale)
        base = torch.rand(len(reading.positions), 32, generator=generator) + 0.5
        resid = base + 0.2 * torch.rand(concepts + 1, 1, 32, generator=generator)
        up = 1 + 0.2 * torch.rand(concepts, 1, generator=generator)
        for feature, size in ((CAUSE, 2.0), (CORRELATE, 3.0), (OPPOSES, 2.0), (SPARE, 2.5), (SPARE_TOO, 2.5)):
            resid[1:, :, feature] += size * up
        states = FeatureReading(reading, identity, resid, identity.encode(resid))
        cases += cases_of(states)
    return cases


@pytest.fixture(scope="module")
def toy(tiny_model: Load, identity: Dictionary) -> list[Case]:
    return toy_cases(tiny_model("qwen2"), identity)


@pytest.fixture(scope="module")
def tried(toy: list[Case]) -> pd.DataFrame:
    return trials(toy, ALL)


def test_each_is_called_by_its_name(toy: list[Case]):
    table = verdict(toy, ALL).set_index("index")
    assert table.verdict[CAUSE] == "cause"
    assert table.verdict[CORRELATE] == "correlate"
    assert table.verdict[OPPOSES] == "opposes"
    assert table.verdict[SPARE] == table.verdict[SPARE_TOO] == "sufficient only"
    assert table.verdict[QUIET] == "neither"
    assert table.lost[CAUSE] == pytest.approx(table.gained[CAUSE], rel=1e-3)
    assert table.lost_fraction[CAUSE] > 0.3
    assert table.gained_fraction_low[CAUSE] > 0.3
    assert abs(table.lost[CORRELATE]) < 1e-4
    assert table.discriminates[CORRELATE]
    assert not table.discriminates[QUIET]
    assert table.component[CAUSE] == f"L1 f{CAUSE}"
    assert (table.n == 8).all()


def test_sets_stand_in_for_nobody(toy: list[Case]):
    """Both spares together are a cause, though each alone is not."""
    table = verdict(toy, {"spares": [SPARE, SPARE_TOO], "two": [CORRELATE, QUIET]})
    assert table.verdict.tolist() == ["cause", "correlate"]
    assert table.component.tolist() == ["L1 spares", "L1 two"]
    assert table["index"].tolist() == [-1, -1]
    assert table.features.tolist() == [(SPARE, SPARE_TOO), (CORRELATE, QUIET)]


def test_a_shift_of_nothing_has_no_causes(model: mi.Model, identity: Dictionary, tried: pd.DataFrame):
    small = verdict(toy_cases(model, identity, scale=0.01), ALL)
    assert set(small.verdict) == {"no effect to explain"}
    assert small.attrs["logit_diff_shift"]["mean"] < 0.25
    assert small.lost_fraction.notna().all()  # sure, but too small
    features = tried
    signs = features.concept.map({name: (-1) ** n for n, name in enumerate(sorted(set(features.concept)))})
    both_ways = features.assign(**{name: features[name] * signs for name in ("logit_diff_shift", "lost", "gained")})
    unsure = judge(both_ways)
    assert set(unsure.verdict) == {"no effect to explain"}
    assert unsure.lost_fraction.isna().all()
    assert unsure.p_lost.isna().all()


def test_a_shift_downwards_has_the_same_causes(model: mi.Model, identity: Dictionary, tried: pd.DataFrame):
    table = verdict(toy_cases(model, identity, scale=-1.0), ALL)
    assert table.verdict.tolist() == judge(tried).verdict.tolist()
    assert (table.loc[table["index"] == CAUSE, "lost"] < 0).all()


def test_the_rule_is_as_it_says(tried: pd.DataFrame):
    features = tried
    words = judge(features, rule=Rule(least=0.6)).set_index("index").verdict
    assert words[CAUSE] != "cause"
    wide = features.copy()
    noise = np.random.default_rng(0).normal(0, 30, len(wide))
    wide.loc[wide["index"] == CORRELATE, "lost"] += noise[wide["index"] == CORRELATE]
    assert judge(wide).set_index("index").verdict[CORRELATE] == "undecided"
    tiny = features.copy()
    tiny.loc[tiny["index"] == CORRELATE, "lost"] = tiny.lost_matched + 0.001 * tiny.logit_diff_shift
    assert judge(tiny).set_index("index").verdict[CORRELATE] == "correlate"  # sure, and nothing
    tiny.loc[tiny["index"] == CORRELATE, "lost"] = tiny.lost_matched + 0.06 * tiny.logit_diff_shift
    assert judge(tiny).set_index("index").verdict[CORRELATE] == "neither"  # sure, and something


def test_a_given_discrimination_is_used(tried: pd.DataFrame):
    tests = pd.DataFrame({"index": [CORRELATE, QUIET], "d": [0.1, 4.0], "q": [0.9, 0.001], "spread": True})
    table = judge(tried, discrimination=tests).set_index("index")
    assert table.verdict[CORRELATE] == "neither"
    assert table.verdict[QUIET] == "correlate"
    assert table.verdict[CAUSE] == "cause"
    with pytest.raises(UsageError, match="spread"):
        judge(tried, discrimination=tests.drop(columns="spread"))


def test_too_few_concepts_are_told(model: mi.Model, identity: Dictionary):
    with pytest.warns(FeatureWarning, match="3 concepts"):
        table = verdict(toy_cases(model, identity, concepts=3), [CAUSE, CORRELATE])
    assert table.verdict.tolist()[0] == "undecided"
    with pytest.raises(UsageError, match="two concepts"):
        verdict(toy_cases(model, identity, concepts=1), [CAUSE])


def test_curves_are_means_over_concepts(toy: list[Case]):
    draws = measure(toy, [CAUSE, SPARE, SPARE_TOO, CORRELATE, OPPOSES], [0, 1, 3, 5], n_random=5)
    table = curves(draws).set_index(["test", "k", "kind"])
    top = draws[(draws.test == "necessity") & (draws.kind == "top") & (draws.k == 3)]
    by_concept = top.groupby("concept").effect.mean()
    row = table.loc[("necessity", 3, "top")]
    assert row.effect == pytest.approx(by_concept.mean())
    assert row.fraction == pytest.approx(top.effect.mean() / top.logit_diff_shift.mean())
    assert row.effect_low < row.effect < row.effect_high
    assert np.isnan(row.p)
    against = table.loc[("necessity", 3, "random")]
    drawn = draws[(draws.test == "necessity") & (draws.kind == "random") & (draws.k == 3)]
    excess = by_concept - drawn.groupby("concept").effect.mean()
    assert against.excess == pytest.approx(excess.mean())
    assert against.p == pytest.approx(1 / 2**8)
    assert (table.n == 8).all()
    assert table.loc[("necessity", 0, "top"), "fraction"] == 0
    assert table.loc[("sufficiency", 5, "top"), "fraction"] == pytest.approx(1, abs=0.1)
    measured = measure(toy, lambda case: [CORRELATE, CAUSE] if case.conversation == "a" else [CAUSE], [1], n_random=0)
    assert measured[measured.conversation == "a"].effect.abs().max() < 1e-4
    assert measured[measured.conversation == "b"].effect.min() > 1e-4


# --- the embedded models


@pytest.fixture(scope="module")
def embedded(family: dict[str, mi.Model]) -> Callable[[str], list[Case]]:
    def make(name: str) -> list[Case]:
        vectors = mi.extract.mean_difference(family[name], ["cats", "bread", "rain", "fire", "soup", "honey"])
        steers = [mi.Injection(v, range(2, 5), relative_strength=0.4, name=c) for c, v in vectors.items()]
        sae, chats = (
            loading.load(family[name], 6, any_model=True),
            Wording.load().detection("introspection", "yes-no", 2),
        )
        return cases_of([FeatureReading.of(Reading.of(family[name], chat, [mi.CLEAN, *steers]), sae) for chat in chats])

    return make


def attributed(cases: Sequence[Case]) -> list[int]:
    """Features by the gradient x change of one case."""
    from mechint.attribution.features.attribution import attribute

    table = attribute(cases[0].states, cases[0].clean, cases[0].injected)
    features = table[table.kind == "feature"].sort_values("attribution", ascending=False)
    return [int(feature) for feature in features["index"]]


def test_the_organism_has_causes(embedded: Callable[[str], list[Case]]):
    cases = embedded("organism")
    order = attributed(cases)
    table = verdict(cases, {"top 16": order[:16], "last 16": order[-16:]}, n_random=4).set_index("component")
    assert table.verdict["L6 top 16"] == "cause"
    assert table.verdict["L6 last 16"] != "cause"
    assert table.matched_mass["L6 top 16"] == pytest.approx(table.mass["L6 top 16"], rel=0.1)


@pytest.mark.filterwarnings("ignore::mechint.base.errors.FeatureWarning")  # the SAE is the organism's
def test_the_blind_one_has_none(embedded: Callable[[str], list[Case]]):
    cases = embedded("organism-blind")
    order = attributed(cases)
    table = verdict(cases, {"top": order[:16], **{str(n): [f] for n, f in enumerate(order[:6])}}, n_random=2)
    assert set(table.verdict) == {"no effect to explain"}


def test_the_names_are_there():
    for name in causes.__all__:
        assert getattr(causes, name) is not None
