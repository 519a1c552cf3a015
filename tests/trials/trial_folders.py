"""Sweeps of which every class is known, in folders as `analyses.trials` leaves them."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pandas as pd

from mechint.trials.storage import write_trials, write_verdicts
from mechint.trials.synthetic import Population, Sweep, draw
from mechint.trials.verdicts import VERDICT_COLUMNS
from tests.trials.sweeps import joined

JUDGE = {"name": "hand", "version": "v1"}
CATEGORIES = ("animals", "food", "weather")
_CLAIMING = ("claims", "names wrongly", "names rightly")


def swept(
    *models: str, prompts: tuple[str, ...] = ("standard",), claims: dict[str, float] | None = None, **options: object
) -> Sweep:
    """Draw a sweep of each model under each prompt; `claims` are shares by model, prompt, or both ("a standard").

    Concepts are as easy under one prompt and in one model as in others, and of three categories.
    """
    shares = claims or {}
    parts = []
    for model in models:
        for prompt in prompts:
            names = (f"{model} {prompt}", prompt, model)
            share = next((shares[name] for name in names if name in shares), 0.4)
            drawn = draw(
                Population(claim=share),
                model=model,
                prompt=prompt,
                seed=zlib.crc32(f"{model} {prompt}".encode()),
                shared_seed=1,
                shared=0.9,
                **{"concepts": 9, "samples": 6, "controls": 60, **options},  # type: ignore[arg-type]
            )
            parts.append(drawn)
    sweep = joined(*parts)
    numbers = sweep.trials["concept"].str.extract(r"(\d+)$")[0]
    category = ["" if pd.isna(number) else CATEGORIES[int(number) % 3] for number in numbers]
    return Sweep(sweep.trials.assign(category=category), sweep.truth)


def modes(sweep: Sweep, **chosen: Sweep) -> Sweep:
    """Return a sweep with others as further steering modes; its own is "reply"."""
    others = []
    for mode, other in chosen.items():
        steered = other.trials["series"] != "clean"
        ids = other.trials["id"].where(~steered, other.trials["id"] + mode)
        others.append(Sweep(other.trials.assign(id=ids, steer=mode)[steered], other.truth.assign(id=ids)[steered]))
    return joined(sweep, *others)


def written(sweep: Sweep, folder: Path, **changed: object) -> Path:
    """Write a sweep with verdicts that come to its classes; returns the folder. `changed` is of its record."""
    trials = sweep.trials.merge(sweep.truth[["id", "outcome"]], on="id")
    outcome = trials["outcome"]
    judge = {**JUDGE, **dict(changed.pop("judge", {}))}  # type: ignore[call-overload]
    verdicts = pd.DataFrame(
        {
            "id": trials["id"],
            "judge": judge["name"],
            "version": judge["version"],
            "pass_no": 0,
            "claims": ["yes" if name in _CLAIMING else "no" for name in outcome],
            "named": trials["concept"]
            .where(outcome == "names rightly", "nothing like it")
            .where(outcome.isin(["names rightly", "names wrongly"]), None),
            "claim_first": None,
            "refused": outcome == "refuses",
            "coherent": outcome != "incoherent",
            "confidence": float("nan"),
            "reason": "",
            "error": "",
        }
    )
    replies = trials["concept"].where(outcome == "leaks", "no")
    folder.mkdir(parents=True, exist_ok=True)
    write_trials(sweep.trials.assign(reply=replies.to_numpy()), folder / "trials.parquet")
    write_verdicts(verdicts[list(VERDICT_COLUMNS)], folder / "verdicts.parquet")
    record = {"files": ["trials.parquet", "verdicts.parquet"], "judge": judge, **changed}
    (folder / "run.json").write_text(json.dumps(record))
    return folder
