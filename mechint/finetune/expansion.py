"""All examples of a recipe as a table, and what can be counted in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mechint.base.errors import UsageError
from mechint.base.signatures import Count, Seed, checked
from mechint.finetune.draws import Draws, draws
from mechint.finetune.examples import meanings, place, strength, vector_name
from mechint.finetune.pools import Split
from mechint.finetune.sampling import Places
from mechint.finetune.specification import Recipe
from mechint.finetune.splits import Splits, doses

if TYPE_CHECKING:
    import pandas as pd

# What is counted of an expansion, by column.
COUNTED = ("steered", "label", "answer", "meaning", "topic", "layers", "dose")


@checked
def expand(
    recipe: Recipe,
    seed: Seed = 0,
    steps: Count | None = None,
    held_out: str | Sequence[str] = (),
    split: Split = "held_out",
) -> pd.DataFrame:
    """Return the examples of the first steps of training, all that are made by default, a row each in their order.

    Rows are those that `example` gives one by one; texts are numbered as in the pools (`opener` 3 of its `topic`).
    `answer` is the right one, `meaning` which answer means the positive label ("red, not blue").
    """
    import pandas as pd

    steps = recipe.budget.steps_made if steps is None else steps
    splits = Splits.of(held_out, split)
    rows = recipe.budget.rows
    blocks, within, numbers = np.array([place(recipe, seed, at, splits) for at in range(steps * rows)]).T
    parts = [_table(recipe, draws(recipe, seed, int(block), splits), splits) for block in np.unique(blocks)]
    starts = np.cumsum([0, *(len(block) for block in parts[:-1])])
    table = pd.concat(parts, ignore_index=True).iloc[starts[blocks] + within].reset_index(drop=True)
    table.insert(0, "step", np.arange(len(table)) // rows)
    table.insert(1, "index", np.arange(len(table)) % rows)
    table.insert(2, "number", numbers)
    return table


def specifications(recipe: Recipe) -> pd.DataFrame:
    """Return the fixed set of a recipe, with the part of each example, "validation" or "train"; raises UsageError."""
    budget = recipe.budget
    if not budget.examples:
        raise UsageError(
            f"recipe {recipe.name!r}, which draws each example anew", "a recipe with a fixed set", "use expand"
        )
    table = _table(recipe, draws(recipe, 0, 0, Splits()), Splits())
    table.insert(0, "part", np.where(np.arange(len(table)) < budget.validation, "validation", "train"))
    return table


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Return what an expansion consists of: a row for each value of a factor.

    `rows` and `share` of all, `steered`, the share of these rows to which something is added, and `positive`, the
    share whose label is positive. A factor that tells steering or label away has other shares than the whole.
    """
    import pandas as pd

    rows = []
    for factor in COUNTED:
        for value, members in table.groupby(factor, sort=True, observed=True):
            rows.append(
                {
                    "factor": factor,
                    "value": str(value),
                    "rows": len(members),
                    "share": len(members) / len(table),
                    "steered": members["steered"].mean(),
                    "positive": members["label"].mean(),
                }
            )
    return pd.DataFrame(rows)


def distinct(table: pd.DataFrame) -> dict[str, int]:
    """Return how many different ones an expansion has: examples, prompts, prompts of clean examples, vectors."""
    prompt = ["topic", "opener", "reply", "wording", "first", "second", "meaning"]
    clean = table[~table["steered"]]
    return {
        "examples": len(table),
        "of a fixed set, or drawn": table["number"].nunique(),
        "prompts": len(table[prompt].drop_duplicates()),
        "prompts of clean examples": len(clean[prompt].drop_duplicates()),
        "vectors": table.loc[table["steered"], "vector"].nunique(),
    }


def _table(recipe: Recipe, drawn: Draws, splits: Splits) -> pd.DataFrame:
    import pandas as pd

    pairs = recipe.pairs(splits.answers)
    # The answers of the positive and of the negative label, for each pair in both directions.
    words = np.array([meanings(pair, turned) for pair in pairs for turned in (False, True)], dtype=object)
    positive, negative = words[2 * drawn.pair + drawn.reversed].T
    names = (
        np.array([*recipe.concepts(splits.vectors), ""], dtype=object)
        if recipe.signal.concept_pairs
        else np.array([""])
    )
    layers = _named(
        drawn.first_block * (recipe.signal.blocks + 1) + drawn.stop_block, drawn.steered, _layers_of(recipe)
    )
    dose = np.append(np.array(doses(recipe, splits.dose), dtype=float), 0.0)[drawn.dose]
    size = drawn.stop_block - drawn.first_block
    return pd.DataFrame(
        {
            "steered": drawn.steered,
            "vector": _named(drawn.vector, drawn.steered, lambda number: vector_name(recipe, splits.vectors, number)),
            "layers": layers,
            "dose": dose,
            "strength": [
                strength(recipe, *pair) for pair in zip(dose.tolist(), np.maximum(size, 1).tolist(), strict=True)
            ],
            "topic": np.array(recipe.topics, dtype=object)[drawn.topic],
            "opener": drawn.opener,
            "reply": drawn.reply,
            "wording": drawn.wording,
            "first": names[drawn.concepts[:, 0]],
            "second": names[drawn.concepts[:, 1]],
            "label": drawn.label,
            "flipped": drawn.flipped,
            "answer": np.where(drawn.label, positive, negative),
            "meaning": [f"{yes.strip()}, not {no.strip()}" for yes, no in zip(positive, negative, strict=True)],
        }
    )


def _layers_of(recipe: Recipe) -> Callable[[int], str]:
    def name(code: int) -> str:
        first, stop = divmod(code, recipe.signal.blocks + 1)
        return f"{first}:{stop}"

    return name


def _named(numbers: Places, where: np.ndarray, name: Callable[[int], str]) -> np.ndarray:
    """Return the names of numbers, each made once; "" elsewhere."""
    codes = np.where(where, numbers, -1)
    distinct_codes, inverse = np.unique(codes, return_inverse=True)
    names = np.array(["" if code < 0 else name(int(code)) for code in distinct_codes], dtype=object)
    return names[inverse]
