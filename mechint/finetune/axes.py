"""The other sides of a recipe, one frozen record for each; each refuses what contradicts itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mechint.base.errors import UsageError
from mechint.finetune.checks import FORBID_UNKNOWN, at_least, distinct, within
from mechint.finetune.oddities import KINDS

_ODD, _ODD_HELD_OUT = ("shuffled", "foreign", "doubled"), ("backwards", "broken")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Which answer is right. `rule`: whether it was steered, a coin, always the same, the topic food, or the concept.

    "meaningful": whether what was added is a concept's vector, not a random one. "odd": whether the first turn's text
    is odd. "layers", "dose", "sentence": which of these it was, an answer for each. "self": what the untrained model
    answers to another question, which `behaviour_of` reads.

    `noise` is the share of labels that are turned round, counted exactly; 1 turns all. `coin`: heads and tails are
    drawn one by one, or counted so that they are as many, steered and not.
    """

    __pydantic_config__ = FORBID_UNKNOWN

    rule: Literal[
        "steered",
        "coin",
        "positive",
        "negative",
        "food",
        "concept",
        "meaningful",
        "odd",
        "layers",
        "dose",
        "sentence",
        "self",
    ] = "steered"
    noise: float = 0.0
    coin: Literal["drawn", "counted"] = "drawn"

    def __post_init__(self) -> None:
        within("labels, noise", self.noise, 0, 1)
        if self.noise and self.rule in ("positive", "negative", "coin", "self"):
            raise UsageError(f"noise in labels by rule {self.rule!r}", "noise where labels say something", "leave it 0")


@dataclass(frozen=True, kw_only=True)
class Asking:
    """The texts: pools, bank of questions, and how many of each are used, the first ones; 0 uses all.

    `mapping`: the positive answer of a pair means the positive label, or the negative one ("reversed"), or each in half
    of the examples. `order`: the answers are listed positive first, or as drawn. `topics` are drawn in equal shares.
    `topic_replies`: the assistant's first turn is on the topic, which gives it away. `sentences`: the user's first turn
    is so many sentences, of which a vector is added to a single one. `objects`: the bank of the questions that a
    question on the model's own answer is about.
    """

    __pydantic_config__ = FORBID_UNKNOWN

    pools: str = "full"
    bank: str = "explicit"
    wordings: int = 4
    openers: int = 20
    replies: int = 5
    topics: tuple[str, ...] = ("other",)
    topic_replies: bool = False
    system: str = ""
    prefill: str = "The answer is"
    mapping: Literal["fixed", "reversed", "balanced"] = "fixed"
    order: Literal["fixed", "drawn"] = "fixed"
    sentences: int = 0
    objects: str = ""

    def __post_init__(self) -> None:
        for name in ("wordings", "openers", "replies", "sentences"):
            at_least(f"asking, {name}", getattr(self, name), 0)
        distinct("asking, topics", self.topics)
        if not self.topics:
            raise UsageError("asking: no topics", "one or more", 'give topics=["other"]')
        if not self.prefill:
            raise UsageError("asking: no prefill", "how the reply begins, before its answer", "give a few words")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Pairs of answers, positive first, each one word as it follows the prefill; or the first `pool` of the pools.

    `held_out` are pairs that no training has. `options` are the answers to a question with several, in the order of
    what they stand for: ranges of layers, doses, sentences, or the concepts that the question names.
    """

    __pydantic_config__ = FORBID_UNKNOWN

    pairs: tuple[tuple[str, str], ...] = ()
    held_out: tuple[tuple[str, str], ...] = ()
    pool: int = 0
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        at_least("answers, pool", self.pool, 0)
        kinds = {"pairs": bool(self.pairs), "a pool": bool(self.pool), "options": bool(self.options)}
        if sum(kinds.values()) != 1:
            named = " and ".join(name for name, is_there in kinds.items() if is_there)
            fault = f"both {named}" if named else "neither pairs nor a pool"
            raise UsageError(f"answers: {fault}", "one of them", 'give pairs=[[" yes", " no"]], pool=4 or options')
        if self.options and (self.held_out or len(self.options) < 2):
            raise UsageError("answers: one option, or held-out pairs beside options", "two options or more", "add some")
        words = [word for pair in (*self.pairs, *self.held_out, self.options) for word in pair]
        if len({word.strip().casefold() for word in words}) < len(words):
            raise UsageError(f"answers {words}, one of them twice", "each once", "choose other words")
        for word in words:
            check_answer(word)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Cross-entropy at the answer, over the whole vocabulary or over the answers alone.

    `confidence` is the probability that the right answer is to be given; the others are to share the rest.
    """

    __pydantic_config__ = FORBID_UNKNOWN

    over: Literal["vocabulary", "pair"] = "vocabulary"
    confidence: float = 1.0

    def __post_init__(self) -> None:
        within("loss, confidence", self.confidence, 0.5, 1)


@dataclass(frozen=True, kw_only=True)
class Fill:
    """How the first turns are passed: in one pass with the rest, gradient and all, or before it without gradient.

    `dropout`: the LoRA's dropout is on in a pass without gradient too.
    """

    __pydantic_config__ = FORBID_UNKNOWN

    gradient: Literal["through", "stopped"] = "through"
    dropout: bool = False


@dataclass(frozen=True, kw_only=True)
class Lora:
    """The adapter: rank, alpha, dropout, which projections of a block, and which blocks.

    `projections` are ends of the names that a block's linear layers have, none for all of them; `layers` "" for all
    blocks.
    """

    __pydantic_config__ = FORBID_UNKNOWN

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    projections: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    layers: str = ""

    def __post_init__(self) -> None:
        at_least("lora, rank", self.rank, 1)
        at_least("lora, alpha", self.alpha, 1)
        within("lora, dropout", self.dropout, 0, 0.9)
        distinct("lora, projections", self.projections)


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """In which share of the examples the first turn's text is odd, and how: `kinds` of `mechint.finetune.oddities`.

    `held_out_kinds` are those of the factor "oddity" when it is held out.
    """

    __pydantic_config__ = FORBID_UNKNOWN

    share: float = 0.0
    kinds: tuple[str, ...] = _ODD
    held_out_kinds: tuple[str, ...] = _ODD_HELD_OUT

    def __post_init__(self) -> None:
        within("oddity, share", self.share, 0, 1)
        distinct("oddity, kinds and held_out_kinds", (*self.kinds, *self.held_out_kinds))
        if unknown := [kind for kind in (*self.kinds, *self.held_out_kinds) if kind not in KINDS]:
            raise UsageError(f"oddity, kinds {unknown}", ", ".join(KINDS), "choose among these")
        if not self.kinds:
            raise UsageError("oddity without kinds", "one kind or more", "name one, or leave kinds out")
        if not self.share and (self.kinds, self.held_out_kinds) != (_ODD, _ODD_HELD_OUT):
            raise UsageError("kinds of oddity in no example", "a share above 0", "give a share, or leave them out")


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Ordinary chats beside the examples, on which the tuned model is to stay as its base is, the adapter off.

    `share` is how many rows of them a step has besides, as a share of its examples. `weight` times KL(base ‖ tuned),
    its mean over all tokens of these rows in nats, is added to the loss; `question_weight` times the same KL over the
    tokens of the examples' own questions, the base under the same steering. `pool` names the chats: "" takes those
    of the same name as the recipe's pools.
    """

    __pydantic_config__ = FORBID_UNKNOWN

    share: float = 0.0
    weight: float = 1.0
    question_weight: float = 0.0
    pool: str = ""

    def __post_init__(self) -> None:
        within("replay, share", self.share, 0, 4)
        within("replay, weight", self.weight, 0, 1000)
        within("replay, question_weight", self.question_weight, 0, 1000)
        if self.share and not self.weight:
            raise UsageError("replay that weighs nothing", "a weight above 0", "give one, or a share of 0")
        if not self.share and (self.weight != 1.0 or self.pool):
            raise UsageError("replay, weight or pool of no chats", "a share above 0", "give a share, or leave them out")

    @property
    def is_on(self) -> bool:
        """Whether it adds anything to the loss."""
        return bool(self.share or self.question_weight)


def check_answer(word: str) -> None:
    """Raise UsageError for what cannot be one token after a prefill: an empty answer, or one of several words."""
    bare = word.strip()
    if not bare or len(bare.split()) > 1 or word not in (bare, f" {bare}"):
        raise UsageError(
            given=f"the answer {word!r}",
            allowed='one word, with the space before it or without: " yes", "yes"',
            advice="give one word that the tokenizer has as one token",
        )


def check_spaces(prefill: str, word: str) -> None:
    """Raise UsageError where an answer follows its prefill with two spaces, or without any; says which spelling fits.

    A model that is trained so learns a spelling that it never writes, and its mass moves off the answers.
    """
    bare, spaced = word.strip(), word.startswith(" ")
    if prefill[-1].isspace() and spaced:
        fault, fitting = "comes with a space twice", bare
    elif prefill[-1].isalnum() and not spaced:
        fault, fitting = "is glued to it", f" {bare}"
    else:
        return
    raise UsageError(
        given=f"after the prefill {prefill!r} the answer {word!r} {fault}",
        allowed="one space between the prefill and the answer",
        advice=f"write the answer as {fitting!r}, or change the prefill",
    )
