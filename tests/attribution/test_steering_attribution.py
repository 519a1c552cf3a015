"""Attribution in the steered turns: what an injection writes into the features, and what that does to the answer."""

from __future__ import annotations

import pytest
import torch
from conftest import Load, conversation, vector
from small_saes import dictionary, states_of

import mechint as mi
from mechint.attribution.features.attribution import attribute
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.features.steered_turns import Steered, prefix_acts, unsplit
from mechint.attribution.features.steering_attribution import encoder_directions, steering_attribution
from mechint.attribution.reading import Reading
from mechint.base.errors import UsageError

BACKENDS = ("bridge", "hooked")
ARCHITECTURES = ("qwen2", "gemma2", "gpt2")
METHODS = ("gradient", "integrated", "patching")
COLUMNS = ["conversation", "intervention", "kind", "component", "layer", "index", "clean", "injected", "attribution"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_read_whole_is_prefilled_and_read(tiny_model: Load, architecture: str, backend: str):
    model = tiny_model(architecture, backend)
    reading, whole = states_of(model).reading, unsplit(states_of(model).reading)
    assert len(whole.positions) == len(reading.rendered.tokens)
    last = model.n_layers - 1
    for row, intervention in enumerate(reading.interventions):
        steered = Steered.of(reading, intervention)
        logit_diffs = whole.logit_diff(steered.streams(whole, [1.0, 0.0], [last])[last]).tolist()
        expected = reading.logit_diffs([row, 0]).tolist()
        assert logit_diffs == pytest.approx(expected, abs=2e-4)


def test_features_of_the_steered_turns_are_those_of_the_prefill(model: mi.Model):
    states = states_of(model)
    length = states.reading.rendered.prefix_length
    kept: list[torch.Tensor] = []
    steer = vector(model)

    def add(activation: torch.Tensor, *, hook: object) -> torch.Tensor:
        return activation + steer.vectors[int(hook.name.split(".")[1])]

    def keep(activation: torch.Tensor, *, hook: object) -> None:
        kept.append(activation.clone())

    tokens = states.reading.rendered.token_tensor()[:, :length]
    model.forward(tokens, hooks=[(model.resid_post(1), keep)])
    model.forward(tokens, hooks=[*((model.resid_post(at), add) for at in (0, 1)), (model.resid_post(1), keep)])
    acts = prefix_acts(states)
    assert acts.shape == (3, length, 48)
    for row in (0, 1):
        assert torch.allclose(acts[row], states.dictionary.encode(kept[row][0]), atol=1e-4)
    assert not torch.allclose(acts[0], acts[1], atol=1e-2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_steering_attributions_add_up(tiny_model: Load, architecture: str):
    states = states_of(tiny_model(architecture))
    whole = steering_attribution(states, 1)
    shift = attribute(states, 0, 1).attrs["logit_diff_shift"]
    assert whole.attrs["logit_diff_shift"] == whole.attrs["measured"] == pytest.approx(shift, abs=2e-4)
    assert whole.attrs["total"] == pytest.approx(shift, rel=0.05, abs=0.02)
    assert list(whole.columns)[: len(COLUMNS)] == COLUMNS
    assert whole[whole["kind"] == "injection"]["component"].tolist() == ["L2 injection"]
    parts = whole["attribution_prefix"] + whole["attribution_read"]
    assert parts.tolist() == pytest.approx(whole["attribution"].tolist(), abs=1e-6)
    features = whole[whole["kind"] == "feature"]
    assert (features["write"] + features["clean"]).tolist() == pytest.approx(features["injected"].tolist(), abs=1e-4)
    local = steering_attribution(states, 1, method="gradient", at=0.3, step=0.01)
    assert local.attrs["total"] == pytest.approx(local.attrs["measured"], rel=0.05, abs=0.02)


def test_steering_attribution_of_one_feature_by_hand(model: mi.Model):
    """What scaling the injection writes, and what the feature does to the answer, both by finite differences."""
    states, step = states_of(model), 0.02
    table = steering_attribution(states, 2, method="gradient", at=0.5, step=step)
    feature = int(table["index"][0])
    steered, whole = Steered.of(states.reading, states.reading.interventions[2]), unsplit(states.reading)
    streams = steered.streams(whole, [0.5 - step, 0.5, 0.5 + step], [1])[1]
    acts = states.dictionary.encode(streams)[:, :, feature]
    write = (acts[2] - acts[0]) / (2 * step)
    later = {2: steered.edit(2, torch.full((2,), 0.5))}
    change = write[:, None] * states.dictionary.decoder[feature] * 0.02
    there, back = whole.logit_diffs(
        [0, 1], resid=torch.stack([streams[1] + change, streams[1] - change]), layer=1, edits=later
    ).tolist()
    assert table["attribution"][0] == pytest.approx((there - back) / 0.04, rel=0.03, abs=1e-3)
    assert abs(table["attribution"][0]) > 1e-2
    touched = steered.touched
    assert table["write"][0] == pytest.approx(float(write[touched].mean()), rel=1e-3)


@pytest.mark.parametrize("kind", ["standard", "rescaled"])
def test_what_is_added_at_the_layer_is_written_directly(model: mi.Model, kind: str):
    sae = dictionary(model, 2, kind)
    steer = mi.Injection(vector(model), [2], 1e-3, name="steer")
    states = FeatureReading.of(Reading.of(model, conversation(), [mi.CLEAN, steer]), sae)
    table = steering_attribution(states, 1, method="gradient", step=0.5)
    features = table[table["kind"] == "feature"].set_index("index")
    acts = prefix_acts(states)[0]
    always = [feature for feature in features.index if bool((acts[:, feature] > 1e-2).all())]
    assert always
    write, direct = features.loc[always, "write"], features.loc[always, "write_direct"]
    assert write.tolist() == pytest.approx(direct.tolist(), rel=2e-2, abs=1e-5)
    assert encoder_directions(sae, always).shape == (len(always), model.d_model)
    assert "injection" not in set(table["kind"])


def test_sums_of_injections_and_none_at_all(model: mi.Model):
    first = mi.Injection(vector(model, 0), [0, 3], 0.4, name="0")
    second = mi.Injection(vector(model, 1), [0, 3], 0.4, name="1")
    nothing = mi.Injection(vector(model), [0], 0.0, name="zero")
    both = (first + second).renamed("both")
    states = FeatureReading.of(Reading.of(model, conversation(), [mi.CLEAN, both, nothing]), dictionary(model))
    table = steering_attribution(states, 1)
    assert table.attrs["total"] == pytest.approx(table.attrs["logit_diff_shift"], rel=0.05, abs=0.02)
    assert abs(table.attrs["logit_diff_shift"]) > 1e-2
    assert table[table["kind"] == "injection"]["layer"].tolist() == [3]
    assert steering_attribution(states, 2, steps=2)["attribution"].abs().max() < 1e-6


def test_relative_strengths_are_those_of_the_prefill(model: mi.Model):
    steer = mi.Injection(vector(model), [0, 1], relative_strength=0.5, name="steer", segments=[0])
    states = FeatureReading.of(Reading.of(model, conversation(), [mi.CLEAN, steer]), dictionary(model))
    shift = steering_attribution(states, 1, steps=2).attrs["logit_diff_shift"]
    assert shift == pytest.approx(float(states.logit_diffs[1] - states.logit_diffs[0]), abs=2e-4)
    assert abs(shift) > 1e-3


def test_swaps_have_no_steered_stream(tiny_model: Load):
    model = tiny_model("qwen2")
    swap = mi.Swap(tiny_model("qwen2", seed=1), name="swap")
    states = FeatureReading.of(Reading.of(model, conversation(), [mi.CLEAN, swap]), dictionary(model))
    assert attribute(states, 0, 1, method="integrated").attrs["total"] != 0
    for call in (prefix_acts, lambda s: steering_attribution(s, 1)):
        with pytest.raises(UsageError, match="another model"):
            call(states)
