"""At which layers can the model's knowledge of an injected concept be read? Clean against injected, with controls."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from analyses import asked, checks, cli, injected, run

if TYPE_CHECKING:
    import pandas as pd

    from mechint.chat import Conversation
    from mechint.files import JSON
    from mechint.model import Model

NAME = "logit_lens"
_INJECTIONS_PER_CHUNK = 15  # what an interruption can cost at most; 16 rows with the clean one


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


def compute(
    config: Config, model: Model, cells: Sequence[injected.Cell], conversations: Sequence[Conversation]
) -> pd.DataFrame:
    """Return the tidy table: the columns of `mi.logit_lens` (its `layer` as text) and what each row's cell is.

    `attrs["receipts"]` holds the receipts. An interrupted call leaves its finished chunks for the next one.
    """
    chunks = list(_chunks(config, model, cells, conversations))
    store = run.Store.open(
        config.out / NAME,
        [model.identity, model.backend.kind, str(model.device), config.batch_size],
        [[conversation.to_dict(), run.token_hash(model, conversation)] for conversation in conversations],
        [[cell.injection.name, cell.injection.key, cell.kind] for cell in cells],
    )
    table = run.run_chunks(chunks, store, NAME)
    store.discard()
    return table


def _chunks(
    config: Config, model: Model, cells: Sequence[injected.Cell], conversations: Sequence[Conversation]
) -> Iterator[run.Chunk]:
    """Yield chunks: injections with the same conversations to read, a few at a time."""
    keep_clean = True
    for those, questions in _groups(config, cells, conversations):
        for start in range(0, len(those), _INJECTIONS_PER_CHUNK):
            batch = those[start : start + _INJECTIONS_PER_CHUNK]
            work = partial(_lens, model, batch, questions, batch_size=config.batch_size, keep_clean=keep_clean)
            yield run.Chunk((len(batch) + 1) * len(questions), work)
            keep_clean = False


def _groups(
    config: Config, cells: Sequence[injected.Cell], conversations: Sequence[Conversation]
) -> Iterator[tuple[list[injected.Cell], list[Conversation]]]:
    """Yield which injections are read with which conversations.

    Concepts are asked the control questions too, in a sweep a few of them; random vectors the introspection questions.
    """
    introspection = [conversation for conversation in conversations if asked.kind_of(conversation) == "introspection"]
    concepts = [cell for cell in cells if cell.kind == "concept"]
    yield [cell for cell in concepts if cell.placement.sweep == "main"], list(conversations)
    yield [cell for cell in concepts if cell.placement.sweep != "main"], asked.for_sweep(config, conversations)
    yield [cell for cell in cells if cell.kind == "random"], introspection


def _lens(
    model: Model,
    cells: Sequence[injected.Cell],
    conversations: Sequence[Conversation],
    progress: run.Progress,
    *,
    batch_size: int,
    keep_clean: bool,
) -> pd.DataFrame:
    """Return the rows of one chunk; the clean rows, which every shift needs, are kept from one chunk only."""
    from mechint.interventions import CLEAN, Intervention
    from mechint.lens import logit_lens

    what: list[Intervention] = [*([CLEAN] if keep_clean else []), *(cell.injection for cell in cells)]
    table = logit_lens(model, conversations, what, batch_size=batch_size, progress=progress)
    receipts = [run.short_receipt(receipt) for receipt in table.attrs["receipts"]]
    table = asked.described(injected.described(table, cells), conversations)
    table = table.assign(layer=table["layer"].astype(str))
    table.attrs["receipts"] = receipts
    return table


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


def execute(config: Config, argv: Sequence[str]) -> list[Path]:
    """Run the analysis and write its results; returns their paths."""
    clock, directory = run.Clock(), config.out / NAME
    check(config)
    injected.stored_vectors(config)  # files that do not load are known before the model is
    import mechint as mi
    from analyses.logit_lens_figures import figures

    model = mi.load(config.model, backend=config.backend, device=config.device, dtype=config.dtype)
    conversations = asked.conversations(config, config.wording, model.prompts)
    with run.sparing_threads(model):
        dose, cells = prepare(config, model)
        table = compute(config, model, cells, conversations)
    paths = run.write_table(table, directory)
    paths += mi.figures.save_all(figures(table, config, dose, model.name), directory)
    found: dict[str, JSON] = {
        "model": run.describe_model(model),
        "dose": run.as_json(dose),
        "vectors": {cell.vector: cell.injection.vector.fingerprint() for cell in cells},
        "conversations": [conversation.label for conversation in conversations],
        "receipts": table.attrs["receipts"],
    }
    return run.finish(directory, paths, config=config, argv=argv, clock=clock, found=found)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)

    def task() -> None:
        paths = execute(Config(**vars(parser().parse_args(argv))), argv)
        sys.stdout.write("".join(f"{path}\n" for path in paths if path.suffix == ".html"))

    return cli.guarded(task)


if __name__ == "__main__":
    sys.exit(main())
