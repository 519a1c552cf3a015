"""The folder of a training: what it was made from, and the adapters that it has left at fixed steps.

<out>/published__original/seed-0/
    run.json            what is trained, on what, from which seed; written before the first step, never changed
    losses.jsonl        one line for each step
    step-000064/        an adapter as PEFT writes it, at each of the fixed steps
    watch.jsonl         what was read of the base and of each adapter, unless it was not to be watched
    state.safetensors   all that it takes to go on; removed at the end
    verified.json       written last: how far the final adapter's logits are from those of training

run = Run("runs/published__original/seed-0")
run.model(mi.load("organism-blind"))           # with the final adapter
run.model(base, step=64), run.adapter(64), run.recipe, run.seed, run.steps
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mechint.base.artefacts import FileKind, reading, shown_path
from mechint.base.errors import StaleArtefactError, UsageError
from mechint.base.files import JSON, read_json, write_atomically
from mechint.base.kept_folders import kept_record
from mechint.finetune.specification import Recipe
from mechint.models.model import Model

if TYPE_CHECKING:
    import pandas as pd

RECORD, LOSSES, STATE = "run.json", "losses.jsonl", "state.safetensors"
WATCHED, VERIFIED = "watch.jsonl", "verified.json"
_PARTS = 8, 4, 2, 1  # an adapter is left after an eighth of the steps, a quarter, half and all
_KIND = FileKind("the record of a training", "a run.json as `mi.finetune.train` writes it", "name the folder of a run")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a training was made from.

    `recipe_hash` is of all that the recipe trains, the texts of its pools among it, `data` of the examples as the model
    reads them; `model` is a name and `identity` the hash of its weights. `checkpoints` are the steps after which an
    adapter is left.
    """

    recipe: Mapping[str, JSON]
    recipe_hash: str
    data: str
    model: str
    identity: str
    seed: int
    steps: int
    checkpoints: tuple[int, ...]
    dtype: str
    threads: int
    processes: int
    versions: Mapping[str, JSON]

    def write(self, folder: Path) -> None:
        """Write it into the folder of a run, atomically."""
        write_atomically(folder / RECORD, json.dumps(vars(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Return the record of a run; raises UsageError for a folder that is none."""
        path = folder / RECORD
        content = read_json(path)
        with reading(path, _KIND):
            if not isinstance(content, dict):
                raise ValueError("it is no object")
            if unknown := sorted(set(content) ^ set(cls.__annotations__)):
                raise ValueError(f"it lacks, or has besides: {', '.join(unknown)}")
            fields = dict(content)
            fields["checkpoints"] = tuple(fields["checkpoints"])  # type: ignore[arg-type, assignment]
            return cls(**fields)  # type: ignore[arg-type]


class Run:
    """A training that was begun: its recipe and seed, and the adapters that it has left so far.

    There is no best one: adapters are left at steps that depend on the number of steps alone, the same for all recipes
    of equal budget. Raises UsageError for a folder that holds no run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.record = RunRecord.read(self.path)

    def __repr__(self) -> str:
        left = ", ".join(map(str, self.steps)) or "none yet"
        return f"Run({str(self.path)!r}: {self.record.recipe['name']}, seed {self.seed}, adapters at {left})"

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe as it was trained: adapted to the model, with all that it inherits.

        Raises StaleArtefactError where texts of its pools, or the meaning of its settings, have changed since.
        """
        recipe = Recipe.from_dict(dict(self.record.recipe), str(self.path / RECORD))
        if recipe.hash != self.record.recipe_hash:
            raise StaleArtefactError(
                given=f"{shown_path(self.path)}: recipe {recipe.name!r} has other texts now than it was trained with",
                allowed="a recipe whose pools are those of the run",
                advice="train it again, or use the version that it was trained with",
            )
        return recipe

    @property
    def seed(self) -> int:
        """The seed of the examples' draws, of the adapter's first weights and of its dropout."""
        return self.record.seed

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps after which an adapter is there, in order."""
        return tuple(step for step in self.record.checkpoints if self._is_left(step))

    @property
    def is_finished(self) -> bool:
        """Whether the last step is made, its adapter watched, and its receipt written, which comes last of all."""
        return (self.path / VERIFIED).is_file() and self._is_left(self.record.steps)

    @property
    def losses(self) -> pd.DataFrame:
        """What was measured of each step so far, a row each."""
        import pandas as pd

        path = self.path / LOSSES
        return pd.read_json(path, lines=True) if path.is_file() and path.stat().st_size else pd.DataFrame()

    def adapter(self, step: int | Literal["final"] = "final") -> Path:
        """Return the folder of the adapter after a step; raises UsageError where there is none (yet)."""
        number = self.record.steps if step == "final" else step
        if number not in self.record.checkpoints or not self._is_left(number):
            raise UsageError(
                given=f"{shown_path(self.path)}: no adapter after step {number}",
                allowed=f"steps {', '.join(map(str, self.steps)) or 'of a run that has come to its first adapter'}",
                advice=f"train on to it (it ends at {self.record.steps}), or name one of these",
            )
        return step_folder(self.path, number)

    def model(self, base: Model, step: int | Literal["final"] = "final") -> Model:
        """Return `base` with the adapter after a step on top, on the same weights.

        Raises UsageError for an adapter that is not there, StaleArtefactError for another base than it was trained on.
        """
        adapter = self.adapter(step)
        if base.identity != self.record.identity:
            raise StaleArtefactError(
                given=f"{shown_path(self.path)}, an adapter of {self.record.model}, on {base.name} of other weights",
                allowed=f"the weights that it was trained on ({self.record.model}, {self.record.dtype})",
                advice="load that model, with the same dtype",
            )
        return base.with_adapter(adapter)

    def _is_left(self, step: int) -> bool:
        return kept_record(step_folder(self.path, step)) is not None


def run_folder(out: str | Path, recipe: Recipe, seed: int) -> Path:
    """Return where the run of a recipe and seed lies."""
    return Path(out) / recipe.name.replace("/", "__") / f"seed-{seed}"


def step_folder(folder: Path, step: int) -> Path:
    """Return where a run leaves the adapter after a step."""
    return folder / f"step-{step:06d}"


def checkpoint_steps(steps: int) -> tuple[int, ...]:
    """Return after which steps of a training an adapter is left: a function of their number alone.

    An eighth, a quarter, half and all of them, rounded up: what is learned early is not lost between even steps.
    """
    return tuple(sorted({-(-steps // share) for share in _PARTS}))
