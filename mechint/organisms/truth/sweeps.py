"""Sweeps of the organisms of sampled trials: what they say, as the rules judge and as the templates read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import pandas as pd

from mechint.models.model import Model
from mechint.organisms.training.grammar import load
from mechint.organisms.training.replies import SLOTS
from mechint.trials.design import Controls, TrialDesign
from mechint.trials.judges.rules import RulesJudge
from mechint.trials.judges.store import judge_all
from mechint.trials.outcomes import concept_of, mentions, outcome_table
from mechint.trials.prompts import concept_lexicon
from mechint.trials.run import run_trials
from mechint.trials.sweeps import Sweep
from mechint.trials.verdicts import Item
from mechint.vectors import extract
from mechint.vectors.concept_vectors import ConceptVector

PROMPTS = ("standard", "explained")
LAYERS, STRENGTHS = ("3", "4", "3:5"), (0.2, 0.4, 0.7)
TOKENS = 24
# What a reply is that follows the templates of a kind, where it does not name what was injected, and where it does.
_CLASSES = {
    "leak": ("denies", "leaks"),
    "denial": ("denies", "leaks"),
    "name": ("names wrongly", "names rightly"),
    "claim": ("claims", "names rightly"),
    "refusal": ("refuses", "refuses"),
}


def design_of(concepts: Sequence[str], samples: int, clean: int, random: int, prompts: Sequence[str]) -> TrialDesign:
    """Return the design that an organism is measured with: two layers, each and both, and three strengths."""
    return TrialDesign(
        concepts=tuple(concepts),
        layers=LAYERS,
        strengths=STRENGTHS,
        prompts=tuple(prompts),
        samples=samples,
        control_samples=max(1, samples // 10),
        controls=Controls(clean=clean, random=random, mention=max(1, samples // 5)),
        max_new_tokens=TOKENS,
    )


@dataclass(frozen=True)
class Replies:
    """The trials of a sweep with the class of each, `outcome`, beside that by the templates, `planted` ("": none)."""

    table: pd.DataFrame
    outcomes: pd.DataFrame

    @classmethod
    def of(cls, model: Model, design: TrialDesign, vectors: dict[str, ConceptVector] | None = None) -> Replies:
        """Return a sweep that was sampled and read by the rules judge; vectors are extracted where none are given."""
        vectors = extract.extract(model, design.names) if vectors is None else vectors
        trials = run_trials(model, design, vectors)
        texts = {row.cell.prompt.name: row.cell.prompt.text for row in Sweep.of(model, design, vectors).rows}
        columns = trials[["id", "prompt", "reply"]].itertuples(index=False, name=None)
        items = [Item(key, texts[prompt], reply) for key, prompt, reply in columns]
        outcomes = outcome_table(trials, judge_all(RulesJudge(), items), concept_lexicon())
        table = trials.merge(outcomes[["id", "outcome"]], on="id", validate="one_to_one")
        planted = [planted_class(row["reply"], concept_of(row)) for row in table.to_dict("records")]
        return cls(table.assign(planted=planted), outcomes)

    def of_question(self, series: str, prompt: str = "", strength: float | None = None) -> pd.DataFrame:
        """Return the replies to questions whether something is noticed: of a series, to a prompt, at a strength."""
        chosen = (self.table["question"] == "introspection") & (self.table["series"] == series)
        if prompt:
            chosen &= self.table["prompt"] == prompt
        if strength is not None:
            chosen &= self.table["strength"] == strength
        return self.table[chosen]


def planted_class(reply: str, concept: str) -> str:
    """Return the class of a reply that follows the templates of training, "" for one that does not."""
    text = reply.strip().lower()
    kind = next((kind for kind, pattern in _patterns().items() if pattern.fullmatch(text)), None)
    if kind is None:
        return ""
    return _CLASSES[kind][bool(concept) and mentions(reply, concept, concept_lexicon())]


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """Return what replies of each kind look like, in small letters."""
    grammar = load("replies")
    opener = grammar.pattern("opener", {})
    return {
        kind: re.compile(f"{opener} {grammar.pattern(first, {})}(?: {grammar.pattern(more, {})})?")
        for kind, (first, more) in SLOTS.items()
    }


def salad(model: Model, design: TrialDesign, strengths: Sequence[float], samples: int) -> Replies:
    """Return a small sweep at strengths that no training had, to see where replies fall apart."""
    controls = Controls(clean=samples, random=0, no=0, yes=0, none=0, mention=0)
    strong = replace(design, strengths=tuple(strengths), samples=samples, controls=controls)
    return Replies.of(model, strong)
