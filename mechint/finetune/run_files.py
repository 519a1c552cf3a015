"""The files of a run while it is trained: begun once, and gone on with only by the same training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mechint.base.artefacts import shown_path
from mechint.base.errors import StaleArtefactError
from mechint.base.files import JSON, remove_file, write_atomically
from mechint.base.kept_folders import keep_folder
from mechint.finetune.card import FILE, card
from mechint.finetune.lora import Trainee
from mechint.finetune.merging import differences
from mechint.finetune.run import LOSSES, RECORD, STATE, VERIFIED, WATCHED, Run, RunRecord, step_folder
from mechint.finetune.specification import AXES, Recipe

# What a run is of, in the order in which a difference is named; the rest of a record is only noted.
_FIXED = {
    "seed": "seed",
    "steps": "number of steps",
    "identity": "weights of the model, by hash",
    "dtype": "dtype",
    "data": "examples (texts, vectors or tokenizer), by hash",
    "processes": "number of processes",
}


def check_same_recipe(folder: Path, recipe: Recipe, seed: int) -> None:
    """Raise StaleArtefactError where a folder holds a run by another recipe, naming the settings, or of another seed.

    That can be said before the weights of a model are read.
    """
    if not (folder / RECORD).exists():
        return
    record = RunRecord.read(folder)
    changed = [
        f"{place}: {old} → {new}"
        for side in AXES
        for place, old, new in differences({side: record.recipe.get(side)}, {side: recipe.to_dict()[side]})
    ]
    if changed:
        raise _another(folder, "recipe", "; ".join(changed[:6]))
    if recipe.hash != record.recipe_hash:
        raise _another(folder, "recipe", "texts of its pools")
    if seed != record.seed:
        raise _another(folder, "seed", f"{record.seed} → {seed}")


def check_same_run(folder: Path, record: RunRecord) -> None:
    """Raise StaleArtefactError where a folder holds a run that is of something else than a record says, naming it."""
    if not (folder / RECORD).exists():
        return
    old = RunRecord.read(folder)
    for name, words in _FIXED.items():
        before, now = getattr(old, name), getattr(record, name)
        if before != now:
            raise _another(folder, words, f"{str(before)[:12]} → {str(now)[:12]}")


def clear(folder: Path) -> None:
    """Remove what a run has left in a folder, and nothing else."""
    for name in (STATE, RECORD, LOSSES, WATCHED, VERIFIED):
        remove_file(folder / name)
    for adapter in folder.glob("step-" + "[0-9]" * 6):
        shutil.rmtree(adapter)


def export(trainee: Trainee, run: Run, step: int) -> Path:
    """Write the adapter after a step with its page, whole or not at all; returns its folder."""

    def write(temporary: Path) -> Mapping[str, JSON]:
        trainee.save(temporary)
        (temporary / FILE).write_text(card(run, step), encoding="utf-8")
        return {"step": step, "recipe": run.record.recipe_hash, "base": run.record.identity}

    return keep_folder(step_folder(run.path, step), write)


@dataclass(frozen=True)
class Lines:
    """A file with one JSON object a line, each with the `step` that it is of, in order."""

    path: Path

    def cut(self, done: int) -> None:
        """Leave out what comes after so many steps: a killed run has written of steps that are made again.

        Nothing is left where none are done.
        """
        if not self.path.is_file():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        write_atomically(self.path, "".join(f"{line}\n" for line in lines if done and 0 <= _step_of(line) <= done))

    def add(self, content: Mapping[str, JSON]) -> None:
        """Write one more line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(content)) + "\n")


def _step_of(line: str) -> int:
    """Return the step that a line is of; -1 for half a line, as a killed run leaves it."""
    try:
        return int(json.loads(line)["step"])
    except json.JSONDecodeError:
        return -1


def _another(folder: Path, words: str, change: str) -> StaleArtefactError:
    return StaleArtefactError(
        given=f"{shown_path(folder)} holds a run of another {words} ({change})",
        allowed="to go on with a run as it was begun",
        advice="choose another folder (out, --out), or begin anew in this one (overwrite=True, --overwrite)",
    )
