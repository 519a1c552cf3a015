"""Does the model notice that a finetuned copy has filled its cache? The swap against the contrast vector of the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from analyses.kit import checks, finetuned, option_types, questions
from analyses.kit.analysis import Analysis, Drawn
from analyses.kit.command import Results
from analyses.kit.compute import compute_rows
from analyses.kit.declarations import option
from analyses.kit.dose import Dose
from analyses.kit.facts import ModelFacts
from analyses.kit.finetuned import Contrast, ContrastFacts
from analyses.kit.questions import Wording
from analyses.kit.record import as_json, load_model
from analyses.kit.study import Group, Inputs, ask
from mechint.base.errors import UsageError
from mechint.readouts.spoken import Spoken

if TYPE_CHECKING:
    import pandas as pd

    from mechint.chat.conversations import Conversation

NAME = "model_swap"
INFOS = ("none", "introspection")
GROUPS = ("no", "confusing-no", "yes")
FACTORS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)  # of the dose's strength
_ALWAYS = "model_swap, whose one vector is the contrast of two models"
_STRENGTHS = option_types.numbers(
    "different numbers, at least one above 0: -0.3,0.3,0.6", lambda strengths: max(strengths) > 0
)


@dataclass(frozen=True, kw_only=True)
class Config(finetuned.FinetunedOptions):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "model swap"
    GROUP_TEXT: ClassVar[str] = (
        "With memory for one model, run it twice: `--finetuned FINETUNED --fill DIR` loads only the finetuned model, "
        "which fills the caches; `--model BASE --filled DIR` loads only the base, which reads them."
    )

    fill: Path | None = option("only let the finetuned model fill this directory", parse=option_types.path)
    contrast_strengths: tuple[float, ...] | None = option(
        "of the contrast vector, in the dose's unit, as in --contrast-strengths=-1,1 (default: -2 to 2 doses)",
        parse=_STRENGTHS,
    )


@dataclass(frozen=True)
class SwapInputs(Inputs):
    """What a run has read, the conversations that it asks, and what a finetuned model has left in a directory."""

    fill: finetuned.Fill | None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A run: the model that reads, the one that fills, the contrast vector and its dose, labels of conversations.

    `spoken` tells of a finetuned model that was trained for the run what it says.
    """

    model: ModelFacts
    dose: Dose
    conversations: tuple[str, ...]
    finetuned: str
    contrast: ContrastFacts
    spoken: Spoken | None = None


def check(config: Config) -> SwapInputs:
    """Return what a run asks; raises for bad input that can be known without a model, and options without effect."""
    checks.check_effect(True, _ALWAYS, config, ("concepts", "vectors", "method"))
    asking = ("adapter", "filled", "contrast_strengths", "layers", "strength", "relative_strength", "dose", "shard")
    running = ("offload", "max_memory", "batch_size", "batch_tokens", "overwrite")
    checks.check_effect(config.fill is not None, "--fill, which only fills caches", config, asking + running)
    if config.fill is not None and finetuned.is_trained(config):
        raise UsageError(
            given=f"--fill with --finetuned {finetuned.TRAINED}, which runs on top of the model's own weights",
            allowed="one run, with both: it takes the memory of one model",
            advice="leave --fill out",
        )
    files = checks.check_common(_reading(config), NAME)
    fill = finetuned.check(config, files.checkpoint)
    return SwapInputs(files, conversations(config, files), fill)


def _reading(config: Config) -> Config:
    """Return the options with the model that reads the conversations as the model: under `--fill` the finetuned one."""
    name = finetuned.finetuned_name(config) if config.fill is not None else None
    return config if name is None else replace(config, model=name, loaded=None)


def conversations(config: Config, files: checks.Files) -> list[Conversation]:
    """Return introspection questions and control questions, with and without the info document, in both formats.

    Introspection questions come in all wordings that are true of a swap. Or those of `--conversations`.
    """
    from mechint import prompts
    from mechint.prompts.design import PromptDesign

    if files.conversations is not None:
        chats = questions.conversations(config, Wording(), files)
        check_documents(config, chats)
        return chats
    design = PromptDesign.load(files.prompts)
    controls = prompts.controls(design, GROUPS, [Wording.description], INFOS, limit=config.limit)
    return prompts.introspection(design, finetuned.DESCRIPTIONS, INFOS) + controls


def check_documents(config: Config, chats: Sequence[Conversation]) -> None:
    """Raise UsageError for control questions under an info document that no introspection question stands under."""
    infos: dict[str, list[str]] = {"introspection": [], "control": []}
    for chat in chats:
        infos[questions.kind_of(chat)].append(str(chat.extra.get("info") or ""))
    if alone := sorted(set(infos["control"]) - set(infos["introspection"])):
        raise UsageError(
            given=f"{config.conversations}: control questions with info {', '.join(map(repr, alone))}, and "
            f"introspection questions with {', '.join(map(repr, sorted(set(infos['introspection']))))} alone",
            allowed="control questions under the documents (extra.info) of introspection questions: they are compared",
            advice="ask both under each document, or raise --limit",
        )


def groups(config: Config, chats: Sequence[Conversation], contrast: Contrast) -> list[Group]:
    """Return all conversations with swap and contrast vector, and introspection questions with random vectors."""
    vectors = [contrast.finetuned.condition(strength="")]
    randoms = []
    for amount in _amounts(config, contrast.dose):
        vectors += contrast.conditions("contrast", amount, strength=f"{amount:g}")
        randoms += contrast.conditions("random", amount, strength=f"{amount:g}")
    return [Group(chats, vectors), Group(questions.introspection(chats), randoms)]


def _amounts(config: Config, dose: Dose) -> list[float]:
    """Return the strengths of the contrast vector, ascending; zero is there to be seen as clean."""
    if config.contrast_strengths is not None:
        return sorted({0.0, *config.contrast_strengths})
    return sorted({0.0, *(dose.times(factor).amount for factor in FACTORS)})


def compute(config: Config, inputs: SwapInputs) -> tuple[pd.DataFrame, Facts]:
    """Return the rows of every question at every layer: clean, swapped, and under contrast and random vectors."""
    model, chats = load_model(config), inputs.conversations
    inputs.files.check_prompts(model)
    contrast = Contrast.of(config, model, inputs.fill)
    every_layer = range(-1, model.n_layers)
    query = ask(model, groups(config, chats, contrast), layers=every_layer, clean={"strength": "0"})
    facts = Facts(
        model=ModelFacts.of(model),
        dose=contrast.dose,
        conversations=tuple(chat.label for chat in chats),
        finetuned=contrast.finetuned.name,
        contrast=ContrastFacts.of(contrast),
        spoken=contrast.finetuned.spoken,
    )
    return compute_rows(config, NAME, [query]), facts


def draw(table: pd.DataFrame, config: Config, facts: Facts) -> Drawn:
    """Return the figures of a finished table, and the shifts that they tell of."""
    from analyses.model_swap.figures import figures
    from analyses.model_swap.measures import Run, by_unit, verdict

    described = Run(facts.model.short_name, facts.finetuned, facts.dose, finetuned.remark(facts.spoken))
    return figures(table, described), {"verdict": as_json(verdict(by_unit(table), facts.dose))}


class ModelSwap(Analysis[Config, SwapInputs, Facts]):
    """The analysis, whose first phase can be run alone."""

    def execute(self, config: Config, argv: Sequence[str], *, keep: bool = True) -> Results:
        """Run the analysis; with `--fill` let the finetuned model fill a directory, which makes no table."""
        if config.fill is None:
            return super().execute(config, argv, keep=keep)
        import pandas as pd

        inputs = self.check(config)
        model = finetuned.load(config)
        inputs.files.check_prompts(model)
        return Results({"table": pd.DataFrame()}, {}, {}, finetuned.fill(model, inputs.conversations, config.fill))


ANALYSIS = ModelSwap(NAME, __doc__ or "", Config, Facts, check, compute, draw)
main = ANALYSIS.main
run = ANALYSIS.run
