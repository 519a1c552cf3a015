"""The conditions of a logit lens beside one another: documents, and a finetuned model's cache and contrast vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyses.kit import checks, finetuned
from analyses.kit.finetuned import Contrast
from analyses.kit.option_types import format_layers
from analyses.kit.questions import CONTROLS_IN_SWEEP, Wording, introspection
from analyses.kit.study import Group, ask

if TYPE_CHECKING:
    from analyses.kit.compute import Query
    from analyses.kit.subject import Subject
    from analyses.logit_lens import Config
    from mechint.chat.conversations import Conversation
    from mechint.models.model import Model
    from mechint.prompts.design import PromptDesign

# In the column `sweep`: rows of the panels of documents, and of those with a finetuned model.
DOCUMENTS, MODELS = "conditions", "finetuned"
CONTROL = "no"  # the group of control questions that is asked
INFO = "introspection"  # the document with which a finetuned model's cache is asked about


@dataclass(frozen=True)
class Panels:
    """What the panels ask: conversations with each document, those about a finetuned model, and what that has left.

    Without a finetuned model there are no conversations about it.
    """

    documents: Sequence[Conversation]
    wordings: Sequence[Conversation]
    fill: finetuned.Fill | None


def check(config: Config, files: checks.Files) -> Panels:
    """Return what the panels ask.

    Raises for conversations of one's own, which have no documents, and for a finetuned model as `finetuned.check` does.
    """
    from mechint.prompts.design import PromptDesign

    checks.check_effect(True, "--conditions", config, ("conversations",))
    design = PromptDesign.load(files.prompts)
    chats = documents(design, config.wording.format, config.limit)
    if not finetuned.named(config):
        return Panels(chats, [], None)
    return Panels(chats, wordings(design, config.limit), finetuned.check(config, files.checkpoint))


def contrast(config: Config, model: Model, panels: Panels) -> Contrast | None:
    """Return the finetuned model and the contrast vector, if there is one."""
    return Contrast.of(config, model, panels.fill) if finetuned.named(config) else None


def query(subject: Subject, panels: Panels, contrast: Contrast | None) -> Query:
    """Return the conversations of all panels under their conditions, at every layer."""
    layers = format_layers(subject.dose.layers)
    concepts = subject.conditions(["injected"], sweep=DOCUMENTS, injected_layers=layers)
    randoms = subject.conditions(["random"], sweep=DOCUMENTS, injected_layers=layers)
    groups = [Group(panels.documents, concepts), Group(introspection(panels.documents), randoms)]
    if contrast is not None:
        groups += models(contrast, panels.wordings)
    clean = {"sweep": DOCUMENTS, "injected_layers": ""}
    return ask(subject.model, groups, layers=range(-1, subject.model.n_layers), clean=clean)


def documents(design: PromptDesign, form: str, limit: int | None) -> list[Conversation]:
    """Return the question with each document, as the published tables have them, and control questions beside it."""
    from mechint import prompts

    chats = []
    for description, info in cells().values():
        cell = ([description], [info], [form])
        chats += prompts.introspection(design, *cell)
        chats += prompts.controls(design, [CONTROL], *cell, limit=CONTROLS_IN_SWEEP if limit is None else limit)
    return chats


def cells() -> dict[str, tuple[str, str]]:
    """Return description and info document of each panel, by its label."""
    from analyses.detection.figures import ROWS

    return dict(ROWS)


def wordings(design: PromptDesign, limit: int | None) -> list[Conversation]:
    """Return the question in all wordings that are true of a swap, with the info document, and control questions."""
    from mechint import prompts

    few = CONTROLS_IN_SWEEP if limit is None else limit
    controls = prompts.controls(design, [CONTROL], [Wording.description], [INFO], limit=few)
    return prompts.introspection(design, finetuned.DESCRIPTIONS, [INFO]) + controls


def models(contrast: Contrast, chats: Sequence[Conversation]) -> list[Group]:
    """Return the conversations with the swap and the contrast vector, and those with random vectors of its norm."""
    columns = {"sweep": MODELS, "injected_layers": format_layers(contrast.dose.layers)}
    swap = contrast.finetuned.condition(sweep=MODELS, injected_layers="")
    return [
        Group(chats, [swap, *contrast.conditions("contrast", **columns)]),
        Group(introspection(chats), contrast.conditions("random", **columns)),
    ]
