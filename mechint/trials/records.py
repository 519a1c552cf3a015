"""The table of trials: one row is one sampled reply, with all that says what it is.

`id` is a hash of what a trial depends on (`TrialKey`), model and prompt among it, so that two different trials never
share one. A published sweep took what was sampled from one model for another's, because its ids named neither.

    key = TrialKey(weights_hash="9f..", prompt_hash="a1..", vector_hash="", layers=(), strength=0.0, steer="reply",
                   temperature=1.0, max_new_tokens=200, seed=0, sample=3)
    key.id                     # 24 hexadecimal digits; another sample, another id
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd

from mechint.base.errors import UsageError

# What was done: nothing, a concept's vector, a random vector of the same norm.
Series = Literal["clean", "injected", "random"]
# What was asked: whether something is noticed; a question whose answer is no, or yes; nothing at all; the first with
# the concept's name in the prompt.
Question = Literal["introspection", "no", "yes", "none", "mention"]
Stopped = Literal["end", "loop", "length"]
SERIES: tuple[str, ...] = ("clean", "injected", "random")
QUESTIONS: tuple[str, ...] = ("introspection", "no", "yes", "none", "mention")
STOPPED: tuple[str, ...] = ("end", "loop", "length")
_ID_DIGITS = 24

# Columns of the table: text, whole numbers and numbers. A clean trial has no concept, layer or norm: "" and NaN.
# `concept` is the one that was injected or mentioned, several joined by "+"; of a random vector its name. `layers` are
# those that were steered, "20" or "16:24"; `depth` is the middle of them over the number of blocks. `strength` is that
# of the design, in units of the median norm of the stream where `relative`; `norm` is what was added, and `norm_ratio`
# that over the median norm of the stream. `first_token_logit_diff` is logit(" yes") - logit(" no") where the reply
# begins. Not every source has every number: NaN says so, and "" and -1 where a text (`stopped`) or a whole number
# (`seed`, `n_tokens`) is not recorded.
TEXTS = (
    "id",
    "model",
    "weights_hash",
    "prompt",
    "prompt_hash",
    "question",
    "series",
    "concept",
    "category",
    "layers",
    "steer",
    "reply",
    "stopped",
)
WHOLE_NUMBERS = ("seed", "sample", "n_tokens")
NUMBERS = ("depth", "strength", "norm", "norm_ratio", "log_prob", "first_token_logit_diff")
SWITCHES = ("relative",)
COLUMNS = (*TEXTS, *WHOLE_NUMBERS, *NUMBERS, *SWITCHES)
_VALUES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"series": SERIES, "question": QUESTIONS, "stopped": (*STOPPED, "")},
)


@dataclass(frozen=True)
class TrialKey:
    """What the reply of a trial depends on; `vector_hash` is "" where nothing was added.

    `draw` are the names that its random numbers come from, besides the seed and the number of the sample.
    `surroundings` is the hash of the software that samples (`mechint.models.surroundings`).
    """

    weights_hash: str
    prompt_hash: str
    vector_hash: str
    layers: tuple[int, ...]
    strength: float
    steer: str
    temperature: float
    max_new_tokens: int
    seed: int
    sample: int
    draw: str = ""
    surroundings: str = ""

    @property
    def id(self) -> str:
        """The hash that names the trial."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


def checked_trials(trials: pd.DataFrame, source: str = "the table of trials") -> pd.DataFrame:
    """Return a table with the columns of trials in their order and types.

    Raises UsageError, naming `source` and the row, for missing or unknown columns, values that are not allowed, an id
    that occurs twice, a steered trial without strength, and a clean one with a concept.
    """
    _check_columns(trials, source)
    table = trials.loc[:, list(COLUMNS)].reset_index(drop=True)
    for name in TEXTS:
        _check_rows(table[name].map(lambda value: not isinstance(value, str)), table, source, f"{name} that is no text")
        table[name] = table[name].astype(object)
    for name in (*WHOLE_NUMBERS, *NUMBERS):
        numbers = pd.to_numeric(table[name], errors="coerce")
        is_other = numbers.isna() & table[name].notna()
        _check_rows(is_other | np.isinf(numbers), table, source, f"{name} that is no finite number")
        table[name] = numbers.astype(np.float64)
    for name in WHOLE_NUMBERS:
        _check_rows(table[name].isna() | (table[name] % 1 != 0), table, source, f"{name} that is no whole number")
        table[name] = table[name].astype(np.int64)
    for name in SWITCHES:
        is_switch = table[name].map(lambda value: isinstance(value, bool | np.bool_))
        _check_rows(~is_switch.astype(bool), table, source, f"{name} that is not true or false")
        table[name] = table[name].astype(bool)
    _check_meaning(table, source)
    return table


def _check_columns(trials: pd.DataFrame, source: str) -> None:
    missing = [name for name in COLUMNS if name not in trials.columns]
    unknown = [str(name) for name in trials.columns if name not in COLUMNS]
    if missing or unknown:
        complaints = [f"lacks {', '.join(missing)}"] if missing else []
        complaints += [f"has {', '.join(unknown)}"] if unknown else []
        raise UsageError(
            given=f"{source} {' and '.join(complaints)}",
            allowed=f"the columns {', '.join(COLUMNS)}",
            advice="import files of other formats with mechint.trials.importers",
        )


def _check_meaning(table: pd.DataFrame, source: str) -> None:
    """Raise for rows whose columns contradict each other."""
    for name, allowed in _VALUES.items():
        _check_rows(~table[name].isin(allowed), table, source, f"{name} other than {', '.join(allowed)}")
    is_clean, amount = table["series"] == "clean", table["strength"]
    _check_rows(table["id"].duplicated(keep=False), table, source, "an id that another row has too")
    _check_rows(~is_clean & ~(amount.abs() > 0), table, source, "a vector but no strength")
    _check_rows(~is_clean & (table["concept"] == ""), table, source, "a vector but no name of it")
    _check_rows(is_clean & (amount.fillna(0) != 0), table, source, "a strength but no vector")
    is_named = table["concept"] != ""
    _check_rows(is_clean & is_named & (table["question"] != "mention"), table, source, "a concept but no vector of it")


def _check_rows(is_wrong: pd.Series, table: pd.DataFrame, source: str, complaint: str) -> None:
    """Raise for the first row that is wrong."""
    if not is_wrong.any():
        return
    row = int(np.flatnonzero(is_wrong)[0])
    raise UsageError(
        given=f"{source}, row {row} (id {table.loc[row, 'id']!r}): {complaint}",
        allowed="trials as mechint.trials.records describes them",
        advice=f"correct the row; {int(is_wrong.sum())} of {len(table)} rows have this",
    )
