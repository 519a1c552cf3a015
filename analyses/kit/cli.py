"""Command lines: the options that all analyses share, checked before anything heavy is imported."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

from analyses.kit import option_types
from analyses.kit.earlier import OVERWRITE
from mechint.base.errors import MechintError, MemoryLimitError
from mechint.base.files import JSON
from mechint.chat.templates import DATE, TemplateOptions
from mechint.engine.shards import Shard

INTERRUPTED = 130  # what shells give for Ctrl-C
Options = TypeVar("Options", bound="Common")
METHODS = ("paired_pca", "mean_difference")
TEMPLATE = ("thinking", "date", "template_variables")  # options of how chat templates are used
_LONGEST_MESSAGE = 1000  # of argparse, which repeats what was given
_DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Common:
    """The options of every analysis; None means that the model, a preset or the prompt set decides."""

    model: str
    backend: Literal["bridge", "hooked"]
    device: str
    dtype: str
    thinking: Literal["on", "off"] | None
    date: str | None
    template_variables: Mapping[str, JSON] | None
    layers: tuple[int, ...] | None
    strength: float | None
    relative_strength: float | None
    concepts: tuple[str, ...] | None
    conversations: Path | None
    vectors: Path | None
    method: Literal["paired_pca", "mean_difference"] | None
    seed: int
    limit: int | None
    n_random: int
    batch_size: int | None
    batch_tokens: int | None
    offload: bool
    max_memory: int | None
    engine: Literal["local", "ray"]
    workers: int
    shard: Shard | None
    out: Path
    overwrite: bool = False


def template_options(config: Common | argparse.Namespace) -> TemplateOptions:
    """Return how chat templates are used in a run. Raises UsageError for a date that is none."""
    return TemplateOptions(config.thinking == "on", config.date, config.template_variables or {})


def common_parser(module: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the shared options; the analysis adds its own."""
    parser = Parser(prog=f"python -m {module}", description=description, formatter_class=_Formatter, allow_abbrev=False)
    _add_model_options(parser.add_argument_group("model"))
    _add_injection_options(parser.add_argument_group("injection"))
    _add_run_options(parser.add_argument_group("run"))
    _add_engine_options(
        parser.add_argument_group("engine", "how the table is computed; none of it changes its numbers")
    )
    return parser


class Parser(argparse.ArgumentParser):
    """Says what is wrong and nothing else; the whole usage would bury it."""

    def error(self, message: str) -> NoReturn:
        shortened = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}..."
        plain = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in shortened)
        self.exit(2, f"error: {plain}\n  to do:   see {self.prog} --help\n")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except where the default is that something else decides."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        type=option_types.location,
        default="organism",
        help="embedded model, smollm2, hub id, checkpoint directory, or GGUF file",
    )
    group.add_argument("--backend", choices=("bridge", "hooked"), default="bridge", help="TransformerLens class")
    group.add_argument(
        "--device", type=option_types.device, default="cpu", help="cpu, cuda, cuda:1, mps; auto: over all GPUs"
    )
    group.add_argument("--dtype", choices=_DTYPES, default="float32", help="of the weights; readouts are float32")
    add_template_options(group)


def add_template_options(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options of how chat templates are used."""
    group.add_argument("--thinking", choices=("on", "off"), help="in chat templates that have a switch (default: off)")
    group.add_argument(
        "--date", type=option_types.date, help=f"told to chat templates that write today's (default: {DATE})"
    )
    group.add_argument(
        "--template-variables",
        type=option_types.variables,
        help='others that the chat template reads: {"reasoning_effort": "low"}',
    )


def _add_injection_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--layers",
        type=option_types.parse_layers,
        help="21:43, 3, or 2,4,6 (default: the model's preset, else its middle third)",
    )
    strengths = group.add_mutually_exclusive_group()
    strengths.add_argument("--strength", type=option_types.finite, help="factor on the vectors as they are")
    strengths.add_argument(
        "--relative-strength",
        type=option_types.finite,
        help="norm added at each layer, in units of the model's median residual norm there (default without a preset)",
    )
    group.add_argument(
        "--concepts", type=option_types.names, help="a,b,c (default: those of the prompt set or of --vectors)"
    )
    group.add_argument("--vectors", type=option_types.path, help="a .gguf or .safetensors file, or a directory of them")
    group.add_argument(
        "--method",
        choices=METHODS,
        help="how vectors are made (default: as published, paired_pca; embedded models: mean_difference)",
    )
    group.add_argument(
        "--n-random",
        type=option_types.whole_number(0, option_types.MOST_VECTORS),
        default=8,
        help="random vectors of equal norm",
    )


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--conversations", type=option_types.path, help="a conversation file or a directory of them")
    group.add_argument(
        "--limit",
        type=option_types.whole_number(1),
        help="control questions per group (default: all, 3 in a sweep); of --conversations, the first",
    )
    group.add_argument("--seed", type=option_types.seed, default=0, help="of random vectors, orders and permutations")
    group.add_argument("--out", type=option_types.path, default=Path("figures"), help="where results are written")
    add_overwrite(group)


def add_overwrite(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the option that lets results of another run be replaced."""
    group.add_argument(
        OVERWRITE, action="store_true", help="replace the results of another run in --out (default: refuse to)"
    )


def _add_engine_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--batch-tokens", type=option_types.whole_number(1), help="tokens computed at once (default: what fits)"
    )
    group.add_argument(
        "--batch-size", type=option_types.whole_number(1), help="rows computed at once (default: what fits)"
    )
    group.add_argument("--offload", action="store_true", help="keep caches in the computer's memory, not the device's")
    group.add_argument(
        "--max-memory",
        type=option_types.memory,
        help="most that the process may hold, weights included: 4GB (default: a quarter of what is free besides)",
    )
    group.add_argument(
        "--shard", type=option_types.shard, help="i/n: compute part i of n; analyses.merge joins the parts"
    )
    group.add_argument("--engine", choices=("local", "ray"), default="local", help="this process, or Ray workers")
    group.add_argument(
        "--workers",
        type=option_types.whole_number(1, 1000),
        default=2,
        help="Ray workers, each with a model of its own",
    )


def add_marks(group: argparse._ArgumentGroup) -> None:
    """Add the option of analyses whose figures mark cells of a sweep."""
    group.add_argument(
        "--uncorrected",
        action="store_true",
        help="mark each cell of a sweep by its own 95%% interval, not by bands that hold for all cells at once",
    )


def format_layers(layers: Sequence[int]) -> str:
    """Return layers as `option_types.parse_layers` reads them: 2:5, 3, or 2,4,6."""
    if len(layers) > 1 and layers[-1] - layers[0] == len(layers) - 1:
        return f"{layers[0]}:{layers[-1] + 1}"
    return ",".join(map(str, layers))


def run_analysis(
    argv: Sequence[str] | None,
    parse: Callable[[Sequence[str]], Options],
    execute: Callable[[Options, Sequence[str]], Sequence[Path]],
) -> int:
    """Run an analysis (None: with the process's arguments) and return its exit code.

    Lists its figures, or the one file that a shard leaves.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)

    def task() -> None:
        list_figures(execute(parse(arguments), arguments))

    return guarded(task)


def list_figures(paths: Sequence[Path]) -> None:
    """Write the paths of figures, or of everything where there are none."""
    listed = [path for path in paths if path.suffix == ".html"] or paths
    sys.stdout.write("".join(f"{path}\n" for path in listed))


def guarded(run: Callable[[], None]) -> int:
    """Run a command line; returns its exit code: 0, 2 after one message about bad input, 130 after Ctrl-C."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        with _plain_warnings():
            run()
    except MechintError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; what is done is kept, and the same command goes on from there\n")
        return INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        from mechint.models.device_memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        sys.stderr.write(f"error: {_memory_error(error)}\n")
        return 2
    return 0


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Write the toolkit's own warnings as a line for users, without the place in the code that others have."""
    usual = warnings.formatwarning

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        from_mechint = category.__module__.startswith("mechint")
        return f"warning: {message}\n" if from_mechint else usual(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _memory_error(error: BaseException) -> MemoryLimitError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else "no details"
    return MemoryLimitError(
        given=f"out of memory ({first})",
        allowed="what fits on the device",
        advice="try less --max-memory or --batch-tokens (finished work is kept), a smaller --dtype, another --device",
    )
