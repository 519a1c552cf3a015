"""Which SAE features carry an injected concept to the answer, and are they causes or only correlates?"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from analyses.kit import checks, option_types, questions, resume, study
from analyses.kit.adapted import AdapterOptions
from analyses.kit.analysis import Analysis, Drawn, unchanged
from analyses.kit.declarations import option
from analyses.kit.record import as_json, sparing_threads
from analyses.kit.subject import Subject
from analyses.sae_attribution import source
from analyses.sae_attribution.facts import Excerpt, Facts, SAEFacts

if TYPE_CHECKING:
    import pandas as pd

    from analyses.kit.cases import Case
    from analyses.sae_attribution.cases import Study
    from mechint.attribution.features.config import SAEConfig
    from mechint.attribution.features.dictionary import Dictionary
    from mechint.chat.conversations import Conversation
    from mechint.models.model import Model

NAME = "sae_attribution"
TOP = 12  # with 8 concepts, the most of which an exact test can still tell a single cause
MOST = 4  # conversations, unless the options say how many
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Config(questions.QuestionOptions, AdapterOptions):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "SAE attribution"

    sae: int | str | None = option(
        "a directory, RELEASE:ID, an embedded SAE's layer (default: late); or trained: on text of the model's own, at "
        "two thirds of its depth or trained:LAYER, minutes, and kept in the cache folder",
        parse=option_types.source,
    )
    any_model_sae: bool = option("take it although it says it was trained on another model", default=False)
    attribution: Literal["gradient", "integrated", "patching"] = option(
        "patching needs no gradient", default="integrated"
    )
    top: int | None = option(
        f"features that get a verdict: the largest attributions (default: {TOP})", parse=option_types.whole_number(1)
    )
    features: tuple[int, ...] | None = option(
        "features that get a verdict instead: 3,14,159", parse=option_types.indices
    )


@dataclass(frozen=True)
class Inputs(study.Inputs):
    """What a run has read before its model is loaded; `sae` is the configuration of an SAE on this machine."""

    sae: SAEConfig | None


def check(config: Config) -> Inputs:
    """Return files, conversations and SAE of a run; raises for all bad input that can be known without a model."""
    checks.check_whole(config, "which features are tested depends on all concepts")
    checks.check_effect(config.sae is None, "an embedded SAE, which is of its model", config, ("any_model_sae",))
    trained = source.is_trained(config.sae)
    checks.check_effect(trained, "an SAE that is trained, which is of its model", config, ("any_model_sae",))
    checks.check_effect(config.features is not None, "--features", config, ("top",))
    checks.check_effect(config.conversations is not None, "--conversations", config, questions.WORDED)
    files = checks.check_common(config, NAME)
    if trained:
        source.check_trained(config.sae, files.checkpoint)
    sae = source.config_of(config.sae, config.model)
    if sae is not None:
        source.check(sae, config.model, files.checkpoint, config.features, any_model=config.any_model_sae)
    return Inputs(files, conversations(config, files), sae)


def conversations(config: Config, files: checks.Files) -> list[Conversation]:
    """Return the introspection question in every answer format, or those of `--conversations`; the first `--limit`.

    Raises UsageError if one of them has no marked turn, or where there is none.
    """
    from mechint import prompts
    from mechint.prompts.design import PromptDesign

    wording = config.wording
    if files.conversations is None:
        formats = None if config.format is None else [wording.format]
        design, cell = (
            PromptDesign.load(files.prompts),
            {"descriptions": [wording.description], "infos": [wording.info]},
        )
        return prompts.introspection(design, **cell, formats=formats)[: MOST if config.limit is None else config.limit]
    every = questions.conversations(replace(config, limit=None), wording, files)
    introspection = [chat for chat in every if questions.kind_of(chat) == "introspection"][: config.limit]
    checks.check_marked(config, introspection)
    return introspection


def compute(config: Config, inputs: Inputs) -> tuple[pd.DataFrame, Facts]:
    """Return all that was measured in every case, of which `part` says what it is, and a text with activations."""
    from analyses.sae_attribution import measures
    from analyses.sae_attribution.cases import Study

    subject = Subject.of(
        config, inputs.files, NAME, inputs.conversations, lambda model: _check_sae(config, inputs, model)
    )
    with sparing_threads(subject.model):
        # It is the base's, whatever is on top of that.
        owner = subject.model if subject.base is None else subject.base
        dictionary = source.load(owner, config.sae, inputs.sae, any_model=config.any_model_sae)
    if config.features is not None:
        dictionary.check_features(config.features)
    measured = Study(subject, dictionary, config.attribution)
    cases = measured.cases(inputs.conversations)
    tested = [case for case in cases if case.condition.series == "injected"]
    with sparing_threads(subject.model):
        first = resume.compute_chunks(config, NAME, "attribution", [measured.attributed(case) for case in cases])
        parts = measures.split(first)
        sae = _sae_facts(dictionary, parts)
        plan = measures.plan(
            parts["attribution"], config.features, TOP if config.top is None else config.top, config.seed
        )
        second = resume.compute_chunks(config, NAME, "causes", [measured.caused(case, plan) for case in tested])
        text = _excerpt(measured, tested, parts["attribution"], plan.candidates)
    facts = Facts(**vars(subject.facts(inputs.conversations)), sae=sae, text=text)
    return resume.stacked(first, second), facts


def _check_sae(config: Config, inputs: Inputs, model: Model) -> None:
    """Raise for an SAE that does not fit, and for features it does not have; one that is to be trained fits."""
    if source.is_trained(config.sae):
        return
    dictionary = source.load(model, config.sae, inputs.sae, any_model=config.any_model_sae)
    if config.features is not None:
        dictionary.check_features(config.features)


def _sae_facts(dictionary: Dictionary, parts: Mapping[str, pd.DataFrame]) -> SAEFacts:
    """Return what is known of the SAE, and say how well it rebuilds the stream at these positions."""
    from analyses.sae_attribution import measures
    from mechint.figures import sae_notice

    quality = measures.quality(parts["quality"])
    notice = f"{dictionary.name}: {sae_notice(quality)}".replace("<b>", "").replace("</b>", "")
    if quality.poor:
        _LOG.warning("%s", notice)
    else:
        sys.stderr.write(f"{notice}\n")
    return SAEFacts.of(dictionary, quality)


def _excerpt(measured: Study, tested: Sequence[Case], attribution: pd.DataFrame, candidates: Sequence[int]) -> Excerpt:
    """Return the first conversation under the concept with the median shift, with its strongest features."""
    from analyses.sae_attribution.cases import TEXT_FEATURES

    cases = [case for case in tested if case.chat.label == tested[0].chat.label]
    rows = attribution[attribution["conversation"] == tested[0].chat.label]
    shifts = rows.groupby("unit")["logit_diff_shift"].first()
    case = sorted(cases, key=lambda case: float(shifts[case.condition.unit]))[len(cases) // 2]
    active = rows[(rows["unit"] == case.condition.unit) & rows["index"].isin(candidates)]
    strongest = active.reindex(active["attribution"].abs().sort_values(ascending=False, kind="stable").index)
    chosen = [int(index) for index in strongest["index"][:TEXT_FEATURES]]
    return measured.excerpt(case, chosen or list(candidates[:1]))


def draw(rows: pd.DataFrame, config: Config, facts: Facts) -> Drawn:
    """Return the figures, and the verdicts for the record."""
    from analyses.sae_attribution.figures import figures
    from analyses.sae_attribution.measures import Measured

    measured = Measured.of(rows)
    return figures(measured, facts, config.attribution), {"verdict": as_json(measured.verdict())}


def tables(rows: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """Return the tables of a run: attributions by case as `table`, and all else beside it."""
    from analyses.sae_attribution.measures import Measured

    return Measured.of(rows).tables()


ANALYSIS = Analysis(NAME, __doc__ or "", Config, Facts, check, compute, draw, unchanged, tables)
main = ANALYSIS.main
run = ANALYSIS.run
