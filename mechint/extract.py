"""Concept vectors from a model's own activations, and controls for them.

`mean_difference` follows the trial sweeps of Lindsey (2025) and its replications: the activation of a prompt about the
concept minus the mean over neutral words. `paired_pca` is the method that repeng calls pca_center (Vogel, repeng, 2024;
after Zou et al., arXiv 2310.01405): the first principal component of centred pairs of prompts that differ in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.capture import residuals
from mechint.chat import Conversation, Message
from mechint.errors import StaleArtefactError, SwapError, UnknownConceptError, UsageError
from mechint.files import JSON, sha256
from mechint.model import Model
from mechint.prompt_design import SLOT, PromptDesign
from mechint.render import render
from mechint.vectors import ConceptVector, load_cached

METHODS = ("paired_pca", "mean_difference")
_MEAN = "mean_activations"

_BATCH = 32


def paired_pca(model: Model, concepts: Sequence[str], design: PromptDesign | None = None) -> dict[str, ConceptVector]:
    """Return, by concept, the unit direction at every layer that separates prompts about it from paired neutral ones.

    Both prompts of a pair have the same beginning of the assistant's reply, at whose last token they are read; the sign
    points from neutral to concept, by majority of the pairs. `design` defaults to the model's own prompt set.
    """
    design = _design(model, design)
    return {concept: _paired_pca(model, concept, design) for concept in _checked(concepts)}


def mean_difference(
    model: Model, concepts: Sequence[str], design: PromptDesign | None = None
) -> dict[str, ConceptVector]:
    """Return, by concept, activation("... concept") minus the mean over `baseline_words`, at every layer.

    Activations are read at the last token of the prompt, where the reply would begin; norms are left as they come out.
    """
    design = _design(model, design)
    neutral = _activations(model, _about_words(design, design.extraction.baseline_words)).mean(1)
    vectors = {}
    for concept in _checked(concepts):
        difference = _activations(model, _about_words(design, [concept])).mean(1) - neutral
        vectors[concept] = _vector(model, difference, concept, _provenance(model, concept, "mean_difference", design))
    return vectors


def model_contrast(
    model: Model, other: Model, prompts: Sequence[str | Conversation], name: str = "contrast"
) -> ConceptVector:
    """Return the mean over prompts of `other`'s activations minus `model`'s, at the last token and every layer.

    `other` is the finetuned copy. Where only one of the two fits into memory, `mean_activations` of each and then
    `contrast_of` give the same. Raises SwapError if the two do not have the same shape, vocabulary and chat template.
    """
    _check_alike(f"{other!r}", f"{model!r}", _shape(other), _shape(model))
    base = mean_activations(model, prompts)
    return contrast_of(mean_activations(other, prompts), base, name)


def mean_activations(
    model: Model, prompts: Sequence[str | Conversation], name: str = "mean activations"
) -> ConceptVector:
    """Return the mean over prompts of `resid_post` at the last token, at every layer: one side of `contrast_of`.

    It is saved and loaded as any vector is. Raises UsageError if there are no prompts.
    """
    listed = [prompts] if isinstance(prompts, str | Conversation) else list(prompts)
    if not listed:
        raise UsageError("no prompts", "one or more", "pass the texts or conversations to read")
    chats = [p if isinstance(p, Conversation) else _chat(p) for p in listed]
    mean = _activations(model, chats).mean(1)
    texts = json.dumps([chat.to_dict() for chat in chats])
    tokens = json.dumps([render(model.tokenizer, chat).tokens for chat in chats])
    about: dict[str, JSON] = {**_about(model), "method": _MEAN, "dtype": str(model.backend.dtype)}
    about |= {"prompts_sha256": sha256(texts.encode()), "tokens_sha256": sha256(tokens.encode())}
    return _vector(model, mean, name, about | {"vocabulary": model.vocabulary})


def contrast_of(finetuned: ConceptVector, base: ConceptVector, name: str = "contrast") -> ConceptVector:
    """Return the contrast vector of two models, from `mean_activations` of each on the same prompts.

    Raises UsageError for vectors that are not such means or are means over different prompts, SwapError if the models
    do not have the same shape, vocabulary and chat template.
    """
    theirs, ours = finetuned.provenance, base.provenance
    for vector in (finetuned, base):
        if vector.provenance.get("method") != _MEAN:
            given = f"vector {vector.name!r}, made by {vector.provenance.get('method')!r}"
            raise UsageError(given, "vectors that extract.mean_activations has made", "read both models with it")
    models = (f"activations of {theirs['model']}", f"those of {ours['model']}")
    _check_alike(*models, _shape_of(finetuned), _shape_of(base))
    if theirs["prompts_sha256"] != ours["prompts_sha256"]:
        raise UsageError(
            f"{models[0]} and {models[1]} over other prompts", "the same prompts", "read both models again"
        )
    _check_alike(*models, {"tokens": theirs["tokens_sha256"]}, {"tokens": ours["tokens_sha256"]})
    about = {**ours, "method": "model_contrast", "other": theirs["model"], "other_identity": theirs["identity"]}
    difference = {layer: finetuned.vectors[layer] - base.vectors[layer] for layer in base.layers}
    return ConceptVector(difference, name, base.n_layers, about)


def _check_alike(found: str, allowed: str, theirs: Mapping[str, JSON], ours: Mapping[str, JSON]) -> None:
    """Raise SwapError unless two models are told to be of the same make."""
    if differing := [part for part in ours if theirs[part] != ours[part]]:
        raise SwapError(
            given=f"{found}, which has other {', '.join(differing)}",
            allowed=f"the shape, vocabulary and chat template of {allowed}",
            advice="contrast a model with a finetuned copy of itself",
        )


def _shape(model: Model) -> dict[str, JSON]:
    return {"n_layers": model.n_layers, "d_model": model.d_model, "vocabulary": model.vocabulary}


def _shape_of(mean: ConceptVector) -> dict[str, JSON]:
    return {"n_layers": mean.n_layers, "d_model": mean.d_model, "vocabulary": mean.provenance["vocabulary"]}


def random_controls(model: Model, n: int = 8, seed: int = 0, like: ConceptVector | None = None) -> list[ConceptVector]:
    """Return `n` random vectors, isotropic and independent at each layer, of unit norm or with the norms of `like`."""
    if n < 1:
        raise UsageError(f"n={n} random controls", "1 or more", "ask for at least one")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n, model.n_layers, model.d_model, generator=generator)
    about: dict[str, JSON] = {**_about(model), "method": "random", "seed": seed}
    controls = [_vector(model, draw, f"random-{index}", about).directions() for index, draw in enumerate(drawn)]
    return controls if like is None else [c.at(like.layers).rescaled(like.norms) for c in controls]


def extract(
    model: Model,
    concepts: Sequence[str],
    method: str = "paired_pca",
    design: PromptDesign | None = None,
    directory: Path | None = None,
) -> dict[str, ConceptVector]:
    """Return vectors by concept, taking those stored in `directory` that were made from exactly the same inputs.

    Weights, prompts as tokens, and method must match by hash; anything else is extracted again and stored in its place.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r}", ", ".join(METHODS), "choose one of these")
    design = _design(model, design)
    paths = {c: None if directory is None else directory / f"{c}.{method}.safetensors" for c in _checked(concepts)}
    stored = {c: _stored(path, _key(model, c, method, design)) for c, path in paths.items() if path is not None}
    found = {concept: vector for concept, vector in stored.items() if vector is not None}
    missing = [concept for concept in paths if concept not in found]
    fresh = _METHODS[method](model, missing, design) if missing else {}
    for concept, vector in fresh.items():
        path = paths[concept]
        if path is not None:
            vector.save(path)
    return {concept: (found | fresh)[concept] for concept in paths}


def _stored(path: Path, key: str) -> ConceptVector | None:
    if not path.is_file():
        return None
    try:
        return load_cached(path, key)
    except StaleArtefactError:
        return None


def _paired_pca(model: Model, concept: str, design: PromptDesign) -> ConceptVector:
    about_it, neutral = (_activations(model, side) for side in _pairs(concept, design))
    differences = (about_it - neutral).double()
    # Centring a pair leaves plus and minus half its difference, so the first component of the centred pairs is the
    # first right singular vector of the differences.
    components = torch.linalg.svd(differences, full_matrices=False).Vh[:, 0]
    votes = torch.einsum("lnd,ld->ln", differences, components).sign().sum(1)
    directions = components * torch.where(votes < 0, -1.0, 1.0)[:, None]
    return _vector(model, directions.float(), concept, _provenance(model, concept, "paired_pca", design))


def _activations(model: Model, chats: Sequence[Conversation]) -> Float[Tensor, "layer chat d_model"]:
    """`resid_post` at the last token of each chat, at every layer, in float32."""
    rows = [torch.tensor(render(model.tokenizer, chat).tokens) for chat in chats]
    parts = []
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        tokens = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
        at = torch.tensor([len(row) - 1 for row in batch])
        parts.append(residuals(model, tokens, at, range(model.n_layers)).float().cpu())
    return torch.cat(parts, dim=1)


def _chat(text: str, beginning: str = "") -> Conversation:
    reply = (Message("assistant", beginning, continue_msg=True),) if beginning else ()
    return Conversation("extraction", (Message("user", text), *reply))


def _pairs(concept: str, design: PromptDesign) -> tuple[list[Conversation], list[Conversation]]:
    """Prompts about the concept, and the neutral ones that they are paired with."""
    prompts = design.extraction
    sides = ([text.replace(SLOT, concept) for text in prompts.concept], prompts.baseline)
    about_it, neutral = ([_chat(text, begin) for text in side for begin in prompts.beginnings] for side in sides)
    return about_it, neutral


def _about_words(design: PromptDesign, words: Sequence[str]) -> list[Conversation]:
    return [_chat(text.replace(SLOT, word)) for text in design.extraction.concept for word in words]


def _checked(concepts: Sequence[str]) -> list[str]:
    names = [concepts] if isinstance(concepts, str) else list(concepts)
    if not names or len(set(names)) != len(names) or any(not name.strip() or "/" in name for name in names):
        raise UnknownConceptError(
            f"concepts {names}", "one or more words, each once, without '/'", "correct the list of concepts"
        )
    return names


def _design(model: Model, design: PromptDesign | None) -> PromptDesign:
    return design if design is not None else PromptDesign.load(model.prompts)


def _vector(
    model: Model, rows: Float[Tensor, "layer d_model"], name: str, provenance: dict[str, JSON]
) -> ConceptVector:
    return ConceptVector(dict(enumerate(rows)), name, model.n_layers, provenance)


def _about(model: Model) -> dict[str, JSON]:
    packages = ("mechint", "torch", "transformers", "transformer-lens")
    versions: dict[str, JSON] = {name: _version(name) for name in packages}
    return {"model": model.name, "revision": model.revision, "identity": model.identity, "versions": versions}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _key(model: Model, concept: str, method: str, design: PromptDesign) -> str:
    """Hash of all that a vector depends on: weights, method, and the prompts as the model's template renders them."""
    tokens = [render(model.tokenizer, chat).tokens for chat in _prompts(concept, method, design)]
    return sha256(model.identity.encode(), method.encode(), json.dumps(tokens).encode())


def _prompts(concept: str, method: str, design: PromptDesign) -> list[Conversation]:
    """Every chat that a vector is computed from, in order."""
    if method == "mean_difference":
        return _about_words(design, [concept, *design.extraction.baseline_words])
    return [chat for side in _pairs(concept, design) for chat in side]


def _provenance(model: Model, concept: str, method: str, design: PromptDesign) -> dict[str, JSON]:
    texts = json.dumps([chat.to_dict() for chat in _prompts(concept, method, design)])
    used: dict[str, JSON] = {"prompts": design.name, "prompts_sha256": sha256(texts.encode())}
    return {**_about(model), "method": method, **used, "key": _key(model, concept, method, design)}


_METHODS = {"paired_pca": paired_pca, "mean_difference": mean_difference}
