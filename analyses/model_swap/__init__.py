"""Does the model notice that a finetuned copy has filled its cache? The swap against the contrast vector of the two."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import checks, cli, option_types
from analyses.kit import compute as tables
from analyses.kit import dose as injected
from analyses.kit import finetuned as swapped
from analyses.kit import questions as asked
from analyses.kit import record as run
from analyses.kit import study as experiment
from analyses.kit.finetuned import Contrast, Finetuned
from analyses.kit.study import Group
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation

NAME = "model_swap"
INFOS = ("none", "introspection")
GROUPS = ("no", "confusing-no", "yes")
FACTORS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)  # of the dose's strength
_ALWAYS = "model_swap, whose one vector is the contrast of two models"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(swapped.Options):
    """All options of this analysis."""

    contrast_strengths: tuple[float, ...] | None
    fill: Path | None


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group(
        "model swap",
        "With memory for one model, run it twice: `--finetuned FINETUNED --fill DIR` loads only the finetuned model, "
        "which fills the caches; `--model BASE --filled DIR` loads only the base, which reads them.",
    )
    swapped.add_options(group)
    group.add_argument("--fill", type=option_types.path, help="only let the finetuned model fill this directory")
    group.add_argument(
        "--contrast-strengths",
        type=option_types.numbers(
            "different numbers, at least one above 0: -0.3,0.3,0.6", lambda strengths: max(strengths) > 0
        ),
        help="of the contrast vector, in the dose's unit, as in --contrast-strengths=-1,1 (default: -2 to 2 doses)",
    )
    return options


def check(config: Config) -> None:
    """Raise for all bad input that can be known without a model, and for options that would have no effect."""
    checks.check_effect(True, _ALWAYS, config, ("concepts", "vectors", "method"))
    asking = ("adapter", "filled", "contrast_strengths", "layers", "strength", "relative_strength", "shard")
    running = ("offload", "max_memory", "batch_size", "batch_tokens", "overwrite")
    checks.check_effect(config.fill is not None, "--fill, which only fills caches", config, asking + running)
    checkpoint = checks.check_common(_loaded(config), NAME)
    swapped.check(config, checkpoint)
    questions(config, checkpoint.prompts)


def _loaded(config: Config) -> Config:
    """Return the options with the model that is asked, or that fills, as the model."""
    name = swapped.finetuned_name(config) if config.fill is not None else None
    return config if name is None else dataclasses.replace(config, model=name)


def questions(config: Config, prompt_set: str) -> list[Conversation]:
    """Return introspection questions and control questions, with and without the info document, in both formats.

    Introspection questions come in all wordings that are true of a swap. Or those of `--conversations`.
    """
    from mechint import prompts
    from mechint.prompts.design import PromptDesign

    usual = asked.Wording()
    if config.conversations is not None:
        chats = asked.conversations(config, usual, prompt_set)
        check_documents(config, chats)
        return chats
    design = PromptDesign.load(prompt_set)
    controls = prompts.controls(design, GROUPS, [usual.description], INFOS, limit=config.limit)
    return prompts.introspection(design, swapped.DESCRIPTIONS, INFOS) + controls


def check_documents(config: Config, chats: Sequence[Conversation]) -> None:
    """Raise UsageError for control questions under an info document that no introspection question stands under."""
    infos: dict[str, list[str]] = {"introspection": [], "control": []}
    for chat in chats:
        infos[asked.kind_of(chat)].append(str(chat.extra.get("info") or ""))
    if alone := sorted(set(infos["control"]) - set(infos["introspection"])):
        raise UsageError(
            given=f"{config.conversations}: control questions with info {', '.join(map(repr, alone))}, and "
            f"introspection questions with {', '.join(map(repr, sorted(set(infos['introspection']))))} alone",
            allowed="control questions under the documents (extra.info) of introspection questions: they are compared",
            advice="ask both under each document, or raise --limit",
        )


def groups(chats: Sequence[Conversation], finetuned: Finetuned, contrast: Contrast, config: Config) -> list[Group]:
    """Return all conversations with swap and contrast vector, and introspection questions with random vectors."""
    introspection = [chat for chat in chats if asked.kind_of(chat) == "introspection"]
    usual = swapped.amount_of(contrast.dose)
    # Zero is there to be seen as clean.
    amounts = sorted(
        {
            0.0,
            *(
                [usual * factor for factor in FACTORS]
                if config.contrast_strengths is None
                else config.contrast_strengths
            ),
        }
    )
    vectors, randoms = (
        [condition for amount in amounts for condition in contrast.conditions(kind, amount, strength=f"{amount:g}")]
        for kind in ("contrast", "random")
    )
    return [Group(chats, [finetuned.condition(strength=""), *vectors]), Group(introspection, randoms)]


def compute(config: Config) -> tuple[pd.DataFrame, Mapping[str, JSON]]:
    """Return the rows of every question at every layer: clean, swapped, and under contrast and random vectors."""
    model = run.load_model(config)
    finetuned = Finetuned.of(config, model)
    contrast = Contrast.of(config, model, finetuned)
    chats = questions(config, model.prompts)
    cells = groups(chats, finetuned, contrast, config)
    of = experiment.ask(model, cells, layers=range(-1, model.n_layers), clean={"strength": "0"})
    record: dict[str, JSON] = {
        "model": run.describe_model(model),
        "dose": run.as_json(contrast.dose),
        "conversations": [chat.label for chat in chats],
    }
    return tables.compute(config, NAME, [of]), {**record, **swapped.record(finetuned, contrast)}


def draw(
    table: pd.DataFrame, config: Config, record: Mapping[str, JSON]
) -> tuple[Mapping[str, go.Figure], Mapping[str, JSON]]:
    """Return the figures of a finished table, and what was detected for the record."""
    from analyses.model_swap.figures import figures
    from analyses.model_swap.measures import Subject, by_unit, verdict

    dose = injected.Dose.of(record["dose"])
    subject = Subject(run.short_name(record), str(record["finetuned"]), dose)
    return figures(table, subject), {"verdict": run.as_json(verdict(by_unit(table), subject))}


def execute(config: Config, argv: Sequence[str]) -> list[Path]:
    """Run the analysis, or its first phase alone; returns the paths of what was written."""
    if config.fill is None:
        return ANALYSIS.execute(config, argv)
    check(config)
    model = swapped.load(config)
    return swapped.fill(model, questions(config, model.prompts), config.fill)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    return cli.run_analysis(argv, ANALYSIS.parsed, execute)


ANALYSIS = experiment.Analysis(NAME, Config, parser, check, compute, draw)
