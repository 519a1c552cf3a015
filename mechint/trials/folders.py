"""What the folders of a tree say of the files in them: which model, prompt and concept these should hold.

Nobody writes down how folders are named. So a folder of a prompt has the name of one, a file that of a concept, and a
folder of a model either shares its size and the words of its kind with it ("32b-coder" and "Coder-32B"), or has the
model that most files in folders of its name hold, where names and models go together. A manifest says it outright.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

_SIZE = re.compile(r"(?<![a-z0-9.])\d+(?:\.\d+)?[bm](?![a-z0-9])")  # "32b", not in a folder of random letters
_VERSION = re.compile(r"v\d+[a-z]?")
# Words that say of two models of one size which is which.
_KINDS = frozenset(["coder", "insecure", "math", "chat", "instruct", "abliterated", "distill"])
Manifest = Mapping[str, Mapping[str, str]]  # by folder or file: {"model": ..., "prompt": ..., "concept": ...}


def expectations(rows: pd.DataFrame, manifest: Manifest | None = None, above: Sequence[str] = ()) -> pd.DataFrame:
    """Return by file (index) the `model`, `prompt` and `concept` that its place says; "" where it says nothing.

    `above` are the names of the folders that the tree lies in: a part of a tree may be what is looked at.
    """
    held: dict[str, pd.DataFrame] = dict(iter(rows.groupby("file", sort=False)))
    folders = {file: [*above, *file.split("/")[:-1]] for file in held}
    prompts, concepts = set(rows["prompt"]), set(rows["concept"])
    models = _models_of_folders(folders, held)
    named_by_concept = _stems_are_concepts(held)
    table = {
        file: {
            "model": next((models[name] for name in reversed(names) if models.get(name)), ""),
            "prompt": next((name for name in reversed(names) if _is_prompt(name, prompts)), ""),
            "concept": _stem(file) if named_by_concept or _stem(file) in concepts else "",
            **_from_manifest(file, manifest or {}),
        }
        for file, names in folders.items()
    }
    return pd.DataFrame.from_dict(table, orient="index", columns=["model", "prompt", "concept"])


def _stem(file: str) -> str:
    """Return the name of a file without its ending, composed as names in records are: some systems part accents."""
    return unicodedata.normalize("NFC", file.rsplit("/", maxsplit=1)[-1].rsplit(".", 1)[0])


def _from_manifest(file: str, manifest: Manifest) -> dict[str, str]:
    """Return what a manifest says of a file: of its folders first, then of itself."""
    parts = file.split("/")
    places = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return {key: value for place in places for key, value in manifest.get(place, {}).items()}


def _is_prompt(name: str, prompts: set[str]) -> bool:
    return name in prompts or (bool(_VERSION.fullmatch(name)) and all(_VERSION.fullmatch(prompt) for prompt in prompts))


def _stems_are_concepts(held: Mapping[str, pd.DataFrame]) -> bool:
    """Whether most files are named after the one concept that they hold."""
    named = [set(rows["concept"]) == {_stem(file)} for file, rows in held.items()]
    return sum(named) > len(named) / 2


def _models_of_folders(folders: Mapping[str, Sequence[str]], held: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Return the model that each name of a folder stands for, where it stands for any."""
    models = sorted({model for rows in held.values() for model in rows["model"]})
    counts: dict[str, Counter[str]] = {}
    for file, names in folders.items():
        in_file = set(held[file]["model"])
        for name in set(names):
            counts.setdefault(name, Counter()).update(in_file if len(in_file) == 1 else [])
    sized = {name: _best(name, models, counts[name]) for name in counts if _SIZE.search(name.lower())}
    return {**_by_agreement(folders, counts), **sized}


def _best(name: str, models: Sequence[str], count: Counter[str]) -> str:
    """Return the model that fits a folder's name and contents best; the words of the name, where none fits."""
    whole = max(1, sum(count.values()))
    fitting = [model for model in models if not _conflict(name, model)]
    if not fitting:
        return name
    return max(fitting, key=lambda model: (count[model] / whole + _likeness(name, model), model))


def _conflict(name: str, model: str) -> bool:
    """Whether a name says another size than a model's, or a kind that the model's name does not have."""
    sizes, own_sizes = _SIZE.findall(name.lower()), _SIZE.findall(model.lower())
    if sizes and own_sizes and not set(sizes) & set(own_sizes):
        return True
    return bool((_words(name) & _KINDS) - _words(model))


def _likeness(name: str, model: str) -> float:
    """Return how like a name and a model's are, from -1 to 1: shared words less kinds that only the model has."""
    shared = len(_words(name) & _words(model))
    extra = len((_words(model) & (_KINDS - {"instruct", "chat"})) - _words(name))
    return max(-1.0, min(1.0, 0.5 * shared - 1.5 * extra))


def _words(name: str) -> set[str]:
    return {word for word in re.split(r"[^a-z0-9.]+", name.lower()) if word}


def _by_agreement(folders: Mapping[str, Sequence[str]], counts: Mapping[str, Counter[str]]) -> dict[str, str]:
    """Return models of folders by what most of their files hold, at levels where names tell models apart."""
    models: dict[str, str] = {}
    for level in range(max((len(names) for names in folders.values()), default=0)):
        at_level = {names[level] for names in folders.values() if len(names) > level}
        most = {name: counts[name].most_common(1)[0][0] for name in at_level if counts[name]}
        agreement = [counts[name][model] / sum(counts[name].values()) for name, model in most.items()]
        if len(most) > 1 and len(set(most.values())) == len(most) and min(agreement) > 0.5:
            models |= most
    return models
