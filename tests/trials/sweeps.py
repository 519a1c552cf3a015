"""Small tables of trials with their classes, written out by hand."""

from __future__ import annotations

import itertools

import pandas as pd

from mechint.trials.synthetic import Population, Sweep, draw
from tests.trials.trial_tables import trial, trials

SHORT = {
    "i": "incoherent",
    "r": "refuses",
    "d": "denies",
    "l": "leaks",
    "c": "claims",
    "w": "names wrongly",
    "n": "names rightly",
}


def sweep_of(steered: dict[str, str], clean: str, judge: str = "hand", **changed: object) -> Sweep:
    """A sweep with a reply for each letter of `SHORT`: by concept, and clean ones."""
    numbers = itertools.count()
    rows, letters = [], ""
    for concept, classes in steered.items():
        rows += [trial(next(numbers), concept=concept, **changed) for _ in classes]
        letters += classes
    own = {name: value for name, value in changed.items() if name in ("model", "prompt", "stopped", "prompt_hash")}
    rows += [trial(next(numbers), steered=False, layers="", **own) for _ in clean]
    table = trials(*rows)
    prefix = "".join(str(changed.get(name, "")) for name in ("model", "prompt", "strength"))
    table["id"] = [f"{prefix}{name}" for name in table["id"]]
    outcome = [SHORT[letter] for letter in letters + clean]
    return Sweep(table, pd.DataFrame({"id": table["id"], "judge": judge, "pass_no": 0, "outcome": outcome}))


def joined(*sweeps: Sweep) -> Sweep:
    return Sweep(
        pd.concat([sweep.trials for sweep in sweeps], ignore_index=True),
        pd.concat([sweep.truth for sweep in sweeps], ignore_index=True),
    )


def prompts(**kwargs: object) -> Sweep:
    """Two drawn sweeps under the prompts a and b."""
    return joined(
        *(draw(Population(), prompt=name, seed=seed, **kwargs) for seed, name in enumerate("ab"))  # type: ignore[arg-type]
    )
