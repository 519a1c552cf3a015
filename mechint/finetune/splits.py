"""From which split each factor of an example is: what is held out one factor at a time is told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mechint.base.errors import UsageError
from mechint.finetune.pools import Split
from mechint.finetune.specification import Recipe

FACTORS = ("vectors", "layers", "dose", "openers", "replies", "wordings", "answers", "sentences", "oddity")


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
    sentences: Split = "train"
    oddity: Split = "train"

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


def kinds(recipe: Recipe, split: Split) -> tuple[str, ...]:
    """Return the kinds of oddity of a split: those that are held out, else the trained ones."""
    return recipe.oddity.held_out_kinds if split == "held_out" else recipe.oddity.kinds


def check_splits(recipe: Recipe, splits: Splits) -> None:
    """Raise UsageError where a factor is to be held out of which the recipe holds nothing out."""
    held: dict[str, Sequence[object]] = {
        "dose": recipe.signal.held_out_dose,
        "layers": recipe.signal.held_out_layers,
        "oddity": recipe.oddity.held_out_kinds if recipe.oddity.share else (),
        "sentences": recipe.pools.sentences("held_out") if recipe.asking.sentences else (),
    }
    if splits.answers == "held_out":
        held["answers"] = () if recipe.answers.options else recipe.pairs("held_out")
    for factor, members in held.items():
        if getattr(splits, factor) == "held_out" and not members:
            raise UsageError(
                given=f"held-out {factor} of recipe {recipe.name!r}, which holds none out",
                allowed="factors of which something is held out",
                advice=f"leave {factor} out, or give the recipe a list of what is held out",
            )
