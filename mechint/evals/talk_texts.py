"""Questions for steered and for free talk, and the words that are counted in replies, from JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mechint.base.files import JSON
from mechint.evals.packaged_texts import read_texts
from mechint.prompts.fields import as_object, as_text, as_texts, check_distinct, filled_text, table


@dataclass(frozen=True)
class NamingTexts:
    """Questions after the concept that was added, one-word questions on other things, and how both replies begin."""

    prefix: str
    asked: tuple[str, ...]
    unrelated: tuple[str, ...]


@dataclass(frozen=True)
class TalkTexts:
    """All texts of a file: `naming`, open `prompts` by name, and words by which talk of oneself is counted.

    `self_words` are those of a speaker, `model_words` those on models, in lower case.
    """

    name: str
    naming: NamingTexts
    prompts: Mapping[str, str]
    self_words: frozenset[str]
    model_words: frozenset[str]

    @classmethod
    def load(cls, name_or_path: str | Path) -> TalkTexts:
        """Return the packaged texts "full" or "small", or those of a `.json` file; raises UsageError."""
        return cls.from_dict(read_texts(name_or_path, "talks", "texts"), str(name_or_path))

    @classmethod
    def from_dict(cls, data: JSON, where: str = "texts") -> TalkTexts:
        """Return the texts that a JSON object describes; raises UsageError, naming the place."""
        top = as_object(data, where, ("name", "note", "naming", "prompts", "self_words", "model_words"))
        naming = as_object(top["naming"], f"{where}, naming", ("prefix", "asked", "unrelated"))
        questions = {name: as_texts(naming[name], f"{where}, naming, {name}") for name in ("asked", "unrelated")}
        check_distinct([text for texts in questions.values() for text in texts], f"{where}, naming")
        prompts = table(top["prompts"], f"{where}, prompts", filled_text)
        check_distinct(list(prompts.values()), f"{where}, prompts")
        prefix = filled_text(naming["prefix"], f"{where}, naming, prefix")
        words = {name: as_texts(top[name], f"{where}, {name}") for name in ("self_words", "model_words")}
        return cls(
            name=as_text(top["name"], f"{where}, name"),
            naming=NamingTexts(prefix, **questions),
            prompts=prompts,
            self_words=frozenset(word.lower() for word in words["self_words"]),
            model_words=frozenset(word.lower() for word in words["model_words"]),
        )
