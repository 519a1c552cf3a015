"""Readings of one organism through the library: tables of vector x wording, which the truth is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechint import organisms
from mechint.chat.conversations import Conversation
from mechint.chat.tokens import Answers
from mechint.interventions.specifications import CLEAN, Injection, Intervention
from mechint.models.model import Model
from mechint.organisms.training.detection import injectable
from mechint.organisms.truth.wording import Wording, shuffled_list
from mechint.readouts.lens import logit_lens
from mechint.readouts.score import score
from mechint.vectors import extract
from mechint.vectors.concept_vectors import ConceptVector

LAYERS, STRENGTH = (2, 3, 4), 0.4
FORMS = ("yes-no", "one-zero")
Split = Literal["trained", "held_out", "unknown", "random"]
Grid = Float[np.ndarray, "vector wording"]
OtherGrid = Float[np.ndarray, "vector other_wording"]


@dataclass(frozen=True)
class Instrument:
    """A model, the wordings it is asked with (`count` of each), and where and how strongly is injected.

    `per_split` limits the concepts of each split, evenly spread; None takes all of them.
    """

    model: Model
    wording: Wording
    count: int = 8
    per_split: int | None = None
    n_random: int = 16
    layers: tuple[int, ...] = LAYERS
    strength: float = STRENGTH
    method: str = "mean_difference"
    vectors: dict[str, ConceptVector] = field(default_factory=dict, repr=False)

    def at(self, *, layers: tuple[int, ...] | None = None, strength: float | None = None) -> Instrument:
        """Return the instrument with another place or strength; it keeps the vectors."""
        return replace(
            self,
            layers=self.layers if layers is None else layers,
            strength=self.strength if strength is None else strength,
        )

    def concepts(self, split: Split) -> tuple[str, ...]:
        """Return the concepts of a split; the unknown ones are other words, which training never injected."""
        injected = {*injectable(), *organisms.concepts("all")}
        unknown = tuple(word for word in self.wording.extra_concepts if word not in injected)
        words = unknown if split == "unknown" else organisms.concepts(split)
        step = max(1, len(words) // self.per_split) if self.per_split else 1
        return words[::step][: self.per_split]

    def injections(self, split: Split = "trained") -> list[Injection]:
        """Return one injection for each concept of a split, or for each of some random directions."""
        if split == "random":
            like = self._extracted(self.concepts("trained")[:1])
            drawn = extract.random_controls(self.model, self.n_random, seed=0, like=next(iter(like.values())))
            vectors = {f"random-{number}": vector for number, vector in enumerate(drawn)}
        else:
            vectors = self._extracted(self.concepts(split))
        return [self.injection(vector, name) for name, vector in vectors.items()]

    def injection(self, vector: ConceptVector, name: str) -> Injection:
        """Return an injection of a vector at this instrument's place and strength."""
        return Injection(vector, self.layers, relative_strength=self.strength, name=name)

    def _extracted(self, words: Sequence[str]) -> dict[str, ConceptVector]:
        missing = [word for word in words if word not in self.vectors]
        if missing:
            self.vectors.update(extract.extract(self.model, missing, self.method))
        return {word: self.vectors[word] for word in words}

    def detection(
        self,
        info: str,
        interventions: Sequence[Intervention],
        form: str = "yes-no",
        *,
        wrong_place: bool = False,
    ) -> pd.DataFrame:
        """Return scores of introspection questions, clean cells first."""
        conversations = self.wording.detection(info, form, self.count, wrong_place=wrong_place)
        return score(self.model, conversations, [CLEAN, *interventions])

    def lens(self, info: str, interventions: Sequence[Intervention]) -> pd.DataFrame:
        """Return the logit lens of introspection questions, clean cells first."""
        return logit_lens(self.model, self.wording.detection(info, "yes-no", self.count), [CLEAN, *interventions])

    def controls(
        self, info: str, interventions: Sequence[Intervention], count: int, form: str = "yes-no"
    ) -> pd.DataFrame:
        """Return scores of control questions, with columns `group` and `right` (the likelier answer is right)."""
        groups = self.wording.controls
        grouped = [(group, chat) for group in groups for chat in self.wording.control(group, info, form, count)]
        table = score(self.model, [chat for _, chat in grouped], [CLEAN, *interventions])
        group = table["conversation"].map({chat.label: group for group, chat in grouped})
        return table.assign(group=group, right=(table["logit_diff"] > 0) == (group == "yes"))

    def named(self, info: str, split: Split = "trained") -> Grid:
        """Return whether the injected word is the likeliest next word of all that the model knows as concepts."""
        words = [word for word in organisms.concepts("all") if self._is_token(f" {word}")]
        options = [f" {word}" for word in (*words, "nothing")]
        conversations = self.wording.naming(info, self.count)
        table = score(self.model, conversations, [CLEAN, *self.injections(split)], answers=Answers.options(options))
        likeliest = table[[f"p_{option}" for option in options]].idxmax(axis=1)
        return grid(table.assign(named=(likeliest == "p_ " + table["intervention"]).astype(float)), "named")

    def listed(self, info: str, split: Split = "trained") -> Grid:
        """Return whether the digit of the injected word is the likeliest of ten; every cell has a list of its own."""
        digits = [f" {digit}" for digit in range(10)]
        rows = []
        for injection in self.injections(split):
            lists = [shuffled_list(injection.name, organisms.concepts("all"), number) for number in range(self.count)]
            conversations = [self.wording.listing(info, words, number) for number, words in enumerate(lists)]
            table = score(self.model, conversations, [CLEAN, injection], answers=Answers.options(digits))
            likeliest = (
                table.loc[table["intervention"] != "clean", [f"p_{digit}" for digit in digits]].to_numpy().argmax(1)
            )
            rows.append([words[digit] == injection.name for words, digit in zip(lists, likeliest, strict=True)])
        return np.array(rows, dtype=float)

    def _is_token(self, text: str) -> bool:
        return len(self.model.tokenizer(text, add_special_tokens=False)["input_ids"]) == 1


def grid(table: pd.DataFrame, value: str) -> Grid:
    """Return a column of the cells that are not clean, one row per intervention and one column per conversation."""
    rows = table[table["intervention"] != "clean"]
    return np.asarray(rows.pivot(index="intervention", columns="conversation", values=value), dtype=float)


def clean(table: pd.DataFrame, value: str) -> Float[np.ndarray, " wording"]:
    """Return a column of the clean cells, one value per conversation."""
    return np.asarray(table.loc[table["intervention"] == "clean", value], dtype=float)


def contrast_prompts(wording: Wording, count: int) -> list[Conversation]:
    """Return the first turns of introspection chats, to compare two models on."""
    return wording.detection("introspection", "yes-no", count)
