"""A recipe of finetuning as data: what is added, what is right, how it is asked, and how much is trained.

recipe = Recipe.load("published/original")      # a packaged recipe, or a JSON file
recipe.adapted(n_layers=30)                     # for a model of 30 blocks that is not the published one
recipe.adapted(n_layers=8, small=True)          # for the small vocabulary of an embedded model
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mechint.base.errors import LayerRangeError, UsageError
from mechint.base.files import JSON, sha256
from mechint.finetune.axes import Answers, Asking, Fill, Labels, Lora, Loss, Oddity, Replay
from mechint.finetune.budget import Budget
from mechint.finetune.checks import FORBID_UNKNOWN
from mechint.finetune.consistency import check_consistent
from mechint.finetune.merging import merged
from mechint.finetune.pools import OTHER, SPLITS, Pair, Pools, Split
from mechint.finetune.replay_pools import Chats
from mechint.finetune.signal import Signal, blocks_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_Member = TypeVar("_Member")
AXES = ("signal", "labels", "asking", "answers", "loss", "fill", "lora", "budget", "oddity", "replay")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe with all that it inherits. Raises UsageError for sides that contradict each other.

    `source` says where published settings are from, "" for recipes of this project; `stand_ins` what stands for
    something that cannot be had (published wordings, words that a vocabulary lacks), `number` the place in a published
    list. `elsewhere` is what differs on any
    model but the published one, `small` what differs besides with the embedded vocabulary: both take effect in
    `adapted`.
    """

    __pydantic_config__ = FORBID_UNKNOWN

    name: str
    title: str
    inherits: str = ""
    number: int = 0
    source: str = ""
    note: str = ""
    stand_ins: tuple[str, ...] = ()
    signal: Signal = field(default_factory=Signal)
    labels: Labels = field(default_factory=Labels)
    asking: Asking = field(default_factory=Asking)
    answers: Answers
    loss: Loss = field(default_factory=Loss)
    fill: Fill = field(default_factory=Fill)
    lora: Lora = field(default_factory=Lora)
    budget: Budget
    oddity: Oddity = field(default_factory=Oddity)
    replay: Replay = field(default_factory=Replay)
    elsewhere: Mapping[str, JSON] = field(default_factory=dict)
    small: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.lora.layers:
            blocks_of(self.lora.layers, self.signal.blocks)
        check_consistent(self)

    def __hash__(self) -> int:
        return hash(self.name)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Recipe:
        """Return a packaged recipe, or that of a `.json` file, with what it inherits; raises UsageError."""
        from mechint.finetune.registry import load_recipe

        return load_recipe(name_or_path)

    @classmethod
    def from_dict(cls, data: JSON, where: str = "recipe") -> Recipe:
        """Return the recipe of a JSON object that inherits nothing more; raises UsageError, naming the place."""
        from pydantic import ValidationError

        try:
            return _adapter().validate_python(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(step) for step in first["loc"]) or "the object"
            allowed = f"the fields {', '.join(item.name for item in fields(_record_at(first['loc'])))}"
            raise UsageError(f"{where}, {place}: {first['msg']}", allowed, "correct the recipe") from error

    def to_dict(self) -> dict[str, JSON]:
        """Return the recipe as JSON, with all that it inherits."""
        record: dict[str, JSON] = json.loads(json.dumps(asdict(self)))
        return record

    def sides(self) -> dict[str, JSON]:
        """Return what is trained and how, as JSON: the recipe without its name and its remarks.

        Oddity and replay are part of it only where there is any.
        """
        silent = {"oddity": not self.oddity.share, "replay": not self.replay.is_on}
        return {name: value for name, value in self.to_dict().items() if name in AXES and not silent.get(name)}

    @property
    def is_published(self) -> bool:
        """Whether its settings are those of a publication."""
        return bool(self.source)

    @cached_property
    def hash(self) -> str:
        """Hash of all that decides what is trained: the sides after inheritance, and every text that it draws from.

        What else a file of pools has does not count, so that a bank can be added to it.
        """
        texts = json.dumps({split: texts_of(self, split) for split in SPLITS})
        chats = self.chats.key if self.replay.share else ""
        return sha256(json.dumps(self.sides(), sort_keys=True).encode(), texts.encode(), chats.encode())

    @cached_property
    def pools(self) -> Pools:
        """The pools that its texts are from."""
        return Pools.load(self.asking.pools)

    @cached_property
    def chats(self) -> Chats:
        """The ordinary chats that its replay is from."""
        return Chats.load(self.replay.pool if self.replay.pool != "" else self.asking.pools)

    @property
    def replay_rows(self) -> int:
        """How many rows of ordinary chats a step has besides its examples."""
        return round(self.replay.share * self.budget.rows)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics of its first turns."""
        return self.asking.topics

    def openers(self, split: Split, topic: str) -> tuple[str, ...]:
        """The user's first turns that are used of a split; of those that are held out, all."""
        return _first(self.pools.openers(split, topic), self.asking.openers, split)

    def replies(self, split: Split, topic: str) -> tuple[str, ...]:
        """The assistant's first turns that are used after an opener on a topic."""
        return _first(
            self.pools.replies(split, topic if self.asking.topic_replies else OTHER), self.asking.replies, split
        )

    def wordings(self, split: Split) -> tuple[str, ...]:
        """The questions that are used of a split."""
        return _first(self.pools.wordings(self.asking.bank, split), self.asking.wordings, split)

    def answer_sets(self, split: Split) -> tuple[tuple[str, ...], ...]:
        """The sets of answers of a split: its pairs, or the options, which are the same in each."""
        return (self.answers.options,) if self.answers.options else self.pairs(split)

    def pairs(self, split: Split) -> tuple[Pair, ...]:
        """The pairs of answers of a split, positive first; of pairs that a recipe names, only held-out ones differ.

        Raises UsageError for a recipe of several options.
        """
        if self.answers.options:
            raise UsageError(
                given=f"pairs of answers of recipe {self.name!r}, which has {len(self.answers.options)} options",
                allowed="recipes of two answers",
                advice="use recipe.answer_sets",
            )
        if self.answers.pairs:
            return self.answers.held_out if split == "held_out" else self.answers.pairs
        if split == "held_out" and self.answers.held_out:
            return self.answers.held_out
        return _first(self.pools.answers(split), self.answers.pool, split)

    def objects(self, split: Split) -> tuple[str, ...]:
        """The questions that a question on the model's own answers is about, none where it asks of something else."""
        return self.pools.wordings(self.asking.objects, split) if self.asking.objects else ()

    def concepts(self, split: Split) -> tuple[str, ...]:
        """The concepts that vectors are of."""
        return _first(self.pools.concepts(split), self.signal.pool, split)

    def for_model(self, name: str, n_layers: int, prompts: str = "full") -> Recipe:
        """Return the recipe for a model: as it is for the one that its absolute doses are for, else adapted.

        `prompts` is the model's own prompt set, `model.prompts`. Raises as `adapted` does.
        """
        if self.signal.of_model and self.signal.of_model in (name, name.rpartition("/")[2]):
            return self
        return self.adapted(n_layers, small=prompts == "small")

    def adapted(self, n_layers: int, *, small: bool = False) -> Recipe:
        """Return the recipe for a model of `n_layers` blocks that its absolute doses, if any, are not for.

        `small` takes the texts and answers for the vocabulary of embedded models. Blocks are scaled by depth and
        rounded down, so that a last block that is left out stays so. Raises LayerRangeError where a range becomes
        empty, UsageError for a recipe that says no relative doses for other models.
        """
        changes = merged(self.elsewhere, self.small) if small else self.elsewhere
        data = merged(
            {name: value for name, value in self.to_dict().items() if name not in ("elsewhere", "small")}, changes
        )
        recipe = Recipe.from_dict(data, self.name)
        if not recipe.signal.relative and recipe.signal.vectors != "none":
            raise UsageError(
                given=f"recipe {self.name!r}, whose doses are for {self.signal.of_model}, on another model",
                allowed="doses in median norms of the stream",
                advice='give the recipe "elsewhere": {"signal": {"relative": true, "dose": [...]}}',
            )
        signal, lora = recipe.signal, recipe.lora
        scaled = replace(
            signal,
            blocks=n_layers,
            layers=tuple(_scaled(text, signal.blocks, n_layers) for text in signal.layers),
            held_out_layers=tuple(_scaled(text, signal.blocks, n_layers) for text in signal.held_out_layers),
            read_layer=None if signal.read_layer is None else signal.read_layer * n_layers // signal.blocks,
        )
        layers = _scaled(lora.layers, signal.blocks, n_layers) if lora.layers else ""
        return replace(recipe, signal=scaled, lora=replace(lora, layers=layers))


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Recipe]:
    """Return what validates recipes; to make it takes longer than to use it."""
    from pydantic import TypeAdapter

    return TypeAdapter(Recipe)


def texts_of(recipe: Recipe, split: Split) -> dict[str, JSON]:
    """Return every text of a split that a recipe draws from, by factor, as JSON."""
    texts: dict[str, object] = {
        "openers": {topic: recipe.openers(split, topic) for topic in recipe.topics},
        "replies": {topic: recipe.replies(split, topic) for topic in recipe.topics},
        "wordings": recipe.wordings(split),
        "answers": recipe.answer_sets(split),
        "concepts": recipe.concepts(split) if recipe.signal.has_concepts else (),
        "sentences": recipe.pools.sentences(split) if recipe.asking.sentences else (),
        "objects": recipe.objects(split),
    }
    record: dict[str, JSON] = json.loads(json.dumps(texts))
    return record


def _first(members: tuple[_Member, ...], number: int, split: Split) -> tuple[_Member, ...]:
    return members[: number or None] if split == "train" else members


def _scaled(text: str, blocks: int, n_layers: int) -> str:
    begin, end = blocks_of(text, blocks)
    first, stop = begin * n_layers // blocks, end * n_layers // blocks
    if first >= stop:
        raise LayerRangeError(
            given=f"layers {text!r} of {blocks} blocks on a model of {n_layers}, where no block is left of them",
            allowed="a model that is deep enough",
            advice="choose wider ranges, or another model",
        )
    return f"{first}:{stop}"


def _record_at(place: tuple[int | str, ...]) -> type:
    """Return the record that a place of an error lies in."""
    records: dict[int | str, type] = {
        "signal": Signal,
        "labels": Labels,
        "asking": Asking,
        "answers": Answers,
        "loss": Loss,
        "fill": Fill,
        "lora": Lora,
        "budget": Budget,
        "oddity": Oddity,
        "replay": Replay,
    }
    return records.get(place[0], Recipe) if len(place) > 1 else Recipe
