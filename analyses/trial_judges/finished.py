"""A finished run of `analyses.trials`, as it lies in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import earlier
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_TRIALS, _VERDICTS, _RUN = "trials.parquet", "verdicts.parquet", "trials"


@dataclass(frozen=True)
class FinishedRun:
    """Trials with the verdicts of their run; `prompts` are texts by name (none for imported trials)."""

    folder: Path
    trials: pd.DataFrame
    verdicts: pd.DataFrame
    prompts: Mapping[str, str]
    source: str
    unmatched: bool

    @classmethod
    def read(cls, path: Path) -> FinishedRun:
        """Return the run of a folder: that of the run, or the --out that it was given. Raises UsageError for others."""
        from mechint.trials.pilot import dropped_places, pilot_note
        from mechint.trials.storage import read_trials, read_verdicts

        folder = next((place for place in (path / _RUN, path) if (place / earlier.RECORD).is_file()), path)
        record = earlier.read(folder)
        if record is None or not (folder / _TRIALS).is_file() or not (folder / _VERDICTS).is_file():
            raise UsageError(
                given=f"--trials {path}: no finished run of analyses.trials",
                allowed=f"a folder with {earlier.RECORD}, {_TRIALS} and {_VERDICTS}",
                advice="run python -m analyses.trials --out DIR first, and give that DIR",
            )
        prompts, trials = record.get("prompts"), read_trials(folder / _TRIALS)
        texts = {str(name): str(text) for name, text in prompts.items()} if isinstance(prompts, dict) else {}
        if texts and (unknown := sorted(set(trials["prompt"]) - set(texts))):
            raise UsageError(
                given=f"{folder}: no text of the prompts {', '.join(unknown[:3])}",
                allowed="a run whose record has the text of every prompt",
                advice="run it again with --overwrite: replies are kept and not sampled again",
            )
        source = record.get("source")
        models = ", ".join(dict.fromkeys(trials["model"]))
        name = models if source is None else f"imported from {source}"
        field = record.get("pilot")
        pilot = field if isinstance(field, dict) else None
        note = pilot_note(pilot)
        name = f"{name}; {note}" if note else name
        is_uneven = pilot is not None and len(dropped_places(pilot)) > 0
        unmatched = record.get("unmatched") is True or is_uneven
        return cls(folder, trials, read_verdicts(folder / _VERDICTS), texts, name, unmatched)
