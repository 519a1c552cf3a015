"""At which layers, how strongly, and with which vectors to inject: where they work, and text is still coherent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from analyses.kit import checks, dose_trial, option_types, plain_text
from analyses.kit.analysis import Analysis, Drawn, unchanged
from analyses.kit.declarations import option
from analyses.kit.dose import CalibratedDose, common_layers
from analyses.kit.options import Common
from analyses.kit.study import Inputs
from analyses.kit.subject import Subject
from mechint.vectors.extraction import EXTRACTIONS

if TYPE_CHECKING:
    import pandas as pd

    from mechint.vectors.concept_vectors import ConceptVector

NAME = "dose"
_N_TEXTS = 2  # of each kind that choose, and others that are held out
_MOST_WINDOWS, _MOST_REPLIES = 100, 3
_STRENGTHS = option_types.numbers("different numbers above 0: 0.02,0.05,0.1", lambda strengths: min(strengths) > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Common):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "dose"
    GROUP_TEXT: ClassVar[str] = "what is tried; --layers narrows it to these"

    windows: int = option(
        "windows of a third of the depth, spread over it",
        default=dose_trial.WINDOWS,
        parse=option_types.whole_number(1, _MOST_WINDOWS),
    )
    strengths: tuple[float, ...] = option(
        "a,b,c, relative to the model's median residual norm", default=dose_trial.STRENGTHS, parse=_STRENGTHS
    )
    extractions: tuple[str, ...] | None = option(
        "ways to extract vectors that are compared, beside --method: paired_pca,mean_difference/concept/others "
        "(default: all)",
        parse=option_types.extractions,
    )
    replies: int = option(
        "open requests that are answered under steering", default=2, parse=option_types.whole_number(1, _MOST_REPLIES)
    )
    max_new_tokens: int = option(
        "after which replies are cut off", default=32, parse=option_types.whole_number(1, option_types.MOST_TOKENS)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts(plain_text.TextFacts):
    """A run; its dose is the proposed one. `cosines` are means over pairs of concepts at its layers, by extraction."""

    dose: CalibratedDose
    cosines: Mapping[str, float]


def check(config: Config) -> Inputs:
    """Return the files of a run.

    Raises for all bad input that can be known without a model, and for options that would have no effect.
    """
    checks.check_whole(config, "a dose is chosen from all that was read, and tried again")
    checks.check_effect(True, "dose, which finds them", config, ("strength", "relative_strength", "dose"))
    checks.check_effect(True, "dose, which asks its own requests", config, ("conversations", "limit"))
    checks.check_effect(config.layers is not None, "--layers", config, ("windows",))
    checks.check_effect(config.vectors is not None, "--vectors", config, ("extractions",))
    return Inputs(checks.check_common(config, NAME), [])


def plan(config: Config, subject: Subject) -> dose_trial.Plan:
    """Return what is tried."""
    available = common_layers(subject.concepts)
    spread = dose_trial.windows(config.windows, subject.model.n_layers, available)
    return dose_trial.Plan(
        layers=spread if config.layers is None else (config.layers,),
        strengths=config.strengths,
        n_texts=_N_TEXTS,
        n_requests=config.replies,
        n_tokens=config.max_new_tokens,
        thorough=True,
    )


def compute(config: Config, inputs: Inputs) -> tuple[pd.DataFrame, Facts]:
    """Return the rows of all texts and replies, and the dose that they speak for."""
    subject = Subject.of(dataclasses.replace(config, dose="default"), inputs.files, NAME)
    listed = [str(way) for way in EXTRACTIONS] if config.extractions is None else config.extractions
    vectors = dose_trial.extractions(config, subject.model, NAME, inputs.files.vectors, listed)
    texts = plain_text.Texts.of(subject)
    rows, proposal = dose_trial.run_trial(dose_trial.Trial(subject, NAME, plan(config, subject), vectors), texts)
    dose = CalibratedDose.of(proposal)
    chosen = dataclasses.replace(subject, dose=dose, concepts=vectors[proposal.extraction])
    cosines = {way: _cosine(of, dose.layers) for way, of in vectors.items() if len(of) > 1}
    return rows, Facts(**vars(chosen.facts([])), replies=texts.replies, cosines=cosines)


def _cosine(vectors: Mapping[str, ConceptVector], layers: tuple[int, ...]) -> float:
    from mechint.vectors.specificity import cosines

    return round(cosines(vectors, layers).mean, 4)


def draw(table: pd.DataFrame, config: Config, facts: Facts) -> Drawn:
    """Return the figures of a finished table, and the proposal."""
    from analyses.dose.figures import figures

    return figures(table, facts), {"clean_perplexity": plain_text.clean_perplexities(table)}


ANALYSIS = Analysis(NAME, __doc__ or "", Config, Facts, check, compute, draw, unchanged)
main = ANALYSIS.main
run = ANALYSIS.run
