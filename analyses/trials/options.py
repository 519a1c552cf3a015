"""The options of a sweep of trials, what a run reads before its model is loaded, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from analyses.kit import checks, option_types
from analyses.kit.declarations import option
from analyses.kit.facts import ModelFacts
from analyses.kit.options import Common
from analyses.trials.judging import PUBLISHED, JudgeFacts, check_judge
from mechint.base.errors import UsageError
from mechint.base.files import check_writable
from mechint.trials.pilot import COHERENCE, pilot_note
from mechint.trials.power import SPREAD

if TYPE_CHECKING:
    from mechint.trials.design import TrialDesign
    from mechint.trials.importers import Imported
    from mechint.vectors.concept_vectors import ConceptVector

NAME = "trials"
Preset = Literal["small", "full", "published"]
Format = Literal["auto", "open-introspection", "injected-thoughts", "plain"]
# Replies are steered at every token, where a cache is at the marked turn alone, so at less than the dose.
FACTORS = (0.25, 0.5, 1.0)
PUBLISHED_VECTORS = "open-introspection"
_FACTORS = option_types.numbers("different numbers above 0, for example 0.5,1,2", lambda factors: min(factors) > 0)
# What a design says by itself, and what has no effect where nothing is sampled.
_SIZES = ("preset", "prompts", "samples", "pilot", "pilot_coherence", "max_new_tokens", "factors", "steer")
_INJECTION = ("concepts", "layers", "strength", "relative_strength", "dose", "n_random", "seed")
_SAMPLING = ("design", *_SIZES, *_INJECTION, "ablate", "vectors", "method", "explain")
_IMPORTING = ("format", "leave_out", "as_published", "unmatched")


@dataclass(frozen=True, kw_only=True)
class Config(Common):
    """All options of this analysis."""

    GROUP: ClassVar[str] = "trials"

    preset: Preset | None = option(
        "small: a minute with an embedded model; full: 20 replies of each concept at a place and 400 clean ones; "
        "published: depths, strengths, numbers and vectors of open-introspection (default: small)"
    )
    design: Path | None = option("a JSON file of a whole design, instead of a preset", parse=option_types.path)
    prompts: tuple[str, ...] | None = option(
        "plain,standard,explained,mechanism,permission,prior (default: plain,standard)", parse=option_types.names
    )
    factors: tuple[float, ...] = option("strengths, times the dose's: 0.5,1,2", default=FACTORS, parse=_FACTORS)
    steer: tuple[str, ...] = option(
        "where steering acts: prefill,reply,onward,everything (default: reply; of each concept at a place so many "
        "replies in every mode)",
        default=("reply",),
        parse=option_types.names,
    )
    ablate: Path | None = option(
        "a vector file: its directions are removed from the stream of the whole sweep, clean replies too, as those of "
        "refusals (mi.extract.mean_contrast, mi.ablate)",
        parse=option_types.path,
    )
    samples: int | None = option(
        "replies of each concept to a prompt at a place (default: the preset's)",
        parse=option_types.whole_number(1, option_types.MOST_TOKENS),
    )
    pilot: int | None = option(
        "so many of the samples first: concepts are dropped at places where hardly any of these replies can be read, "
        "and figures say so (4, for example; default: none)",
        parse=option_types.whole_number(1, option_types.MOST_TOKENS),
    )
    pilot_coherence: float = option(
        "share of a pilot's replies that --judge (of a server: rules) must find coherent for a cell to stay",
        default=COHERENCE,
        parse=option_types.share,
    )
    max_new_tokens: int | None = option(
        "after which replies are cut off (default: the preset's)",
        parse=option_types.whole_number(1, option_types.MOST_TOKENS),
    )
    judge: str | None = option(
        "rules, rules+loss:MODEL, local:MODEL, openai:URL#MODEL; of imported trials also published (default: rules; of "
        "imported trials the published verdicts, if there are any)",
        parse=option_types.words,
    )
    import_: Path | None = option(
        "sample nothing: a file or a folder of trials of others, or of this analysis", parse=option_types.path
    )
    format: Format = option("of --import", default="auto")
    leave_out: tuple[str, ...] = option(
        "a file of --import that is not used; may be given several times",
        default=(),
        parse=option_types.words,
        metavar="FILE",
        repeated=True,
    )
    as_published: bool = option("keep files of --import that do not hold what they say, and mark them", default=False)
    unmatched: bool = option("pool imported groups whose layers and strengths differ; figures say so", default=False)
    explain: bool = option("say what the design takes and what it can find; sample nothing", default=False)
    spread: float = option(
        "standard deviation between concepts that --explain expects", default=SPREAD, parse=option_types.share
    )


@dataclass(frozen=True)
class TrialInputs:
    """What a run has read before its model is loaded: files of options, a design, or trials of others.

    `ablate` is the vector whose directions are removed, by the name that the design has for it.
    """

    files: checks.Files | None = None
    ablate: ConceptVector | None = None
    design: TrialDesign | None = None
    imported: Imported | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A run: its model, design and prompts, or where its trials are from; and the judge with its errors.

    `extraction` says how the vectors were made, as far as they say it: method/read/against.
    """

    judge: JudgeFacts
    model: ModelFacts | None = None
    design: Mapping[str, object] | None = None
    design_key: str | None = None
    pilot: Mapping[str, object] | None = None
    vectors: Mapping[str, str] | None = None
    extraction: str = ""
    prompts: Mapping[str, str] | None = None
    source: str | None = None
    integrity: str | None = None
    marked_files: tuple[str, ...] = ()
    unmatched: bool = False

    @property
    def caption(self) -> str:
        """What figures say of the run: its model and where was injected, or the files that the trials are from."""
        if self.model is None:
            kept = f"; {len(self.marked_files)} files kept that do not hold what they say" if self.marked_files else ""
            return f"imported from {self.source}{kept}{'; grids may differ' if self.unmatched else ''}"
        method = f"vectors by {self.extraction}" if self.extraction else ""
        return "; ".join(text for text in (self.model.short_name, method, pilot_note(self.pilot)) if text)


def check(config: Config) -> TrialInputs:
    """Return what options name; raises for all bad input that can be known without a model."""
    check_judge(config.judge, is_import=config.import_ is not None)
    if config.import_ is not None:
        return _imported(config, config.import_)
    from mechint.trials.cells import steer_of
    from mechint.trials.prompts import TrialPrompts, concept_lexicon

    checks.check_effect(True, "trials that are sampled", config, _IMPORTING)
    checks.check_effect(True, "trials, which have prompts of their own", config, ("conversations", "limit"))
    checks.check_whole(config, "replies are sampled together, and kept as they end")
    design = None
    if config.design is not None:
        from mechint.trials.design import TrialDesign

        checks.check_effect(True, "--design", config, (*_SIZES, *_INJECTION))
        design = TrialDesign.load(config.design)
    if config.preset == "published":
        fixed = ("factors", "layers", "strength", "relative_strength", "dose")
        checks.check_effect(True, "--preset published", config, fixed)
    no_pilot = config.pilot is None and config.design is None
    checks.check_effect(no_pilot, "no --pilot", config, ("pilot_coherence",))
    for mode in config.steer:
        steer_of(mode)  # raises for a mode that is none
    prompts = TrialPrompts.load()
    for name in design.prompts if design is not None else config.prompts or ():
        prompts.named(name)  # raises for a name that is none
    prompts.check_leaks(design.concepts if design is not None else config.concepts or (), concept_lexicon())
    files = checks.check_common(of_design(config, design), NAME)
    return TrialInputs(files, _direction(config, design), design)


def _direction(config: Config, design: TrialDesign | None) -> ConceptVector | None:
    """Return the vector of `--ablate`; raises UsageError for a design that ablates another, or has none for it."""
    if config.ablate is None:
        if design is not None and design.ablate:
            raise UsageError(
                given=f"a design that ablates {design.ablate!r}, without --ablate",
                allowed="--ablate FILE with the vector of that name",
                advice="write it: mi.extract.mean_contrast(...).save(FILE)",
            )
        return None
    from mechint.vectors.concept_vectors import ConceptVector

    vector = ConceptVector.load(config.ablate)
    name = vector.name if design is None or not design.ablate else design.ablate
    names = config.concepts if design is None else design.names
    if name in (names or ()):
        raise UsageError(
            given=f"--ablate {config.ablate}: {name} is injected, too",
            allowed="a direction with a name of its own",
            advice="rename the file, or leave the concept out",
        )
    return replace(vector, name=name)


def of_design(config: Config, design: TrialDesign | None) -> Config:
    """Return the options under which a design gets its vectors; no dose is calibrated that it has no use for."""
    if design is not None:
        return replace(config, concepts=design.names, relative_strength=design.strengths[0])
    if config.preset != "published":
        return config
    own = config.method is not None or config.vectors is not None
    # Its strengths are factors on vectors as they are, so they say something of such vectors alone.
    return replace(config, relative_strength=1.0, method=config.method if own else PUBLISHED_VECTORS)


def _imported(config: Config, path: Path) -> TrialInputs:
    from mechint.trials.importers import import_trials

    checks.check_effect(True, "--import, which samples nothing", config, _SAMPLING)
    checks.check_whole(config, "imported trials are read at once")
    check_writable(config.out / NAME, "--out")
    imported = import_trials(path, config.format, leave_out=list(config.leave_out), as_published=config.as_published)
    if config.judge == PUBLISHED and imported.verdicts.empty:
        raise UsageError(
            given=f"--judge {PUBLISHED}: no verdicts in {path}",
            allowed="a judge that reads the replies now",
            advice="take --judge rules",
        )
    return TrialInputs(imported=imported)
