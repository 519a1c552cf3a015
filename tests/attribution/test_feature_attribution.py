"""Attribution to features: it adds up, it is the derivative it claims to be, and it is found by intervening too."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Load, conversation
from small_saes import dictionary, states_of

import mechint as mi
from mechint.attribution.features import loading
from mechint.attribution.features.attribution import attribute, attribute_all, by_position
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.features.gradients import check_differentiable, mean_gradient, straight_path
from mechint.attribution.features.steering_attribution import steering_attribution
from mechint.attribution.reading import Reading
from mechint.base.errors import UsageError
from mechint.organisms.truth.wording import Wording

BACKENDS = ("bridge", "hooked")
ARCHITECTURES = ("qwen2", "gemma2", "gpt2")
METHODS = ("gradient", "integrated", "patching")
COLUMNS = ["conversation", "intervention", "kind", "component", "layer", "index", "clean", "injected", "attribution"]


class Linear(Reading):
    """A reading whose logit_diff is linear in the stream and in the cache."""

    def logit_diffs(self, rows: Sequence[int], *, resid=None, layer=-1, cache=None, edits=None):
        cache = cache or self.cache
        sides = [*cache.keys[layer + 1 :], *cache.values[layer + 1 :]]
        total = (resid * self.weight(resid)).sum((1, 2))
        for side in sides:
            total = total + (side[list(rows)] * self.weight(side)).sum((1, 2, 3))
        return total

    @staticmethod
    def weight(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape[1:], generator=torch.Generator().manual_seed(tensor.ndim))


def linear(states: FeatureReading) -> FeatureReading:
    reading = states.reading
    read = Linear(reading.model, reading.prefilled, reading.interventions, reading.answers)
    return FeatureReading(read, states.dictionary, states.resid, states.acts)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_add_up_to_the_first_order_total(tiny_model: Load, architecture: str, backend: str):
    model = tiny_model(architecture, backend)
    for kind, options in (
        ("standard", {}),
        ("topk", {"base": "injected"}),
        ("layer_norm", {"method": "integrated", "steps": 3}),
        ("rescaled", {}),
    ):
        states = states_of(model, kind=kind)
        table = attribute(states, 0, 1, **options)
        assert table["attribution"].sum() == pytest.approx(table.attrs["total"], abs=1e-5)
        assert abs(table.attrs["total"]) > 1e-3
        scores = mi.score(model, conversation(), list(states.reading.interventions))["logit_diff"]
        assert table.attrs["logit_diff_shift"] == pytest.approx(scores[1] - scores[0], abs=1e-4)
        assert table.attrs["gap"] == pytest.approx(table.attrs["logit_diff_shift"] - table.attrs["total"])


def test_the_table(model: mi.Model):
    states = states_of(model)
    table = attribute(states, 0, 1)
    assert list(table.columns) == [*COLUMNS, "clean_at_answer", "injected_at_answer"]
    features = table[table["kind"] == "feature"]
    both = states.acts[:2]
    assert sorted(features["index"]) == (both != 0).any(0).any(0).nonzero()[:, 0].tolist()
    assert len(features) < states.dictionary.d_sae
    assert features["attribution"].abs().is_monotonic_decreasing
    first = features.iloc[0]
    assert first["component"] == f"L1 f{first['index']}"
    assert first["clean"] == pytest.approx(float(both[0, :, first["index"]].mean()))
    assert first["injected_at_answer"] == pytest.approx(float(both[1, -1, first["index"]]))
    rest = table[table["kind"] != "feature"]
    assert rest["component"].tolist() == ["L1 error", "L2 cache", "L3 cache"]
    assert rest["index"].eq(-1).all()
    assert rest["clean"].isna().all()
    assert table["index"].dtype == table["layer"].dtype == np.int64


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_row_is_the_derivative_towards_the_injected_run(tiny_model: Load, architecture: str, backend: str):
    states = states_of(tiny_model(architecture, backend))
    reading, step = states.reading, 1e-2
    table = attribute(states, 0, 1).set_index("component")["attribution"]

    def along(resid: torch.Tensor, cache: mi.KVCache | None = None) -> float:
        """Slope of logit_diff along a change of the clean run's stream (and of its cache)."""
        stream = torch.stack([states.resid[0] + sign * step * resid for sign in (1, -1)])
        there, back = reading.logit_diffs([0, 1] if cache else [0, 0], resid=stream, layer=1, cache=cache).tolist()
        return (there - back) / (2 * step)

    for name in table.index[:3]:
        feature = int(name.split("f")[-1])
        change = (states.acts[1] - states.acts[0])[:, feature : feature + 1] * states.dictionary.decoder[feature]
        assert table[name] == pytest.approx(along(change), rel=0.03, abs=1e-3)
        assert abs(table[name]) > 1e-3
    assert table["L1 error"] == pytest.approx(along(states.rest[1] - states.rest[0]), rel=0.03, abs=1e-3)

    def moved(side: torch.Tensor, layer: int) -> torch.Tensor:
        parts = [side[0] + sign * step * (side[1] - side[0]) * (layer == 2) for sign in (1, -1)]
        return torch.stack(parts)

    sides = (tuple(moved(side, at) for at, side in enumerate(s)) for s in (reading.cache.keys, reading.cache.values))
    still = torch.zeros_like(states.resid[0])
    assert table["L2 cache"] == pytest.approx(along(still, mi.KVCache(*sides)), rel=0.03, abs=1e-3)


@pytest.mark.parametrize("kind", ["standard", "topk"])
def test_linear_readings_are_attributed_exactly_by_every_method(model: mi.Model, kind: str):
    states = linear(states_of(model, kind=kind))
    weight = Linear.weight(states.resid)
    expected = {}
    for feature in range(states.dictionary.d_sae):
        change = (states.acts[1] - states.acts[0])[:, feature]
        expected[feature] = sum(
            float(change[pos]) * float(states.dictionary.decoder[feature] @ weight[pos]) for pos in range(len(change))
        )
    for method in METHODS:
        table = attribute(states, 0, 1, method=method, steps=2)
        assert table.attrs["gap"] == pytest.approx(0, abs=1e-3)
        features = table[table["kind"] == "feature"].set_index("index")["attribution"]
        assert features.to_dict() == pytest.approx({f: expected[f] for f in features.index}, abs=1e-3)
        assert sum(abs(value) for value in expected.values()) > 1
    assert sum(value for f, value in expected.items() if f not in features.index) == 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_whole_path_adds_up_to_the_shift(tiny_model: Load, architecture: str):
    states = states_of(tiny_model(architecture))
    near = attribute(states, 0, 1, method="integrated", steps=24).attrs
    far = attribute(states, 0, 1, method="integrated", steps=2).attrs
    shift = near["logit_diff_shift"]
    assert near["total"] == pytest.approx(shift, rel=1e-2, abs=1e-3)
    assert abs(near["gap"]) < abs(attribute(states, 0, 1).attrs["gap"])
    assert abs(near["gap"]) <= abs(far["gap"]) + 1e-4
    back = attribute(states, 1, 0, method="integrated", steps=24).attrs
    assert back["total"] == pytest.approx(-near["total"], abs=1e-4)


def test_quadrature_is_exact_for_polynomials():
    points = straight_path(3)
    assert sum(weight for _, weight in points) == pytest.approx(1)
    assert sum(weight * at**5 for at, weight in points) == pytest.approx(1 / 6)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_against_itself_has_nothing_to_attribute(model: mi.Model, method: str):
    table = attribute(states_of(model), 1, 1, method=method, steps=2)
    assert table["attribution"].abs().max() < 1e-6
    assert table.attrs["logit_diff_shift"] == 0
    assert len(table) > 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_both_backends_agree(tiny_model: Load, architecture: str, method: str):
    def attributions(backend: str) -> dict[str, float]:
        table = attribute(states_of(tiny_model(architecture, backend)), 0, 1, method=method, steps=3)
        return table.set_index("component")["attribution"].to_dict()

    assert attributions("bridge") == pytest.approx(attributions("hooked"), abs=2e-4)


def test_patching_is_what_setting_each_component_does(model: mi.Model):
    states = states_of(model)
    reading, (clean, injected) = states.reading, states.logit_diffs[:2].tolist()
    table = attribute(states, 0, 1, method="patching").set_index("component")["attribution"]
    back = attribute(states, 0, 1, method="patching", base="injected").set_index("component")["attribution"]
    for name in table.index[:4]:
        features = [int(name.split("f")[-1])]
        added = reading.logit_diffs(
            [0], resid=states.with_features(0, features, states.acts[1][:, features])[None], layer=1
        )
        taken = reading.logit_diffs(
            [1], resid=states.with_features(1, features, states.acts[0][:, features])[None], layer=1
        )
        assert table[name] == pytest.approx(float(added) - clean, abs=1e-5)
        assert back[name] == pytest.approx(injected - float(taken), abs=1e-5)

    def injected_in_block_3(sides: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(side[1:2] if layer == 3 else side[0:1] for layer, side in enumerate(sides))

    cache = mi.KVCache(injected_in_block_3(reading.cache.keys), injected_in_block_3(reading.cache.values))
    swapped = reading.logit_diffs([0], resid=states.resid[:1], layer=1, cache=cache)
    assert table["L3 cache"] == pytest.approx(float(swapped) - clean, abs=1e-5)
    rest = reading.logit_diffs([0], resid=(states.resid[0] + states.rest[1] - states.rest[0])[None], layer=1)
    assert table["L1 error"] == pytest.approx(float(rest) - clean, abs=1e-5)
    assert table.abs().max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_chosen_features_leave_the_others_in_one_row(model: mi.Model, method: str):
    states = states_of(model)
    whole = attribute(states, 0, 1, method=method, steps=2)
    chosen = whole["index"][[3, 0]].tolist()
    table = attribute(states, 0, 1, method=method, steps=2, features=chosen)
    assert table["kind"].tolist()[:3] == ["feature", "feature", "other"]
    assert sorted(table["index"][:2]) == sorted(chosen)
    expected = whole.set_index("component")["attribution"]
    by_component = table.set_index("component")["attribution"]
    common = by_component.index.intersection(expected.index)
    assert len(common) == len(by_component) - 1
    assert by_component[common].to_dict() == pytest.approx(expected[common].to_dict(), abs=1e-5)
    if method != "patching":
        assert table.attrs["total"] == pytest.approx(by_component.sum(), abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_positions_add_up_to_rows(model: mi.Model, method: str):
    states = states_of(model)
    table = attribute(states, 0, 1, method=method, steps=2).set_index("index")["attribution"]
    chosen = table.index[:3].tolist()
    placed = by_position(states, 0, 1, chosen, method=method, steps=2)
    assert placed.shape == (len(states.reading.positions), 3)
    if method != "patching":
        assert placed.sum(0).tolist() == pytest.approx(table[chosen].tolist(), abs=1e-5)
        return
    last = torch.arange(placed.shape[0]) == placed.shape[0] - 1
    stream = states.with_features(0, chosen[:1], states.acts[1][:, chosen[:1]], last)
    change = float(states.reading.logit_diffs([0], resid=stream[None], layer=1)) - float(states.logit_diffs[0])
    assert float(placed[-1, 0]) == pytest.approx(change, abs=1e-5)
    assert abs(change) > 1e-4


def test_batches_change_nothing(model: mi.Model):
    for method in METHODS:
        single = attribute(states_of(model, batch_size=1), 0, 2, method=method, steps=5).set_index("component")
        many = attribute(states_of(model, batch_size=None), 0, 2, method=method, steps=5).set_index("component")
        assert single["attribution"].to_dict() == pytest.approx(many["attribution"].to_dict(), abs=1e-4)


def test_several_interventions_are_joined(model: mi.Model):
    states = states_of(model)
    table = attribute_all(states, method="integrated", steps=2)
    assert table["intervention"].unique().tolist() == ["steer", "other"]
    for row, name in ((1, "steer"), (2, "other")):
        alone = attribute(states, 0, row, method="integrated", steps=2)
        rows = table[table["intervention"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone, check_exact=False, atol=1e-6)
        assert table.attrs["total"][name] == pytest.approx(alone.attrs["total"], abs=1e-6)
    assert attribute_all(states, [2])["intervention"].unique().tolist() == ["other"]


def test_ends_of_the_model(model: mi.Model):
    first = attribute(states_of(model, layer=-1), 0, 1)
    assert first["component"][0].startswith("embed f")
    assert first.loc[first["kind"] != "cache", "attribution"].abs().max() == 0
    assert first.loc[first["kind"] == "cache", "layer"].tolist() == list(range(model.n_layers))
    assert abs(first.attrs["total"]) > 1e-3
    last = attribute(states_of(model, layer=model.n_layers - 1), 0, 1, method="integrated")
    assert set(last["kind"]) == {"feature", "error"}
    assert last.attrs["gap"] == pytest.approx(0, abs=1e-2)
    chat = mi.Conversation("plain", conversation().messages[3:], yes_token=" yes", no_token=" no")
    bare = FeatureReading.of(Reading.of(model, chat, mi.CLEAN), dictionary(model))
    assert set(attribute(bare, 0, 0)["kind"]) == {"feature", "error"}


def test_gradients_need_nothing_of_the_model_and_leave_nothing_behind(model: mi.Model):
    states = states_of(model)
    with torch.no_grad():
        gradient = mean_gradient(states, 0, 1, [(0.0, 1.0)])
    assert not gradient.resid.requires_grad
    assert not states.resid.requires_grad
    assert all(weight.grad is None for _, weight in model.backend.parameters())
    assert set(gradient.caches) == {2, 3}


def quantised(model: mi.Model, weight: torch.Tensor | None, flag: bool = False) -> mi.Model:
    changed = copy.copy(model)
    weights = [("weight", torch.zeros(2) if weight is None else weight)]
    changed.backend = SimpleNamespace(parameters=lambda: iter(weights), hf_model=SimpleNamespace(is_quantized=flag))
    return changed


def test_quantised_models_are_refused(model: mi.Model):
    check_differentiable(model)
    check_differentiable(quantised(model, None))
    weights = [torch.zeros(2, dtype=dtype) for dtype in (torch.int8, torch.uint8, torch.float8_e4m3fn)]
    for refused in (*(quantised(model, weight) for weight in weights), quantised(model, None, flag=True)):
        with pytest.raises(UsageError, match="patching"):
            check_differentiable(refused)


def test_a_quantised_model_is_still_patched(model: mi.Model, monkeypatch: pytest.MonkeyPatch):
    states = states_of(model)
    monkeypatch.setattr(model.backend, "parameters", lambda: iter([("weight", torch.zeros(2, dtype=torch.int8))]))
    for call in (lambda: attribute(states, 0, 1), lambda: steering_attribution(states, 1)):
        with pytest.raises(UsageError, match="int8"):
            call()
    assert attribute(states, 0, 1, method="patching").attrs["total"] != 0


@pytest.mark.parametrize(
    "call",
    [
        lambda s: attribute(s, 0, 3),
        lambda s: attribute(s, -1, 1),
        lambda s: attribute(s, 0, 1, steps=0, method="integrated"),
        lambda s: attribute(s, 0, 1, features=[48]),
        lambda s: attribute(s, 0, 1, features=[]),
        lambda s: attribute(s, 0, 1, features=[1, 1]),
        lambda s: attribute_all(s, []),
        lambda s: by_position(s, 0, 1, [-1]),
        lambda s: steering_attribution(s, 0),
        lambda s: steering_attribution(s, 3),
        lambda s: steering_attribution(s, 1, steps=0),
        lambda s: steering_attribution(s, 1, method="gradient", step=0.0),
    ],
)
def test_bad_input(model: mi.Model, call: Callable[[FeatureReading], object]):
    with pytest.raises(UsageError):
        call(states_of(model))


def test_the_organism(family: dict[str, mi.Model], wording: Wording):
    model = family["organism"]
    cats = mi.extract.mean_difference(model, ["cats"])["cats"]
    steer = mi.Injection(cats, range(2, 5), relative_strength=0.4, name="cats")
    chat = wording.detection("introspection", "yes-no", 2)[0]
    states = FeatureReading.of(Reading.of(model, chat, [mi.CLEAN, steer]), loading.load(model, 6))
    local, whole = attribute(states, 0, 1), attribute(states, 0, 1, method="integrated")
    assert local["attribution"].sum() == pytest.approx(local.attrs["total"], abs=1e-5)
    assert whole.attrs["total"] == pytest.approx(whole.attrs["logit_diff_shift"], rel=1e-2)
    assert whole.attrs["logit_diff_shift"] > 2
    # Behind the blocks that make the report, it is in the stream of the read positions, and features hold most of it.
    by_kind = whole.groupby("kind")["attribution"].sum() / whole.attrs["total"]
    assert by_kind["feature"] > 0.7
    assert abs(by_kind["cache"]) < 0.2
    # Before them, it is still in the cache.
    early = attribute(FeatureReading.of(states.reading, loading.load(model, 3)), 0, 1, method="integrated")
    assert early.groupby("kind")["attribution"].sum()["cache"] > 0.7 * early.attrs["total"]
