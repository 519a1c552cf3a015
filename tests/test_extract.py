"""Extraction finds a direction that is really there, with its sign; controls match norms; nothing stale is reused."""

from __future__ import annotations

import pytest
import torch

import mechint as mi
from mechint import extract
from mechint.errors import SwapError, UnknownConceptError, UsageError
from mechint.prompt_design import PromptDesign
from mechint.render import render


@pytest.fixture(scope="module")
def design() -> PromptDesign:
    """A short design: extraction prompts only matter."""
    from dataclasses import replace

    full = PromptDesign.load("full")
    prompts = replace(
        full.extraction,
        concept=("Tell me about {concept}.", "Say a thing of {concept}."),
        baseline=("Tell me about anything.", "Say a thing."),
        baseline_words=("sea", "bread", "thought"),
        beginnings=("I", "The", "Yes"),
    )
    return replace(full, extraction=prompts)


def hugging_face_states(hf, model, text: str, beginning: str = "") -> torch.Tensor:
    chat = extract._chat(text, beginning)
    out = hf(torch.tensor([render(model.tokenizer, chat).tokens]), output_hidden_states=True)
    return torch.stack(out.hidden_states[1:])[:, 0, -1]  # the last one is already normed


def test_mean_difference_is_the_difference_of_means(model, plain_hf, design):
    found = extract.mean_difference(model, ["cats"], design)["cats"]
    hf, prompts = plain_hf("qwen2"), design.extraction

    def mean(words: list[str]) -> torch.Tensor:
        texts = [t.replace("{concept}", w) for t in prompts.concept for w in words]
        return torch.stack([hugging_face_states(hf, model, t) for t in texts]).mean(0)

    expected = mean(["cats"]) - mean(list(prompts.baseline_words))
    for layer in range(model.n_layers - 1):
        torch.testing.assert_close(found.vectors[layer], expected[layer], atol=1e-4, rtol=1e-4)


def test_paired_pca_is_the_first_component_with_the_pairs_sign(model, plain_hf, design):
    found = extract.paired_pca(model, ["cats"], design)["cats"]
    hf, prompts = plain_hf("qwen2"), design.extraction
    pairs = [
        (hugging_face_states(hf, model, c.replace("{concept}", "cats"), b), hugging_face_states(hf, model, n, b))
        for c, n in zip(prompts.concept, prompts.baseline, strict=True)
        for b in prompts.beginnings
    ]
    for layer in range(model.n_layers - 1):
        rows = torch.stack([x[layer] - (x[layer] + y[layer]) / 2 for pair in pairs for x, y in (pair, pair[::-1])])
        _, vectors = torch.linalg.eigh(rows.double().T @ rows.double())
        direction = found.vectors[layer].double()
        assert abs(direction @ vectors[:, -1]) == pytest.approx(1.0, abs=1e-4)
        larger = sum(float((x[layer] - y[layer]).double() @ direction) > 0 for x, y in pairs)
        assert larger >= len(pairs) / 2
        assert found.norms[layer] == pytest.approx(1.0, abs=1e-5)


def test_sign_follows_the_order_of_the_pair(model, design):
    """With the sides exchanged, the direction turns round."""
    from dataclasses import replace

    prompts = replace(design.extraction, concept=("{concept}",), baseline=("Tell me about cats.",))
    turned = replace(prompts, concept=("{concept} about cats.",), baseline=("no",))
    forth = extract.paired_pca(model, ["no"], replace(design, extraction=prompts))["no"]
    back = extract.paired_pca(model, ["Tell me"], replace(design, extraction=turned))["Tell me"]
    for layer in range(4):
        torch.testing.assert_close(forth.vectors[layer], -back.vectors[layer], atol=1e-4, rtol=0)


def test_provenance(model, design):
    about = extract.paired_pca(model, ["cats"], design)["cats"].provenance
    assert about["identity"] == model.identity
    assert about["method"] == "paired_pca"
    assert len(str(about["prompts_sha256"])) == 64
    assert about["versions"]["torch"] == torch.__version__


def test_random_controls(model):
    controls = extract.random_controls(model, n=3, seed=1)
    assert len(controls) == 3
    assert all(v.norms == pytest.approx(dict.fromkeys(range(4), 1.0)) for v in controls)
    assert len({v.fingerprint() for v in controls}) == 3
    assert [v.fingerprint() for v in extract.random_controls(model, 3, 1)] == [v.fingerprint() for v in controls]
    assert extract.random_controls(model, 3, 2)[0].fingerprint() != controls[0].fingerprint()
    like = mi.ConceptVector({k: torch.ones(model.d_model) * k for k in (1, 3)}, n_layers=4)
    matched = extract.random_controls(model, 2, 0, like=like)
    assert all(v.norms == pytest.approx(like.norms) and v.layers == (1, 3) for v in matched)
    with pytest.raises(UsageError):
        extract.random_controls(model, n=0)


def test_extract_reuses_only_what_was_made_from_the_same_inputs(model, tiny_model, design, tmp_path, monkeypatch):
    from dataclasses import replace

    first = extract.extract(model, ["cats"], "mean_difference", design, tmp_path)["cats"]
    computed: list[str] = []
    real = extract._METHODS["mean_difference"]

    def counted(*args):
        computed.append("again")
        return real(*args)

    monkeypatch.setitem(extract._METHODS, "mean_difference", counted)
    assert (
        extract.extract(model, ["cats"], "mean_difference", design, tmp_path)["cats"].fingerprint()
        == first.fingerprint()
    )
    assert computed == []
    other_prompts = replace(design, extraction=replace(design.extraction, baseline_words=("sea",)))
    extract.extract(model, ["cats"], "mean_difference", other_prompts, tmp_path)
    assert computed == ["again"]
    extract.extract(tiny_model("qwen2", seed=1), ["cats"], "mean_difference", other_prompts, tmp_path)
    assert computed == ["again", "again"]
    other_template = tiny_model("qwen2", template="llama3")  # the same weights, other tokens
    assert other_template.identity == model.identity
    extract.extract(model, ["cats"], "mean_difference", design, tmp_path)
    extract.extract(other_template, ["cats"], "mean_difference", design, tmp_path)
    assert len(computed) == 4


def test_model_contrast(model, tiny_model, tiny_checkpoint):
    other = tiny_model("qwen2", seed=1)
    forth = extract.model_contrast(model, other, ["Tell me about cats.", "yes or no?"])
    back = extract.model_contrast(other, model, ["Tell me about cats.", "yes or no?"])
    for layer in range(4):
        torch.testing.assert_close(forth.vectors[layer], -back.vectors[layer])
    assert max(extract.model_contrast(model, model, ["yes or no?"]).norms.values()) == 0.0
    with pytest.raises(SwapError):
        extract.model_contrast(model, mi.load(tiny_checkpoint("qwen2", n_layers=2)), ["x"])


PROMPTS = ["Tell me about cats.", "yes or no?", "Tell me about bread, or about the sea."]


def test_mean_activations_are_the_mean_over_prompts(model, plain_hf):
    found = extract.mean_activations(model, PROMPTS)
    expected = torch.stack([hugging_face_states(plain_hf("qwen2"), model, text) for text in PROMPTS]).mean(0)
    for layer in range(3):
        torch.testing.assert_close(found.vectors[layer], expected[layer], atol=1e-5, rtol=0)
    one, listed = (extract.mean_activations(model, given) for given in (PROMPTS[0], PROMPTS[:1]))
    assert one.fingerprint() == listed.fingerprint()
    with pytest.raises(UsageError, match="no prompts"):
        extract.mean_activations(model, [])


@pytest.mark.parametrize("backend", ["bridge", "hooked"])
def test_contrast_in_two_phases_is_exactly_the_direct_one(backend, tiny_model, tmp_path):
    model, other = (tiny_model("qwen2", backend, seed=seed) for seed in (0, 1))
    for name, one in (("base", model), ("finetuned", other)):
        extract.mean_activations(one, PROMPTS).save(tmp_path / f"{name}.safetensors")
    means = [mi.ConceptVector.load(tmp_path / f"{name}.safetensors") for name in ("finetuned", "base")]
    found, direct = extract.contrast_of(*means), extract.model_contrast(model, other, PROMPTS)
    assert found.fingerprint() == direct.fingerprint()
    assert found.provenance == direct.provenance
    assert (found.name, found.n_layers) == (direct.name, direct.n_layers) == ("contrast", 4)
    assert found.provenance["identity"] == model.identity
    assert found.provenance["other_identity"] == other.identity
    assert found.provenance["method"] == "model_contrast"


def test_contrast_of_what_does_not_belong_together(model, tiny_model, tiny_checkpoint):
    mean = extract.mean_activations(model, PROMPTS)
    with pytest.raises(UsageError, match="other prompts"):
        extract.contrast_of(extract.mean_activations(model, PROMPTS[:2]), mean)
    with pytest.raises(UsageError, match="random"):
        extract.contrast_of(extract.random_controls(model, 1)[0], mean)
    with pytest.raises(UsageError, match="None"):
        extract.contrast_of(mean, mi.ConceptVector(dict(mean.vectors)))
    with pytest.raises(SwapError, match="n_layers"):
        extract.contrast_of(extract.mean_activations(mi.load(tiny_checkpoint("qwen2", n_layers=2)), PROMPTS), mean)
    with pytest.raises(SwapError, match="tokens"):
        extract.contrast_of(extract.mean_activations(tiny_model("qwen2", template="llama3"), PROMPTS), mean)
    words = mi.load(tiny_checkpoint("qwen2"))
    words.tokenizer.add_tokens(["newword"])
    with pytest.raises(SwapError, match="vocabulary"):
        extract.contrast_of(extract.mean_activations(words, PROMPTS), mean)


@pytest.mark.parametrize("concepts", [[], ["cats", "cats"], [""], ["a/b"]])
def test_bad_concepts(concepts, model, design):
    with pytest.raises(UnknownConceptError):
        extract.paired_pca(model, concepts, design)


def test_bad_method(model, design):
    with pytest.raises(UsageError, match="magic"):
        extract.extract(model, ["cats"], "magic", design)
