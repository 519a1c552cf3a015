"""What do the vectors do to talk? Replies under active steering, with both signs, and a sanity table of the vectors."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analyses.kit import checks, cli, option_types, plain_text
from analyses.kit import dose as injected
from analyses.kit import record as run
from analyses.kit import resume
from analyses.kit import study as experiment
from analyses.kit.study import Condition, Group, Setup
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation

NAME = "steering"
REPLY = "reply"
FACTORS = (0.25, 0.5, 1.0, 2.0)
CLEAN = {"strength": "0", "target": ""}
_BATCH = 64  # replies generated at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Common):
    """All options of this analysis."""

    factors: tuple[float, ...]
    n_samples: int
    temperature: float
    max_new_tokens: int


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group("steering")
    group.add_argument(
        "--factors",
        type=option_types.numbers("different numbers above 0, for example 0.5,1,2", lambda factors: min(factors) > 0),
        default=FACTORS,
        help="times the dose's strength, each with both signs: 0.5,1,2",
    )
    group.add_argument(
        "--n-samples", type=option_types.whole_number(0, 1000), default=2, help="samples of each reply, beside a greedy"
    )
    group.add_argument("--temperature", type=option_types.positive, default=1.0, help="of the samples")
    group.add_argument(
        "--max-new-tokens",
        type=option_types.whole_number(1, option_types.MOST_TOKENS),
        default=32,
        help="after which replies are cut off",
    )
    return options


def check(config: Config) -> None:
    """Raise for all bad input that can be known without a model."""
    if config.engine == "ray":
        raise UsageError(
            "--engine ray: replies are no cells", "--engine local, or --shard", "split it with --shard i/n"
        )
    checkpoint = checks.check_common(config, NAME)
    questions(config, checkpoint.prompts)


def questions(config: Config, prompt_set: str) -> list[Conversation]:
    """Return the open requests of a prompt set, or those of `--conversations`; the first `--limit`."""
    from mechint.chat.conversations import load_conversations
    from mechint.prompts import questions as prompt_questions
    from mechint.prompts.design import PromptDesign

    if config.conversations is not None:
        return load_conversations(config.conversations)[: config.limit]
    return prompt_questions.top_of_mind(PromptDesign.load(prompt_set))[: config.limit]


def conditions(config: Config, setup: Setup) -> list[Condition]:
    """Return every vector at every strength, with both signs.

    `target` is the concept whose name is looked for; for a random vector it is the one whose norms it has.
    """
    concepts = list(setup.concepts)
    targets = {name: name for name in concepts}
    targets |= {name: concepts[at % len(concepts)] for at, name in enumerate(setup.randoms)}
    every = []
    for factor in [*(-factor for factor in reversed(config.factors)), *config.factors]:
        dose = scaled(setup.dose, factor)
        steered = dataclasses.replace(setup, dose=dose).conditions(strength=f"{dose.amount:g}")
        every += [
            dataclasses.replace(condition, columns={**condition.columns, "target": targets[condition.unit]})
            for condition in steered
        ]
    return every


def scaled(dose: injected.Dose, factor: float) -> injected.Dose:
    """Return a dose times a factor."""
    strength = None if dose.strength is None else dose.strength * factor
    relative = None if dose.relative_strength is None else dose.relative_strength * factor
    return dataclasses.replace(dose, strength=strength, relative_strength=relative)


def compute(config: Config) -> tuple[pd.DataFrame, Mapping[str, JSON]]:
    """Return the rows of all replies and of texts read under the same steering, and what the vectors are like."""
    from analyses.steering.vectors import sanity

    setup = Setup.of(config, NAME)
    chats, steered = questions(config, setup.model.prompts), conditions(config, setup)
    texts = plain_text.Texts.of(setup)
    spoken = replies(config, setup, chats, steered)
    words = {name: f" {name}" for name in setup.concepts}
    read = plain_text.rows(setup, NAME, texts, steered, clean=CLEAN, words=words)
    read = read.assign(text="", said="", mode="", prompt="", prefix="", sample=-1, stopped=True)
    spoken["request"] = 0
    return resume.joined(spoken, read, 1), {
        **setup.record(chats),
        "replies": texts.record(),
        "vectors_are": sanity(setup),
    }


def replies(config: Config, setup: Setup, chats: Sequence[Conversation], steered: Sequence[Condition]) -> pd.DataFrame:
    """Return a row for each reply, greedy and sampled, clean and under every condition."""
    from mechint.interventions.specifications import CLEAN as NOTHING

    by_vector: dict[str, list[Condition]] = {"": [Condition(NOTHING, "", "clean", CLEAN)]}
    for condition in steered:
        by_vector.setdefault(condition.unit, []).append(condition)
    todo = [_chunk(config, setup, chats, group) for group in by_vector.values()]
    with run.sparing_threads(setup.model):
        return resume.with_ratio(resume.compute(config, NAME, REPLY, todo))


def _chunk(
    config: Config, setup: Setup, chats: Sequence[Conversation], conditions: Sequence[Condition]
) -> resume.Chunk:
    interventions = [condition.intervention for condition in conditions]
    prompts = {chat.label: [m.content for m in chat.messages if m.role == "user"][-1] for chat in chats}
    prefixes = {chat.label: chat.messages[-1].content * chat.messages[-1].continue_msg for chat in chats}
    options = (config.n_samples, config.temperature, config.max_new_tokens, config.seed)

    def compute() -> pd.DataFrame:
        rows = _generated(config, setup, chats, conditions)
        receipts = rows.attrs.pop("receipts")
        replies = rows.assign(kind=REPLY, group="", asked=True, reference=rows["intervention"] == "clean")
        replies = replies.assign(
            prompt=replies["conversation"].map(prompts), prefix=replies["conversation"].map(prefixes)
        )
        replies = replies.assign(said=[", ".join(named(text, setup.concepts)) for text in replies["text"]])
        table = experiment.described(replies, Group(chats, conditions))
        table.attrs["receipts"] = [run.short_receipt(receipt) for receipt in receipts]
        return table

    columns = [dict(condition.columns) for condition in conditions]
    key = resume.key(setup.model, interventions, list(chats), columns, list(setup.concepts), options)
    return resume.Chunk(len(chats) * len(conditions) * (1 + config.n_samples), key, compute)


def _generated(
    config: Config, setup: Setup, chats: Sequence[Conversation], conditions: Sequence[Condition]
) -> pd.DataFrame:
    """Return greedy and sampled replies; `mode` tells them apart."""
    import pandas as pd

    from mechint.readouts.generate import generate

    parts = []
    for mode, n, temperature in (("greedy", 1, 0.0), ("sampled", config.n_samples, config.temperature)):
        if n:
            generated = generate(
                setup.model, chats, [condition.intervention for condition in conditions],
                max_new_tokens=config.max_new_tokens, temperature=temperature, n=n, seed=config.seed, steer_reply=True,
                batch_size=_BATCH if config.batch_size is None else config.batch_size, max_memory=config.max_memory,
            )  # fmt: skip
            parts.append(generated.assign(mode=mode))
    # What was done to the samples is the same as to the greedy replies, over as many positions as they have.
    receipts, *_ = [table.attrs.pop("receipts") for table in parts]
    table = pd.concat(parts, ignore_index=True)
    table.attrs["receipts"] = receipts
    return table


def named(text: str, concepts: Sequence[str] | Mapping[str, object]) -> list[str]:
    """Return the concepts whose name a text has as words of their own, in the singular or plural, in any case."""
    return [name for name in concepts if re.search(name_pattern(name), text, re.IGNORECASE)]


def name_pattern(name: str) -> str:
    """Return a regular expression for a name, with and without an s at its end."""
    return rf"\b{re.escape(name.removesuffix('s'))}s?\b"


def draw(
    table: pd.DataFrame, config: Config, record: Mapping[str, JSON]
) -> tuple[Mapping[str, go.Figure], Mapping[str, JSON]]:
    """Return the figures of a finished table; adds to the record how likely texts are to the clean model."""
    from analyses.steering.figures import figures
    from analyses.steering.vectors import Sanity

    dose = injected.Dose.of(record["dose"])
    caption = f"{run.short_name(record)}; vectors added at layers {cli.format_layers(dose.layers)} at every position"
    perplexities = {"clean_perplexity": plain_text.clean_perplexities(table)}
    return figures(table, Sanity.of(record["vectors_are"]), dose, caption), perplexities


ANALYSIS = experiment.Analysis(NAME, Config, parser, check, compute, draw)
main = ANALYSIS.main
