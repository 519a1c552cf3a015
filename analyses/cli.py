"""Command lines: the options that all analyses share, checked before anything heavy is imported."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mechint import organisms
from mechint.chat import load_conversations
from mechint.errors import (
    LayerRangeError,
    MechintError,
    MemoryLimitError,
    OutputError,
    UnknownConceptError,
    UnknownNameError,
    UsageError,
)
from mechint.sources import Source, resolve

INTERRUPTED = 130  # what shells give for Ctrl-C
_T = TypeVar("_T")
_DTYPES = ("float32", "bfloat16", "float16")
_VECTOR_SUFFIXES = (".gguf", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class Common:
    """The options of every analysis; None means that the model, a preset or the prompt set decides."""

    model: str
    backend: str
    device: str
    dtype: str
    layers: tuple[int, ...] | None
    strength: float | None
    relative_strength: float | None
    concepts: tuple[str, ...] | None
    conversations: Path | None
    vectors: Path | None
    seed: int
    limit: int | None
    n_random: int
    batch_size: int
    out: Path


def common_parser(module: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the shared options; the analysis adds its own."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=_Formatter, allow_abbrev=False
    )
    _add_model_options(parser.add_argument_group("model"))
    _add_injection_options(parser.add_argument_group("injection"))
    _add_run_options(parser.add_argument_group("run"))
    return parser


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except where the default is that something else decides."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", default="organism", help="embedded model, hub id, or checkpoint directory")
    group.add_argument("--backend", choices=("bridge", "hooked"), default="bridge", help="TransformerLens class")
    group.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")
    group.add_argument("--dtype", choices=_DTYPES, default="float32", help="of the weights; readouts are float32")


def _add_injection_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--layers", type=parse_layers, help="21:43, 3, or 2,4,6 (default: the model's preset, else its middle third)"
    )
    strengths = group.add_mutually_exclusive_group()
    strengths.add_argument("--strength", type=_strength, help="factor on the vectors as they are")
    strengths.add_argument(
        "--relative-strength",
        type=_strength,
        help="norm added at each layer, in units of the clean residual's (default without a preset)",
    )
    group.add_argument("--concepts", type=_names, help="a,b,c (default: those of the prompt set or of --vectors)")
    group.add_argument("--vectors", type=Path, help="a .gguf or .safetensors file, or a directory of them")
    group.add_argument("--n-random", type=whole_number(0), default=4, help="random vectors of equal norm")


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--conversations", type=Path, help="a conversation file or a directory of them")
    group.add_argument(
        "--limit", type=whole_number(1), help="control questions per group; with --conversations, the first so many"
    )
    group.add_argument("--seed", type=whole_number(0), default=0, help="of random vectors and bootstrap")
    group.add_argument("--batch-size", type=whole_number(1), default=32, help="rows computed at once")
    group.add_argument("--out", type=Path, default=Path("figures"), help="where results are written")


def parse_layers(text: str) -> tuple[int, ...]:
    """Return layers, ascending: `21:43` without its end, `3`, or `2,4,6`. Raises LayerRangeError otherwise."""
    layers: set[int] = set()
    for part in text.split(","):
        first, colon, last = part.strip().partition(":")
        if not first.isdecimal() or (colon and not last.isdecimal()) or (colon and int(last) <= int(first)):
            raise LayerRangeError(
                given=f"--layers {text}: {part.strip()!r} is empty, reversed or not a number",
                allowed="first:end with first < end (end not included), single layers, or a list: 21:43, 3, 2,4,6",
                advice="layers count from 0",
            )
        layers.update(range(int(first), int(last) if colon else int(first) + 1))
    return tuple(sorted(layers))


def format_layers(layers: Sequence[int]) -> str:
    """Return layers as `parse_layers` reads them: 2:5, 3, or 2,4,6."""
    if len(layers) > 1 and layers[-1] - layers[0] == len(layers) - 1:
        return f"{layers[0]}:{layers[-1] + 1}"
    return ",".join(map(str, layers))


def _strength(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(given=f"strength {text!r}", allowed="a finite number", advice="for example 0.3")
    return value


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise UsageError(given=f"names {text!r}", allowed="different names between commas", advice="for example a,b,c")
    return names


def whole_number(lowest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < lowest:
            raise UsageError(given=f"{text!r}", allowed=f"a whole number, {lowest} or more", advice="see --help")
        return int(text)

    return parse


def check_paths(config: Common, analysis: str) -> None:
    """Raise for inputs that are not there or cannot be right and for an --out that cannot be written, all without a model."""
    checkpoint = _checkpoint_config(resolve(config.model))
    n_layers = checkpoint.get("num_hidden_layers", checkpoint.get("n_layer"))
    if isinstance(n_layers, int):
        check_layers(config.layers, n_layers)
    if config.conversations is not None:
        load_conversations(config.conversations)
    if config.vectors is not None:
        vector_files(config.vectors, config.concepts)
    elif checkpoint.get("mechint_prompts") == "small":
        select(dict.fromkeys(organisms.concepts("all")), config.concepts, "concept", UnknownConceptError)
    check_writable(config.out / analysis)


def vector_files(path: Path, wanted: Sequence[str] | None = None) -> dict[str, Path]:
    """Return vector files by concept (the file's stem), all of them or those `wanted`."""
    found = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    files = {file.stem: file for file in found if file.suffix in _VECTOR_SUFFIXES}
    if not files:
        raise UsageError(
            given=f"--vectors {path}: {'no vector files in it' if path.exists() else 'no such file or directory'}",
            allowed="a .gguf or .safetensors file, or a directory of them",
            advice="check the path",
        )
    return select(files, wanted, "concept (no vector file of that name)", UnknownConceptError)


def select(
    known: dict[str, _T], wanted: Sequence[str] | None, what: str, error: type[UsageError] = UnknownNameError
) -> dict[str, _T]:
    """Return the wanted entries, in the order wanted (None: all); raises `error` for names that are not known."""
    if unknown := [name for name in wanted or () if name not in known]:
        raise error(
            given=f"unknown {what}: {', '.join(unknown)}", allowed=", ".join(known), advice="choose among these"
        )
    return {name: known[name] for name in wanted} if wanted else known


def check_layers(layers: Sequence[int] | None, n_layers: int) -> None:
    """Raise LayerRangeError unless all layers are inside a model of `n_layers`."""
    if layers and max(layers) >= n_layers:
        raise LayerRangeError(
            given=f"layer {max(layers)}", allowed=f"0:{n_layers} (layers 0 to {n_layers - 1})", advice="change --layers"
        )


def _checkpoint_config(source: Source) -> Mapping[str, object]:
    """Return what a local checkpoint's config.json says, without loading anything; empty if it is not here."""
    try:
        config = json.loads((Path(source.location) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a hub id, or a directory whose problem the loader reports
        return {}
    return config if isinstance(config, dict) else {}


def check_writable(directory: Path) -> None:
    """Raise OutputError unless a file can be made in `directory` (which is made)."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OutputError(
            given=f"--out: {directory} cannot be written: {error.strerror}",
            allowed="a directory that can be made and written to",
            advice="choose another --out",
        ) from error


def guarded(run: Callable[[], None]) -> int:
    """Run a command line; returns its exit code: 0, 2 after one message about bad input, 130 after Ctrl-C."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        run()
    except MechintError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; what is done is kept, and the same command goes on from there\n")
        return INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        sys.stderr.write(f"error: {_memory_error(error)}\n")
        return 2
    return 0


def _is_out_of_memory(error: BaseException) -> bool:
    """True for Python's, CUDA's (torch.OutOfMemoryError) and the CPU allocator's ways of saying it."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _memory_error(error: BaseException) -> MemoryLimitError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else "no details"
    return MemoryLimitError(
        given=f"out of memory ({first})",
        allowed="what fits on the device",
        advice="try a smaller --batch-size (finished work is kept), a smaller --dtype, or another --device",
    )
