"""Extraction finds a direction that is really there, with its sign; controls match norms; nothing stale is reused."""

from __future__ import annotations

import pytest
import torch

import mechint as mi
from mechint.base.errors import SwapError, UnknownConceptError, UsageError
from mechint.chat.render import render
from mechint.prompts.design import PromptDesign
from mechint.vectors import extract
from mechint.vectors.activations import chat


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
    prompt = chat(text, beginning)
    out = hf(torch.tensor([render(model.tokenizer, prompt).tokens]), output_hidden_states=True)
    return torch.stack(out.hidden_states[1:])[:, 0, -1]  # the last one is already normed


def test_mean_difference_is_the_difference_of_means(model, plain_hf, design):
    extracted = extract.mean_difference(model, ["cats"], design)["cats"]
    hf, prompts = plain_hf("qwen2"), design.extraction

    def mean(words: list[str]) -> torch.Tensor:
        texts = [t.replace("{concept}", w) for t in prompts.concept for w in words]
        return torch.stack([hugging_face_states(hf, model, t) for t in texts]).mean(0)

    expected = mean(["cats"]) - mean(list(prompts.baseline_words))
    for layer in range(model.n_layers - 1):
        torch.testing.assert_close(extracted.vectors[layer], expected[layer], atol=1e-4, rtol=1e-4)


def test_paired_pca_is_the_first_component_with_the_pairs_sign(model, plain_hf, design):
    extracted = extract.paired_pca(model, ["cats"], design)["cats"]
    hf, prompts = plain_hf("qwen2"), design.extraction
    pairs = [
        (hugging_face_states(hf, model, c.replace("{concept}", "cats"), b), hugging_face_states(hf, model, n, b))
        for c, n in zip(prompts.concept, prompts.baseline, strict=True)
        for b in prompts.beginnings
    ]
    for layer in range(model.n_layers - 1):
        rows = torch.stack([x[layer] - (x[layer] + y[layer]) / 2 for pair in pairs for x, y in (pair, pair[::-1])])
        _, vectors = torch.linalg.eigh(rows.double().T @ rows.double())
        direction = extracted.vectors[layer].double()
        assert abs(direction @ vectors[:, -1]) == pytest.approx(1.0, abs=1e-4)
        larger = sum(float((x[layer] - y[layer]).double() @ direction) > 0 for x, y in pairs)
        assert larger >= len(pairs) / 2
        assert extracted.norms[layer] == pytest.approx(1.0, abs=1e-5)


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
    provenance = extract.paired_pca(model, ["cats"], design)["cats"].provenance
    assert provenance["identity"] == model.identity
    assert provenance["method"] == "paired_pca"
    assert len(str(provenance["prompts_sha256"])) == 64
    assert provenance["versions"]["torch"] == torch.__version__


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


PROMPTS = ["Tell me about cats.", "yes or no?", "Tell me about bread, or about the sea.", "The answer"]


def raw_states(hf, model, text: str) -> torch.Tensor:
    out = hf(torch.tensor([model.tokenizer(text)["input_ids"]]), output_hidden_states=True)
    return torch.stack(out.hidden_states[1:])[:, 0, -1]


def test_an_interrupted_extraction_keeps_what_it_has(model, tiny_model, design, tmp_path, monkeypatch):
    begun: list[str] = []
    usual = extract._by_pairs

    def interrupted(*arguments):
        of = usual(*arguments)

        def rows(concept: str):
            begun.append(concept)
            if concept == "bread":
                raise KeyboardInterrupt
            return of(concept)

        return rows

    with monkeypatch.context() as patch:
        patch.setitem(extract._METHODS, "paired_pca", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract.extract(model, ["cats", "bread", "rain"], design=design, directory=tmp_path)
    assert begun == ["cats", "bread"]
    assert [path.name for path in tmp_path.iterdir()] == ["cats.paired_pca.safetensors"]
    extract.extract(model, ["cats", "bread"], design=design, directory=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("raw", [False, True])
def test_activations_are_those_of_the_last_token_of_each_prompt(raw, model, plain_hf):
    streams, read = extract.activations(model, PROMPTS, raw=raw), raw_states if raw else hugging_face_states
    expected = torch.stack([read(plain_hf("qwen2"), model, text) for text in PROMPTS], dim=1)
    assert streams.values.shape == (4, len(PROMPTS), model.d_model)
    torch.testing.assert_close(streams.values[:3], expected[:3], atol=1e-5, rtol=0)
    single = extract.activations(model, PROMPTS[0], raw=raw)
    listed = extract.activations(model, PROMPTS[:1], raw=raw)
    torch.testing.assert_close(single.values, listed.values, atol=0, rtol=0)
    assert single.provenance == listed.provenance != streams.provenance


def test_raw_and_templated_prompts_are_told_apart(model):
    raw = extract.activations(model, PROMPTS, raw=True)
    templated = extract.activations(model, PROMPTS, raw=False)
    assert (raw.values - templated.values).abs().max() > 0.1
    with pytest.raises(UsageError, match="other prompts"):
        extract.contrast_of(raw, templated)


def test_raw_prompts_have_the_special_tokens_that_the_tokenizer_adds(tiny_model):
    model = tiny_model("llama")
    with pytest.MonkeyPatch.context() as patch:
        plain = extract.activations(model, PROMPTS, raw=True)
        real = type(model.tokenizer).__call__
        bos = model.tokenizer.bos_token
        patch.setattr(
            type(model.tokenizer), "__call__", lambda tokenizer, text, **more: real(tokenizer, bos + text, **more)
        )
        begun = extract.activations(model, PROMPTS, raw=True)
    assert plain.provenance["prompts_sha256"] == begun.provenance["prompts_sha256"]
    assert plain.provenance["tokens_sha256"] != begun.provenance["tokens_sha256"]


def naive_contrast(finetuned: torch.Tensor, ours: torch.Tensor, method: str) -> torch.Tensor:
    """One layer's contrast (prompt d_model each), by the centred pairs' covariance or as the difference of means."""
    if method == "mean_difference":
        return finetuned.mean(0) - ours.mean(0)
    rows = torch.cat([finetuned - (finetuned + ours) / 2, ours - (finetuned + ours) / 2]).double()
    _, vectors = torch.linalg.eigh(rows.T @ rows)
    direction = vectors[:, -1]
    above = ((finetuned - ours).double() @ direction > 0).sum()
    return (direction if above >= len(finetuned) / 2 else -direction).float()


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("method", ["paired_pca", "mean_difference"])
def test_contrast_equals_a_naive_computation(method, raw, tiny_model, plain_hf):
    model = tiny_model("qwen2", seed=0)
    other = tiny_model("qwen2", seed=1)
    extracted = extract.model_contrast(model, other, PROMPTS[:3], method=method, raw=raw)
    read = raw_states if raw else hugging_face_states
    finetuned = torch.stack([read(plain_hf("qwen2", seed=1), model, text) for text in PROMPTS[:3]], dim=1)
    ours = torch.stack([read(plain_hf("qwen2", seed=0), model, text) for text in PROMPTS[:3]], dim=1)
    for layer in range(model.n_layers - 1):
        expected = naive_contrast(finetuned[layer], ours[layer], method)
        torch.testing.assert_close(extracted.vectors[layer], expected, atol=1e-4, rtol=1e-4)
    if method == "paired_pca":
        assert extracted.norms == pytest.approx(dict.fromkeys(range(4), 1.0))


@pytest.mark.parametrize("method", ["paired_pca", "mean_difference"])
def test_contrast_turns_round_with_the_models_and_is_zero_with_itself(method, model, tiny_model, tiny_checkpoint):
    other = tiny_model("qwen2", seed=1)
    forth = extract.model_contrast(model, other, PROMPTS[:3], method=method)
    back = extract.model_contrast(other, model, PROMPTS[:3], method=method)
    for layer in range(4):
        torch.testing.assert_close(forth.vectors[layer], -back.vectors[layer], atol=1e-5, rtol=0)
    assert max(extract.model_contrast(model, model, PROMPTS, method=method).norms.values()) == 0.0
    with pytest.raises(SwapError):
        extract.model_contrast(model, mi.load(tiny_checkpoint("qwen2", n_layers=2)), ["x"], method=method)


@pytest.mark.parametrize("backend", ["bridge", "hooked"])
@pytest.mark.parametrize("method", ["paired_pca", "mean_difference"])
def test_contrast_in_two_phases_is_exactly_the_direct_one(method, backend, tiny_model, tmp_path):
    model = tiny_model("qwen2", backend, seed=0)
    other = tiny_model("qwen2", backend, seed=1)
    for name, source in (("base", model), ("finetuned", other)):
        extract.activations(source, PROMPTS).save(tmp_path / f"{name}.safetensors")
    read = [extract.Activations.load(tmp_path / f"{name}.safetensors") for name in ("finetuned", "base")]
    extracted, direct = (
        extract.contrast_of(*read, method=method),
        extract.model_contrast(model, other, PROMPTS, method=method),
    )
    assert extracted.fingerprint() == direct.fingerprint()
    assert extracted.provenance == direct.provenance
    assert (extracted.name, extracted.n_layers) == (direct.name, direct.n_layers) == ("contrast", 4)
    assert extracted.provenance["identity"] == model.identity
    assert extracted.provenance["other_identity"] == other.identity
    assert (extracted.provenance["method"], extracted.provenance["direction"]) == ("model_contrast", method)


def test_contrast_of_what_does_not_belong_together(model, tiny_model, tiny_checkpoint):
    read = extract.activations(model, PROMPTS)
    with pytest.raises(UsageError, match="other prompts"):
        extract.contrast_of(extract.activations(model, PROMPTS[:2]), read)
    with pytest.raises(UsageError, match="magic"):
        extract.contrast_of(read, read, method="magic")
    with pytest.raises(SwapError, match="n_layers"):
        extract.contrast_of(extract.activations(mi.load(tiny_checkpoint("qwen2", n_layers=2)), PROMPTS), read)
    with pytest.raises(SwapError, match="tokens"):
        extract.contrast_of(extract.activations(tiny_model("qwen2", template="llama3"), PROMPTS), read)
    words = mi.load(tiny_checkpoint("qwen2"))
    words.tokenizer.add_tokens(["newword"])
    with pytest.raises(SwapError, match="vocabulary"):
        extract.contrast_of(extract.activations(words, PROMPTS), read)


def test_what_cannot_be_read_is_refused(model, tmp_path):
    with pytest.raises(UsageError, match="no prompts"):
        extract.activations(model, [])
    with pytest.raises(UsageError, match="raw"):
        extract.activations(model, [chat("Tell me about cats.")], raw=True)
    with pytest.raises(UsageError, match="without a token"):
        extract.activations(model, [""], raw=True)
    extract.random_controls(model, 1)[0].save(tmp_path / "vector.safetensors")
    for name in ("vector.safetensors", "missing.safetensors"):
        with pytest.raises(UsageError, match="as activations"):
            extract.Activations.load(tmp_path / name)


@pytest.mark.parametrize("concepts", [[], ["cats", "cats"], [""], ["a/b"]])
def test_bad_concepts(concepts, model, design):
    with pytest.raises(UnknownConceptError):
        extract.paired_pca(model, concepts, design)


def test_bad_method(model, design):
    with pytest.raises(UsageError, match="magic"):
        extract.extract(model, ["cats"], "magic", design)
