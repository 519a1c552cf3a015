"""SAEs trained here: planted directions are learned, residuals are the model's, what was killed ends the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mechint as mi
from mechint.attribution.features import trained
from mechint.attribution.features.own_residuals import losses_with, residuals_of
from mechint.attribution.features.trained import Training, usual_layer
from mechint.attribution.features.training import SAERecipe, quality, train_sae
from mechint.base.errors import LayerRangeError, MemoryLimitError
from mechint.models.capture import residuals
from mechint.readouts.own_text import TextRecipe

RECIPE = SAERecipe(d_sae=64, k=4, samples=3_000, batch=64, warm_up=5)
TEXT = TextRecipe(prompts=9, samples=2, max_new_tokens=6)
ROWS = [[1, 5, 9, 11, 30, 7], [1, 5, 9, 12], [1, 6, 40], [1, 5, 9, 11, 30, 7]]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path / "cache"))


def train(model: mi.Model, layer: int | None = None) -> mi.sae.Dictionary:
    return mi.sae.train(model, layer, recipe=RECIPE, text=TEXT)


def weights(dictionary: mi.sae.Dictionary) -> list[torch.Tensor]:
    return [weight.detach() for weight in dictionary.sae.parameters()]


def test_residuals_are_those_of_each_distinct_token(model: mi.Model) -> None:
    # By prefix, first tokens left out: 5 of the first row, one of the second, two of the third, none of the last.
    expected = [(ROWS[0], at) for at in range(1, 6)] + [(ROWS[1], 3)] + [(ROWS[2], at) for at in (1, 2)]
    naive = torch.stack([residuals(model, torch.tensor([row]), [[at]], [2])[0, 0] for row, at in expected])
    got = residuals_of(model, ROWS, 2)
    assert got.shape == naive.shape
    distances = torch.cdist(got, naive)
    assert sorted(distances.argmin(1).tolist()) == list(range(len(expected)))
    assert distances.min(1).values.max() < 1e-3


def test_sinks_of_attention_are_left_out(outlier: mi.Model) -> None:
    got = residuals_of(outlier, [[7, 5, 9, 11], [8, 6, 5]], 1)
    assert len(got) == 5
    assert got.norm(dim=1).max() < 400


def test_losses_with_nothing_replaced_are_the_models_own(model: mi.Model) -> None:
    rows = [[1, 5, 9, 11, 30, 7], [1, 6, 40]]
    per_token = [
        torch.nn.functional.cross_entropy(model.logits(torch.tensor([row]))[0, :-1].float(), torch.tensor(row[1:]))
        for row in rows
    ]
    naive = (per_token[0] * 5 + per_token[1] * 2) / 7
    same, zero = losses_with(model, rows, 2, [lambda resid: resid, torch.zeros_like])
    assert same == pytest.approx(float(naive), abs=1e-4)
    assert abs(zero - same) > 1e-3


def test_planted_directions_are_learned() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(24, 16, generator=generator), dim=1)
    active = torch.rand(6000, 24, generator=generator) < 0.04
    tokens = (active * (1 + torch.rand(6000, 24, generator=generator))) @ directions
    tokens = tokens[active.any(1)]
    recipe = SAERecipe(d_sae=32, k=2, samples=100_000, batch=256, learning_rate=3e-3, warm_up=5)
    sae = train_sae(tokens[:-500], 1, recipe, "planted")
    assert quality(sae, tokens[-500:])["explained_variance"] > 0.75
    shuffled = tokens[-500:][:, torch.randperm(16, generator=generator)]  # of the same spread, other directions
    assert quality(sae, shuffled)["explained_variance"] < 0.5


def test_a_trained_sae_is_kept_and_read_as_it_was(model: mi.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(model)
    monkeypatch.setattr(trained, "train_sae", lambda *_: pytest.fail("trained again"))
    second = train(model)
    assert all(torch.equal(*pair) for pair in zip(weights(first), weights(second), strict=True))
    assert (second.layer, second.d_sae, second.name) == (3, 64, "trained resid_post.3")
    held_out = second.held_out
    assert held_out is not None
    assert held_out == first.held_out
    assert held_out.l0 <= 4
    assert held_out.trained_on > held_out.tokens > 0
    with pytest.raises(BaseException, match="trained again"):
        train(model, 1)


def test_a_killed_training_ends_with_the_same_weights(
    model: mi.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(model)
    monkeypatch.setenv("MECHINT_CACHE", str(tmp_path / "other"))
    with monkeypatch.context() as patch:
        patch.setattr(trained, "quality", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(model)
    usual = replace(Training.usual(model), recipe=RECIPE, text=TEXT)
    assert usual.own_text.is_kept
    assert not usual.is_kept
    torch.manual_seed(7)  # whatever else the process has drawn
    again = train(model)
    assert all(torch.equal(*pair) for pair in zip(weights(whole), weights(again), strict=True))


def test_what_is_kept_is_of_one_model_one_recipe_and_one_layer(
    model: mi.Model, tiny_model: Callable[..., mi.Model]
) -> None:
    usual = Training(model, 2, RECIPE, TEXT)
    others = [
        replace(usual, layer=1),
        replace(usual, recipe=replace(RECIPE, k=5)),
        replace(usual, text=replace(TEXT, seed=1)),
        replace(usual, model=tiny_model("qwen2", seed=3)),
    ]
    assert len({training.folder for training in [usual, *others]}) == 5


def test_the_usual_sae_is_two_thirds_up_and_four_times_as_wide() -> None:
    assert [usual_layer(n) for n in (30, 64, 8, 4, 1)] == [20, 43, 6, 3, 0]
    sizes = [(SAERecipe.of_width(d).d_sae, SAERecipe.of_width(d).k) for d in (576, 128, 32, 5120)]
    assert sizes == [(2048, 32), (512, 8), (128, 4), (16384, 64)]


def test_what_cannot_be_trained_is_refused_before_the_model_speaks(
    model: mi.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechint.readouts.own_text.generate", lambda *_, **__: pytest.fail("it spoke"))
    with pytest.raises(LayerRangeError, match="layer 4"):
        train(model, 4)
    monkeypatch.setattr(trained, "free_memory", lambda _: 1000)
    with pytest.raises(MemoryLimitError, match="an SAE of 64 features"):
        train(model)
