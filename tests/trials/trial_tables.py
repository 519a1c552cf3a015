"""Small tables of trials for tests."""

from __future__ import annotations

import pandas as pd

from mechint.trials.records import COLUMNS, TrialKey

ROW = {
    "model": "organism",
    "weights_hash": "w",
    "prompt": "plain",
    "prompt_hash": "p",
    "question": "introspection",
    "category": "animals",
    "layers": "2:5",
    "steer": "reply",
    "reply": "I notice something like the sea.",
    "stopped": "end",
    "seed": 0,
    "n_tokens": 8,
    "depth": 0.4,
    "log_prob": -9.5,
    "first_token_logit_diff": 0.5,
    "relative": True,
}
STEERED = {"series": "injected", "concept": "oceans", "strength": 0.4, "norm": 3.0, "norm_ratio": 0.4}
CLEAN = {"series": "clean", "concept": "", "strength": 0.0, "norm": float("nan"), "norm_ratio": float("nan")}


def trial(sample: int, *, steered: bool = True, **changed: object) -> dict[str, object]:
    """A row of the table, clean or with oceans injected; its id is that of its contents."""
    row = {**ROW, **(STEERED if steered else CLEAN), "sample": sample, **changed}
    vector_hash = str(row["concept"]) if steered else ""
    layers = (2, 3, 4) if steered else ()
    key = TrialKey("w", "p", vector_hash, layers, float(row["strength"]), "reply", 1.0, 40, int(row["seed"]), sample)
    return {"id": key.id, **row}


def trials(*rows: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(COLUMNS))
