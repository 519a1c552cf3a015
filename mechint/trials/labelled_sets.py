"""Labelled sets: trials, their prompts, and what people read in the replies.

Two are bundled: "sampled" is of this project's models; "written" was written by a language model in the manner of
larger chat models, with arms that are invented. Half of each, chosen by a hash of the id, was for writing rules; judges
are measured on the other.

    labelled = labelled_set()           # labelled_set("written")
    labelled.items("held-out")          # what a judge is given
    labelled.frozen("held-out")         # what it should have said
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import pandas as pd

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import read_json
from mechint.trials.labels import Label, LabelFile
from mechint.trials.records import checked_trials
from mechint.trials.verdicts import Item

Half = Literal["all", "tuning", "held-out"]
# Replies of the embedded models and a small real one; replies that a language model wrote.
BUNDLED: Mapping[str, tuple[str, ...]] = MappingProxyType({"sampled": ("data",), "written": ("data", "written")})
TRIALS_FILE, PROMPTS_FILE, LABELS_FILE = "trials.jsonl", "prompts.json", "labels.jsonl"


@dataclass(frozen=True)
class LabelledSet:
    """A table of trials, the text of their prompts by hash, and the file of their labels."""

    trials: pd.DataFrame
    prompts: Mapping[str, str]
    labels: LabelFile

    @classmethod
    def load(cls, folder: str | Path) -> LabelledSet:
        """Return the set of a folder: `trials.jsonl`, `prompts.json`, `labels.jsonl` (which need not exist yet)."""
        folder = Path(folder)
        trials, texts_file = folder / TRIALS_FILE, folder / PROMPTS_FILE
        prompts = read_json(texts_file) if texts_file.is_file() else None
        if not trials.is_file() or not isinstance(prompts, dict):
            raise UsageError(
                given=f"{folder} lacks {TRIALS_FILE} or a {PROMPTS_FILE} of texts by hash",
                allowed="a folder with both",
                advice="write the table with to_json(orient='records', lines=True), and the prompts by prompt_hash",
            )
        table = checked_trials(pd.read_json(trials, orient="records", lines=True, dtype=_TYPES), str(trials))
        unknown = sorted(set(table["prompt_hash"]) - set(prompts))
        if unknown:
            raise UsageError(
                given=f"{folder / PROMPTS_FILE} has no text of the prompts {', '.join(unknown[:3])}",
                allowed="the text of every prompt, by prompt_hash",
                advice="add them: a judge reads prompt and reply",
            )
        texts = MappingProxyType({key: str(value) for key, value in prompts.items()})
        return cls(table, texts, LabelFile(folder / LABELS_FILE))

    def rows(self, half: Half = "all") -> pd.DataFrame:
        """Return the trials of a half, or all."""
        if half == "all":
            return self.trials
        chosen = self.trials["id"].map(is_held_out) == (half == "held-out")
        return self.trials[chosen].reset_index(drop=True)

    def items(self, half: Half = "all") -> list[Item]:
        """Return what a judge is given: prompt and reply, nothing of what was done."""
        rows = self.rows(half)
        texts = zip(rows["id"], rows["prompt_hash"], rows["reply"], strict=True)
        return [Item(key, self.prompts[prompt], reply) for key, prompt, reply in texts]

    def frozen(self, half: Half = "all") -> dict[str, Label]:
        """Return the frozen labels of a half by id; raises StaleArtefactError where they are no more what they were."""
        ids = set(self.rows(half)["id"])
        return {key: label for key, label in self.labels.frozen().items() if key in ids}


_TYPES = {"layers": str, "reply": str, "concept": str, "category": str, "id": str, "prompt_hash": str}


def is_held_out(trial_id: str) -> bool:
    """Whether judges are measured on a trial; the others are for writing rules. Half of all ids are."""
    return hashlib.sha256(f"half {trial_id}".encode()).digest()[0] % 2 == 1


def bundled_folder(name: str = "sampled") -> Path:
    """Return the folder of a bundled labelled set (`BUNDLED`); raises UnknownNameError."""
    if name not in BUNDLED:
        raise UnknownNameError(f"labelled set {name!r}", ", ".join(BUNDLED), "choose one of these")
    return Path(str(resources.files("mechint.trials").joinpath(*BUNDLED[name])))


def labelled_set(name: str = "sampled") -> LabelledSet:
    """Return a bundled set (`BUNDLED`); each was labelled and frozen before any judge was run on it."""
    return LabelledSet.load(bundled_folder(name))
