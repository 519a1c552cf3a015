"""The packaged recipes, what they inherit, and the table of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import JSON, read_json
from mechint.finetune.merging import differences, merged
from mechint.finetune.pools import OTHER
from mechint.finetune.specification import AXES, Recipe
from mechint.prompts.fields import as_object, as_text

if TYPE_CHECKING:
    import pandas as pd

# A recipe's own: neither inherited nor part of what is trained.
_REMARKS = ("name", "title", "inherits", "source", "note", "number")
_NAME = re.compile(r"[\w-]+/[\w-]+")
_SIDES = (*AXES, "elsewhere", "small")


def recipe_names() -> list[str]:
    """Return the names of the packaged recipes, by name."""
    folder = _folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.json"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Return a recipe with all that it inherits.

    Raises UsageError for a recipe that inherits itself, that differs in nothing from the one it inherits, or that says
    what `Recipe` refuses, also where it is adapted to other models; UnknownNameError for a name that is not packaged.
    """
    path = _path(name_or_path, "recipe")
    data, parent = _inherited(path, ())
    recipe = Recipe.from_dict(data, _path_words(path))
    _check_adaptations(recipe)
    if parent is not None and _filled(parent, path) == _filled(data, path):
        raise UsageError(
            given=f"recipe {recipe.name!r} differs in nothing from {recipe.inherits!r}",
            allowed="a recipe that says otherwise in something that is trained",
            advice="change something, or use the other",
        )
    return recipe


def recipes() -> pd.DataFrame:
    """Return the packaged recipes, a row each.

    `differs_in` is written from the files: each setting that is another than in the recipe it `inherits`, old and new.
    `number` is the place in the published list. Counts are those of training: `examples` distinct ones (0 where each
    is drawn anew), `steps` of the optimizer that are made, `seen` examples in all. `prompts` is how many texts of the
    three turns there can be.
    """
    import pandas as pd

    rows = [_row(load_recipe(name)) for name in recipe_names()]
    # The published ones first, as they are numbered there.
    return pd.DataFrame(sorted(rows, key=lambda row: (not row["published"], row["number"], row["name"])))


def differs_in(name_or_path: str | Path) -> list[str]:
    """Return the settings in which a recipe differs from the one that it inherits, "side.setting: old → new"."""
    data, parent = _inherited(_path(name_or_path, "recipe"), ())
    if parent is None:
        return []
    pairs = differences(_filled(parent, name_or_path), _filled(data, name_or_path))
    return [f"{place}: {_text(old)} → {_text(new)}" for place, old, new in pairs]


def _row(recipe: Recipe) -> dict[str, str | int | float | bool]:
    budget, signal = recipe.budget, recipe.signal
    is_steered = signal.vectors != "none"
    return {
        "name": recipe.name,
        "published": recipe.is_published,
        "number": recipe.number,
        "inherits": recipe.inherits,
        "differs_in": "; ".join(differs_in(recipe.name)),
        "title": recipe.title,
        "bank": recipe.asking.bank,
        "prompts": distinct_prompts(recipe),
        "answers": ", ".join("/".join(word.strip() for word in words) for words in recipe.answer_sets("train")),
        "mapping": recipe.asking.mapping,
        "labels": recipe.labels.rule,
        "vectors": signal.vectors,
        "steered": signal.share if is_steered else 0.0,
        "layers": ", ".join(signal.layers) if is_steered else "",
        "rank": recipe.lora.rank,
        "loss": recipe.loss.over,
        "gradient": recipe.fill.gradient,
        "examples": budget.trained if budget.examples else 0,
        "steps": budget.steps_made,
        "seen": budget.steps_made * budget.rows,
        "read_at": str(budget.read_at),
        "source": recipe.source,
        "hash": recipe.hash,
    }


def distinct_prompts(recipe: Recipe) -> int:
    """Return how many texts of opener, reply and wording there are to draw from, answers apart.

    Where the first turn is of sentences, each of them counts alone: orders of ten are too many to say anything.
    """
    if recipe.asking.sentences:
        turns = len(recipe.pools.sentences("train")) * len(recipe.replies("train", OTHER))
        return turns * len(recipe.wordings("train"))
    turns = sum(len(recipe.openers("train", topic)) * len(recipe.replies("train", topic)) for topic in recipe.topics)
    return turns * len(recipe.wordings("train"))


def _inherited(path: Path, chain: tuple[Path, ...]) -> tuple[dict[str, JSON], dict[str, JSON] | None]:
    """Return the content of a recipe laid over what it inherits, and the latter; raises UsageError for a circle."""
    if path in chain:
        circle = " → ".join(_path_words(step) for step in (*chain, path))
        raise UsageError(
            f"recipes that inherit in a circle: {circle}", "a first recipe that inherits nothing", "break it"
        )
    content = as_object(read_json(path), _path_words(path))
    name = as_text(content.get("inherits", ""), f"{_path_words(path)}, inherits")
    if not name:
        return content, None
    parent, _ = _inherited(_path(_beside(path, name), f"{_path_words(path)}: inherits"), (*chain, path))
    kept = {key: value for key, value in parent.items() if key not in _REMARKS}
    return merged(kept, content), parent


def _beside(path: Path, name: str) -> str | Path:
    """Return the file that a recipe's file names, by its place beside it; names of packaged recipes as they are."""
    return path.parent / name if name.endswith(".json") else name


def _path(name_or_path: str | Path, what_for: str) -> Path:
    if str(name_or_path).endswith(".json"):
        return Path(name_or_path).resolve()
    path = _folder() / f"{name_or_path}.json"
    if not (_NAME.fullmatch(str(name_or_path)) and path.is_file()):
        allowed = f"{', '.join(recipe_names())}, or a .json file"
        raise UnknownNameError(f"{what_for}: unknown name {str(name_or_path)!r}", allowed, "choose one of these")
    return path


def _check_adaptations(recipe: Recipe) -> None:
    """Build what the recipe becomes on other models, so that a slip there is seen before it is used."""
    if recipe.elsewhere:
        recipe.adapted(recipe.signal.blocks)
    if recipe.small:
        recipe.adapted(recipe.signal.blocks, small=True)


def _filled(data: Mapping[str, JSON], name_or_path: str | Path) -> dict[str, JSON]:
    """Return the sides with their defaults, so that a recipe that writes one out does not differ by it."""
    record = Recipe.from_dict({"name": "", "title": "", **data}, str(name_or_path)).to_dict()
    return {name: record[name] for name in _SIDES}


def _text(value: JSON) -> str:
    if isinstance(value, list):
        return (
            ", ".join("/".join(map(_text, item)) if isinstance(item, list) else _text(item) for item in value) or "none"
        )
    return "none" if value in (None, "") else str(value).strip()


@lru_cache(maxsize=1)
def _folder() -> Path:
    return Path(str(resources.files("mechint.finetune").joinpath("recipes"))).resolve()


def _path_words(path: Path) -> str:
    folder = _folder()
    return path.relative_to(folder).with_suffix("").as_posix() if path.is_relative_to(folder) else str(path)
