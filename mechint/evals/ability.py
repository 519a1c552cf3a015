"""What a training has cost: text, facts, what is said where nothing was trained, and how readily steering moves it.

    table = mi.evals.ability(run.model(base), base, concepts=vectors)
    mi.evals.ability_rates(table)              # each measure of the model beside the base's, and their difference

There is no oracle here: what is measured is the loss of a model with weights. Values are of single texts, facts and
concepts, the same ones for both models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.files import JSON, read_json, sha256, write_atomically
from mechint.base.progress import Progress, counted
from mechint.base.signatures import Count, checked
from mechint.engine.shards import Shard
from mechint.evals.battery import battery
from mechint.evals.items import Items
from mechint.evals.responders import BASE, SELF
from mechint.finetune.drift import NEUTRAL, kl_from_base
from mechint.finetune.injections import fixed_dose
from mechint.interventions.specifications import CLEAN, Injection
from mechint.models.model import Model
from mechint.models.surroundings import surroundings
from mechint.prompts.design import PromptDesign
from mechint.readouts.own_text import TextRecipe, own_text
from mechint.readouts.text_loss import text_loss
from mechint.vectors.concept_vectors import ConceptVector

TEXT, NEUTRAL_SET, FACTS, STEERED = "text", "neutral", "facts", "steered"
SETS = (TEXT, NEUTRAL_SET, FACTS, STEERED)
TRUE, FALSE = "facts-true", "facts-false"
DOSES = (0.2, 0.4)
FLOORS = ("chat", "models", "interventions", "engine", "readouts")  # whose code the values depend on
COLUMNS = ("model", "set", "item", "dose", "loss", "kl", "log_odds", "right", "shift")
Rows = list[dict[str, JSON]]


@dataclass(frozen=True)
class _Measuring:
    """What all measures of one model have in common."""

    name: str
    model: Model
    base: Model
    neutral: TextRecipe

    def text(self) -> Rows:
        """Return the loss of plain texts."""
        losses = text_loss(self.model, PromptDesign.load(self.base.prompts).tasks.plain, CLEAN)["loss"]
        return [{"item": f"text-{number:02d}", "loss": float(loss)} for number, loss in enumerate(losses)]

    def neutral_replies(self) -> Rows:
        """Return the loss of replies of the base's own, and the divergence of what would be said instead."""
        replies = own_text(self.base, self.neutral)
        losses = text_loss(self.model, replies, CLEAN)["loss"]
        divergences = [
            0.0 if self.model is self.base else kl_from_base(self.model, self.base, [reply]).kl for reply in replies
        ]
        return [
            {"item": f"reply-{number:03d}", "loss": float(loss), "kl": kl}
            for number, (loss, kl) in enumerate(zip(losses, divergences, strict=True))
        ]

    def facts(self) -> Rows:
        """Return the stance on facts, in the direction of what is true, the mean over formats."""
        items = Items.load(self.base.prompts)
        chosen = tuple(item for item in items.items if item.group in (TRUE, FALSE))
        table = battery(self.model, replace(items, items=chosen))
        signs = np.where(table["keying"] == "affirmed", 1, -1) * np.where(table["group"] == TRUE, 1, -1)
        stances = (table["log_odds"] * signs).groupby(table["item"], sort=False).mean()
        return [
            {"item": str(item), "log_odds": float(value), "right": float(value > 0)} for item, value in stances.items()
        ]

    def steered(self, concepts: Mapping[str, ConceptVector], dose: float, layers: Sequence[int]) -> Rows:
        """Return how much likelier each concept's word is at all positions while its vector is added there.

        `right` is whether no other concept's word has become likelier by more.
        """
        added = {
            name: fixed_dose(
                Injection(vector.at(layers).directions(), tuple(layers), relative_strength=dose, name=name), self.base
            )
            for name, vector in concepts.items()
        }
        texts, words = PromptDesign.load(self.base.prompts).tasks.plain, {name: f" {name}" for name in concepts}
        table = text_loss(self.model, texts, [CLEAN, *added.values()], words=words)
        means = table.drop(columns="text").groupby("intervention").mean()
        columns = [f"log_p_{name}" for name in concepts]
        rows: Rows = []
        for name in concepts:
            shifts = (means.loc[name, columns] - means.loc[CLEAN.name, columns]).to_dict()
            rows.append(
                {
                    "item": name,
                    "dose": dose,
                    "loss": float(means.loc[name, "loss"]),
                    "shift": float(shifts[f"log_p_{name}"]),
                    "right": float(max(shifts, key=lambda column: shifts[column]) == f"log_p_{name}"),
                }
            )
        return rows


@checked
def ability(
    model: Model,
    base: Model,
    *,
    concepts: Mapping[str, ConceptVector] | None = None,
    doses: Sequence[float] = DOSES,
    layers: Sequence[int] | None = None,
    replies: Count = NEUTRAL.prompts,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row for each model, set and text, fact or concept; the base has none where it is the model itself.

    Columns: `model` ("self" or "base"); `set`: "text", plain texts of the prompt set, with their `loss` (nats per
    token); "neutral", `replies` of the base's own to neutral prompts, with their `loss` and `kl`, of the model's next
    tokens from the base's (nats per token); "facts", true and false ones of the battery, with `log_odds` in the
    direction of what is true and whether that is `right`; "steered", for each of `concepts` and each of `doses` (norms
    of the base's stream, added at `layers`, the middle third by default, to all positions of the plain texts), the
    `shift` of the log-probability (nats) of the concept's word, whether it is `right`, the largest of all concepts',
    and the `loss` meanwhile. `item`, `dose`; what a set has no value of is NaN.

    `store` keeps finished sets by all that they depend on; of a shard the table has its own sets and those in the
    store. Raises UsageError for a single concept, doses of 0 or less, and vectors that do not fit, and what `text_loss`
    raises.
    """
    if concepts is not None and len(concepts) < 2:
        raise UsageError(f"{len(concepts)} concept", "two or more, which are told apart", "give others, or none")
    if not doses or min(doses) <= 0:
        raise UsageError(f"doses {list(doses)}", "one or more above 0", "clean values are there anyway")
    third = model.n_layers // 3
    places = tuple(range(third, max(third + 1, 2 * third)) if layers is None else layers)
    models = {SELF: model} if model is base else {SELF: model, BASE: base}
    neutral = replace(NEUTRAL, prompts=replies)
    jobs: list[tuple[str, str, str, Callable[[], Rows]]] = []
    for name, of_it in models.items():
        measuring = _Measuring(name, of_it, base, neutral)
        key = surroundings(of_it, f"{of_it.identity} {base.identity}", FLOORS)
        jobs.append((name, TEXT, key, measuring.text))
        jobs.append((name, NEUTRAL_SET, f"{key} {neutral}", measuring.neutral_replies))
        jobs.append((name, FACTS, key, measuring.facts))
        for dose in doses if concepts else ():
            assert concepts is not None
            described = f"{key} {_described(concepts)} {dose} {places}"
            jobs.append((name, STEERED, described, partial(measuring.steered, concepts, dose, places)))
    rows = []
    with counted(progress, "ability", len(jobs), "set") as tell:
        for at, (name, set_, key, measure) in enumerate(jobs):
            is_of_shard = shard is None or at % shard.count == shard.index
            rows += [{"model": name, "set": set_, **row} for row in _kept(store, f"{set_} {key}", measure, is_of_shard)]
            if tell is not None:
                tell(1, 0)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).fillna({"dose": 0.0})
    table.attrs["receipts"] = []
    return table


def _kept(store: str | Path | None, key: str, measure: Callable[[], Rows], is_of_shard: bool) -> Rows:
    """Return the rows that a store has, or measure them now; none of another shard that are not there."""
    path = None if store is None else Path(store) / f"ability-{sha256(key.encode())[:32]}.json"
    if path is not None and path.is_file():
        rows_before = read_json(path)
        if isinstance(rows_before, list):
            return [dict(row) for row in rows_before if isinstance(row, dict)]
    if not is_of_shard:
        return []
    rows = measure()
    if path is not None:
        write_atomically(path, json.dumps(rows) + "\n")
    return rows


def _described(concepts: Mapping[str, ConceptVector]) -> str:
    """Return a text that is a function of the vectors."""
    return " ".join(
        f"{name} {layer} {sha256(vector.double().numpy().tobytes())}"
        for name, concept in concepts.items()
        for layer, vector in concept.vectors.items()
    )
