"""The conditions of a logit lens beside one another: documents, and a finetuned model's cache and contrast vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analyses.kit import checks, cli
from analyses.kit import finetuned as swapped
from analyses.kit import questions as asked
from analyses.kit import study as experiment
from analyses.kit.finetuned import Contrast, Finetuned
from analyses.kit.study import Group, Setup

if TYPE_CHECKING:
    from analyses.kit import compute as tables
    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation
    from mechint.prompts.design import PromptDesign

# In the column `sweep`: rows of the panels of documents, and of those with a finetuned model.
DOCUMENTS, MODELS = "conditions", "finetuned"
CONTROL = "no"  # the group of control questions that is asked
INFO = "introspection"  # the document with which a finetuned model's cache is asked about


def check(config: swapped.Options, base: checks.Checkpoint) -> None:
    """Raise for conversations of one's own, which have no documents, and for a finetuned model as `swapped` does."""
    checks.check_effect(True, "--conditions", config, ("conversations",))
    if swapped.named(config):
        swapped.check(config, base)


def asked_of(config: swapped.Options, setup: Setup, form: str) -> tuple[tables.Query, dict[str, JSON]]:
    """Return conversations in an answer format with their conditions, and what `run.json` says of a finetuned model."""
    from mechint.prompts.design import PromptDesign

    design, layers = PromptDesign.load(setup.model.prompts), cli.format_layers(setup.dose.layers)
    chats = documents(design, form, config.limit)
    concepts, randoms = (
        setup.conditions([kind], sweep=DOCUMENTS, injected_layers=layers) for kind in ("injected", "random")
    )
    groups = [Group(chats, concepts), Group(_introspection(chats), randoms)]
    record: dict[str, JSON] = {}
    if swapped.named(config):
        finetuned = Finetuned.of(config, setup.model)
        contrast = Contrast.of(config, setup.model, finetuned)
        groups += models(finetuned, contrast, wordings(design, config.limit))
        record = swapped.record(finetuned, contrast)
    every_layer = range(-1, setup.model.n_layers)
    clean = {"sweep": DOCUMENTS, "injected_layers": ""}
    return experiment.ask(setup.model, groups, layers=every_layer, clean=clean), record


def documents(design: PromptDesign, form: str, limit: int | None) -> list[Conversation]:
    """Return the question with each document, as the published tables have them, and control questions beside it."""
    from mechint import prompts

    chats = []
    for description, info in cells().values():
        cell = ([description], [info], [form])
        chats += prompts.introspection(design, *cell)
        chats += prompts.controls(design, [CONTROL], *cell, limit=asked.CONTROLS_IN_SWEEP if limit is None else limit)
    return chats


def cells() -> dict[str, tuple[str, str]]:
    """Return description and info document of each panel, by its label."""
    from analyses.detection.figures import ROWS

    return dict(ROWS)


def wordings(design: PromptDesign, limit: int | None) -> list[Conversation]:
    """Return the question in all wordings that are true of a swap, with the info document, and control questions."""
    from mechint import prompts

    controls = prompts.controls(
        design,
        [CONTROL],
        [asked.Wording().description],
        [INFO],
        limit=asked.CONTROLS_IN_SWEEP if limit is None else limit,
    )
    return prompts.introspection(design, swapped.DESCRIPTIONS, [INFO]) + controls


def models(finetuned: Finetuned, contrast: Contrast, chats: Sequence[Conversation]) -> list[Group]:
    """Return the conversations with the swap and the contrast vector, and those with random vectors of its norm."""
    columns = {"sweep": MODELS, "injected_layers": cli.format_layers(contrast.dose.layers)}
    swap = finetuned.condition(sweep=MODELS, injected_layers="")
    return [
        Group(chats, [swap, *contrast.conditions("contrast", **columns)]),
        Group(_introspection(chats), contrast.conditions("random", **columns)),
    ]


def _introspection(chats: Sequence[Conversation]) -> list[Conversation]:
    return [chat for chat in chats if asked.kind_of(chat) == "introspection"]
