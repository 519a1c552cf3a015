"""At which layers can the model's knowledge of an injected concept be read? Clean against injected, with controls."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from analyses import asked, checks, cli, injected, run, tables

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from mechint.chat import Conversation
    from mechint.files import JSON
    from mechint.model import Model

NAME = "logit_lens"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(cli.Common):
    """All options of this analysis."""

    metric: Literal["p_yes", "logit_diff"]
    layer_sweep: bool
    window: int | None
    method: injected.Method | None
    description: str | None
    info: str | None
    format: str | None

    @property
    def wording(self) -> asked.Wording:
        """The cell of the prompt set that is asked."""
        given = {"description": self.description, "info": self.info, "format": self.format}
        return asked.Wording(**{name: value for name, value in given.items() if value is not None})


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group("logit lens")
    group.add_argument("--metric", choices=("p_yes", "logit_diff"), default="p_yes", help="what the figures show")
    group.add_argument("--layer-sweep", action="store_true", help="also inject at every layer, and at sliding windows")
    group.add_argument("--window", type=cli.whole_number(1), help="layers per window (default: a third of the depth)")
    group.add_argument(
        "--method", choices=injected.METHODS, help=f"how vectors are made (default: {injected.METHODS[0]})"
    )
    usual = asked.Wording()
    group.add_argument("--description", help=f"what the prompt says was done (default: {usual.description})")
    group.add_argument("--info", help=f"info document that the prompt starts with (default: {usual.info})")
    group.add_argument("--format", help=f"answer format (default: {usual.format})")
    return options


def check(config: Config) -> None:
    """Raise for all bad input that can be known without a model, and for options that would have no effect."""
    checks.check_effect(config.conversations is not None, "--conversations", config, ("description", "info", "format"))
    checks.check_effect(config.vectors is not None, "--vectors", config, ("method",))
    checks.check_effect(not config.layer_sweep, "no --layer-sweep", config, ("window",))
    checkpoint = checks.check_common(config, NAME)
    asked.conversations(config, config.wording, checkpoint.prompts)
    if config.window is not None and checkpoint.n_layers is not None:
        injected.check_window(config.window, checkpoint.n_layers)


def asked_of(
    config: Config, model: Model, cells: Sequence[injected.Cell], conversations: Sequence[Conversation]
) -> tables.Asked:
    """Return what is asked of the model: which injections are read with which conversations, at every layer.

    Concepts are asked the control questions too, in a sweep a few of them; random vectors the introspection questions.
    Clean rows, which every shift needs, are shown once.
    """
    from mechint.capture import EMBED
    from mechint.interventions import CLEAN
    from mechint.job import Request
    from mechint.lens import with_labels

    introspection = [conversation for conversation in conversations if asked.kind_of(conversation) == "introspection"]
    concepts = [cell for cell in cells if cell.kind == "concept"]
    groups = (
        ([cell for cell in concepts if cell.placement.sweep == "main"], conversations),
        ([cell for cell in concepts if cell.placement.sweep != "main"], asked.for_sweep(config, conversations)),
        ([cell for cell in cells if cell.kind == "random"], introspection),
    )
    layers = (EMBED, *range(model.n_layers))
    requests = [
        Request(questions, [*([] if number else [CLEAN]), *(cell.injection for cell in those)], layers=layers)
        for number, (those, questions) in enumerate(groups)
        if those
    ]

    def about(_number: int, rows: pd.DataFrame) -> pd.DataFrame:
        named = with_labels(rows)
        named = named.assign(layer=named["layer"].astype(str))
        return asked.described(injected.described(named, cells), conversations)

    return tables.Asked(model, requests, about)


def prepare(config: Config, model: Model) -> tuple[injected.Dose, list[injected.Cell]]:
    """Return the dose and every injection of the run; vectors come from files or from the model."""
    method = config.method or injected.METHODS[0]
    dose = injected.dose(config, model, method)
    concepts = injected.stored_vectors(config) or injected.extracted_vectors(config, model, method, NAME)
    for vector in concepts.values():
        vector.check_fits(model.d_model, model.n_layers)
    controls = injected.random_vectors(config, model, list(concepts.values()))
    placements = [injected.Placement("main", dose.layers)]
    if config.layer_sweep:
        available = injected.common_layers(concepts)
        placements += injected.sweep_placements(config.window, available, model.n_layers)
    return dose, injected.cells(dose, placements, concepts, controls)


def draw(
    table: pd.DataFrame, config: Config, found: Mapping[str, JSON]
) -> tuple[Mapping[str, go.Figure], Mapping[str, JSON]]:
    """Return the figures of a finished table; nothing is added to the record."""
    from analyses.logit_lens_figures import figures

    return figures(table, config, injected.Dose.of(found["dose"]), run.model_name(found)), {}


def execute(config: Config, argv: Sequence[str]) -> list[Path]:
    """Run the analysis and write its results; returns their paths."""
    clock = run.Clock()
    check(config)
    injected.stored_vectors(config)  # files that do not load are known before the model is
    import mechint as mi

    model = mi.load(config.model, backend=config.backend, device=config.device, dtype=config.dtype)
    conversations = asked.conversations(config, config.wording, model.prompts)
    with run.sparing_threads(model):
        dose, cells = prepare(config, model)
    rows = tables.compute(config, NAME, [asked_of(config, model, cells, conversations)])
    found: dict[str, JSON] = {
        "model": run.describe_model(model),
        "dose": run.as_json(dose),
        "vectors": {cell.vector: cell.injection.vector.fingerprint() for cell in cells},
        "conversations": [conversation.label for conversation in conversations],
    }
    return tables.complete(tables.Run(NAME, draw, config, argv, clock, found), rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    return cli.run_analysis(argv, lambda given: Config(**vars(parser().parse_args(given))), execute)


if __name__ == "__main__":
    sys.exit(main())
