"""SAEs as others make them: in half precision, trained on centred residuals, damaged, or with weights that are none."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Load
from safetensors.torch import load_file, save_file
from small_saes import dictionary

import mechint as mi
from mechint.attribution.features.dictionary import Dictionary, quality
from mechint.attribution.features.steering_attribution import encoder_directions
from mechint.base.errors import FeatureWarning, MechintError, SAEMismatchError

KINDS = ("standard", "topk", "rescaled", "layer_norm")


def residuals(model: mi.Model, offset: float = 0.0) -> torch.Tensor:
    drawn = torch.randn(2, 20, model.d_model, generator=torch.Generator().manual_seed(1))
    return 3 * drawn + offset


def fit(loaded: Dictionary, resid: torch.Tensor) -> float:
    """The share of variance that is explained, whether it is poor or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FeatureWarning)
        return quality(loaded, resid, torch.ones(resid.shape[1], dtype=torch.bool)).explained


# Half precision.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_saes_of_half_precision_compute_in_float32(model: mi.Model, kind: str, dtype: torch.dtype):
    sae = dictionary(model, kind=kind).sae.to(dtype=dtype)
    kept = {name: weight.clone() for name, weight in sae.named_parameters()}
    half, resid = mi.sae.use(model, sae), residuals(model)
    assert sae.dtype == dtype, "the user's object stays as it is"
    assert all(torch.equal(kept[name], weight) for name, weight in sae.named_parameters())
    exact = mi.sae.use(model, sae.to(dtype=torch.float32))
    assert torch.equal(half.encode(resid), exact.encode(resid))
    assert torch.equal(half.reconstruct(resid), exact.reconstruct(resid))
    assert (half.encode(resid) != 0).any()


def test_half_precision_on_disk(model: mi.Model, tmp_path: Path):
    dictionary(model).sae.to(dtype=torch.bfloat16).save_model(tmp_path / "sae")
    assert load_file(tmp_path / "sae" / "sae_weights.safetensors")["W_dec"].dtype == torch.bfloat16
    assert mi.sae.load(model, tmp_path / "sae").sae.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decoding_that_is_not_linear_is_refused_in_any_dtype(model: mi.Model, dtype: torch.dtype):
    sae = dictionary(model).sae.to(dtype=dtype)
    kind = type(sae)

    class Bent(kind):  # type: ignore[misc, valid-type]
        def decode(self, acts: torch.Tensor) -> torch.Tensor:
            return kind.decode(self, acts) * (1 + 0.05 * acts.norm(dim=-1, keepdim=True))

    sae.__class__ = Bent
    with pytest.raises(SAEMismatchError, match="not linear"):
        mi.sae.use(model, sae)


# Trained on centred residuals.


def plant_centred(model: mi.Model, **metadata: object) -> Dictionary:
    """An SAE that rebuilds any residual of mean zero to the letter, and any other badly."""
    sae = dictionary(model, d_sae=2 * model.d_model).sae
    both = torch.cat([torch.eye(model.d_model), -torch.eye(model.d_model)], dim=1)
    with torch.no_grad():
        sae.W_enc.copy_(both + 2.0 / model.d_model)  # what all dimensions share is read far too strongly
        sae.W_dec.copy_(both.T)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    for name, value in metadata.items():
        setattr(sae.cfg.metadata, name, value)
    return sae


CENTRED = {"model_from_pretrained_kwargs": {"center_writing_weights": True, "fold_ln": True}}


def test_an_sae_that_says_it_was_trained_on_centred_residuals_is_given_such(tiny_model: Load, tmp_path: Path):
    model = tiny_model("gpt2")
    resid = residuals(model, offset=4.0)
    loaded = mi.sae.use(model, plant_centred(model, **CENTRED))
    assert loaded.centred
    assert fit(loaded, resid) > 0.999
    acts = loaded.encode(resid)
    assert torch.allclose(loaded.encode(resid + 7.0), acts, atol=1e-4)
    assert torch.allclose(acts @ loaded.decoder + loaded.rest(resid, acts), resid, atol=1e-5)
    plant_centred(model, **CENTRED).save_model(tmp_path / "sae")
    assert mi.sae.load(model, tmp_path / "sae").centred, "also from disk, and without SAE Lens' warning"
    assert not mi.sae.load(model, tmp_path / "sae", centre=False).centred


def test_one_that_does_not_say_so_is_told_what_is_wrong(tiny_model: Load):
    model = tiny_model("gpt2")
    resid, keep = residuals(model, offset=4.0), torch.ones(20, dtype=torch.bool)
    silent = mi.sae.use(model, plant_centred(model))
    with pytest.warns(FeatureWarning, match="100% of residuals that are centred.*centre=True"):
        quality(silent, resid, keep)
    assert fit(mi.sae.use(model, plant_centred(model), centre=True), resid) > 0.999


def test_a_model_that_reads_the_mean_is_never_centred(model: mi.Model):
    """With RMSNorm a centred residual is another one: TransformerLens centres nothing there."""
    assert not mi.sae.use(model, plant_centred(model, **CENTRED)).centred
    with pytest.raises(SAEMismatchError, match="LayerNorm"):
        mi.sae.use(model, plant_centred(model), centre=True)
    silent = mi.sae.use(model, plant_centred(model))
    with pytest.warns(FeatureWarning, match="another layer"):
        quality(silent, residuals(model, offset=4.0), torch.ones(20, dtype=torch.bool))


def test_other_options_of_the_model_that_it_was_trained_on_are_told(model: mi.Model):
    metadata = {"model_from_pretrained_kwargs": {"checkpoint_value": 143000, "fold_ln": False}}
    with pytest.warns(FeatureWarning, match="checkpoint_value=143000: see"):
        mi.sae.use(model, plant_centred(model, **metadata))


def test_what_a_centred_feature_reads_has_no_mean(tiny_model: Load):
    model = tiny_model("gpt2")
    loaded = mi.sae.use(model, plant_centred(model, **CENTRED))
    directions = encoder_directions(loaded, [0, 5])
    assert directions is not None
    assert torch.allclose(directions.mean(-1), torch.zeros(2, dtype=torch.float64), atol=1e-7)
    resid = residuals(model, offset=4.0)
    read = (resid.double() @ directions.T).clamp_min(0)
    assert torch.allclose(read, loaded.encode(resid)[..., [0, 5]].double(), atol=1e-4)


def test_the_hook_may_have_its_hugging_face_name_alone(model: mi.Model):
    sae = plant_centred(model, hook_name=None, hf_hook_name="model.layers.2")
    assert mi.sae.use(model, sae).layer == 2


# Damaged files, and weights that are none.


@pytest.fixture(scope="module")
def whole(tiny_model: Load, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small SAE."""
    folder = tmp_path_factory.mktemp("whole") / "sae"
    dictionary(tiny_model("qwen2"), d_sae=4).sae.save_model(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def outcome(model: mi.Model, files: dict[str, bytes], folder: Path) -> MechintError | Dictionary:
    """What comes of loading an SAE of these files: itself, or the one message."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        return mi.sae.load(model, folder)
    except MechintError as error:
        return error


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_a_file_of_an_sae_cut_at_any_length_is_refused(
    model: mi.Model, whole: dict[str, bytes], name: str, tmp_path: Path
):
    content = whole[name]
    for length in range(0, len(content), max(1, len(content) // 25)):
        result = outcome(model, whole | {name: content[:length]}, tmp_path / "sae")
        assert isinstance(result, MechintError), length
        assert str(tmp_path / "sae") in result.given
    assert isinstance(outcome(model, whole, tmp_path / "sae"), Dictionary)


@pytest.mark.parametrize("value", [None, [], {}, "x", -1, 0, 10**6, True, 1e300])
def test_a_configuration_of_other_types_is_one_message(
    model: mi.Model, whole: dict[str, bytes], value: object, tmp_path: Path
):
    content = json.loads(whole["cfg.json"])
    for key in ("d_in", "d_sae", "architecture", "normalize_activations", "metadata", "dtype"):
        result = outcome(model, whole | {"cfg.json": json.dumps(content | {key: value}).encode()}, tmp_path / "sae")
        assert isinstance(result, MechintError | Dictionary), key
    assert isinstance(outcome(model, whole | {"cfg.json": json.dumps(value).encode()}, tmp_path / "sae"), MechintError)


@pytest.mark.parametrize(
    "change",
    [
        lambda weight: torch.full_like(weight, float("nan")),
        lambda weight: torch.full_like(weight, float("inf")),
        torch.zeros_like,
        lambda weight: weight[:-1],
        lambda weight: weight.to(torch.complex64),
        lambda weight: (weight * 10).to(torch.int32),
    ],
)
@pytest.mark.parametrize("name", ["W_enc", "W_dec"])
def test_weights_that_no_sae_has_are_refused(
    model: mi.Model, whole: dict[str, bytes], name: str, change: Callable[..., torch.Tensor], tmp_path: Path
):
    outcome(model, whole, tmp_path / "sae")
    path = tmp_path / "sae" / "sae_weights.safetensors"
    weights = load_file(path)
    save_file(weights | {name: change(weights[name]).contiguous()}, path)
    with pytest.raises(SAEMismatchError):
        mi.sae.load(model, tmp_path / "sae")


def test_a_pipe_among_the_files_is_never_opened(model: mi.Model, whole: dict[str, bytes], tmp_path: Path):
    outcome(model, whole, tmp_path / "sae")
    (tmp_path / "sae" / "cfg.json").unlink()
    os.mkfifo(tmp_path / "sae" / "cfg.json")
    with pytest.raises(SAEMismatchError, match="pipe"):
        mi.sae.load(model, tmp_path / "sae")
