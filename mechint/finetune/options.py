"""Answers to a question with several: which of the recipe's layers, doses, sentences or concepts it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechint.base.errors import UsageError

if TYPE_CHECKING:
    from mechint.finetune.specification import Recipe


def check_options(recipe: Recipe) -> None:
    """Raise UsageError for options that do not stand for one class each, and for classes without options.

    What is asked for must be there in every example, and nothing of it may be held out: it would have no answer.
    """
    rule, options = recipe.labels.rule, len(recipe.answers.options)
    classes = _classes(recipe)
    if rule not in classes or (rule == "concept" and not options):
        _refuse_extras(recipe)
        return
    held_out = {"layers": recipe.signal.held_out_layers, "dose": recipe.signal.held_out_dose}.get(rule, ())
    faults = {
        f"{options} options for {classes[rule]} answers to labels by rule {rule!r}": options != classes[rule],
        f"labels by rule {rule!r}, of which {list(held_out)} are held out": bool(held_out),
        f"labels by rule {rule!r}, where some examples have none": recipe.signal.share < 1
        or recipe.signal.vectors == "none",
        "noise in labels of several options": recipe.labels.noise > 0,
        f"several options with mapping={recipe.asking.mapping!r} or order={recipe.asking.order!r}": (
            recipe.asking.mapping,
            recipe.asking.order,
        )
        != ("fixed", "fixed"),
        "pairs of concepts beside options": bool(recipe.signal.concept_pairs),
        "labels that say which concept, without concepts' vectors": rule == "concept"
        and recipe.signal.vectors != "concept",
        "sentences with labels by another rule": bool(recipe.asking.sentences) != (rule == "sentence"),
        "odd text of sentences": bool(recipe.asking.sentences and recipe.oddity.share),
    }
    _refuse(faults, "an option for each, in their order, and something added in every example")


def _refuse_extras(recipe: Recipe) -> None:
    """Raise UsageError for options and sentences where labels are of two kinds."""
    faults = {
        f"options with labels by rule {recipe.labels.rule!r}": bool(recipe.answers.options),
        "sentences with labels by another rule": bool(recipe.asking.sentences),
    }
    _refuse(faults, "options with labels that are of several kinds")


def _classes(recipe: Recipe) -> dict[str, int]:
    """Return how many answers each rule has that is of several kinds."""
    return {
        "layers": len(recipe.signal.layers),
        "dose": len(recipe.signal.dose),
        "sentence": recipe.asking.sentences,
        "concept": len(recipe.answers.options),
    }


def _refuse(faults: dict[str, bool], allowed: str) -> None:
    for fault, is_so in faults.items():
        if is_so:
            raise UsageError(fault, allowed, "change labels, answers or signal")
