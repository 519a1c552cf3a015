"""At which layers can the model's knowledge of an injected concept be read? Clean against injected, with controls."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from analyses import cli, run, setup
from analyses.cli import Common
from mechint.errors import LayerRangeError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from mechint.chat import Conversation
    from mechint.files import JSON
    from mechint.interventions import Injection
    from mechint.model import Model
    from mechint.vectors import ConceptVector

NAME = "logit_lens"
Sweep = Literal["main", "single", "window"]
_INJECTIONS_PER_CHUNK = 16  # what an interruption can cost at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Common):
    """All options of this analysis."""

    metric: Literal["p_yes", "logit_diff"]
    layer_sweep: bool
    window: int | None
    method: setup.Method
    description: str
    info: str
    format: str

    @property
    def wording(self) -> setup.Wording:
        """The cell of the prompt set that is asked."""
        return setup.Wording(self.description, self.info, self.format)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One injection and what the table says about it."""

    injection: Injection
    vector: str
    vector_kind: setup.VectorKind
    sweep: Sweep
    layers: tuple[int, ...]


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    options = cli.common_parser(f"analyses.{NAME}", __doc__ or "")
    group = options.add_argument_group("logit lens")
    group.add_argument("--metric", choices=("p_yes", "logit_diff"), default="p_yes", help="what the figures show")
    group.add_argument("--layer-sweep", action="store_true", help="also inject at every layer, and at sliding windows")
    group.add_argument("--window", type=cli.whole_number(1), help="layers per window (default: a third of the depth)")
    group.add_argument(
        "--method", choices=("paired_pca", "mean_difference"), default="paired_pca", help="how vectors are extracted"
    )
    group.add_argument("--description", default="injection", help="what the prompt says was done")
    group.add_argument("--info", default="introspection", help="info document that the prompt starts with")
    group.add_argument("--format", default="yes-no", help="answer format")
    return options


def placements(
    config: Config, dose: setup.Dose, available: Sequence[int], n_layers: int
) -> list[tuple[Sweep, tuple[int, ...]]]:
    """Return the sets of layers to inject at: the dose's own, then with --layer-sweep every layer and every window.

    Layers that some vector lacks (`available` has not) are left out of the sweep. Raises LayerRangeError for a window
    that is longer than the model.
    """
    found: list[tuple[Sweep, tuple[int, ...]]] = [("main", dose.layers)]
    if not config.layer_sweep:
        return found
    width = config.window or max(2, round(n_layers / 3))
    if width > n_layers:
        raise LayerRangeError(f"--window {width}", f"1 to {n_layers} layers", "choose a shorter window")
    windows = [tuple(range(first, first + width)) for first in range(n_layers - width + 1)]
    found += [("single", (layer,)) for layer in available]
    found += [("window", window) for window in windows if set(window) <= set(available)]
    return found


def injections(config: Config, model: Model, dose: setup.Dose) -> list[Cell]:
    """Return every injection of the run: each placement of each concept vector and of each random vector."""
    concepts = setup.concept_vectors(config, model, config.method)
    for vector in concepts.values():
        vector.check_fits(model.d_model, model.n_layers)
    vectors: dict[str, tuple[setup.VectorKind, ConceptVector]] = {n: ("concept", v) for n, v in concepts.items()}
    controls = setup.random_vectors(config, model, list(concepts.values()))
    vectors |= {name: ("random", vector) for name, vector in controls.items()}
    available = sorted(set.intersection(*(set(vector.layers) for _, vector in vectors.values())))
    return [
        Cell(dose.injection(vector, f"{name} {sweep} {cli.format_layers(layers)}", layers), name, kind, sweep, layers)
        for sweep, layers in placements(config, dose, available, model.n_layers)
        for name, (kind, vector) in vectors.items()
    ]


def compute(config: Config, model: Model, cells: Sequence[Cell], conversations: Sequence[Conversation]) -> pd.DataFrame:
    """Return the tidy table: one row per conversation, injection (or none) and layer, with what each one is."""
    chunks = list(_chunks(config, model, cells, conversations))
    inputs = [model.identity, model.backend.kind, config.batch_size]
    inputs += [conversation.to_dict() for conversation in conversations]
    inputs += [[cell.injection.name, cell.injection.key, cell.vector_kind] for cell in cells]
    store = run.Store.open(config.out / NAME, *inputs)
    table = run.run_chunks(chunks, store, f"{NAME} on {model.name}")
    store.discard()
    return table


def _chunks(
    config: Config, model: Model, cells: Sequence[Cell], conversations: Sequence[Conversation]
) -> Iterator[run.Chunk]:
    """Yield chunks; random vectors are asked the introspection questions only, concepts the control questions too."""
    introspection = [conversation for conversation in conversations if kind_of(conversation) == "introspection"]
    asked = {"concept": conversations, "random": introspection}
    keep_clean = True
    for kind, those in asked.items():
        group = [cell for cell in cells if cell.vector_kind == kind]
        for start in range(0, len(group), _INJECTIONS_PER_CHUNK):
            batch = group[start : start + _INJECTIONS_PER_CHUNK]
            work = partial(_lens, model, batch, those, config.batch_size, keep_clean)
            yield run.Chunk((len(batch) + 1) * len(those), work)
            keep_clean = False


def _lens(
    model: Model,
    cells: Sequence[Cell],
    conversations: Sequence[Conversation],
    batch_size: int,
    keep_clean: bool,
    progress: run.Progress,
) -> pd.DataFrame:
    """Return the rows of one chunk; the clean rows, which every shift needs, are kept from one chunk only."""
    import mechint as mi

    what = [*([mi.CLEAN] if keep_clean else []), *(cell.injection for cell in cells)]
    table = mi.logit_lens(model, conversations, what, batch_size=batch_size, progress=progress)
    return _described(table, cells, conversations)


def _described(table: pd.DataFrame, cells: Sequence[Cell], conversations: Sequence[Conversation]) -> pd.DataFrame:
    """Add what each row's injection and conversation are; clean rows have the vector "" and the kind "none"."""
    import pandas as pd

    about = {"vector": "", "vector_kind": "none", "sweep": "main", "injected_layers": ""}
    rows = [{"intervention": "clean", **about}]
    rows += [
        {
            "intervention": cell.injection.name,
            "vector": cell.vector,
            "vector_kind": cell.vector_kind,
            "sweep": cell.sweep,
            "injected_layers": cli.format_layers(cell.layers),
        }
        for cell in cells
    ]
    asked = [
        {"conversation": conversation.label, "kind": kind_of(conversation), "group": group_of(conversation)}
        for conversation in conversations
    ]
    full = table.merge(pd.DataFrame(rows), on="intervention", how="left", validate="many_to_one")
    full = full.merge(pd.DataFrame(asked), on="conversation", how="left", validate="many_to_one")
    full = full.assign(layer=full["layer"].astype(str))
    full.attrs["receipts"] = [_short(receipt) for receipt in table.attrs["receipts"]]
    return full


def _short(receipt: dict[str, JSON]) -> dict[str, JSON]:
    """Return a receipt with its layers as `layer: [norm added, residual norm, their ratio]`, as there can be thousands."""
    layers = {
        str(layer["layer"]): [float(f"{layer[key]:.4g}") for key in ("vector_norm", "residual_norm", "ratio")]
        for layer in receipt["layers"]
    }
    return receipt | {"layers": layers}


def kind_of(conversation: Conversation) -> str:
    """Return `introspection` or `control`, as the conversation's `extra` says, else as its label begins."""
    kind = conversation.extra.get("kind")
    return str(kind) if kind else "control" if conversation.label.startswith("control") else "introspection"


def group_of(conversation: Conversation) -> str:
    """Return the control group; "" for introspection questions, `no` for controls that do not say."""
    group = conversation.extra.get("group")
    return str(group) if group else "no" if kind_of(conversation) == "control" else ""


def execute(config: Config, argv: Sequence[str]) -> list[Path]:
    """Run the analysis and write its results; returns their paths."""
    clock, directory = run.Clock(), config.out / NAME
    cli.check_paths(config, NAME)
    import mechint as mi
    from analyses.logit_lens_figures import figures

    model = mi.load(config.model, backend=config.backend, device=config.device, dtype=config.dtype)
    dose = setup.dose(config, model)
    conversations = setup.conversations(config, config.wording, model.prompts)
    if not any(kind_of(conversation) == "introspection" for conversation in conversations):
        raise UsageError("only control questions", "at least one introspection question", "change --conversations")
    cells = injections(config, model, dose)
    table = compute(config, model, cells, conversations)
    paths = run.write_table(table, directory)
    paths += mi.figures.save_all(figures(table, config, dose, model.name), directory)
    found = {
        "model": {"name": model.name, "identity": model.identity, "n_layers": model.n_layers, "d_model": model.d_model},
        "dose": run.as_json(dose),
        "injections": {cell.injection.name: cell.injection.key for cell in cells},
        "conversations": [conversation.label for conversation in conversations],
        "receipts": table.attrs["receipts"],
    }
    return [*paths, run.write_record(directory, config, argv, clock, **found)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)

    def task() -> None:
        config = Config(**vars(parser().parse_args(argv)))
        paths = execute(config, argv)
        shown = [path for path in paths if path.suffix == ".html"]
        sys.stdout.write("".join(f"{path}\n" for path in shown))

    return cli.guarded(task)


if __name__ == "__main__":
    sys.exit(main())
