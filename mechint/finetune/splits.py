"""From which split each factor of an example is: what is held out one factor at a time is told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mechint.base.errors import UsageError
from mechint.finetune.pools import Split
from mechint.finetune.specification import Recipe

FACTORS = ("vectors", "layers", "dose", "openers", "replies", "wordings", "answers")


@dataclass(frozen=True)
class Splits:
    """From which split each factor of an example is."""

    vectors: Split = "train"
    layers: Split = "train"
    dose: Split = "train"
    openers: Split = "train"
    replies: Split = "train"
    wordings: Split = "train"
    answers: Split = "train"

    @classmethod
    def of(cls, held_out: str | Sequence[str], split: Split) -> Splits:
        """Return splits of which some factors are of `split` and the others trained; raises UsageError."""
        names = [held_out] if isinstance(held_out, str) else list(held_out)
        if unknown := sorted(set(names) - set(FACTORS)):
            raise UsageError(f"factors {unknown}", ", ".join(FACTORS), "choose among these")
        return cls(**dict.fromkeys(names, split))

    @property
    def is_training(self) -> bool:
        """Whether every factor is of the training pools."""
        return self == Splits()


def doses(recipe: Recipe, split: Split) -> tuple[float, ...]:
    """Return the doses of a split: those that are held out, else the trained ones."""
    return recipe.signal.held_out_dose if split == "held_out" else recipe.signal.dose


def ranges(recipe: Recipe, split: Split) -> tuple[str, ...]:
    """Return the ranges of layers of a split: those that are held out, else the trained ones."""
    return recipe.signal.held_out_layers if split == "held_out" else recipe.signal.layers


def check_splits(recipe: Recipe, splits: Splits) -> None:
    """Raise UsageError where a factor is to be held out of which the recipe holds nothing out."""
    held = {"dose": recipe.signal.held_out_dose, "layers": recipe.signal.held_out_layers}
    if splits.answers == "held_out":
        held["answers"] = recipe.pairs("held_out")
    for factor, members in held.items():
        if getattr(splits, factor) == "held_out" and not members:
            raise UsageError(
                given=f"held-out {factor} of recipe {recipe.name!r}, which holds none out",
                allowed="factors of which something is held out",
                advice=f"leave {factor} out, or give the recipe a list of what is held out",
            )
