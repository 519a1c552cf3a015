"""What a concept vector depends on: model, prompts, extraction and other concepts; its key and its provenance."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from mechint.base.errors import UnknownConceptError, UsageError
from mechint.base.files import JSON, sha256
from mechint.models.model import Model
from mechint.models.surroundings import surroundings
from mechint.prompts.design import PromptDesign
from mechint.vectors.activations import about_model, residuals_over
from mechint.vectors.extraction import TEXT, Extraction
from mechint.vectors.extraction_prompts import (
    Prompt,
    Reading,
    check_counterparts,
    concept_prompts,
    paired_prompts,
    reading,
    sentences,
)
from mechint.vectors.kept_rows import FLOORS, KeptRows, rows_key


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the vectors of a call are made from; `others` are empty against the baseline.

    `kept` holds rows that were made before (None: they are made in any case).
    """

    model: Model
    design: PromptDesign
    extraction: Extraction
    others: tuple[str, ...]
    kept: KeptRows | None = None
    _readings: dict[Prompt, Reading] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if (self.extraction.method, self.extraction.read) == ("paired_pca", "concept"):
            check_counterparts(self.design)

    @property
    def label(self) -> str:
        """The extraction in names of files and in keys; the usual one is called by its method alone."""
        usual = Extraction(self.extraction.method)
        return usual.method if self.extraction == usual else self.extraction.name.replace("/", ".")

    def others_of(self, concept: str) -> list[str]:
        """Return the concepts whose mean is subtracted, in an order that does not depend on that of the call."""
        return sorted(set(self.others) - {concept})

    def concept_prompts(self, words: Sequence[str]) -> list[Prompt]:
        """Return the prompts about some words."""
        if self.extraction.read == TEXT:
            return sentences(words)
        return concept_prompts(self.design, words, self._beginnings())

    def baseline_words(self, concept: str) -> tuple[str, ...]:
        """Return the words whose mean is subtracted in a mean difference; a concept is no baseline of its own."""
        words = tuple(word for word in self.design.extraction.baseline_words if word.lower() != concept.lower())
        if not words:
            raise UsageError(f"baseline words that are {concept!r} alone", "other words, too", "add some to the design")
        return words

    def paired_prompts(self) -> list[Prompt]:
        """Return the baseline prompts of pairs."""
        return paired_prompts(self.design, self._beginnings())

    def prompts(self, concept: str) -> list[Prompt]:
        """Return every prompt that a vector is computed from, in order."""
        words = [concept, *self.others_of(concept)]
        if self.extraction.method == "mean_difference":
            return self.concept_prompts(words if self.others else [*words, *self.baseline_words(concept)])
        return [prompt for word in words for prompt in self.concept_prompts([word])] + self.paired_prompts()

    def prompts_of_rows(self, concept: str) -> list[list[Prompt]]:
        """Return the prompts of all rows that a vector is made of: the concept's own, and those of its others."""
        words = [concept, *self.others_of(concept)]
        if self.extraction.method == "paired_pca":
            return [[*self.concept_prompts([word]), *self.paired_prompts()] for word in words]
        baseline = [] if self.others else [self.concept_prompts(self.baseline_words(concept))]
        return [self.concept_prompts([word]) for word in words] + baseline

    def is_kept(self, prompts: Sequence[Prompt]) -> bool:
        """Whether the rows that are made of some prompts need not be made again."""
        return self.kept is not None and self.kept.holds(self.model, self._rows_key(prompts))

    def rows(
        self, prompts: Sequence[Prompt], make: Callable[[], Float[Tensor, "layer d_model"]]
    ) -> Float[Tensor, "layer d_model"]:
        """Return the rows that are made of some prompts, or were before."""
        return make() if self.kept is None else self.kept.rows(self.model, self._rows_key(prompts), make)

    def read(self, prompts: Sequence[Prompt]) -> Float[Tensor, "layer prompt d_model"]:
        """Return `resid_post` of each prompt where the extraction reads it, at every layer, in float32."""
        readings = [self._reading(prompt) for prompt in prompts]
        return residuals_over(self.model, [r.tokens for r in readings], [r.positions for r in readings])

    def key(self, concept: str) -> str:
        """Hash of all that a vector depends on: weights, method, others, and the prompts as tokens."""
        readings = [self._reading(prompt) for prompt in self.prompts(concept)]
        parts = [str(self._origin["identity"]), self.label, json.dumps([r.tokens for r in readings])]
        if self.extraction != Extraction(self.extraction.method):
            parts.append(json.dumps([self.others_of(concept), [r.positions for r in readings]]))
        return sha256(*(dependency.encode() for dependency in parts))

    def provenance(self, concept: str) -> dict[str, JSON]:
        """Return what a vector says of its origin."""
        texts = json.dumps([prompt.conversation.to_dict() for prompt in self.prompts(concept)])
        recipe: dict[str, JSON] = {
            "method": self.extraction.method,
            "read": self.extraction.read,
            "against": self.extraction.against,
            "others": list(self.others_of(concept)),
            "left_out": self._left_out(concept),
            "prompts": self.design.name,
            "prompts_sha256": sha256(texts.encode()),
        }
        return {**self._origin, **recipe, "key": self.key(concept)}

    def _left_out(self, concept: str) -> list[JSON]:
        """Return the baseline words that are the concept itself."""
        if self.extraction.method == "paired_pca" or self.others:
            return []
        return [word for word in self.design.extraction.baseline_words if word not in self.baseline_words(concept)]

    @cached_property
    def _origin(self) -> dict[str, JSON]:
        """Of which model and software; taken once, since all weights are hashed for it."""
        return about_model(self.model)

    @cached_property
    def _around(self) -> str:
        return surroundings(self.model, str(self._origin["identity"]), FLOORS)

    def _rows_key(self, prompts: Sequence[Prompt]) -> str:
        return rows_key(self._around, self.extraction.method, [self._reading(prompt) for prompt in prompts])

    def _beginnings(self) -> Sequence[str]:
        """Return the beginnings of the reply: only in pairs, and what is read before the reply does not see them."""
        is_in_reply = (self.extraction.method, self.extraction.read) == ("paired_pca", "reply")
        return self.design.extraction.beginnings if is_in_reply else ("",)

    def _reading(self, prompt: Prompt) -> Reading:
        if prompt not in self._readings:
            self._readings[prompt] = reading(self.model, prompt, self.extraction.read)
        return self._readings[prompt]


def checked_names(concepts: str | Sequence[str]) -> list[str]:
    """Return the names of concepts; raises UnknownConceptError for none, for names that repeat, and for empty ones."""
    names = [concepts] if isinstance(concepts, str) else list(concepts)
    if not names or len(set(names)) != len(names) or any(not name.strip() or "/" in name for name in names):
        raise UnknownConceptError(
            f"concepts {names}", "one or more words, each once, without '/'", "correct the list of concepts"
        )
    return names


def other_concepts(extraction: Extraction, concepts: Sequence[str], others: Sequence[str] | None) -> tuple[str, ...]:
    """Return the concepts from which each one's others are taken; none against the baseline."""
    if extraction.against == "baseline":
        if others is not None:
            raise UsageError(
                f"others={list(others)} of {extraction}", "an extraction against others", "leave others out"
            )
        return ()
    pool = checked_names(concepts if others is None else others)
    fewest = min(len(set(pool) - {concept}) for concept in concepts)
    if fewest < 2:
        raise UsageError(
            given=f"{extraction} of {list(concepts)}, with {fewest} others",
            allowed="two others or more for each concept",
            advice="extract more concepts in one call, or name a fixed list: others=[...]",
        )
    return tuple(pool)
