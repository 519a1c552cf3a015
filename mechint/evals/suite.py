"""All evaluations of a base and of trainings from it: one loaded base, adapters on top, each table kept as it is made.

    suite = Suite(mi.load("organism-blind"), read_runs("runs"), "evaluated", size="quick")
    suite.run(progress=True)                 # what is there already is not computed again
    suite.tables("battery")                  # the rows of all subjects, with recipe, seed and step

`EVALUATIONS` says what is asked: a new one is one line. A table's file is named by a hash of all that its numbers
depend on: the weights, the base that doses are measured on, the recipe, the sizes, and the code.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import pandas as pd

from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import StaleArtefactError, UnknownNameError, UsageError
from mechint.base.files import replace_atomically, sha256
from mechint.base.progress import tracked
from mechint.engine.shards import Shard
from mechint.evals.evaluations import EVALUATIONS, Asking, Evaluation, Size
from mechint.evals.subjects import Concepts, Subject
from mechint.finetune.run import Run
from mechint.finetune.signal import Signal
from mechint.finetune.specification import Recipe
from mechint.finetune.watched import check_watchable
from mechint.models.model import Model
from mechint.models.surroundings import surroundings

Place = tuple[Path, int] | None  # of an adapter, None for the base
# The floors whose code a table depends on.
FLOORS = ("evals", "finetune", "models", "interventions", "engine", "readouts")
_KIND = FileKind(
    description="a table of evaluations",
    allowed="files that a suite has written, as it has written them",
    advice="remove the file: its table is computed again",
    error=StaleArtefactError,
)


@dataclass(frozen=True)
class Task:
    """An evaluation of a subject."""

    evaluation: Evaluation
    subject: Subject


@dataclass(frozen=True)
class Suite:
    """Evaluations of a base and of runs from it, whose tables lie in `folder`.

    `size` is how much is asked; `only` are names of evaluations, all where it is empty; `every_step` evaluates the
    adapters of all fixed steps where an evaluation is worth it, the last ones alone otherwise. Raises UsageError for
    runs of other bases, unfinished ones and none, UnknownNameError for evaluations that there are not.
    """

    base: Model
    runs: Sequence[Run]
    folder: Path
    size: Size = "quick"
    only: tuple[str, ...] = ()
    every_step: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        names = [evaluation.name for evaluation in EVALUATIONS]
        if unknown := sorted(set(self.only) - set(names)):
            raise UnknownNameError(f"evaluations {unknown}", ", ".join(names), "name these")
        if not self.runs:
            raise UsageError("no runs to evaluate", "one or more, each of the base", "train first")
        identity = self.base.identity
        for run in self.runs:
            if run.record.identity != identity:
                raise UsageError(
                    given=f"{run.path}, a run of {run.record.model}, on {self.base.name} of other weights",
                    allowed="runs of one base",
                    advice="load the model that they were trained on",
                )
            if not run.steps or run.steps[-1] != run.record.steps:
                raise UsageError(f"{run.path}, which is not finished", "runs with all steps", "train it to the end")

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Those that are asked for."""
        return tuple(item for item in EVALUATIONS if not self.only or item.name in self.only)

    def tasks(self) -> list[Task]:
        """Return every evaluation of every subject, in the order in which they are computed: a subject's together."""
        subjects = [Subject(self.base, signal=self._signal)]
        for run in self.runs:
            steps = run.steps if self.every_step else run.steps[-1:]
            subjects += [Subject(self.base, run, step, signal=self._signal) for step in steps]
        return [Task(evaluation, asked) for subject in subjects for evaluation, asked in self._of(subject)]

    @property
    def _signal(self) -> Signal | None:
        """What recipes without a signal are asked with: that of the first which is trained to tell it, if any is.

        Random vectors come before those of concepts, whatever the order of the runs.
        """
        signals = [run.recipe.signal for run in self.runs if run.recipe.labels.rule == "steered"]
        return min(signals, key=lambda signal: signal.has_concepts, default=None)

    def _of(self, subject: Subject) -> Iterator[tuple[Evaluation, Subject]]:
        is_last = subject.run is None or subject.step == subject.run.record.steps
        for evaluation in self.evaluations:
            if not (is_last or evaluation.at_steps):
                continue
            if not evaluation.by_recipe:
                yield evaluation, subject
                continue
            runs = self._first_of_each() if subject.run is None else [subject.run]
            for run in runs:
                if _is_askable(run.recipe):
                    yield evaluation, replace(subject, recipe=run.recipe)

    def _first_of_each(self) -> list[Run]:
        """Return a run of each recipe, in whose words the base is asked."""
        firsts: dict[str, Run] = {}
        for run in self.runs:
            firsts.setdefault(str(run.record.recipe["name"]), run)
        return list(firsts.values())

    def run(self, *, progress: bool = False, shard: Shard | None = None) -> int:
        """Compute what is not there yet; return how many tables were computed. Killed, it goes on after the last.

        Of a shard these are the tables of some subjects, about as many as of any other; several processes share the
        folder.
        """
        missing = self.missing(shard)
        concepts = Concepts(self.base)
        place, adapted = None, None
        for task in tracked(missing, "evaluations", "table", shown=progress):
            subject = task.subject
            if subject.place != place:
                adapted = None if subject.run is None else subject.run.model(self.base, subject.step)
                place = subject.place
            store = self.folder / "cells" / sha256(self._weights(subject).encode())[:16] / task.evaluation.name
            table = task.evaluation.evaluate(replace(subject, adapted=adapted), Asking(self.size, concepts, store))
            receipts = table.attrs.get("receipts", [])
            table.attrs = {"receipts": len(receipts), "receipts_sha256": sha256(json.dumps(receipts).encode())}
            replace_atomically(self.path(task), partial(table.to_parquet, index=False))
        return len(missing)

    def missing(self, shard: Shard | None = None) -> list[Task]:
        """Return what is not there yet, of all subjects or of a shard's."""
        tasks = self.tasks()
        counts = Counter(task.subject.place for task in tasks)
        chosen = set(counts if shard is None else _even(counts, shard.count)[shard.index])
        return [task for task in tasks if task.subject.place in chosen and not self.path(task).is_file()]

    def path(self, task: Task) -> Path:
        """Return the file of a table, whose name says what it is of, and holds a hash of all that it depends on."""
        subject = task.subject
        recipe = "" if subject.recipe is None else subject.steered_recipe().hash
        key = sha256(self._surroundings.encode(), self._weights(subject).encode(), recipe.encode(), self.size.encode())
        trained = [] if subject.run is None else [f"seed-{subject.seed}", f"step-{subject.step}"]
        words_of = [subject.recipe.name] if subject.recipe is not None and subject.run is None else []
        name = " ".join([subject.label, *words_of, *trained, key[:16]]).replace("/", "__").replace(" ", "-")
        return self.folder / self.size / task.evaluation.name / f"{name}.parquet"

    def _weights(self, subject: Subject) -> str:
        """Return a hash of an adapter's files, which says as much as that of the weights and needs no model."""
        if subject.run is None:
            return ""
        files = sorted(path for path in subject.run.adapter(subject.step).iterdir() if path.suffix == ".safetensors")
        return sha256(*(path.read_bytes() for path in files))

    @cached_property
    def _surroundings(self) -> str:
        return surroundings(self.base, self.base.identity, FLOORS)

    def tables(self, name: str) -> pd.DataFrame:
        """Return the rows of an evaluation that are there, of all subjects in one table.

        In front stand `trained_by` (the recipe, or "base"), `seed` (-1 for the base), `step`, and `asked_by`, the
        recipe in whose words it was asked ("" where there is none). Empty where nothing is there.
        """
        parts = []
        for task in self.tasks():
            if task.evaluation.name == name and (path := self.path(task)).is_file():
                with reading(path, _KIND):
                    rows = pd.read_parquet(path)
                rows.attrs = {}
                subject = task.subject
                places = {"trained_by": subject.label, "seed": subject.seed, "step": subject.step}
                places["asked_by"] = "" if subject.recipe is None else subject.recipe.name
                for at, (column, value) in enumerate(places.items()):
                    rows.insert(at, column, value)
                parts.append(rows)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _even(counts: Mapping[Place, int], n: int) -> list[list[Place]]:
    """Return who is asked in each of `n` shards, so that these have about as many tables: those with most first.

    The base has several times as many as a run, since it is asked in the words of each recipe.
    """
    shares: list[list[Place]] = [[] for _ in range(n)]
    for place in sorted(counts, key=lambda each: -counts[each]):
        min(shares, key=lambda share: sum(counts[each] for each in share)).append(place)
    return shares


def _is_askable(recipe: Recipe) -> bool:
    """Whether a recipe has two answers, of which an example says which is right."""
    try:
        check_watchable(recipe)
    except UsageError:
        return False
    return recipe.labels.rule != "concept"
