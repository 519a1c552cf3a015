"""Concept vectors from a model's own activations, and controls for them.

`mean_difference` follows the trial sweeps of Lindsey (2025) and its replications: the activation of a prompt about the
concept minus the mean over neutral words. `paired_pca` is the method that repeng calls pca_center (Vogel, repeng, 2024;
after Zou et al., arXiv 2310.01405): the first principal component of centred pairs of prompts that differ in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.errors import StaleArtefactError, UnknownConceptError, UsageError
from mechint.base.files import JSON, sha256
from mechint.base.progress import tracked
from mechint.base.signatures import Count, Seed, checked
from mechint.chat.conversations import Conversation
from mechint.chat.render import render
from mechint.models.model import Model
from mechint.prompts.design import SLOT, PromptDesign
from mechint.vectors.activations import Activations, about_model, activations, chat, last_residuals
from mechint.vectors.concept_vectors import ConceptVector, load_cached
from mechint.vectors.contrast import METHODS, contrast_of, model_contrast, paired_direction

# Gives what a method finds for one concept, at every layer.
Method = Callable[[str], Float[Tensor, "layer d_model"]]

__all__ = [
    "METHODS",
    "Activations",
    "activations",
    "contrast_of",
    "extract",
    "mean_difference",
    "model_contrast",
    "paired_pca",
    "random_controls",
]


@checked
def paired_pca(
    model: Model, concepts: str | Sequence[str], design: PromptDesign | None = None, *, progress: bool = False
) -> dict[str, ConceptVector]:
    """Return, by concept, the unit direction at every layer that separates prompts about it from paired neutral ones.

    Both prompts of a pair have the same beginning of the assistant's reply, at whose last token they are read; the sign
    points from neutral to concept, by majority of the pairs. `design` defaults to the model's own prompt set.
    `progress=True` shows a bar.
    """
    return _all(model, concepts, "paired_pca", design, progress=progress)


@checked
def mean_difference(
    model: Model, concepts: str | Sequence[str], design: PromptDesign | None = None, *, progress: bool = False
) -> dict[str, ConceptVector]:
    """Return, by concept, activation("... concept") minus the mean over `baseline_words`, at every layer.

    Activations are read at the last token of the prompt, where the reply would begin; norms are left as they come out.
    `progress=True` shows a bar.
    """
    return _all(model, concepts, "mean_difference", design, progress=progress)


@checked
def random_controls(
    model: Model, n: Count = 8, seed: Seed = 0, like: ConceptVector | None = None
) -> list[ConceptVector]:
    """Return `n` random vectors, isotropic and independent at each layer, of unit norm or with the norms of `like`."""
    if n < 1:
        raise UsageError(f"n={n} random controls", "1 or more", "ask for at least one")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n, model.n_layers, model.d_model, generator=generator)
    provenance: dict[str, JSON] = {**about_model(model), "method": "random", "seed": seed}
    controls = [_vector(model, draw, f"random-{index}", provenance).directions() for index, draw in enumerate(drawn)]
    return controls if like is None else [c.at(like.layers).rescaled(like.norms) for c in controls]


@checked
def extract(
    model: Model,
    concepts: str | Sequence[str],
    method: str = "paired_pca",
    design: PromptDesign | None = None,
    directory: str | Path | None = None,
    *,
    progress: bool = False,
) -> dict[str, ConceptVector]:
    """Return vectors by concept, taking those stored in `directory` that were made from exactly the same inputs.

    Weights, prompts as tokens, and method must match by hash; anything else is extracted again and stored in its place,
    each as soon as it is known. `progress=True` shows a bar.
    """
    if method not in METHODS:
        raise UsageError(f"method {method!r}", ", ".join(METHODS), "choose one of these")
    if directory is None:
        return _all(model, concepts, method, design, progress=progress)
    design = _design(model, design)
    paths = {concept: Path(directory) / f"{concept}.{method}.safetensors" for concept in _checked(concepts)}
    stored = {concept: _stored(path, _key(model, concept, method, design)) for concept, path in paths.items()}
    vectors = {concept: vector for concept, vector in stored.items() if vector is not None}
    missing = [concept for concept in paths if concept not in vectors]
    for vector in _each(model, missing, method, design, progress=progress):
        vector.save(paths[vector.name])
        vectors[vector.name] = vector
    return {concept: vectors[concept] for concept in paths}


def _stored(path: Path, key: str) -> ConceptVector | None:
    if not path.is_file():
        return None
    try:
        return load_cached(path, key)
    except StaleArtefactError:
        return None


def _all(
    model: Model, concepts: str | Sequence[str], method: str, design: PromptDesign | None, *, progress: bool
) -> dict[str, ConceptVector]:
    vectors = _each(model, _checked(concepts), method, _design(model, design), progress=progress)
    return {vector.name: vector for vector in vectors}


def _each(
    model: Model, concepts: Sequence[str], method: str, design: PromptDesign, *, progress: bool
) -> Iterator[ConceptVector]:
    """Yield the vectors one by one, each as soon as it is known."""
    if not concepts:
        return
    of = _METHODS[method](model, design)
    for concept in tracked(concepts, method, "concept", shown=progress):
        yield _vector(model, of(concept), concept, _provenance(model, concept, method, design))


def _by_pairs(model: Model, design: PromptDesign) -> Method:
    def rows(concept: str) -> Float[Tensor, "layer d_model"]:
        concept_chats, baseline_chats = _pairs(concept, design)
        return paired_direction(_activations(model, concept_chats) - _activations(model, baseline_chats))

    return rows


def _by_difference(model: Model, design: PromptDesign) -> Method:
    baseline = _activations(model, _concept_chats(design, design.extraction.baseline_words)).mean(1)

    def rows(concept: str) -> Float[Tensor, "layer d_model"]:
        return _activations(model, _concept_chats(design, [concept])).mean(1) - baseline

    return rows


def _activations(model: Model, chats: Sequence[Conversation]) -> Float[Tensor, "layer chat d_model"]:
    """`resid_post` at the last token of each chat, at every layer, in float32."""
    return last_residuals(model, [render(model, conversation).tokens for conversation in chats])


def _pairs(concept: str, design: PromptDesign) -> tuple[list[Conversation], list[Conversation]]:
    """Return the chats about the concept, and the baseline chats that they are paired with."""
    prompts = design.extraction
    messages = [text.replace(SLOT, concept) for text in prompts.concept]
    concept_chats = [chat(text, beginning) for text in messages for beginning in prompts.beginnings]
    baseline_chats = [chat(text, beginning) for text in prompts.baseline for beginning in prompts.beginnings]
    return concept_chats, baseline_chats


def _concept_chats(design: PromptDesign, words: Sequence[str]) -> list[Conversation]:
    """Return the chats about each of the words, without a beginning of the reply."""
    return [chat(text.replace(SLOT, word)) for text in design.extraction.concept for word in words]


def _checked(concepts: str | Sequence[str]) -> list[str]:
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


def _key(model: Model, concept: str, method: str, design: PromptDesign) -> str:
    """Hash of all that a vector depends on: weights, method, and the prompts as the model's template renders them."""
    tokens = [render(model, conversation).tokens for conversation in _prompts(concept, method, design)]
    return sha256(model.identity.encode(), method.encode(), json.dumps(tokens).encode())


def _prompts(concept: str, method: str, design: PromptDesign) -> list[Conversation]:
    """Every chat that a vector is computed from, in order."""
    if method == "mean_difference":
        return _concept_chats(design, [concept, *design.extraction.baseline_words])
    return [conversation for side in _pairs(concept, design) for conversation in side]


def _provenance(model: Model, concept: str, method: str, design: PromptDesign) -> dict[str, JSON]:
    texts = json.dumps([conversation.to_dict() for conversation in _prompts(concept, method, design)])
    used: dict[str, JSON] = {"prompts": design.name, "prompts_sha256": sha256(texts.encode())}
    return {**about_model(model), "method": method, **used, "key": _key(model, concept, method, design)}


_METHODS: Mapping[str, Callable[[Model, PromptDesign], Method]] = {
    "paired_pca": _by_pairs,
    "mean_difference": _by_difference,
}
