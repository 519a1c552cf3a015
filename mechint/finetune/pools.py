"""Pools of texts, concepts and answers that examples are drawn from, each split: what is held out is never trained.

    pools = Pools.load("full")              # or "small", for the embedded vocabulary, or a file
    pools.openers("held_out", "other")      # the user's first turns
    pools.wordings("keyed-vague", "train")  # questions of a bank

A pool is a list, or a grammar: each of its forms with each of its words. `Pools.load` refuses pools that overlap.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import JSON, read_json, sha256
from mechint.prompts.fields import as_object, as_text, as_texts

Split = Literal["train", "validation", "held_out"]
Pair = tuple[str, str]
SPLITS: tuple[Split, ...] = get_args(Split)
SLOT = "{word}"
OTHER, FOOD = "other", "food"  # what openers and replies are on
_KEYS = ("name", "note", "openers", "replies", "concepts", "answers", "sentences", "forms", "banks")

Texts = Mapping[Split, tuple[str, ...]]


@dataclass(frozen=True)
class Pools:
    """All pools of a set. Texts by split: openers and replies by topic, questions by bank; concepts; pairs of answers;
    sentences that a first turn is put together of.

    Raises UsageError where two splits of a factor share a text, or the forms or words of a grammar.
    """

    name: str
    opener_texts: Mapping[str, Texts]
    reply_texts: Mapping[str, Texts]
    concept_names: Texts
    answer_pairs: Mapping[Split, tuple[Pair, ...]]
    bank_texts: Mapping[str, Texts]
    sentence_texts: Texts
    key: str

    @classmethod
    def load(cls, name_or_path: str | Path) -> Pools:
        """Return the packaged pools "full" or "small", or those of a `.json` file; raises UsageError."""
        if Path(name_or_path).suffix == ".json":
            return cls.from_dict(read_json(Path(name_or_path)), str(name_or_path))
        return _packaged(str(name_or_path))

    @classmethod
    def from_dict(cls, data: JSON, where: str = "pools") -> Pools:
        """Return the pools that a JSON object describes; raises UsageError, naming the place."""
        top = as_object(data, where, _KEYS)
        forms = {name: _split(entry, f"{where}, forms, {name}") for name, entry in _entries(top, "forms", where)}
        return cls(
            name=as_text(top["name"], f"{where}, name"),
            opener_texts=_by_topic(top, "openers", where),
            reply_texts=_by_topic(top, "replies", where),
            concept_names=_split(top["concepts"], f"{where}, concepts"),
            answer_pairs=_pairs(top["answers"], f"{where}, answers"),
            bank_texts=MappingProxyType(
                {name: _bank(entry, f"{where}, banks, {name}", forms) for name, entry in _entries(top, "banks", where)}
            ),
            sentence_texts=_split(top["sentences"], f"{where}, sentences"),
            key=sha256(json.dumps(data, sort_keys=True).encode()),
        )

    def openers(self, split: Split, topic: str) -> tuple[str, ...]:
        """Return the user's first turns on a topic; raises UnknownNameError."""
        return _named(self.opener_texts, topic, "topic of openers")[split]

    def replies(self, split: Split, topic: str) -> tuple[str, ...]:
        """Return the assistant's first turns on a topic; raises UnknownNameError."""
        return _named(self.reply_texts, topic, "topic of replies")[split]

    def wordings(self, bank: str, split: Split) -> tuple[str, ...]:
        """Return the questions of a bank; raises UnknownNameError."""
        return _named(self.bank_texts, bank, "bank of questions")[split]

    def concepts(self, split: Split) -> tuple[str, ...]:
        """Return names of concepts."""
        return self.concept_names[split]

    def sentences(self, split: Split) -> tuple[str, ...]:
        """Return sentences, each of which can stand beside any other."""
        return self.sentence_texts[split]

    def answers(self, split: Split) -> tuple[Pair, ...]:
        """Return pairs of answers."""
        return self.answer_pairs[split]


def check_disjoint(factor: str, texts: Mapping[Split, Iterable[str]]) -> None:
    """Raise UsageError, naming the factor, where two splits have a text in common, but for case and spaces."""
    homes: dict[str, Split] = {}
    for split, members in texts.items():
        for text in members:
            if homes.setdefault(plain(text), split) != split:
                raise UsageError(
                    given=f"{factor}: {text!r} is both in {homes[plain(text)]} and in {split}",
                    allowed="pools of which no two share anything",
                    advice="leave it out of one of the two",
                )


@lru_cache(maxsize=8)
def _packaged(name: str) -> Pools:
    folder = Path(str(resources.files("mechint.finetune").joinpath("pools")))
    names = sorted(path.stem for path in folder.glob("*.json"))
    if name not in names:
        raise UnknownNameError(f"unknown pools {name!r}", f"{', '.join(names)}, or a .json file", "choose one of these")
    return Pools.from_dict(read_json(folder / f"{name}.json"), name)


def _by_topic(top: Mapping[str, JSON], key: str, where: str) -> Mapping[str, Texts]:
    return MappingProxyType(
        {name: _split(entry, f"{where}, {key}, {name}") for name, entry in _entries(top, key, where)}
    )


def _entries(top: Mapping[str, JSON], key: str, where: str) -> Iterable[tuple[str, JSON]]:
    return as_object(top[key], f"{where}, {key}").items()


def _bank(data: JSON, where: str, forms: Mapping[str, Texts]) -> Texts:
    """Return the questions of a bank; one that borrows forms has each of them with each of its words."""
    if not isinstance(data, dict) or "forms" not in data:
        return _split(data, where)
    entry = as_object(data, where, ("forms", "words"))
    borrowed = _named(forms, as_text(entry["forms"], f"{where}, forms"), "forms")
    words = _split(entry["words"], f"{where}, words")
    return _checked({split: _products(borrowed[split], words[split]) for split in SPLITS}, where)


def _split(data: JSON, where: str) -> Texts:
    entry = as_object(data, where, SPLITS)
    for key in ("forms", "words"):
        grammars = {split: pool for split, pool in entry.items() if isinstance(pool, dict)}
        elements = {split: _elements(pool, key, f"{where}, {split}") for split, pool in grammars.items()}
        check_disjoint(f"{where}, {key}", {split: elements[split] for split in SPLITS if split in elements})
    return _checked({split: _texts(entry[split], f"{where}, {split}") for split in SPLITS}, where)


def _texts(data: JSON, where: str) -> tuple[str, ...]:
    if not isinstance(data, dict):
        return as_texts(data, where)
    as_object(data, where, ("forms", "words"))
    return _products(_elements(data, "forms", where), _elements(data, "words", where))


def _elements(data: JSON, key: str, where: str) -> tuple[str, ...]:
    return as_texts(as_object(data, where, ("forms", "words"))[key], f"{where}, {key}")


def _products(forms: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    """Return each form with each word; the first texts have different words, so that few of them are varied too."""
    return tuple(
        forms[(at + shift) % len(forms)].replace(SLOT, word)
        for shift in range(len(forms))
        for at, word in enumerate(words)
    )


def _checked(texts: dict[Split, tuple[str, ...]], where: str) -> Texts:
    check_disjoint(where, texts)
    return MappingProxyType(texts)


def _pairs(data: JSON, where: str) -> Mapping[Split, tuple[Pair, ...]]:
    entry = as_object(data, where, SPLITS)
    pairs = {split: _pair_list(entry[split], f"{where}, {split}") for split in SPLITS}
    check_disjoint(where, {split: [word for pair in pairs[split] for word in pair] for split in SPLITS})
    return MappingProxyType(pairs)


def _pair_list(data: JSON, where: str) -> tuple[Pair, ...]:
    pairs = [as_texts(item, where) for item in data] if isinstance(data, list) else []
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise UsageError(f"{where}: not a list of pairs", '[[" red", " blue"], ...]', "correct the file of the pools")
    return tuple((first, second) for first, second in pairs)


def _named(entries: Mapping[str, Texts], name: str, kind: str) -> Texts:
    if name not in entries:
        raise UnknownNameError(f"unknown {kind} {name!r}", ", ".join(entries), "choose one of these")
    return entries[name]


def plain(text: str) -> str:
    """Return a text as it is compared: without the difference of case and of spaces."""
    return " ".join(text.casefold().split())
