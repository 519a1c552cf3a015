"""Several turns: what a stated answer does to what a model says of itself next, apart from what was added to it.

    table = mi.evals.multiturn(run.model(base), run.recipe, base=base)
    mi.evals.turn_effects(table)      # steering, stated answer, their interaction, and what the stated word primes

Steered or not, the first turns are followed by the trained question with a stated answer (of either meaning, right or
wrong), by another question with the same answer, or by neither; then come items of the battery. Which answer is right
differs between steered and clean, so that being right is the interaction of both, and never a difference of two cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import pandas as pd

from mechint.base.files import JSON
from mechint.base.progress import Progress
from mechint.base.signatures import Count, Seed, checked
from mechint.chat.conversations import Conversation, Message
from mechint.engine.job import Request
from mechint.engine.shards import Shard
from mechint.evals.added import Added, Adding, check_signal
from mechint.evals.detection import CONTROLS
from mechint.evals.items import Items, Question
from mechint.evals.responders import Responder, Running, answered
from mechint.evals.texts import Text, distinct_texts
from mechint.finetune.signal import Signal
from mechint.finetune.specification import Recipe
from mechint.interventions.specifications import CLEAN
from mechint.models.model import Model
from mechint.vectors.concept_vectors import ConceptVector

Turn = Literal["detection", "irrelevant", "none"]
Meaning = Literal["positive", "negative", ""]
# What stands between the first turns and the item: a question with an answer of either meaning, or nothing.
BETWEEN: tuple[tuple[Turn, Meaning], ...] = (
    ("detection", "positive"),
    ("detection", "negative"),
    ("irrelevant", "positive"),
    ("irrelevant", "negative"),
    ("none", ""),
)
_CANDIDATES = 3  # texts that are drawn for each that is taken: as many of each way round of the answers
_QUESTIONS = 2  # the user's question and how its reply begins, at the end of a trial of detection


@dataclass(frozen=True)
class _Talk:
    """A text with what is stated after it, and an item that is asked then."""

    text: Text
    turn: Turn
    meaning: Meaning
    question: Question

    @property
    def stated(self) -> str:
        """The word that is stated."""
        source = self.text.source
        return {"positive": source.positive, "negative": source.negative, "": ""}[self.meaning]

    @property
    def label(self) -> str:
        return f"{self.text.label(self.turn)}-{self.meaning}-{self.question.conversation.label}"

    def conversation(self) -> Conversation:
        """Return it as a conversation; only the first turns are marked."""
        source, item = self.text.source, self.question
        messages = source.conversation().messages[:-_QUESTIONS]
        if self.turn != "none":
            question = source.question if self.turn == "detection" else self.text.control
            reply = Message("assistant", f"{source.prefill}{self.stated}")
            messages = (*messages, Message("user", question), reply)
        tags: dict[str, JSON] = {**item.conversation.extra, "kind": "multiturn", "turn": self.turn}
        tags |= {"meaning": self.meaning, "stated": self.stated}
        answers = item.conversation.yes_token, item.conversation.no_token
        return Conversation(self.label, (*messages, *item.conversation.messages), *answers, tags)

    def record(self) -> dict[str, str | bool]:
        """Return the columns that describe it."""
        source, item = self.text.source, self.question.item
        return {
            "turn": self.turn,
            "meaning": self.meaning,
            "stated": self.stated,
            "reversed": source.reversed,
            "text": self.text.unit,
            "item": item.name,
            "group": item.group,
            "side": item.side,
            "keying": self.question.keying,
            "format": self.question.format,
            "conversation": self.label,
        }


@checked
def multiturn(
    model: Responder,
    recipe: Recipe,
    items: Items | None = None,
    *,
    pool: str = "held-out",
    vectors: Count = 8,
    texts: Count = 8,
    concepts: Mapping[str, ConceptVector] | None = None,
    signal: Signal | None = None,
    base: Model | None = None,
    controls: Sequence[str] = CONTROLS,
    seed: Seed = 0,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row for each text, vector (or none), stated answer, item and keying.

    Every one of `texts` held-out texts is asked clean and under every one of `vectors` of a pool, each at one range of
    layers and dose of the recipe's signal (or of `signal`), which they take in turn. `items` are the first two of each
    group, prefilled, by default.

    Columns: `recipe`, `turn` ("detection", "irrelevant", "none"), `meaning` of the stated answer ("positive",
    "negative", ""), `stated`, its word; `reversed`, whether the pair's first word is the negative answer; `steered`,
    `right` (whether the stated answer to the trained question is true; None elsewhere), `text`, `vector`, `layers`,
    `dose`, `item`, `group`, `side`, `keying`, `format`, `log_odds`, `p_yes`, `mass`. The other arguments are those of
    `detection`. Raises what `detection` and `battery` raise.
    """
    recipe = recipe if signal is None else replace(recipe, signal=signal, labels=replace(recipe.labels, rule="steered"))
    check_signal(recipe, [pool])
    chosen = Items.load(model.prompts).few(2, "prefilled") if items is None else items
    sources = _both_ways(distinct_texts(recipe, _CANDIDATES * texts, seed, "talk", controls), texts)
    added = _each_once(Adding(recipe, model, concepts or {}, base).pool(pool, sources[0].source, vectors, seed))
    talks = [
        _Talk(text, turn, meaning, question)
        for text, (turn, meaning), question in product(sources, BETWEEN, chosen.questions())
    ]
    running = Running(batch_size, batch_tokens, offload, max_memory, progress, store, shard)
    read = answered(model, list(_requests(talks, chosen, added)), running)
    return _rows(recipe, talks, added, read)


def _both_ways(texts: Sequence[Text], count: int) -> list[Text]:
    """Return so many texts, half of them of either way round where a recipe's answers mean either."""
    ways = [[text for text in texts if text.source.reversed is way] for way in (False, True)]
    half = count // 2
    if min(map(len, ways)) < half:
        return list(texts[:count])
    return sorted([*ways[0][: count - half], *ways[1][:half]], key=lambda text: text.number)


def _each_once(added: Sequence[Added]) -> list[Added]:
    """Return each vector at one range of layers and dose: the first at the first, the next at the next, and so on."""
    cells = list(dict.fromkeys((item.layers, item.dose) for item in added))
    names = list(dict.fromkeys(item.vector for item in added))
    by_cell = {(item.vector, item.layers, item.dose): item for item in added}
    return [by_cell[name, *cells[at % len(cells)]] for at, name in enumerate(names)]


def _requests(talks: Sequence[_Talk], items: Items, added: Sequence[Added]) -> Iterator[Request]:
    """Yield a request for each text and format, clean and under all that is added, so that they share its passes."""
    grouped: dict[tuple[int, str], list[_Talk]] = {}
    for talk in talks:
        grouped.setdefault((talk.text.number, talk.question.format), []).append(talk)
    interventions = [CLEAN, *(item.intervention for item in added)]
    for (_, name), members in grouped.items():
        yield Request([talk.conversation() for talk in members], interventions, items.formats[name].answers)


def _rows(recipe: Recipe, talks: Sequence[_Talk], added: Sequence[Added], read: pd.DataFrame) -> pd.DataFrame:
    receipts, read.attrs = read.attrs["receipts"], {}
    of_vector = [{"intervention": CLEAN.name, "steered": False, "vector": "", "layers": "", "dose": 0.0}]
    of_vector += [
        {"intervention": a.intervention.name, "steered": True, "vector": a.vector, "layers": a.layers, "dose": a.dose}
        for a in added
    ]
    table = pd.DataFrame([talk.record() for talk in talks]).merge(read, on="conversation", validate="one_to_many")
    table = table.merge(pd.DataFrame(of_vector), on="intervention", validate="many_to_one")
    is_right = (table["meaning"] == "positive") == table["steered"]
    table = table.assign(recipe=recipe.name, right=is_right.astype(object).where(table["turn"] == "detection", None))
    table = table.rename(columns={"logit_diff": "log_odds", "yes_no_mass": "mass"})
    columns = [
        "recipe",
        "turn",
        "meaning",
        "stated",
        "reversed",
        "steered",
        "right",
        "text",
        "vector",
        "layers",
        "dose",
    ]
    columns += ["item", "group", "side", "keying", "format", "log_odds", "p_yes", "mass"]
    table = table[columns]
    table.attrs["receipts"] = receipts
    return table
