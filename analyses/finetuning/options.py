"""The options of an analysis of finetuning, the runs that it reads, and what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from analyses.kit import option_types
from analyses.kit.declarations import option
from analyses.kit.options import Out
from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import check_writable

if TYPE_CHECKING:
    from mechint.finetune.run import Run

NAME = "finetuning"
SKILL = 0.9
PARTS = (
    "training",
    "detection",
    "first_tokens",
    "transfer",
    "battery",
    "multiturn",
    "realtime",
    "talk",
    "self_prediction",
    "calibration",
    "lengths",
    "ability",
)
TABLES = "evaluations"  # the folder of tables, in that of the runs


@dataclass(frozen=True, kw_only=True)
class Config(Out):
    """All options of this analysis; as it needs no model, it has none of those that the others share but --out."""

    GROUP: ClassVar[str] = "finetuning"

    runs: tuple[Path, ...] = option(
        "a folder of trainings (the --out of mechint.finetune), or of one of them; may be given several times",
        default=(),
        parse=option_types.path,
        metavar="FOLDER",
        repeated=True,
    )
    skill: float = option(
        "area at which runs are compared at matched skill, at their first fixed step there; to be chosen before",
        default=SKILL,
        parse=option_types.share,
    )
    parts: tuple[str, ...] | None = option(
        f"what is read and drawn, between commas: {', '.join(PARTS)} (default: all)", parse=option_types.names
    )
    size: Literal["quick", "full"] = option("how much each evaluation asks", default="quick")
    every_step: bool = option("evaluate the adapters of all fixed steps, not the last alone", default=False)
    base: str | None = option(
        "the model that the runs were trained on, where it is to be loaded from elsewhere", parse=option_types.location
    )
    device: str = option("cpu, cuda, cuda:1, mps", default="cpu", parse=option_types.device)
    evaluated: Path | None = option(
        f"where tables of evaluations are kept (default: {TABLES} in the first --runs)", parse=option_types.path
    )
    quick: bool = option(
        "first train six recipes from two seeds on organism-blind, where --runs does not have them yet", default=False
    )
    processes: int = option(
        "how many train and evaluate at once, each with one thread", default=2, parse=option_types.whole_number(1, 256)
    )


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was read: the base of all runs, how many there are, and those that were never watched, by folder."""

    model: str
    identity: str
    recipes: tuple[str, ...]
    seeds: int
    skill: float
    not_watched: tuple[str, ...]
    size: str = ""
    evaluations: tuple[str, ...] = ()
    not_evaluated: tuple[str, ...] = ()


def check(config: Config) -> list[Run]:
    """Return the runs, by recipe and seed; raises UsageError for none, and for those that are not to be compared.

    With `--quick` those that are not there yet are trained first, so that there may be none.
    """
    if unknown := sorted(set(config.parts or ()) - set(PARTS)):
        raise UnknownNameError(f"--parts {', '.join(unknown)}", ", ".join(PARTS), "choose among these")
    if not config.runs:
        raise UsageError(
            given="no --runs",
            allowed="one folder of trainings or more",
            advice="train first (python -m mechint.finetune NAME --model organism-blind), then name its --out",
        )
    if not 0.5 < config.skill <= 1:
        raise UsageError(f"--skill {config.skill:g}", "an area above 0.5, to 1", "give 0.9, say")
    check_writable(config.out / NAME, "--out")
    if config.quick:
        check_quick(config)
        return []
    return read_runs(config.runs)


def check_quick(config: Config) -> None:
    """Raise UsageError for several folders of runs, and for a base other than that of the quick chain."""
    if len(config.runs) > 1 or config.base is not None:
        raise UsageError(
            given="--quick with several --runs, or with --base",
            allowed="one folder, in which six recipes are trained on organism-blind",
            advice="leave --quick out, to evaluate trainings that are there",
        )


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Return all runs that lie in some folders, by recipe and seed.

    Raises UsageError where there are none, for different bases, for recipes of one name that train different things,
    and for two runs of one recipe and seed.
    """
    from mechint.finetune.run import RECORD, Run

    paths = sorted({path.parent.resolve(): path.parent for folder in folders for path in _records(folder)}.values())
    if not paths:
        raise UsageError(
            given=f"--runs {', '.join(map(str, folders))}: no training in it",
            allowed=f"folders in which {RECORD} of trainings are",
            advice="name the --out of python -m mechint.finetune",
        )
    runs = [Run(path) for path in paths]
    _check_comparable(runs)
    return sorted(runs, key=lambda run: (str(run.record.recipe["name"]), run.seed))


def _records(folder: Path) -> list[Path]:
    from mechint.finetune.run import RECORD

    places = (folder / RECORD, *folder.glob(f"*/{RECORD}"), *folder.glob(f"*/*/{RECORD}"))
    return [path for path in places if path.is_file()]


def _check_comparable(runs: Sequence[Run]) -> None:
    first = runs[0]
    hashes: dict[str, Run] = {}
    places: dict[tuple[str, int], Run] = {}
    for run in runs:
        name = str(run.record.recipe["name"])
        if run.record.identity != first.record.identity:
            raise _not_comparable(first, run, "trainings of different bases")
        if hashes.setdefault(name, run).record.recipe_hash != run.record.recipe_hash:
            raise _not_comparable(hashes[name], run, f"recipes of the name {name!r} that train different things")
        if places.setdefault((name, run.seed), run) is not run:
            raise _not_comparable(places[name, run.seed], run, f"two trainings by {name!r} with seed {run.seed}")


def _not_comparable(first: Run, second: Run, fault: str) -> UsageError:
    return UsageError(
        given=f"{fault}: {first.path} and {second.path}",
        allowed="one base, one meaning of each recipe, each seed once",
        advice="name the folders apart with --runs",
    )
