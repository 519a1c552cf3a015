"""Rows of foreign files as tables of ours, and tables of ours as rows that the same checks can be made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from mechint.trials.foreign import NO_VERDICT, ROW
from mechint.trials.records import COLUMNS
from mechint.trials.verdicts import VERDICT_COLUMNS

JUDGE = "published"


def trials_of(rows: pd.DataFrame, expected: pd.DataFrame, categories: Mapping[str, str]) -> pd.DataFrame:
    injected = rows["injected"].astype(bool)
    names = {}
    for column in ("model", "prompt"):
        place = rows["file"].map(expected[column])
        names[column] = rows[column].where(place == "", place)
    ids = [
        hashlib.sha256(json.dumps([file, row, str(source)]).encode()).hexdigest()[:24]
        for file, row, source in zip(rows["file"], rows["row"], rows["source_id"], strict=True)
    ]
    strength = rows["strength"].astype(np.float64).where(injected, 0.0)
    unknown = np.full(len(rows), np.nan)
    values: dict[str, object] = {
        "id": ids,
        "model": names["model"],
        "weights_hash": "",
        "prompt": names["prompt"],
        "prompt_hash": "",
        "question": "introspection",
        "series": np.where(injected, "injected", "clean"),
        "concept": rows["concept"].where(injected, ""),
        "category": rows["concept"].map(lambda concept: categories.get(concept, "")).where(injected, ""),
        "layers": rows["layer"].map(lambda layer: f"{layer:g}").where(injected, ""),
        "steer": rows["steer"],
        "reply": rows["reply"],
        "stopped": "",
        "seed": -1,
        "sample": rows["sample"].astype(np.int64),
        "n_tokens": -1,
        "depth": rows["depth"].astype(np.float64).where(injected, np.nan),
        "strength": strength,
        "norm": rows["norm"].astype(np.float64).where(injected, np.nan),
        "norm_ratio": unknown,
        "log_prob": unknown,
        "first_token_logit_diff": unknown,
        "relative": False,
    }
    return pd.DataFrame(values, columns=list(COLUMNS))


def verdicts_of(rows: pd.DataFrame, ids: pd.Series) -> pd.DataFrame:
    is_judged = (rows["claims"] != "") | (rows["error"] != "")
    judged = rows[is_judged]
    table = judged.assign(
        id=ids[is_judged],
        judge=JUDGE,
        version=JUDGE,
        pass_no=0,
        claims=judged["claims"].where(judged["claims"] != "", "unclear"),
        claim_first=None,
        confidence=np.nan,
    )
    return table[list(VERDICT_COLUMNS)].reset_index(drop=True)


def rows_of(trials: pd.DataFrame, file: str) -> pd.DataFrame:
    """Return a table of trials as rows of a file.

    Groups are models and prompts: the same seed may well give two weak doses, or two concepts, one reply.
    """
    injected = trials["series"] != "clean"
    cell = trials["layers"].str.cat([trials["concept"], trials["series"], trials["question"]], sep="|")
    rows = trials[["model", "prompt", "depth", "strength", "norm", "sample", "steer", "reply"]].assign(
        file=file, row=np.arange(len(trials)), source_id="", concept="", injected=injected, layer=cell, **NO_VERDICT
    )
    return rows[list(ROW)]
