"""Training data as it was published, a line of JSON for each example, read as the examples of a recipe.

The format is that of github.com/Jordine/introspective-model at 38c9638: `steered`, `vector_idx`, `layer_start`,
`layer_end`, `magnitude`, `context_prompt`, `assistant_response`, `detection_question`; `label`, where it is not whether
it was steered; `positive_token` and `negative_token`, where they are not yes and no.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import UsageError
from mechint.base.files import JSON
from mechint.base.signatures import checked
from mechint.finetune.examples import TextExample, vector_name
from mechint.finetune.pools import Pair
from mechint.finetune.specification import Recipe

_KIND = FileKind("published training data", "a readable file of one JSON object a line", "check the path", UsageError)


@checked
def read_published(path: str | Path, recipe: Recipe) -> list[TextExample]:
    """Return the examples of a published file, in its order; what a row does not say is as in the recipe.

    Raises UsageError, naming file and line, for what is no such row.
    """
    with reading(Path(path), _KIND):
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [
        _example(_object(line, f"{path}, line {at + 1}"), recipe, at, f"{path}, line {at + 1}")
        for at, line in enumerate(lines)
    ]


def _example(row: Mapping[str, JSON], recipe: Recipe, at: int, where: str) -> TextExample:
    # Rows of the food control are marked as steered, and have no vector.
    is_steered = bool(row.get("steered")) and row.get("vector_idx") is not None
    step, index = divmod(at, recipe.budget.rows)
    dose = _number(row, "magnitude", where) if is_steered else 0.0
    return TextExample(
        recipe=recipe.name,
        step=step,
        index=index,
        number=at,
        opener=_text(row, "context_prompt", where),
        reply=_text(row, "assistant_response", where),
        question=_text(row, "detection_question", where),
        prefill=recipe.asking.prefill,
        system=recipe.asking.system,
        topic="",
        steered=is_steered,
        vector=vector_name(recipe, "train", int(_number(row, "vector_idx", where))) if is_steered else "",
        first_block=int(_number(row, "layer_start", where)) if is_steered else 0,
        stop_block=int(_number(row, "layer_end", where)) if is_steered else 0,
        dose=dose,
        strength=dose,
        relative=False,
        answers=_answers(row, recipe, where),
        right=0 if row.get("label", row.get("steered")) else 1,
        flipped="label" in row and row["label"] != row.get("steered"),
        reversed=False,
        confidence=recipe.loss.confidence,
        gradient=recipe.fill.gradient,
    )


def _answers(row: Mapping[str, JSON], recipe: Recipe, where: str) -> Pair:
    """Return the answers of the two labels; the published training put a space before each word."""
    if "positive_token" not in row:
        return recipe.pairs("train")[0]
    return f" {_text(row, 'positive_token', where)}", f" {_text(row, 'negative_token', where)}"


def _object(line: str, where: str) -> Mapping[str, JSON]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise _malformed(where, f"broken JSON ({error.msg})") from error
    if not isinstance(row, dict) or "steered" not in row:
        raise _malformed(where, "no object with `steered`")
    return row


def _text(row: Mapping[str, JSON], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise _malformed(where, f"`{name}` is {value!r}, not a text")
    return value


def _number(row: Mapping[str, JSON], name: str, where: str) -> float:
    value = row.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise _malformed(where, f"`{name}` is {value!r}, not a number of at least 0")
    return float(value)


def _malformed(where: str, fault: str) -> UsageError:
    return UsageError(
        f"{where}: {fault}", "rows of published training data", "correct the line, or choose another file"
    )
