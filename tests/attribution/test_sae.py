"""Sparse autoencoders as dictionaries: SAE Lens' own numbers, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import Load, conversation, vector
from small_saes import dictionary

import mechint as mi
from mechint.attribution.features.config import SAEConfig
from mechint.attribution.features.dictionary import Dictionary, ordinary, quality
from mechint.base.errors import FeatureWarning, SAEMismatchError, UsageError

KINDS = ("standard", "topk", "rescaled", "layer_norm")


def residuals(model: mi.Model, n: int = 6) -> torch.Tensor:
    return 3 * torch.randn(2, n, model.d_model, generator=torch.Generator().manual_seed(1))


def saved(loaded: Dictionary, path: Path, **metadata: object) -> Path:
    """An SAE on disk, with other metadata."""
    for name, value in metadata.items():
        setattr(loaded.sae.cfg.metadata, name, value)
    loaded.sae.save_model(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_sae_lens(model: mi.Model, kind: str):
    loaded, resid = dictionary(model, kind=kind), residuals(model)
    with torch.no_grad():
        expected = loaded.sae.encode(resid)
        rebuilt = loaded.sae(resid)
    acts = loaded.encode(resid)
    if kind != "layer_norm":
        assert torch.equal(acts, expected)
    assert torch.equal(acts != 0, expected != 0)
    assert torch.allclose(loaded.reconstruct(resid), rebuilt, atol=1e-6)
    assert (acts != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_features_and_rest_make_up_the_stream(model: mi.Model, kind: str):
    """Also where the input is normalised: what a feature adds is what SAE Lens' decoder adds for it there."""
    loaded, resid = dictionary(model, kind=kind), residuals(model)
    acts = loaded.encode(resid)
    assert torch.allclose(acts @ loaded.decoder + loaded.rest(resid, acts), resid, atol=1e-5)
    with torch.no_grad():
        expected = loaded.sae.encode(resid)
        nothing = loaded.sae.decode(torch.zeros_like(expected)) if kind != "layer_norm" else None
        if nothing is None:
            loaded.sae.encode(resid)
            nothing = loaded.sae.decode(torch.zeros_like(expected))
    assert torch.allclose(loaded.reconstruct(resid) - nothing, acts @ loaded.decoder, atol=1e-4)


def test_an_sae_from_disk_is_the_one_that_was_saved(model: mi.Model, tmp_path: Path):
    loaded = dictionary(model, layer=2)
    again = mi.sae.load(model, saved(loaded, tmp_path / "sae", model_name=f"somewhere/{model.name}"))
    resid = residuals(model)
    assert again.layer == loaded.layer == 2
    assert torch.equal(again.encode(resid), loaded.encode(resid))
    assert again.link(3) is None
    named = mi.sae.load(model, saved(loaded, tmp_path / "named", neuronpedia_id="gemma-2-2b/6-res"))
    assert named.link(3) == "https://www.neuronpedia.org/gemma-2-2b/6-res/3"


def as_older(path: Path, hook: str = "hook_name", **changes: object) -> Path:
    """The folder as SAE Lens wrote it before version 6: what is now `metadata` stood beside the rest."""
    content = json.loads((path / "cfg.json").read_text())
    metadata = content.pop("metadata")
    point = metadata.pop("hook_name")
    older = {**content, "model_name": metadata["model_name"], hook: point, "hook_layer": 2, **changes}
    (path / "cfg.json").write_text(json.dumps({name: value for name, value in older.items() if value is not None}))
    return path


@pytest.mark.parametrize("kind", ["standard", "topk"])
@pytest.mark.parametrize("hook", ["hook_name", "hook_point"])
def test_an_older_folder_is_read_where_it_says_all_that_is_needed(
    model: mi.Model, tmp_path: Path, kind: str, hook: str
):
    loaded = dictionary(model, layer=2, kind=kind)
    path = as_older(saved(loaded, tmp_path / "sae", model_name=model.name), hook)
    config = SAEConfig.read(path)
    assert (config.layer, config.trained_on, config.d_in) == (2, model.name, model.d_model)
    resid = residuals(model)
    for source in (path, config):
        again = mi.sae.load(model, source)
        assert again.layer == 2
        assert torch.equal(again.encode(resid), loaded.encode(resid))
    with pytest.raises(SAEMismatchError, match="hook point"):
        SAEConfig.read(as_older(saved(loaded, tmp_path / "less"), hook, **{hook: None}))
    other = as_older(saved(loaded, tmp_path / "other"), hook, model_name="gemma-2-2b")
    with pytest.raises(SAEMismatchError, match="was trained on gemma-2-2b"):
        mi.sae.load(model, SAEConfig.read(other))


@pytest.mark.parametrize(
    ("point", "layer"), [("blocks.2.hook_resid_pre", 1), ("blocks.0.hook_resid_pre", -1), ("model.layers.3", 3)]
)
def test_the_residual_stream_has_several_names(model: mi.Model, tmp_path: Path, point: str, layer: int):
    assert mi.sae.load(model, saved(dictionary(model), tmp_path / "sae", hook_name=point)).layer == layer


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"model_name": "gemma-2-2b"}, "was trained on gemma-2-2b"),
        ({"hook_name": "blocks.1.hook_mlp_out"}, "reads blocks.1.hook_mlp_out"),
        ({"hook_name_out": "blocks.1.hook_mlp_out"}, "writes blocks.1.hook_mlp_out"),
        ({"hook_name": "blocks.9.hook_resid_post"}, "layers 0:4"),
    ],
)
def test_an_sae_of_another_model_or_hook_is_refused(
    model: mi.Model, tmp_path: Path, metadata: dict[str, object], message: str
):
    with pytest.raises(SAEMismatchError, match=message):
        mi.sae.load(model, saved(dictionary(model), tmp_path / "sae", **metadata))


def test_another_width_is_refused(model: mi.Model, tmp_path: Path, tiny_model: Load):
    loaded = dictionary(model)
    loaded.sae.cfg.d_in = 64
    with pytest.raises(SAEMismatchError, match=r"d_model=64.*\n.*d_model=32"):
        mi.sae.use(model, loaded.sae)


def test_a_copy_or_another_name_needs_a_word(model: mi.Model, tmp_path: Path):
    path = saved(dictionary(model), tmp_path / "sae", model_name="gemma-2-2b")
    with pytest.warns(FeatureWarning, match="gemma-2-2b"):
        mi.sae.load(model, path, any_model=True)


def test_normalisation_that_is_not_folded_in_is_refused(model: mi.Model):
    loaded = dictionary(model)
    loaded.sae.cfg.normalize_activations = "expected_average_only_in"
    with pytest.raises(SAEMismatchError, match="fold"):
        mi.sae.use(model, loaded.sae)


@pytest.mark.parametrize("source", ["no-such-directory", "no-such-release:id", "gemma-scope-2b-pt-res:no-such-id", ":"])
def test_what_cannot_be_read_is_one_clear_error(model: mi.Model, source: str):
    with pytest.raises(SAEMismatchError, match="RELEASE:ID"):
        mi.sae.load(model, source)


def test_models_without_embedded_saes_need_one_named(model: mi.Model, family: dict[str, mi.Model]):
    with pytest.raises(SAEMismatchError, match="no SAE for"):
        mi.sae.load(model)
    with pytest.raises(SAEMismatchError, match="layers 3, 6"):
        mi.sae.load(family["organism"], 5)
    assert [mi.sae.load(family["organism"], layer).layer for layer in (None, 3, 6)] == [6, 3, 6]


@pytest.mark.parametrize("features", [[48], [-1], [], [1, 1]])
def test_feature_numbers_are_checked(model: mi.Model, features: list[int]):
    with pytest.raises(UsageError, match="indices 0:48"):
        dictionary(model).check_features(features)


def test_a_poor_reconstruction_warns(model: mi.Model):
    loaded, resid = dictionary(model), residuals(model)
    with pytest.warns(FeatureWarning, match="its error holds"):
        measured = quality(loaded, resid, torch.tensor([True] * 5 + [False]))
    missed = resid[:, :5] - loaded.reconstruct(resid[:, :5])
    spread = (resid[:, :5] - resid[:, :5].reshape(-1, model.d_model).mean(0)).pow(2).sum()
    assert measured.poor
    assert measured.positions == 10
    assert measured.explained == pytest.approx(float(1 - missed.pow(2).sum() / spread), rel=1e-4)
    with pytest.raises(UsageError, match="special tokens"):
        quality(loaded, resid, torch.zeros(6, dtype=torch.bool))


def test_special_tokens_and_the_first_do_not_count(family: dict[str, mi.Model]):
    organism = family["organism"]
    rendered = mi.render(organism.tokenizer, conversation())
    keep = ordinary(organism, rendered, range(len(rendered.tokens)))
    left_out = [rendered.tokens[at] for at in range(len(rendered.tokens)) if not keep[at]]
    assert set(left_out) <= {rendered.tokens[0], *organism.tokenizer.all_special_ids}
    assert 0 < len(left_out) < len(rendered.tokens) / 2


def test_read_gives_a_row_for_each_intervention(model: mi.Model):
    loaded = dictionary(model)
    states = mi.sae.read(model, conversation(), [mi.CLEAN, mi.Injection(vector(model), [0], 2.0, name="a")], loaded)
    assert states.reading.names == ("clean", "a")
    expected = mi.score(model, conversation(), list(states.reading.interventions))["logit_diff"]
    assert states.logit_diffs.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    same = states.with_features(1, [1, 2], states.acts[1][:, [1, 2]])
    assert torch.equal(same, states.resid[1])
