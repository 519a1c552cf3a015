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
from mechint.finetune.splits import Splits, doses, kinds

if TYPE_CHECKING:
    import pandas as pd

# What is counted of an expansion, by column.
COUNTED = ("steered", "label", "answer", "meaning", "topic", "odd", "layers", "dose")


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
    `answer` is the right one, "" where only a model can say it, and `meaning` which answer means the positive label
    ("red, not blue"), or all of several. `label` is there where answers are two and known. `named` are the concepts
    that a question names, `odd` how the first turn's text is odd, `span` which of its sentences is steered, -1 for
    none; `object` numbers the question that is asked about.
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

    `rows` and `share` of all, `steered`, the share of these rows to which something is added, `most`, the share that
    the commonest right answer has, and `positive`, the share whose label is positive, of two. A factor that tells
    steering or the answer away has other shares than the whole.
    """
    import pandas as pd

    rows = []
    # What no row has, odd text or an answer that is known, is no factor.
    for factor in [name for name in COUNTED if name in table and table[name].astype(str).any()]:
        for value, members in table.groupby(factor, sort=True, observed=True):
            rows.append(
                {
                    "factor": factor,
                    "value": str(value),
                    "rows": len(members),
                    "share": len(members) / len(table),
                    "steered": members["steered"].mean(),
                    "most": members["answer"].value_counts(normalize=True).max() if table["answer"].any() else np.nan,
                    **({"positive": members["label"].mean()} if "label" in members else {}),
                }
            )
    return pd.DataFrame(rows)


def distinct(table: pd.DataFrame) -> dict[str, int]:
    """Return how many different ones an expansion has: examples, prompts, prompts of clean examples, vectors."""
    prompt = ["topic", "opener", "odd", "reply", "wording", "named", "object", "meaning"]
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

    sets = recipe.answer_sets(splits.answers)
    # The answers by what they mean, for each pair in both directions.
    words = np.array([meanings(answers, turned) for answers in sets for turned in (False, True)], dtype=object)
    words = words[2 * drawn.pair + drawn.reversed]
    layers = _named(
        drawn.first_block * (recipe.signal.blocks + 1) + drawn.stop_block, drawn.steered, _layers_of(recipe)
    )
    dose = np.append(np.array(doses(recipe, splits.dose), dtype=float), 0.0)[drawn.dose]
    size = drawn.stop_block - drawn.first_block
    kind = np.array([*kinds(recipe, splits.oddity), ""], dtype=object)[drawn.oddity]
    table = pd.DataFrame(
        {
            "steered": drawn.steered,
            "vector": _named(drawn.vector, drawn.steered, lambda number: vector_name(recipe, splits.vectors, number)),
            "layers": layers,
            "dose": dose,
            "strength": [
                strength(recipe, *pair) for pair in zip(dose.tolist(), np.maximum(size, 1).tolist(), strict=True)
            ],
            "topic": np.array(recipe.topics, dtype=object)[drawn.topic],
            "opener": _openers(recipe, drawn),
            "odd": kind,
            "reply": drawn.reply,
            "wording": drawn.wording,
            "named": _concepts(recipe, splits, drawn),
            "object": drawn.object,
            "span": drawn.span,
            "flipped": drawn.flipped,
            "answer": np.where(drawn.right < 0, "", np.take_along_axis(words, drawn.right[:, None], axis=1)[:, 0]),
            "meaning": [_meaning(answers) for answers in words.tolist()],
        }
    )
    if words.shape[1] == 2 and (drawn.right >= 0).all():
        table.insert(table.columns.get_loc("flipped"), "label", drawn.right == 0)
    return table


def _openers(recipe: Recipe, drawn: Draws) -> np.ndarray:
    """Return the number of each first turn: that of its opener, or those of its sentences."""
    if not recipe.asking.sentences:
        return drawn.opener
    return np.array([" ".join(map(str, row)) for row in drawn.sentences.tolist()], dtype=object)


def _concepts(recipe: Recipe, splits: Splits, drawn: Draws) -> list[str]:
    """Return the concepts that each question names, as it lists them."""
    if recipe.labels.rule != "concept":
        return [""] * len(drawn.steered)
    names = recipe.concepts(splits.vectors)
    return [", ".join(names[number] for number in row) for row in drawn.concepts.tolist()]


def _meaning(answers: Sequence[str]) -> str:
    words = [answer.strip() for answer in answers]
    return f"{words[0]}, not {words[1]}" if len(words) == 2 else " ".join(words)


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
