"""Transfer: is steering detected in other words, with other answers, or with the answers the other way round?

    table = mi.evals.transfer(run.model(base), run.recipe, base=base)
    mi.evals.detection_rates(table, by=("recipe", "asked_in", "pool"))

A model that has learned "say red where it is odd" detects in its own wording alone; one that knows is asked in any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.progress import Progress
from mechint.base.signatures import Count, Seed, checked
from mechint.engine.shards import Shard
from mechint.evals.detection import detection
from mechint.evals.responders import Responder
from mechint.finetune.axes import Answers
from mechint.finetune.pools import Pair
from mechint.finetune.signal import Signal
from mechint.finetune.specification import Recipe
from mechint.models.model import Model
from mechint.vectors.concept_vectors import ConceptVector

Direction = Literal["fixed", "reversed"]
KEYED = ("keyed-explicit", "keyed-vague")
YES_NO: Pair = (" yes", " no")


@dataclass(frozen=True)
class AskedIn:
    """A bank of questions, a pair of answers and which means which: the first that something was added, if "fixed"."""

    bank: str
    pair: Pair
    mapping: Direction = "fixed"

    def __str__(self) -> str:
        words = [word.strip() for word in self.pair]
        first, second = words if self.mapping == "fixed" else reversed(words)
        return f"{self.bank}: {first}/{second}"

    def of(self, recipe: Recipe) -> Recipe:
        """Return the recipe asked so. Raises UsageError where the questions do not offer these answers."""
        asking = replace(recipe.asking, bank=self.bank, wordings=0, mapping=self.mapping)
        return replace(recipe, asking=asking, answers=Answers(pairs=(self.pair,)))


def askings(recipe: Recipe) -> tuple[AskedIn, ...]:
    """Return how a recipe is asked by default: two keyed banks with three pairs, both ways round, and yes/no banks.

    The pairs are the first of the recipe's own, the first held-out one of the pools, and yes/no.
    """
    pairs = dict.fromkeys([recipe.pairs("train")[0], recipe.pools.answers("held_out")[0], YES_NO])
    keyed = [AskedIn(bank, pair, mapping) for bank in KEYED for pair in pairs for mapping in get_args(Direction)]
    return (*keyed, *(AskedIn(bank, YES_NO) for bank in ("explicit", "vague")))


@checked
def transfer(
    model: Responder,
    recipe: Recipe,
    asked_in: Sequence[AskedIn] | None = None,
    *,
    pools: Sequence[str] = ("held-out",),
    vectors: Count = 8,
    texts: Count = 24,
    dev_texts: Count = 40,
    concepts: Mapping[str, ConceptVector] | None = None,
    signal: Signal | None = None,
    base: Model | None = None,
    seed: Seed = 0,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return the rows of `detection` for each way of asking, with `asked_in` and `trained_on` (the recipe's bank).

    `asked_in` are those of `askings` by default. A pair of answers is trained if the recipe has it, whichever way
    round. The other arguments are those of `detection`. Raises UsageError for none or repeated ways of asking, for
    answers that a bank's questions do not offer, and what `detection` raises.
    """
    ways = askings(recipe) if asked_in is None else tuple(asked_in)
    if not ways or len(set(ways)) < len(ways):
        raise UsageError(f"{len(ways)} ways of asking, or one twice", "one or more, each once", "check asked_in")
    recipes = {way: way.of(recipe) for way in ways}  # all are checked before the first is asked
    parts, receipts = [], []
    for way, varied in recipes.items():
        part = detection(
            model,
            varied,
            pools=pools,
            vectors=vectors,
            texts=texts,
            dev_texts=dev_texts,
            concepts=concepts,
            signal=signal,
            base=base,
            seed=seed,
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            offload=offload,
            max_memory=max_memory,
            progress=progress,
            store=store,
            shard=shard,
        )
        receipts += part.attrs["receipts"]
        part.attrs = {}
        parts.append(part.assign(asked_in=str(way), trained_on=recipe.asking.bank))
    table = pd.concat(parts, ignore_index=True)
    table.attrs["receipts"] = receipts
    return table
