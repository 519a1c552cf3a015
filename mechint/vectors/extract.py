"""Concept vectors from a model's own activations, and controls for them.

`mean_difference` follows the trial sweeps of Lindsey (2025) and its replications: the activation of a prompt about the
concept minus the mean over neutral words. `paired_pca` is the method that repeng calls pca_center (Vogel, repeng, 2024;
after Zou et al., arXiv 2310.01405): the first principal component of centred pairs of prompts that differ in it.

In small models most of such a vector says "a topic", and the vectors of different concepts are nearly one direction.
Both methods can therefore be read at the concept's own word or over the user's message, and be taken against other
concepts instead of a neutral baseline: `Extraction` names a combination, `EXTRACTIONS` are all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from mechint.base.errors import StaleArtefactError, UsageError
from mechint.base.files import JSON
from mechint.base.progress import tracked
from mechint.base.signatures import Count, Seed, checked
from mechint.models.model import Model
from mechint.prompts.design import PromptDesign
from mechint.vectors.activations import Activations, about_model, activations
from mechint.vectors.concept_vectors import ConceptVector, load_cached
from mechint.vectors.contrast import contrast_of, mean_contrast, model_contrast, paired_direction
from mechint.vectors.extraction import EXTRACTIONS, METHODS, PRESETS, Extraction
from mechint.vectors.extraction_inputs import Inputs, checked_names, other_concepts
from mechint.vectors.kept_rows import KeptRows

# Gives what a method finds for one concept, at every layer.
Method = Callable[[str], Float[Tensor, "layer d_model"]]

__all__ = [
    "EXTRACTIONS",
    "METHODS",
    "PRESETS",
    "Activations",
    "Extraction",
    "activations",
    "contrast_of",
    "extract",
    "mean_contrast",
    "mean_difference",
    "model_contrast",
    "paired_pca",
    "random_controls",
]


@checked
def paired_pca(
    model: Model,
    concepts: str | Sequence[str],
    design: PromptDesign | None = None,
    *,
    read: str = "reply",
    against: str = "baseline",
    others: Sequence[str] | None = None,
    progress: bool = False,
) -> dict[str, ConceptVector]:
    """Return, by concept, the unit direction at every layer that separates prompts about it from paired neutral ones.

    Both prompts of a pair have the same beginning of the assistant's reply, at whose last token they are read; the sign
    points from neutral to concept, by majority of the pairs. `design` defaults to the model's own prompt set.
    `read`, `against` and `others` are those of `extract`. Read elsewhere than at the reply, pairs have no beginning of
    it. Against others the mean of their unit directions is subtracted, and the difference is brought to unit norm.
    `progress=True` shows a bar.
    """
    return extract(model, concepts, Extraction("paired_pca", read, against), design, others=others, progress=progress)


@checked
def mean_difference(
    model: Model,
    concepts: str | Sequence[str],
    design: PromptDesign | None = None,
    *,
    read: str = "reply",
    against: str = "baseline",
    others: Sequence[str] | None = None,
    progress: bool = False,
) -> dict[str, ConceptVector]:
    """Return, by concept, activation("... concept") minus the mean over the other `baseline_words`, at every layer.

    Activations are read at the last token of the prompt, where the reply would begin; norms are left as they come out.
    `read`, `against` and `others` are those of `extract`; against others their mean is subtracted, and baseline words
    play no part. `progress=True` shows a bar.
    """
    extraction = Extraction("mean_difference", read, against)
    return extract(model, concepts, extraction, design, others=others, progress=progress)


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
    method: str | Extraction = "paired_pca",
    design: PromptDesign | None = None,
    directory: str | Path | None = None,
    *,
    others: Sequence[str] | None = None,
    cache: str | Path | None = None,
    progress: bool = False,
) -> dict[str, ConceptVector]:
    """Return vectors by concept, taking those stored in `directory` that were made from exactly the same inputs.

    `method` is an `Extraction`, or its text: "mean_difference", or "mean_difference/concept/others"; or one of
    `PRESETS`, as published trial sweeps made their vectors: "lindsey", "open-introspection". Against others a vector is
    that of the concept less the mean vector of the other `concepts`, or of `others`, a fixed list that may hold the
    concept (it is left out). The vectors of K concepts against each other add up to about zero: their mean cosine is
    near -1/(K-1), however much of them is their own.

    Weights, prompts as tokens, and method must match by hash; anything else is extracted again and stored in its place,
    each as soon as it is known. `cache` is a folder in which what was read of the prompts about each concept is kept,
    for calls with other concepts, and against others, too. `progress=True` shows a bar. Raises UsageError for an
    unknown method, for fewer than two others or others that play no part, and for paired prompts that have no word in
    the concept's place.
    """
    names = checked_names(concepts)
    extraction = method if isinstance(method, Extraction) else Extraction.parse(method)
    kept = None if cache is None else KeptRows(Path(cache))
    inputs = Inputs(model, _design(model, design), extraction, other_concepts(extraction, names, others), kept)
    if directory is None:
        return {vector.name: vector for vector in _each(inputs, names, progress=progress)}
    paths = {concept: Path(directory) / f"{concept}.{inputs.label}.safetensors" for concept in names}
    stored = {concept: _stored(path, inputs.key(concept)) for concept, path in paths.items()}
    vectors = {concept: vector for concept, vector in stored.items() if vector is not None}
    missing = [concept for concept in paths if concept not in vectors]
    for vector in _each(inputs, missing, progress=progress):
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


def _each(inputs: Inputs, concepts: Sequence[str], *, progress: bool) -> Iterator[ConceptVector]:
    """Yield the vectors one by one, each as soon as it is known."""
    if not concepts:
        return
    of = functools.cache(_METHODS[inputs.extraction.method](inputs))
    for concept in tracked(concepts, inputs.extraction.method, "concept", shown=progress):
        others = [of(other) for other in inputs.others_of(concept)]
        rows = of(concept) - torch.stack(others).mean(0) if others else of(concept)
        vector = _vector(inputs.model, rows, concept, inputs.provenance(concept))
        yield vector.directions() if others and inputs.extraction.method == "paired_pca" else vector


def _by_pairs(inputs: Inputs) -> Method:
    baseline = inputs.paired_prompts()

    @functools.cache
    def read_baseline() -> Float[Tensor, "layer pair d_model"]:
        return inputs.read(baseline)

    def rows(concept: str) -> Float[Tensor, "layer d_model"]:
        prompts = inputs.concept_prompts([concept])
        return inputs.rows([*prompts, *baseline], lambda: paired_direction(inputs.read(prompts) - read_baseline()))

    return rows


def _by_difference(inputs: Inputs) -> Method:
    @functools.cache
    def mean(words: tuple[str, ...]) -> Float[Tensor, "layer d_model"]:
        prompts = inputs.concept_prompts(words)
        return inputs.rows(prompts, lambda: inputs.read(prompts).mean(1))

    if inputs.others:  # the baseline would be subtracted from a concept and from the others
        return lambda concept: mean((concept,))
    return lambda concept: mean((concept,)) - mean(inputs.baseline_words(concept))


def _design(model: Model, design: PromptDesign | None) -> PromptDesign:
    return design if design is not None else PromptDesign.load(model.prompts)


def _vector(
    model: Model, rows: Float[Tensor, "layer d_model"], name: str, provenance: dict[str, JSON]
) -> ConceptVector:
    return ConceptVector(dict(enumerate(rows)), name, model.n_layers, provenance)


_METHODS: Mapping[str, Callable[[Inputs], Method]] = {
    "paired_pca": _by_pairs,
    "mean_difference": _by_difference,
}
