"""Prompts of trials: wordings made of sentences that are there or not, so that two of them differ in one factor.

Published prompts differ in length, wording and content at once, so no difference between them isolates anything. These
are one opening and one question, and factors whose sentences come between or after them:

    prompts = TrialPrompts.load()
    prompts.named("standard")                       # offers "nothing unusual" as an answer
    prompts.named("explained")                      # the same, and why the question is put
    prompts.differences()                           # [("plain", "standard", "nothing"), ("standard", "explained", ...
    prompts.factorial(["explanation", "permission"])  # all four prompts of a 2 x 2

`prompt_sets/trials.json` holds them, `prompt_sets/concepts.json` the words that stand for concepts; both are lists to
be edited or replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import combinations
from pathlib import Path
from types import MappingProxyType

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import JSON, read_json
from mechint.chat.conversations import Conversation, Message
from mechint.prompts.fields import (
    as_object,
    as_text,
    as_texts,
    check_distinct,
    filled_text,
    filled_texts,
    malformed,
    table,
)
from mechint.trials.outcomes import mentions
from mechint.trials.records import Question

SLOT = "{concept}"
_KEYS = ("name", "factors", "opening", "question", "order", "prompts", "mention", "no", "yes", "none")
_FIXED = ("opening", "question")


@dataclass(frozen=True)
class TrialPrompt:
    """One prompt: the user's turn, what kind of question it is, and the factors whose sentences it has."""

    name: str
    question: Question
    text: str
    factors: tuple[str, ...] = ()

    def conversation(self, label: str = "") -> Conversation:
        """Return the prompt as a conversation of one marked turn."""
        extra: dict[str, JSON] = {"kind": self.question, "factors": list(self.factors)}
        return Conversation(label or self.name, (Message("user", self.text, add_injection=True),), extra=extra)


@dataclass(frozen=True)
class TrialPrompts:
    """A set of prompts; `factors` are sentences by name, `order` where they stand, `prompts` the factors of each."""

    name: str
    factors: Mapping[str, str]
    opening: str
    question: str
    order: tuple[str, ...]
    prompts: Mapping[str, tuple[str, ...]]
    mention: str
    no: tuple[str, ...]
    yes: tuple[str, ...]
    none: tuple[str, ...]

    @classmethod
    def load(cls, path: str | Path | None = None) -> TrialPrompts:
        """Return the packaged prompts, or those of a file of the same format; raises UsageError for a malformed one."""
        return cls.from_dict(read_json(Path(path or _packaged("trials.json"))), str(path or "trials.json"))

    @classmethod
    def from_dict(cls, data: JSON, where: str = "prompts") -> TrialPrompts:
        """Return the prompts that a JSON object describes; raises UsageError, naming the place."""
        top = as_object(data, where, _KEYS)
        factors = filled_texts(top["factors"], f"{where}, factors", list(as_object(top["factors"], where)))
        order = as_texts(top["order"], f"{where}, order")
        if sorted(order) != sorted([*factors, *_FIXED]):
            raise malformed(f"{where}, order", f"{list(order)} is not each factor, the opening and the question once")
        mention = filled_text(top["mention"], f"{where}, mention")
        if mention.count(SLOT) != 1:
            raise malformed(f"{where}, mention", f"{SLOT} must stand in it once")
        prompts = table(top["prompts"], f"{where}, prompts", lambda names, place: _factors(names, place, factors))
        if len({frozenset(names) for names in prompts.values()}) < len(prompts):
            raise malformed(f"{where}, prompts", "two prompts with the same factors")
        return cls(
            name=as_text(top["name"], f"{where}, name"),
            factors=MappingProxyType(factors),
            opening=filled_text(top["opening"], f"{where}, opening"),
            question=filled_text(top["question"], f"{where}, question"),
            order=order,
            prompts=prompts,
            mention=mention,
            no=as_texts(top["no"], f"{where}, no"),
            yes=as_texts(top["yes"], f"{where}, yes"),
            none=as_texts(top["none"], f"{where}, none"),
        )

    def named(self, name: str) -> TrialPrompt:
        """Return a prompt that asks whether something is noticed; raises UnknownNameError."""
        if name not in self.prompts:
            raise UnknownNameError(f"unknown prompt {name!r}", ", ".join(self.prompts), "choose one of these")
        return self._prompt(name, self.prompts[name])

    def factorial(self, factors: Sequence[str]) -> list[TrialPrompt]:
        """Return the prompts with every subset of some factors; each is named by its factors, "base" has none."""
        if unknown := sorted(set(factors) - set(self.factors)):
            raise UnknownNameError(f"unknown factors {unknown}", ", ".join(self.factors), "choose among these")
        check_distinct(factors, "factors")
        subsets = [subset for size in range(len(factors) + 1) for subset in combinations(factors, size)]
        return [self._prompt("-".join(subset) or "base", subset) for subset in subsets]

    def differences(self) -> list[tuple[str, str, str]]:
        """Return the pairs of named prompts of which the second has just one factor more, with that factor."""
        pairs = []
        for left, left_factors in self.prompts.items():
            for right, right_factors in self.prompts.items():
                added = set(right_factors) - set(left_factors)
                if len(added) == 1 and set(left_factors) <= set(right_factors):
                    pairs.append((left, right, added.pop()))
        return pairs

    def mentioning(self, name: str, concept: str) -> TrialPrompt:
        """Return a named prompt before which the concept is merely mentioned."""
        prompt = self.named(name)
        text = f"{self.mention.replace(SLOT, concept)} {prompt.text}"
        return TrialPrompt(f"mention-{name}", "mention", text, prompt.factors)

    def controls(self, kind: Question) -> list[TrialPrompt]:
        """Return the questions whose answer is no, or yes, or the prompts without a question ("none")."""
        texts = {"no": self.no, "yes": self.yes, "none": self.none}
        if kind not in texts:
            raise UnknownNameError(f"controls of kind {kind!r}", ", ".join(texts), "choose one of these")
        return [TrialPrompt(f"{kind}-{number}", kind, text) for number, text in enumerate(texts[kind])]

    def texts(self) -> dict[str, str]:
        """Return every text that a prompt may have, by where it stands; the mention without its concept."""
        single = {"opening": self.opening, "question": self.question, "mention": self.mention.replace(SLOT, "")}
        lists = {"no": self.no, "yes": self.yes, "none": self.none}
        numbered = {f"{kind} {number}": text for kind, texts in lists.items() for number, text in enumerate(texts)}
        return {**self.factors, **single, **numbered}

    def check_leaks(self, concepts: Iterable[str], lexicon: Mapping[str, Sequence[str]]) -> None:
        """Raise UsageError if a text names one of these concepts or a word of its lexicon."""
        check_leaks(self.texts(), concepts, lexicon)

    def _prompt(self, name: str, factors: Sequence[str]) -> TrialPrompt:
        sentences = {**self.factors, "opening": self.opening, "question": self.question}
        chosen = tuple(place for place in self.order if place in _FIXED or place in factors)
        text = " ".join(sentences[place] for place in chosen)
        return TrialPrompt(name, "introspection", text, tuple(place for place in chosen if place not in _FIXED))


def check_leaks(texts: Mapping[str, str], concepts: Iterable[str], lexicon: Mapping[str, Sequence[str]]) -> None:
    """Raise UsageError for a text, by name, that names a tested concept or a word that stands for it.

    A quoted example of a published prompt was counted as a detection of the concept that it named.
    """
    for concept in concepts:
        for part in concept.split("+"):
            for place, text in texts.items():
                if mentions(text, part, lexicon):
                    raise UsageError(
                        given=f"the prompt text {place!r} names {part!r} or a word that stands for it",
                        allowed="prompts that name no tested concept",
                        advice="change the wording, leave the concept out, or take the word from its lexicon",
                    )


@lru_cache(maxsize=1)
def concept_lexicon() -> Mapping[str, tuple[str, ...]]:
    """Return the packaged words by concept; a concept goes by its singular and its plural ("ocean", "oceans")."""
    return load_lexicon(_packaged("concepts.json"))


def load_lexicon(path: str | Path) -> Mapping[str, tuple[str, ...]]:
    """Return the words by concept of a file like `prompt_sets/concepts.json`; raises UsageError."""
    lexicon: dict[str, tuple[str, ...]] = {}
    for concept, entry in as_object(read_json(Path(path)), str(path)).items():
        where = f"{path}, {concept}"
        words = as_texts(as_object(entry, where, ("category", "words"))["words"], f"{where}, words")
        lexicon |= dict.fromkeys((concept, concept.removesuffix("s")), words)
    return MappingProxyType(lexicon)


def concept_categories() -> dict[str, str]:
    """Return the category of each packaged concept."""
    entries = as_object(read_json(_packaged("concepts.json")), "concepts.json")
    return {concept: as_text(as_object(entry, concept)["category"], concept) for concept, entry in entries.items()}


def _packaged(name: str) -> Path:
    return Path(str(resources.files("mechint.trials").joinpath("prompt_sets", name)))


def _factors(data: JSON, where: str, factors: Mapping[str, str]) -> tuple[str, ...]:
    names = as_texts(data, where) if data != [] else ()
    if unknown := sorted(set(names) - set(factors)):
        raise malformed(where, f"factors {unknown} that have no sentence")
    return names
