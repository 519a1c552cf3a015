"""The options of contrasts, and what a run says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from analyses.kit import option_types
from analyses.kit.checks import check_effect
from analyses.kit.declarations import option
from analyses.kit.options import Out
from analyses.trials.judging import JudgeFacts
from mechint.base.errors import UsageError
from mechint.base.files import check_writable

if TYPE_CHECKING:
    from analyses.trial_contrasts.reading import Source, Sweeps
    from mechint.trials.plans import Contrast

NAME = "trial_contrasts"
SMALLEST_EFFECT = 0.1


@dataclass(frozen=True, kw_only=True)
class Config(Out):
    """All options of this analysis; as it needs no model, it has none of those that the others share but --out."""

    GROUP: ClassVar[str] = "contrasts"

    trials: tuple[Path, ...] = option(
        "what analyses.trials has written (its folder, or the --out above it); may be given several times, for several "
        "models or sweeps",
        default=(),
        parse=option_types.path,
        metavar="FOLDER",
        repeated=True,
    )
    plan: Path | None = option(
        "a JSON file of declared contrasts (default: those that the data allow, by the rule of docs/trials.md)",
        parse=option_types.path,
    )
    smallest_effect: float | None = option(
        f"smallest difference that would matter, as a share, of contrasts by the rule (default: {SMALLEST_EFFECT})",
        parse=option_types.share,
    )


@dataclass(frozen=True)
class Inputs:
    """The sweeps, and the contrasts of a plan; None where the rule declares them."""

    sweeps: Sweeps
    plan: list[Contrast] | None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A run: its sweeps, the judge of all, and what was not compared or drawn, by name with the reason."""

    sources: tuple[Source, ...]
    judge: JudgeFacts
    declared: str
    not_declared: Mapping[str, str]
    not_drawn: Mapping[str, str]


def check(config: Config) -> Inputs:
    """Return what options name; raises UsageError for sweeps that cannot be compared, and for a plan that is none."""
    from analyses.trial_contrasts.reading import read_sweeps
    from mechint.trials.plans import read_plan

    if not config.trials:
        raise UsageError(
            given="no --trials",
            allowed="one folder or more that analyses.trials has written",
            advice="sample or import trials first (python -m analyses.trials), then name its --out",
        )
    check_effect(config.plan is not None, "--plan", config, ("smallest_effect",))
    if config.smallest_effect is not None and not 0 < config.smallest_effect < 1:
        raise UsageError(
            given=f"--smallest-effect {config.smallest_effect:g}",
            allowed="a share between 0 and 1",
            advice="give the smallest difference that would matter, 0.1 for ten points",
        )
    plan = None if config.plan is None else read_plan(config.plan)
    sweeps = read_sweeps(config.trials)
    check_writable(config.out / NAME, "--out")
    return Inputs(sweeps, plan)
