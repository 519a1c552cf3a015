"""What do the vectors do to talk? Replies under active steering, with both signs, and a sanity table of the vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from analyses.kit import checks, option_types, plain_text, resume
from analyses.kit.analysis import Analysis, Drawn
from analyses.kit.declarations import option
from analyses.kit.naming import named
from analyses.kit.option_types import format_layers
from analyses.kit.options import Common
from analyses.kit.record import as_json, short_receipt, sparing_threads
from analyses.kit.specificity import VectorSpecificity
from analyses.kit.study import Condition, Group, Inputs, described
from analyses.kit.subject import Subject
from analyses.steering.vectors import Sanity, sanity
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation

NAME = "steering"
REPLY = "reply"
FACTORS = (0.25, 0.5, 1.0, 2.0)
CLEAN = {"strength": "0", "target": ""}
_BATCH = 64  # replies generated at once
_FACTORS = option_types.numbers("different numbers above 0, for example 0.5,1,2", lambda factors: min(factors) > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Common):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "steering"

    factors: tuple[float, ...] = option(
        "times the dose's strength, each with both signs: 0.5,1,2", default=FACTORS, parse=_FACTORS
    )
    n_samples: int = option(
        "samples of each reply, beside a greedy", default=2, parse=option_types.whole_number(0, 1000)
    )
    temperature: float = option("of the samples", default=1.0, parse=option_types.positive)
    max_new_tokens: int = option(
        "after which replies are cut off", default=32, parse=option_types.whole_number(1, option_types.MOST_TOKENS)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts(plain_text.TextFacts):
    """A run, and what its vectors are like."""

    vectors_are: Sanity


def check(config: Config) -> Inputs:
    """Return the files and conversations of a run; raises for all bad input that can be known without a model."""
    if config.engine == "ray":
        raise UsageError(
            "--engine ray: replies are no cells", "--engine local, or --shard", "split it with --shard i/n"
        )
    files = checks.check_common(config, NAME)
    return Inputs(files, conversations(config, files))


def conversations(config: Config, files: checks.Files) -> Sequence[Conversation]:
    """Return the open requests of the prompt set, or those of `--conversations`; the first `--limit`."""
    from mechint.prompts.design import PromptDesign
    from mechint.prompts.questions import top_of_mind

    chats = top_of_mind(PromptDesign.load(files.prompts)) if files.conversations is None else files.conversations
    return chats[: config.limit]


def conditions(config: Config, subject: Subject) -> list[Condition]:
    """Return every vector at every strength, with both signs.

    `target` is the concept whose name is looked for; for a random vector it is the one whose norms it has.
    """
    concepts = list(subject.concepts)
    targets = {name: name for name in concepts}
    targets |= {name: concepts[at % len(concepts)] for at, name in enumerate(subject.randoms)}
    steered = []
    for factor in [*(-factor for factor in reversed(config.factors)), *config.factors]:
        dose = subject.dose.times(factor)
        for condition in subject.conditions(dose=dose, strength=f"{dose.amount:g}"):
            columns = {**condition.columns, "target": targets[condition.unit]}
            steered.append(dataclasses.replace(condition, columns=columns))
    return steered


def compute(config: Config, inputs: Inputs) -> tuple[pd.DataFrame, Facts]:
    """Return the rows of all replies and of texts read under the same steering, and what the vectors are like."""
    from mechint.chat.render import render

    chats = inputs.conversations
    subject = Subject.of(config, inputs.files, NAME, check=lambda model: [render(model, chat) for chat in chats])
    steered = conditions(config, subject)
    texts = plain_text.Texts.of(subject)
    spoken = replies(config, subject, chats, steered)
    words = {name: f" {name}" for name in subject.concepts}
    read = plain_text.rows(subject, NAME, texts, steered, clean=CLEAN, words=words)
    read = read.assign(text="", said="", mode="", prompt="", prefix="", sample=-1, stopped="", steer="")
    facts = Facts(**vars(subject.facts(chats)), replies=texts.replies, vectors_are=sanity(subject))
    return resume.joined(spoken.assign(request=0), read, 1), facts


def replies(
    config: Config, subject: Subject, chats: Sequence[Conversation], steered: Sequence[Condition]
) -> pd.DataFrame:
    """Return a row for each reply, greedy and sampled, clean and under every condition."""
    groups = plain_text.by_vector(steered, CLEAN)
    chunks = [_chunk(config, subject, chats, group) for group in groups]
    with sparing_threads(subject.model):
        return resume.with_ratio(resume.compute_chunks(config, NAME, REPLY, chunks))


def _chunk(
    config: Config, subject: Subject, chats: Sequence[Conversation], conditions: Sequence[Condition]
) -> resume.Chunk:
    interventions = [condition.intervention for condition in conditions]

    def compute() -> pd.DataFrame:
        rows = _generated(config, subject, chats, conditions)
        receipts = rows.attrs.pop("receipts")
        table = described(_with_prompts(rows, chats, list(subject.concepts)), Group(chats, conditions))
        table.attrs["receipts"] = [short_receipt(receipt) for receipt in receipts]
        return table

    columns = [dict(condition.columns) for condition in conditions]
    options = (config.n_samples, config.temperature, config.max_new_tokens, config.seed)
    key = resume.key(subject.model, interventions, list(chats), columns, list(subject.concepts), options)
    return resume.Chunk(len(chats) * len(conditions) * (1 + config.n_samples), key, compute)


def _with_prompts(rows: pd.DataFrame, chats: Sequence[Conversation], concepts: Sequence[str]) -> pd.DataFrame:
    """Add what each reply answers (`prompt`), what it begins with (`prefix`), and which concepts it names (`said`)."""
    prompts = {chat.label: [m.content for m in chat.messages if m.role == "user"][-1] for chat in chats}
    ends = {chat.label: chat.messages[-1] for chat in chats}
    prefixes = {label: end.content if end.continue_msg else "" for label, end in ends.items()}
    replies = rows.assign(kind=REPLY, group="", asked=True, reference=rows["intervention"] == "clean")
    return replies.assign(
        prompt=replies["conversation"].map(prompts),
        prefix=replies["conversation"].map(prefixes),
        said=[", ".join(named(text, concepts)) for text in replies["text"]],
    )


def _generated(
    config: Config, subject: Subject, chats: Sequence[Conversation], conditions: Sequence[Condition]
) -> pd.DataFrame:
    """Return greedy and sampled replies; `mode` tells them apart."""
    import pandas as pd

    from mechint.readouts.generate import generate

    parts = []
    for mode, n, temperature in (("greedy", 1, 0.0), ("sampled", config.n_samples, config.temperature)):
        if n:
            generated = generate(
                subject.model,
                chats,
                [condition.intervention for condition in conditions],
                max_new_tokens=config.max_new_tokens,
                temperature=temperature,
                n=n,
                seed=config.seed,
                steer="everything",
                batch_size=_BATCH if config.batch_size is None else config.batch_size,
                max_memory=config.max_memory,
            )
            parts.append(generated.assign(mode=mode))
    # What was done to the samples is the same as to the greedy replies, over as many positions as they have.
    receipts = parts[0].attrs["receipts"]
    table = pd.concat(parts, ignore_index=True)
    table.attrs = {"receipts": receipts}
    return table


def draw(table: pd.DataFrame, config: Config, facts: Facts) -> Drawn:
    """Return the figures of a finished table, and how likely texts are to the clean model."""
    from analyses.steering.figures import figures

    layers = format_layers(facts.dose.layers)
    caption = f"{facts.model.short_name}; vectors added at layers {layers} at every position"
    findings: dict[str, JSON] = {"clean_perplexity": plain_text.clean_perplexities(table)}
    if (specific := specificity(table, facts)) is not None:
        findings["specificity"] = as_json(specific)
        caption += f"; {specific.caption}"
    return figures(table, facts.vectors_are, facts.dose, caption), findings


def specificity(table: pd.DataFrame, facts: Facts) -> VectorSpecificity | None:
    """Return how specific vectors are at the dose itself; None where it is not among the strengths, and of one concept.

    The cosine is the mean over all pairs of concepts.
    """
    at_dose = table["strength"].isin(["0", f"{facts.dose.amount:g}"])
    prose = table[(table["kind"] == plain_text.KIND) & (table["group"] == plain_text.PROSE) & at_dose]
    n_concepts = sum(vector.series == "injected" for vector in facts.vectors_are.vectors)
    if n_concepts < 2 or prose[prose["series"] == "injected"].empty:
        return None
    return VectorSpecificity.of(prose, facts.vectors_are.mean_cosine(n_concepts))


ANALYSIS = Analysis(NAME, __doc__ or "", Config, Facts, check, compute, draw)
main = ANALYSIS.main
run = ANALYSIS.run
