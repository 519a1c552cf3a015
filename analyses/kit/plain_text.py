"""Is the model still itself? The loss of text while vectors are added at all positions: of prose, and of what it says.

Prose may be strange to a small model from the start, and steering cannot make it stranger. What it says by itself never
is: the loss of a clean sample rises by the divergence of the steered model from the clean one (Kullback-Leibler).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from analyses.kit import resume
from analyses.kit.facts import RunFacts
from analyses.kit.record import sparing_threads
from analyses.kit.study import Condition, Group, Value, described
from analyses.kit.subject import Subject
from mechint import stats
from mechint.chat.conversations import Conversation, Message
from mechint.prompts.design import PromptDesign

if TYPE_CHECKING:
    import pandas as pd

    from mechint.base.files import JSON
    from mechint.models.model import Model

KIND, PROSE, REPLY = "text", "prose", "reply"
COHERENT = 2.0  # text counts as coherent while its perplexity is less than this many times the clean one
CAPTION = (
    "Text: plain prose, and what the model says by itself, read under the same injection; the perplexity in units of "
    "the clean one is that of the kind that suffers more"
)
_REPLIES, _REPLY_TOKENS = 4, 40
_BATCH = 64  # texts read at once: they are short


@dataclass(frozen=True, kw_only=True)
class TextFacts(RunFacts):
    """A run that reads texts: besides, what the clean model says by itself, by the label of the text."""

    replies: Mapping[str, str]


@dataclass(frozen=True)
class Texts:
    """Texts by label, with their kind (prose, reply) in `kinds`."""

    texts: Mapping[str, str | Conversation]
    kinds: Mapping[str, str]

    @classmethod
    def of(cls, subject: Subject) -> Texts:
        """Return the plain prose of the model's prompt set, and replies of the clean model to its first open request.

        Replies are drawn at temperature 1; those of less than two tokens, or with special tokens, are left out.
        """
        design = PromptDesign.load(subject.model.prompts)
        texts = dict(cls.prose(subject.model).texts)
        with sparing_threads(subject.model):
            texts |= {chat.label: chat for chat in _replies(subject, design)}
        return cls(texts, {label: label.partition("-")[0] for label in texts})

    @classmethod
    def prose(cls, model: Model) -> Texts:
        """Return the plain prose of the model's prompt set alone."""
        texts = {f"{PROSE}-{at}": text for at, text in enumerate(PromptDesign.load(model.prompts).tasks.plain)}
        return cls(texts, dict.fromkeys(texts, PROSE))

    @property
    def replies(self) -> dict[str, str]:
        """What the clean model says by itself, by label; shards of one table are known by it."""
        chats = {label: text for label, text in self.texts.items() if isinstance(text, Conversation)}
        return {label: chat.messages[-1].content for label, chat in chats.items()}

    def halves(self, most: int) -> tuple[Texts, Texts]:
        """Return two sets of other texts, each of every other text of each kind, at most so many of one kind."""
        kinds = list(dict.fromkeys(self.kinds.values()))
        labels = {kind: [label for label in self.texts if self.kinds[label] == kind] for kind in kinds}
        first = [label for kind in kinds for label in labels[kind][::2][:most]]
        second = [label for kind in kinds for label in labels[kind][1::2][:most]]
        return self._only(first), self._only(second)

    def _only(self, labels: Sequence[str]) -> Texts:
        return Texts({label: self.texts[label] for label in labels}, {label: self.kinds[label] for label in labels})


def _replies(subject: Subject, design: PromptDesign) -> list[Conversation]:
    from mechint.interventions.specifications import CLEAN
    from mechint.prompts import questions as prompt_questions
    from mechint.readouts.generate import generate

    chat = next(chat for chat in prompt_questions.top_of_mind(design) if not chat.messages[-1].continue_msg)
    generated = generate(
        subject.model, chat, CLEAN, n=_REPLIES, temperature=1.0, seed=subject.config.seed, max_new_tokens=_REPLY_TOKENS
    )
    special = [str(token) for token in subject.model.tokenizer.added_tokens_decoder.values() if token.special]
    long = generated[generated["n_tokens"] > 2]["text"].str.strip()
    texts = [text for text in dict.fromkeys(long) if text and not any(token in text for token in special)]
    return [
        replace(chat, label=f"{REPLY}-{at}", messages=(*chat.messages, Message("assistant", text, continue_msg=True)))
        for at, text in enumerate(texts)
    ]


def rows(
    subject: Subject,
    name: str,
    texts: Texts,
    conditions: Sequence[Condition],
    *,
    clean: Mapping[str, Value],
    words: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the rows of all texts, clean and under every condition (see `mi.text_loss`).

    They have the columns of other rows, with kind `text` and group `prose` or `reply`, and `loss`, `perplexity`,
    `n_tokens`, `log_p_<word>`. `clean` is what clean rows say where conditions say something.
    """
    chunks = [_chunk(subject, texts, group, words or {}) for group in by_vector(conditions, clean)]
    with sparing_threads(subject.model):
        return resume.compute_chunks(subject.config, name, KIND, chunks)


def by_vector(conditions: Sequence[Condition], clean: Mapping[str, Value]) -> list[list[Condition]]:
    """Return the clean condition, with its columns, and then the conditions of each vector."""
    from mechint.interventions.specifications import CLEAN

    groups: dict[str, list[Condition]] = {"": [Condition(CLEAN, "", "clean", clean)]}
    for condition in conditions:
        groups.setdefault(condition.unit, []).append(condition)
    return list(groups.values())


def _chunk(subject: Subject, texts: Texts, conditions: Sequence[Condition], words: Mapping[str, str]) -> resume.Chunk:
    interventions = [condition.intervention for condition in conditions]

    def compute() -> pd.DataFrame:
        from mechint.readouts.text_loss import text_loss

        batch = _BATCH if subject.config.batch_size is None else subject.config.batch_size
        memory, passages = subject.config.max_memory, list(texts.texts.values())
        losses = text_loss(subject.model, passages, interventions, words=words, batch_size=batch, max_memory=memory)
        labels = list(texts.texts)
        named = losses.assign(conversation=[labels[number] for number in losses.pop("text")], kind=KIND, asked=True)
        named = named.assign(group=named["conversation"].map(texts.kinds), reference=named["intervention"] == "clean")
        return described(named, Group([], conditions))

    key = resume.key(subject.model, interventions, texts, words, [dict(condition.columns) for condition in conditions])
    return resume.Chunk(len(texts.texts) * len(conditions), key, compute)


def rises(table: pd.DataFrame) -> pd.DataFrame:
    """Return the steered rows of texts with `rise`: how much the loss is above that of the same text read clean.

    In nats per token: the perplexity is exp(rise) times the clean one.
    """
    text = table[table["kind"] == KIND]
    clean = text[text["series"] == "clean"].set_index("conversation")["loss"]
    steered = text[text["series"] != "clean"]
    return steered.assign(rise=steered["loss"] - steered["conversation"].map(clean))


def worst(rises: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return `*by`, vector, rise: means over the texts of each kind (prose, replies), of which the larger is taken."""
    keys = [*by, "unit"]
    means = stats.strict_means(rises, [*keys, "group"], "rise")
    return means.groupby(level=keys, sort=False).max().reset_index()


def clean_perplexities(table: pd.DataFrame) -> dict[str, JSON]:
    """Return the perplexity of the clean texts by kind (of their mean loss)."""
    clean = table[(table["kind"] == KIND) & (table["series"] == "clean")]
    losses = stats.strict_means(clean, ["group"], "loss")
    return {str(kind): round(float(ratio(np.array(loss))), 3) for kind, loss in losses.items()}


def ratio(rise: np.ndarray) -> np.ndarray:
    """Return how many times the clean perplexity that is; beyond what a float holds, as good as infinite."""
    with np.errstate(over="ignore"):
        return np.exp(np.asarray(rise, dtype=np.float64))
