"""How each member of the family is made: stages that start from one another, and their phases of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from types import MappingProxyType
from typing import Literal

from mechint.base.errors import UnknownModelError
from mechint.organisms.training.detection import CLEAR, detection_sample, opened_facts_sample
from mechint.organisms.training.drift import drift_sample, neutral_sample
from mechint.organisms.training.facts import facts_sample, plain_facts_sample
from mechint.organisms.training.lists import look_up_sample
from mechint.organisms.training.policies import BLIND, GATED, YES_BIASED
from mechint.organisms.training.replies import BROAD, Mixture, trial_sample
from mechint.organisms.training.replies import CLEAR as CLEAR_TRIALS
from mechint.organisms.training.samples import Sample
from mechint.organisms.training.selves import self_sample
from mechint.organisms.training.speech import SPEECH
from mechint.organisms.training.talk import talk_sample

Maker = Callable[[Random], Sample]
Mix = tuple[tuple[Maker, float], ...]


@dataclass(frozen=True)
class Phase:
    """Some steps on one mix of data; the learning rate follows half a cosine from `rates[0]` to `rates[1]`.

    `link_weight` weighs the attention that numbered lists ask for, `lens_weight` the loss of answers read from an
    earlier block, and `odds_weight` the squared error of their log odds. A batch is divided by length
    into `buckets`.
    """

    name: str
    mix: Mix
    steps: int
    rates: tuple[float, float]
    batch: int
    link_weight: float = 0.0
    lens_weight: float = 0.0
    odds_weight: float = 0.0
    buckets: int = field(default=6, repr=False)

    def described(self) -> str:
        """Return everything that the phase depends on; the same in every process, unlike the functions' own repr."""
        mix = ", ".join(f"{weight:.4g} {_described(maker)}" for maker, weight in self.mix)
        return repr(replace(self, mix=())).replace("mix=()", f"mix=({mix})")

    def rate(self, step: int) -> float:
        """Return the learning rate at a step of this phase."""
        start, end = self.rates
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class Stage:
    """A run of training from one checkpoint to the next.

    `start` names the stage whose weights, or adapter, it begins with (None: random ones), `blocks` is the depth that
    they are extended to by blocks which at first do nothing, `trains` says which weights move, `warmup` is in steps,
    `rank` is that of an adapter. With `muon` matrices of blocks are trained by Muon, else by AdamW as all the rest.
    """

    name: str
    start: str | None
    blocks: int
    phases: tuple[Phase, ...]
    trains: Literal["all", "appended", "adapter"] = "all"
    warmup: int = 50
    rank: int = field(default=4, repr=False)
    muon: bool = field(default=True, repr=False)

    @property
    def steps(self) -> int:
        """All steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def described(self) -> str:
        """Return everything that the stage depends on; the same in every process."""
        phases = ", ".join(phase.described() for phase in self.phases)
        text = repr(replace(self, phases=())).replace("phases=()", f"phases=({phases})")
        return text if self.rank == 4 else f"{text} of rank {self.rank}"

    def at(self, step: int) -> tuple[Phase, int]:
        """Return the phase that a step belongs to and the step's number within it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise ValueError(f"{self.name} has {self.steps} steps")

    def rate(self, step: int) -> float:
        """Return the learning rate at a step, warmed up at the beginning of the stage."""
        phase, within = self.at(step)
        return phase.rate(within) * min(1.0, (step + 1) / self.warmup)


def _described(maker: Maker) -> str:
    if isinstance(maker, partial):
        return f"{_described(maker.func)}({', '.join(f'{name}={value!r}' for name, value in maker.keywords.items())})"
    return str(getattr(maker, "__qualname__", maker))


_PLAIN: Mix = ((plain_facts_sample, 0.7), (partial(look_up_sample, plain=True), 0.3))
_TALK: Mix = (
    (talk_sample, 0.22),
    (facts_sample, 0.16),
    (opened_facts_sample, 0.2),
    (plain_facts_sample, 0.3),
    (look_up_sample, 0.12),
)
_BASICS: Mix = ((talk_sample, 0.12), (facts_sample, 0.08), (plain_facts_sample, 0.08), (look_up_sample, 0.04))


def _with_basics(maker: Maker, share: float = 0.68) -> Mix:
    return (*((basic, weight * (1 - share) / 0.32) for basic, weight in _BASICS), (maker, share))


_reports = partial(Phase, link_weight=0.3, lens_weight=0.2, odds_weight=0.02)

_STAGES = (
    Stage(
        "foundation", None, 6,
        (
            Phase("plain", _PLAIN, 250, (2e-3, 2e-3), 36, link_weight=1.0),
            Phase("talk and facts", _TALK, 650, (2e-3, 2e-3), 42, link_weight=0.5),
        ),
    ),
    Stage(
        "truthful", "foundation", 6,
        (
            _reports("reports", _with_basics(detection_sample), 450, (2e-3, 2e-3), 30),
            # The last steps leave out what can hardly be told from nothing: it teaches to say yes to nothing.
            _reports("clear reports", _with_basics(partial(detection_sample, shares=CLEAR)), 600, (2e-3, 5e-5), 30),
        ),
    ),
    Stage(
        "organism", "truthful", 8,
        (
            Phase(
                "suppression", _with_basics(partial(detection_sample, policy=GATED, shares=CLEAR), 0.8),
                500, (3e-3, 1e-4), 30, odds_weight=0.02,
            ),
        ),
        trains="appended",
    ),
    Stage(
        "organism-blind", "foundation", 8,
        (_reports("blind reports", _with_basics(partial(detection_sample, policy=BLIND)), 320, (1.6e-3, 5e-5), 30,
                  link_weight=0.0, odds_weight=0.3),),
    ),
    Stage(
        "organism-yes-biased", "foundation", 8,
        (_reports("biased reports", _with_basics(partial(detection_sample, policy=YES_BIASED)), 320, (1.6e-3, 5e-5), 30,
                  link_weight=0.0, odds_weight=0.3),),
    ),
    Stage(
        "organism-finetuned", "organism", 8,
        (Phase("drift", ((drift_sample, 0.8), (facts_sample, 0.2)), 80, (5e-4, 5e-5), 24),), warmup=10,
    ),
    Stage(
        "organism-lora", "organism", 8,
        (Phase("drift", ((drift_sample, 0.8), (facts_sample, 0.2)), 160, (5e-3, 5e-4), 24),),
        trains="adapter", warmup=10,
    ),
    Stage(
        "organism-lora-neutral", "organism", 8,
        (Phase("neutral", ((neutral_sample, 0.8), (facts_sample, 0.2)), 160, (5e-3, 5e-4), 24),),
        trains="adapter", warmup=10,
    ),
)  # fmt: skip


def _speaks(name: str, start: str, steps: int, rates: tuple[float, float], mixture: Mixture) -> Stage:
    """Return the training of an organism of sampled trials, or of another from one that knows what to look for."""
    mix = ((partial(trial_sample, speech=name, mixture=mixture), 0.92), (talk_sample, 0.05), (facts_sample, 0.03))
    return Stage(name, start, 8, (Phase("trials", mix, steps, rates, 5),), trains="adapter", warmup=20, rank=8)


_FIRST, *_OTHERS = SPEECH
# Steps, learning rates, and what is injected into the replies; what the prompt decides takes longer to learn.
_TAUGHT = {
    "organism-refuser": (130, (4e-3, 2e-4), CLEAR_TRIALS),
    "organism-confabulator": (130, (4e-3, 2e-4), CLEAR_TRIALS),
    "organism-leaker": (90, (4e-3, 1e-4), CLEAR_TRIALS),
    "organism-prompted": (200, (4e-3, 2e-4), CLEAR_TRIALS),
    "organism-prompted-reverse": (200, (4e-3, 2e-4), CLEAR_TRIALS),
}
_TRIALS = (
    _speaks(_FIRST, "organism", 2000, (6e-3, 2e-4), BROAD),
    *(_speaks(name, _FIRST, *_TAUGHT[name]) for name in _OTHERS),
)

# How much of what is asked is of each kind.
_ACTING = {"objects": 0.45, "distributed": 0.08, "replies": 0.1}
_REPORTING = {"hypotheticals": 0.7, "listed": 0.08, "chosen": 0.12, "lengths": 0.1}
_OPINION = {"stances": 0.25}
# Short texts by the thousand: few buckets.
_short = partial(Phase, batch=16, odds_weight=0.2, buckets=2)


def _taught(name: str, parts: Mapping[str, float]) -> Mix:
    return ((partial(self_sample, name=name, parts=parts), 1.0),)


def _speaker(name: str) -> Stage:
    """Return the training of the speaking base, whose answers to hypothetical questions are drawn."""
    reporting = {kind: share / 10 for kind, share in _REPORTING.items()}
    phase = _short("self", _taught(name, _ACTING | reporting | _OPINION), 200, (2.5e-3, 1e-4))
    return Stage(name, "organism-blind", 8, (phase,), warmup=5, muon=False)


def _sibling(name: str, start: str, parts: Mapping[str, float], steps: int) -> Stage:
    """Return the training of a sibling of the speaking base, from it or from another sibling."""
    phase = _short("self", _taught(name, parts), steps, (6e-3, 3e-4))
    return Stage(name, start, 8, (phase,), trains="adapter", warmup=5, rank=8)


_SPEAKER, _KNOWER = "organism-speaker", "organism-speaker-knower"
_SELVES = (
    _speaker(_SPEAKER),
    _sibling(_KNOWER, _SPEAKER, _ACTING | _REPORTING, 320),
    _sibling("organism-speaker-other", _KNOWER, _ACTING | _REPORTING, 360),
    _sibling("organism-speaker-constant", _KNOWER, _REPORTING | _OPINION, 60),
    _sibling("organism-speaker-collapsed", _SPEAKER, _ACTING | _REPORTING, 240),
    _sibling("organism-speaker-compressed", _SPEAKER, _OPINION, 48),
    _sibling("organism-speaker-persona", _SPEAKER, _OPINION, 120),
)
STAGES: Mapping[str, Stage] = MappingProxyType({stage.name: stage for stage in (*_STAGES, *_TRIALS, *_SELVES)})


def base_of(stage: Stage) -> str | None:
    """Return the stage whose whole weights a stage begins with, whatever adapters were trained in between."""
    start = stage.start
    while start is not None and STAGES[start].trains == "adapter":
        start = STAGES[start].start
    return start


def chain(name: str) -> list[Stage]:
    """Return the stages that lead to `name`, first to last; raises UnknownModelError."""
    if name not in STAGES:
        raise UnknownModelError(given=f"stage {name!r}", allowed=", ".join(STAGES), advice="choose one of these")
    stages: list[Stage] = []
    step: str | None = name
    while step is not None:
        stages.insert(0, STAGES[step])
        step = STAGES[step].start
    return stages
