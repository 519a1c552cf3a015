"""The planted model: a direction that causes the answer and one that only goes along, and analyses must tell them."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import load_once

import mechint as mi
from mechint.attribution.features import loading
from mechint.attribution.features.dictionary import Dictionary
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.features.verdict import cases_of, verdict
from mechint.attribution.reading import Reading
from mechint.base.errors import LayerRangeError, SAEMismatchError, UnknownModelError, UsageError
from mechint.organisms import ORGANISMS, PLANTED, concepts, organism_path, sae_path
from mechint.organisms.planted import planting as build
from mechint.organisms.planted.card import controls, injections, shifts
from mechint.organisms.planted.planting import Planted
from mechint.organisms.record import sha256
from mechint.organisms.training.tokenizer import load_tokenizer
from mechint.organisms.truth.wording import Wording

WORDS = concepts("all")[::5]
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def truth() -> Planted:
    return Planted.read(organism_path(PLANTED))


@pytest.fixture(scope="module")
def model() -> mi.Model:
    return load_once(PLANTED)


@pytest.fixture(scope="module", params=["bridge", "hooked"])
def either(request: pytest.FixtureRequest, model: mi.Model) -> mi.Model:
    return model if request.param == "bridge" else mi.load(PLANTED, backend="hooked")


@pytest.fixture(scope="module")
def blind(family: Mapping[str, mi.Model]) -> mi.Model:
    return family["organism-blind"]


@pytest.fixture(scope="module")
def chats() -> list[mi.Conversation]:
    wording = Wording.load()
    wordings = [(info, form) for info in ("none", "introspection") for form in ("yes-no", "one-zero")]
    return [wording.detection(info, form, 2)[1] for info, form in wordings]


@pytest.fixture(scope="module")
def injected(model: mi.Model) -> list[mi.Injection]:
    return injections(model, WORDS)


@pytest.fixture(scope="module")
def injected_in_base(blind: mi.Model) -> list[mi.Injection]:
    return injections(blind, WORDS)


@pytest.fixture(scope="module")
def dictionary(model: mi.Model) -> Dictionary:
    return loading.load(model)


@pytest.fixture(scope="module")
def states(
    model: mi.Model, chats: list[mi.Conversation], injected: list[mi.Injection], dictionary: Dictionary
) -> list[FeatureReading]:
    return [FeatureReading.of(Reading.of(model, chat, [mi.CLEAN, *injected]), dictionary) for chat in chats]


# The files.


def test_building_again_gives_the_shipped_files(tmp_path: Path, truth: Planted):
    built, shipped = build.write(tmp_path / PLANTED), organism_path(PLANTED)
    names = [str(path.relative_to(built)) for path in built.rglob("*") if path.is_file()]
    assert len(names) == 8
    assert filecmp.cmpfiles(built, shipped, names, shallow=False)[0] == names
    assert truth.sha256 == sha256(shipped / "model.safetensors")
    assert truth.sae_sha256 == sha256(sae_path(truth.layer, PLANTED) / "sae_weights.safetensors")
    assert sum(path.stat().st_size for path in shipped.rglob("*")) < 5 * MEGABYTE
    page = (shipped / "README.md").read_text()
    assert truth.sha256 in page
    assert truth.sae_sha256 in page


def test_the_command_writes_model_and_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mechint.organisms.planted.card._table", lambda *_: "| measured |")
    assert build.main(["--out", str(tmp_path / "made")]) == 0
    assert "| measured |" in (tmp_path / "made" / "README.md").read_text()
    (tmp_path / "file").touch()
    assert build.main(["--out", str(tmp_path / "file")]) == 2


def test_it_is_embedded_and_not_one_of_the_trained_family(model: mi.Model, blind: mi.Model, dictionary: Dictionary):
    assert PLANTED not in ORGANISMS
    assert model.tokenizer.get_vocab() == blind.tokenizer.get_vocab()
    assert (model.prompts, model.d_model - blind.d_model) == (blind.prompts, 4)
    assert dictionary.name == f"{PLANTED} resid_post.6"
    assert dictionary.d_sae == 1026


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda model, folder: build.write(folder, base="organism-lora"), UsageError),
        (lambda model, folder: build.write(folder, base="organism-none"), UnknownModelError),
        (lambda model, folder: sae_path(3, PLANTED), LayerRangeError),
        (lambda model, folder: loading.load(model, 3), SAEMismatchError),
        (lambda model, folder: loading.load(load_once("organism-blind"), sae_path(6, PLANTED)), SAEMismatchError),
    ],
)
def test_bad_input(model: mi.Model, tmp_path: Path, call: Callable[[mi.Model, Path], object], error: type[Exception]):
    with pytest.raises(error):
        call(model, tmp_path)


# The model.


def test_without_injection_it_answers_as_its_base(either: mi.Model, blind: mi.Model, chats: list[mi.Conversation]):
    scored = mi.score(either, chats, mi.CLEAN)
    expected = mi.score(blind, chats, mi.CLEAN)
    for column in ("logit_yes", "logit_no", "logit_diff", "p_yes"):
        np.testing.assert_allclose(scored[column], expected[column], atol=1e-4)


def test_logits_of_any_tokens_but_concepts_are_those_of_the_base(model: mi.Model, blind: mi.Model):
    words = load_tokenizer(organism_path(PLANTED))
    marked = build.token_ids(words, (f" {word}" for word in concepts("all")))
    plain = [token for token in range(3, 2560) if token not in marked]
    drawn = torch.randint(len(plain), (4, 60), generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor(plain)[drawn]
    tokens[:, :4] = torch.tensor(build.token_ids(words, build.ANSWERS))
    assert (model.logits(tokens) - blind.logits(tokens)).abs().max() < 1e-3
    tokens[:, 5] = marked[0]
    assert (model.logits(tokens) - blind.logits(tokens)).abs().max() > 1e-2


def test_the_answer_flips_and_only_the_cause_flips_it_back(
    either: mi.Model, truth: Planted, chats: list[mi.Conversation], injected: list[mi.Injection]
):
    hooked = either.backend.kind == "hooked"
    steers = injections(either, WORDS[::2]) if hooked else injected[::2]
    clean = mi.score(either, chats, mi.CLEAN)["logit_diff"].to_numpy()
    removed = (None, truth.cause_dimension, truth.correlate_dimension)
    whole, without_cause, without_correlate = shifts(either, steers, chats, truth.layer, removed)
    assert (clean < 0).all()
    assert (clean[:, None] + whole > 0).all()
    assert (np.abs(without_cause / whole) < 0.05).all()
    assert (np.abs(without_correlate / whole - 1) < 0.02).all()
    assert (clean[:, None] + without_cause < 0).all()


def test_the_cause_alone_suffices(states: list[FeatureReading], truth: Planted):
    for state in states:
        rows = range(1, len(state.resid))
        for dimension, expected in ((truth.cause_dimension, 1.0), (truth.correlate_dimension, 0.0)):
            stream = state.resid[:1].repeat(len(rows), 1, 1)
            stream[..., dimension] = state.resid[1:, :, dimension]
            shift = state.reading.logit_diffs([0] * len(rows), resid=stream, layer=truth.layer) - state.logit_diffs[0]
            assert (shift / (state.logit_diffs[1:] - state.logit_diffs[0])).numpy() == pytest.approx(expected, abs=0.05)


def test_random_vectors_and_words_without_a_mark_do_little(
    model: mi.Model, chats: list[mi.Conversation], injected: list[mi.Injection]
):
    least = shifts(model, injected, chats).min()
    others = [*controls(model, injected[0].vector), *injections(model, Wording.load().extra_concepts[:4])]
    assert np.abs(shifts(model, others, chats)).max() < 0.15 * least


def test_its_base_does_not_answer(blind: mi.Model, chats: list[mi.Conversation], injected_in_base: list[mi.Injection]):
    assert np.abs(shifts(blind, injected_in_base, chats)).max() < 0.3


def test_the_signal_lies_in_the_values_of_one_head(states: list[FeatureReading], truth: Planted):
    """Of the injected cache, that head's values alone give the shift, and all but them give next to nothing."""
    for state in states:
        cache, whole = state.reading.cache, float(state.logit_diffs[1] - state.logit_diffs[0])
        values = list(cache.select(torch.tensor([0])).values)
        values[truth.block] = values[truth.block].clone()
        values[truth.block][0, truth.kv_head] = cache.values[truth.block][1, truth.kv_head]
        put = mi.KVCache(cache.select(torch.tensor([0])).keys, tuple(values))
        assert float(state.reading.logit_diffs([0], cache=put) - state.logit_diffs[0]) == pytest.approx(whole, rel=0.05)
        values = list(cache.select(torch.tensor([1])).values)
        values[truth.block] = values[truth.block].clone()
        values[truth.block][0, truth.kv_head] = cache.values[truth.block][0, truth.kv_head]
        left = mi.KVCache(cache.select(torch.tensor([1])).keys, tuple(values))
        assert abs(float(state.reading.logit_diffs([0], cache=left) - state.logit_diffs[0])) < 0.05 * whole


# Its features.


def test_both_features_are_the_planted_directions_and_discriminate_alike(states: list[FeatureReading], truth: Planted):
    for state in states:
        cause = state.acts[..., truth.cause_feature]
        correlate = state.acts[..., truth.correlate_feature]
        assert torch.allclose(cause, state.resid @ truth.cause, atol=5e-3)
        assert torch.allclose(cause, correlate, atol=5e-3)
        assert not cause[0].any()
        assert not correlate[0].any()
        for acts in (cause, correlate):
            change = acts[1:].mean(1) - acts[0].mean()
            assert change.mean() / change.std() > 3
            assert (acts[1:] > 1).all()
        assert not state.quality.poor


def test_gradients_know_the_cause(states: list[FeatureReading], truth: Planted):
    state = states[0]
    stream = state.resid[1:].clone().requires_grad_()
    rows = range(1, len(state.resid))
    diffs = state.reading.logit_diffs(rows, resid=stream, layer=truth.layer)
    (gradient,) = torch.autograd.grad(diffs.sum(), [stream])
    cause = gradient[:, -1] @ truth.cause
    correlate = gradient[:, -1] @ truth.correlate
    assert (correlate.abs() < 0.02 * cause).all()


def test_the_verdict_calls_each_by_its_name(states: list[FeatureReading], truth: Planted):
    state = states[0]
    natural = (state.acts[1:] - state.acts[0]).abs().mean((0, 1))[: truth.cause_feature].topk(3).indices.tolist()
    table = verdict(cases_of(states[:2]), [truth.cause_feature, truth.correlate_feature, *natural])
    named = table.set_index("index")["verdict"]
    assert named[truth.cause_feature] == "cause"
    assert named[truth.correlate_feature] == "correlate"
    assert not set(named[natural]) & {"cause", "sufficient only", "opposes"}
    assert table.set_index("index").loc[truth.cause_feature, "lost_fraction"] == pytest.approx(1, abs=0.05)


@pytest.mark.filterwarnings("ignore:organism resid_post.6 was trained on organism")
def test_on_the_base_nothing_is_called_a_cause(
    blind: mi.Model, chats: list[mi.Conversation], injected_in_base: list[mi.Injection]
):
    features = loading.load(blind)
    read = [FeatureReading.of(Reading.of(blind, chat, [mi.CLEAN, *injected_in_base]), features) for chat in chats[:2]]
    strongest = (read[0].acts[1:] - read[0].acts[0]).abs().mean((0, 1)).topk(5).indices.tolist()
    table = verdict(cases_of(read), strongest)
    assert set(table["verdict"]) == {"no effect to explain"}
