"""The designs that come with the analysis, made for a model from its concepts and its dose."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from analyses.kit.option_types import format_layers
from mechint.trials.design import Controls, Pilot, TrialDesign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from analyses.kit.dose import Dose
    from analyses.trials.options import Config

PROMPTS = ("plain", "standard")
# Of open-introspection: fractions of the depth, factors on vectors as they are, 20 replies of 200 tokens.
_DEPTHS, _STRENGTHS, _TOKENS = (0.60, 0.65, 0.70, 0.75), (1.5, 2.0, 2.5, 3.0, 4.0), 200
_FEW_CLEAN = 60  # replies for each prompt of a small sweep
_FEW_RANDOM = 6  # below which intervals are not to be trusted
_SHORT, _LONG = 24, 60  # tokens of replies of an embedded model, of another


def design_for(config: Config, dose: Dose, concepts: Sequence[str], *, is_embedded: bool) -> TrialDesign:
    """Return the design of a preset; raises UsageError for options that contradict each other."""
    controls = Controls(random=config.n_random)
    shared = TrialDesign(
        concepts=tuple(concepts),
        layers=(format_layers(dose.layers),),
        strengths=tuple(dose.times(factor).amount for factor in config.factors),
        relative=dose.is_relative,
        prompts=PROMPTS if config.prompts is None else config.prompts,
        steer=config.steer,
        controls=controls,
        seed=config.seed,
        max_new_tokens=_SHORT if is_embedded else _LONG,
    )
    if config.preset in (None, "small"):
        few = replace(controls, clean=_FEW_CLEAN, mention=2, random=min(_FEW_RANDOM, controls.random))
        shared = replace(shared, samples=4, control_samples=1, controls=few)
    if config.preset == "published":
        shared = replace(shared, layers=(), depths=_DEPTHS, strengths=_STRENGTHS, relative=False)
        shared = replace(shared, max_new_tokens=_TOKENS)
    if config.samples is not None:
        shared = replace(shared, samples=config.samples)
    if config.max_new_tokens is not None:
        shared = replace(shared, max_new_tokens=config.max_new_tokens)
    return shared if config.pilot is None else replace(shared, pilot=_pilot(config, config.pilot))


def _pilot(config: Config, samples: int) -> Pilot:
    """Return the pilot of the options; a server is told its cost first, so the rules read a pilot for it."""
    judge = "rules" if config.judge is None or config.judge.startswith("openai:") else config.judge
    return Pilot(samples=samples, coherence=config.pilot_coherence, judge=judge)
