"""Which SAE features carry an injected concept to the answer, and are they causes or only correlates?"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from analyses.kit import checks, cli, option_types, resume
from analyses.kit import dose as injected
from analyses.kit import questions as asked
from analyses.kit import record as run
from analyses.kit import study as experiment
from analyses.kit.study import Setup
from analyses.sae_attribution import source as sae_source

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from analyses.sae_attribution.cases import Case, Study
    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation

NAME = "sae_attribution"
METHODS = ("gradient", "integrated", "patching")
TOP = 12  # with 8 concepts, the most of which an exact test can still tell a single cause
MOST = 4  # conversations, unless the options say how many
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(asked.Options):
    """All options of this analysis."""

    sae: int | str | None
    any_model_sae: bool
    attribution: Literal["gradient", "integrated", "patching"]
    top: int | None
    features: tuple[int, ...] | None


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group("SAE attribution")
    sae_source.add_options(group)
    group.add_argument("--attribution", choices=METHODS, default="integrated", help="patching needs no gradient")
    group.add_argument(
        "--top",
        type=option_types.whole_number(1),
        help=f"features that get a verdict: the largest attributions (default: {TOP})",
    )
    group.add_argument("--features", type=option_types.indices, help="features that get a verdict instead: 3,14,159")
    asked.add_options(group)
    return options


def check(config: Config) -> None:
    """Raise for all bad input that can be known without a model, and for options that would have no effect."""
    checks.check_whole(config, "which features are tested depends on all concepts")
    checks.check_effect(config.sae is None, "an embedded SAE, which is of its model", config, ("any_model_sae",))
    checks.check_effect(config.features is not None, "--features", config, ("top",))
    checks.check_effect(config.conversations is not None, "--conversations", config, asked.WORDED)
    checkpoint = checks.check_common(config, NAME)
    sae_source.check(config.sae, config.model, checkpoint, config.features, any_model=config.any_model_sae)
    questions(config, checkpoint.prompts)


def questions(config: Config, prompt_set: str) -> list[Conversation]:
    """Return the introspection question in every answer format, or those of `--conversations`; the first `--limit`.

    Raises UsageError if one of them has no marked turn, or where there is none.
    """
    from mechint import prompts
    from mechint.prompts.design import PromptDesign

    wording = config.wording
    if config.conversations is None:
        formats = {} if config.format is None else {"formats": [wording.format]}
        cell = {"descriptions": [wording.description], "infos": [wording.info], **formats}
        return prompts.introspection(PromptDesign.load(prompt_set), **cell)[
            : MOST if config.limit is None else config.limit
        ]
    every = asked.conversations(dataclasses.replace(config, limit=None), wording, prompt_set)
    introspection = [chat for chat in every if asked.kind_of(chat) == "introspection"][: config.limit]
    checks.check_marked(config, introspection)
    return introspection


def compute(config: Config) -> tuple[pd.DataFrame, Mapping[str, JSON]]:
    """Return all that was measured in every case, of which `part` says what it is, and a text with activations."""
    import pandas as pd

    from analyses.sae_attribution import measures
    from analyses.sae_attribution.cases import Study
    from mechint.attribution.features import loading

    setup = Setup.of(config, NAME)
    dictionary = loading.load(setup.model, config.sae, any_model=config.any_model_sae)
    if config.features is not None:
        dictionary.check_features(config.features)
    study, chats = Study(setup, dictionary, config.attribution), questions(config, setup.model.prompts)
    every = study.cases(chats)
    with run.sparing_threads(setup.model):
        first = resume.compute(config, NAME, "attribution", [case.attributed() for case in every])
        sae_record = _sae_record(study, measures.split(first))
        plan = measures.plan(
            measures.split(first)["attribution"],
            config.features,
            TOP if config.top is None else config.top,
            config.seed,
        )
        tested = [case for case in every if case.condition.series == "injected"]
        second = resume.compute(config, NAME, "causes", [case.caused(plan) for case in tested])
        text = _text(tested, measures.split(first)["attribution"], plan.candidates)
    receipts = [*first.attrs.pop("receipts"), *second.attrs.pop("receipts")]
    rows = pd.concat([first, second], ignore_index=True)
    rows.attrs["receipts"] = receipts
    return rows, {"sae": sae_record, **setup.record(chats), "text": text}


def _sae_record(study: Study, tables: Mapping[str, pd.DataFrame]) -> dict[str, JSON]:
    """Return what is known of the SAE, told first: how well it rebuilds the stream at these positions."""
    from analyses.sae_attribution import measures
    from mechint.figures import sae_notice

    quality, dictionary = measures.quality(tables["quality"]), study.dictionary
    notice = f"{dictionary.name}: {sae_notice(quality)}".replace("<b>", "").replace("</b>", "")
    if quality.poor:
        _LOG.warning("%s", notice)
    else:
        sys.stderr.write(f"{notice}\n")
    shape: dict[str, JSON] = {"name": dictionary.name, "layer": dictionary.layer, "d_sae": dictionary.d_sae}
    reconstruction: JSON = {**dataclasses.asdict(quality), "poor": quality.poor}
    return {**shape, "neuronpedia": dictionary.neuronpedia, "reconstruction": reconstruction}


def _text(tested: Sequence[Case], attribution: pd.DataFrame, candidates: Sequence[int]) -> JSON:
    """Return the first conversation under the concept with the median shift, with its strongest features."""
    from analyses.sae_attribution.cases import TEXT_FEATURES

    cases = [case for case in tested if case.chat.label == tested[0].chat.label]
    rows = attribution[attribution["conversation"] == tested[0].chat.label]
    shifts = rows.groupby("unit")["logit_diff_shift"].first()
    case = sorted(cases, key=lambda case: float(shifts[case.condition.unit]))[len(cases) // 2]
    active = rows[(rows["unit"] == case.condition.unit) & rows["index"].isin(candidates)]
    strongest = active.reindex(active["attribution"].abs().sort_values(ascending=False, kind="stable").index)
    chosen = [int(index) for index in strongest["index"][:TEXT_FEATURES]]
    return case.text(chosen or list(candidates[:1]))


def draw(
    rows: pd.DataFrame, config: Config, record: Mapping[str, JSON]
) -> tuple[Mapping[str, go.Figure], Mapping[str, JSON]]:
    """Return the figures, and the verdicts for the record."""
    from analyses.sae_attribution import measures
    from analyses.sae_attribution.figures import Subject, figures

    measured = measures.Measured.of(rows)
    subject = Subject.of(record, injected.Dose.of(record["dose"]), run.short_name(record), config.attribution)
    return figures(measured, subject), {"verdict": run.as_json(measured.verdict())}


@dataclasses.dataclass(frozen=True)
class _Analysis(experiment.Analysis[Config]):
    """Leaves several tables."""

    def execute(self, config: Config, argv: Sequence[str]) -> list[Path]:
        """Run the analysis and write its results; returns their paths."""
        import mechint as mi
        from analyses.sae_attribution import measures

        clock, directory = run.Clock(), config.out / NAME
        self.check(config)
        run.check_place(directory, config, None)
        rows, record = self.compute(config)
        run.check_place(directory, config, record)
        receipts = rows.attrs.pop("receipts")
        drawn, more = self.draw(rows, config, record)
        tables = measures.Measured.of(rows).tables()
        paths = [path for name, table in tables.items() for path in run.write_table(table, directory, name)]
        paths += mi.figures.save_all(drawn, directory, script_in=config.out)
        complete = {**record, **more, "receipts": receipts}
        written = run.finish(directory, paths, config=config, argv=argv, clock=clock, record=complete)
        run.discard_store(directory, None)
        return written


ANALYSIS = _Analysis(NAME, Config, parser, check, compute, draw)
main = ANALYSIS.main
