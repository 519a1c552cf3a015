"""What a model itself answers: the right answers of recipes that train it to foretell them.

behaviour = behaviour_of(model, recipe, run / "behaviour.json")     # read once, then from the file
behaviour.completed(step_examples(recipe, seed=0, step=17))         # the examples with their right answers

A recipe with labels by rule "self" asks what the model would answer to another question. Its examples say which, and
no file can say the rest: it is the base's likelier answer, read without an adapter and without anything added.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.base.errors import UsageError
from mechint.base.files import JSON, read_json, sha256, write_atomically
from mechint.chat.conversations import Conversation, Message
from mechint.finetune.examples import TextExample
from mechint.finetune.pools import SPLITS
from mechint.finetune.specification import Recipe
from mechint.finetune.wording import with_answers
from mechint.interventions.specifications import CLEAN
from mechint.models.model import Model

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Behaviour:
    """Logits of the two answers to each question, by word, as a model gives them; `key` is of model and questions."""

    model: str
    key: str
    logits: Mapping[str, Mapping[str, float]]

    def completed(self, examples: Sequence[TextExample]) -> list[TextExample]:
        """Return examples with the right answers, that which the model is likelier to give to the question in each.

        Raises UsageError for an example whose question was not read.
        """
        return [replace(example, right=self._place(example)) for example in examples]

    def table(self) -> pd.DataFrame:
        """Return a row for each question: `question`, `answer`, the likelier one, and `margin`, its lead in logits."""
        import pandas as pd

        rows = []
        for question, logits in self.logits.items():
            low, high = sorted(logits, key=lambda word: logits[word])
            rows.append({"question": question, "answer": high, "margin": logits[high] - logits[low]})
        return pd.DataFrame(rows)

    def _place(self, example: TextExample) -> int:
        logits = self.logits.get(example.object_question, {})
        if set(logits) != set(example.answers):
            raise UsageError(
                given=f"no answers of {self.model} to {example.object_question!r}",
                allowed="examples of the recipe whose questions were read",
                advice="read them again: behaviour_of(model, recipe)",
            )
        return max(range(len(example.answers)), key=lambda place: logits[example.answers[place]])


def behaviour_of(model: Model, recipe: Recipe, path: Path | None = None) -> Behaviour:
    """Return what a model answers to all questions that the examples of a recipe are about, of every split.

    Each is asked alone, both answers listed in either order. With `path` it is kept in that file, and read from it
    where it is of this model and these questions. Raises UsageError for a recipe with labels by another rule, and what
    `mi.score` raises.
    """
    if recipe.labels.rule != "self":
        raise UsageError(
            given=f"own answers for recipe {recipe.name!r}, whose labels are by rule {recipe.labels.rule!r}",
            allowed='labels by rule "self"',
            advice="use its examples as they are",
        )
    chats = {chat.label: chat for chat in _object_chats(recipe)}
    texts = json.dumps([chat.to_dict() for chat in chats.values()])
    key = sha256(model.identity.encode(), texts.encode())
    if path is not None and (kept := _kept(path, key)):
        return kept
    behaviour = Behaviour(model.name, key, _logits(model, list(chats.values())))
    if path is not None:
        record = {"model": behaviour.model, "key": key, "logits": behaviour.logits}
        write_atomically(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return behaviour


def _object_chats(recipe: Recipe) -> Iterator[Conversation]:
    """Yield each question by itself, the reply open before its answer; its label is the question."""
    pairs = [pair for split in SPLITS for pair in recipe.pairs(split)]
    questions = [question for split in SPLITS for question in recipe.objects(split)]
    for question in questions:
        for first, second in (listed for pair in pairs for listed in (pair, pair[::-1])):
            text = with_answers(question, (first, second))
            system = [Message("system", recipe.asking.system)] if recipe.asking.system else []
            turns = (*system, Message("user", text), Message("assistant", recipe.asking.prefill, continue_msg=True))
            yield Conversation(text, turns, first, second)


def _logits(model: Model, chats: Sequence[Conversation]) -> dict[str, dict[str, float]]:
    from mechint.readouts.score import score

    rows: Iterable[Mapping[str, object]] = score(model, chats, CLEAN).to_dict("records")
    words = {chat.label: (chat.yes_token, chat.no_token) for chat in chats}
    return {
        str(row["conversation"]): dict(
            zip(words[str(row["conversation"])], (float(str(row[name])) for name in _COLUMNS), strict=True)
        )
        for row in rows
    }


_COLUMNS = ("logit_yes", "logit_no")


def _kept(path: Path, key: str) -> Behaviour | None:
    """Return what a file holds where it is of this model and these questions, else None."""
    if not path.is_file():
        return None
    record = read_json(path)
    if not isinstance(record, dict) or record.get("key") != key:
        return None
    logits = {str(name): _numbers(value) for name, value in _entries(record["logits"])}
    return Behaviour(str(record["model"]), key, logits)


def _numbers(data: JSON) -> dict[str, float]:
    return {name: float(str(value)) for name, value in _entries(data)}


def _entries(data: JSON) -> Iterable[tuple[str, JSON]]:
    return data.items() if isinstance(data, dict) else ()
