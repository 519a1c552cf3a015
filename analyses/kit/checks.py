"""What can be known to be wrong before a model is loaded: names, files, layers, and a place to write to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from analyses.kit.adapted import check_adapter
from analyses.kit.declarations import flag, values
from analyses.kit.option_types import format_layers
from analyses.kit.options import Common
from mechint import organisms
from mechint.base.errors import LayerRangeError, UnknownConceptError, UnknownNameError, UsageError
from mechint.base.files import check_writable
from mechint.chat.conversations import Conversation, load_conversations
from mechint.models.model_names import Source, check_reachable, resolve

if TYPE_CHECKING:
    from mechint.models.model import Model
    from mechint.vectors.concept_vectors import ConceptVector

_T = TypeVar("_T")
_VECTOR_SUFFIXES = (".gguf", ".safetensors")
# What conditions, their kinds and the rows and series of figures are called; random vectors have a number.
_RESERVED = ("clean", "none", "injected", "random", "swap", "swapped", "contrast", "control", "mean of all")
_RANDOM = re.compile(r"random[-_ ]?[0-9]+")


@dataclass(frozen=True)
class Checkpoint:
    """What can be known of a model before it is loaded; sizes are None if its configuration is not to be had."""

    n_layers: int | None
    prompts: str
    d_model: int | None = None


@dataclass(frozen=True)
class Files:
    """What was read of the files that options name: the model's configuration, `--vectors` by name, `--conversations`.

    Without these options there are no vectors, and conversations are None.
    """

    checkpoint: Checkpoint
    vectors: Mapping[str, ConceptVector]
    conversations: Sequence[Conversation] | None

    @property
    def n_layers(self) -> int | None:
        """How many blocks the model has, where that is known."""
        return self.checkpoint.n_layers

    @property
    def prompts(self) -> str:
        """The name of the model's prompt set."""
        return self.checkpoint.prompts

    def check_prompts(self, model: Model) -> None:
        """Raise UsageError for a model that reads other prompts than its configuration, as far as it was read, said."""
        if model.prompts != self.prompts:
            raise UsageError(
                given=f"{model.name}, which reads the prompt set {model.prompts!r}; its config.json could not be read",
                allowed=f"a model of the prompt set {self.prompts!r}, or one whose config.json can be read first",
                advice="download the model, and name its directory",
            )


def check_common(config: Common, analysis: str) -> Files:
    """Return what files hold; raises for every bad common option that can be known without a model.

    Among these is an --out that cannot be written.
    """
    if config.engine == "ray" and config.shard is not None:
        raise UsageError("--engine ray with --shard", "one of them: Ray divides the table itself", "leave one out")
    check_effect(config.device == "cpu", "--device cpu, whose memory is the computer's", config, ("offload",))
    fixed = config.strength is not None or config.relative_strength is not None
    check_effect(fixed, "a strength, which needs no rule", config, ("dose",))
    _ = config.template  # raises for a date that is none
    check_adapter(config)
    loaded = config.loaded
    checkpoint = (
        check_model(config.model) if loaded is None else Checkpoint(loaded.n_layers, loaded.prompts, loaded.d_model)
    )
    if checkpoint.n_layers is not None:
        check_layers(config.layers, checkpoint.n_layers)
    conversations = None if config.conversations is None else load_conversations(config.conversations)
    check_concepts(config.concepts or (), "--concepts")
    if config.vectors is None and checkpoint.prompts == "small":
        select(dict.fromkeys(organisms.concepts("all")), config.concepts, "concept", UnknownConceptError)
    vectors: dict[str, ConceptVector] = {}
    if config.vectors is not None:
        check_effect(True, "--vectors", config, ("method",))
        vectors = _read(vector_files(config.vectors, config.concepts))
    check_writable(config.out / analysis, "--out")
    return Files(checkpoint, vectors, conversations)


def _read(files: Mapping[str, Path]) -> dict[str, ConceptVector]:
    from mechint.vectors.concept_vectors import ConceptVector

    return {name: ConceptVector.load(file) for name, file in files.items()}


def check_model(name: str) -> Checkpoint:
    """Return what can be known of a model before it is loaded; raises UnknownModelError if it is not to be had."""
    source = resolve(name)
    check_reachable(source)
    return _checkpoint(source)


def check_effect(without: bool, because: str, config: object, options: Sequence[str]) -> None:
    """Raise UsageError if an option was given that can have no effect, rather than ignore it.

    One is given unless its value is None, or that of a switch that is off.
    """
    defaults = {name: getattr(type(config), name) for name in options}
    named_values = {name: value for name, value in values(config).items() if name in options}
    flags = [
        flag(name, value) for name, value in named_values.items() if value is not None and value is not defaults[name]
    ]
    if without and flags:
        raise UsageError(f"{', '.join(flags)} with {because}", "one or the other", "leave one of them out")


def vector_files(path: Path, concepts: Sequence[str] | None = None) -> dict[str, Path]:
    """Return vector files by concept (the file's stem), all of them or those of `concepts`."""
    candidates = [path] if path.is_file() else sorted(path.glob("*")) if path.is_dir() else []
    files: dict[str, list[Path]] = {}
    for file in candidates:
        if file.suffix in _VECTOR_SUFFIXES:
            files.setdefault(file.stem, []).append(file)
    if not files:
        raise UsageError(
            given=f"--vectors {path}: {'no vector files in it' if path.exists() else 'no such file or directory'}",
            allowed="a .gguf or .safetensors file, or a directory of them",
            advice="check the path",
        )
    chosen = select(files, concepts, "concept (no vector file of that name)", UnknownConceptError)
    if twice := [" and ".join(file.name for file in same) for same in chosen.values() if len(same) > 1]:
        raise UsageError(
            given=f"--vectors {path}: {'; '.join(twice)}: two vectors of one name",
            allowed="one file for each concept, as its name is what tables call it",
            advice="rename or move one of them, or name one file",
        )
    check_concepts(chosen, f"--vectors {path}")
    return {name: same[0] for name, same in chosen.items()}


def check_concepts(names: Iterable[str], option: str) -> None:
    """Raise UsageError for concepts with a name that tables and figures give to something else."""
    if taken := [name for name in names if name.casefold() in _RESERVED or _RANDOM.fullmatch(name.casefold())]:
        raise UsageError(
            given=f"{option}: a concept with the name {', '.join(map(repr, taken))}",
            allowed=f"any name but {', '.join(_RESERVED)}, and random-0, random-1, ...: tables call others by these",
            advice="rename it",
        )


def select(
    entries: dict[str, _T], names: Sequence[str] | None, kind: str, error: type[UsageError] = UnknownNameError
) -> dict[str, _T]:
    """Return the wanted entries, in the order wanted (None: all); raises `error` for names that are not known."""
    if unknown := [name for name in names or () if name not in entries]:
        raise error(
            given=f"unknown {kind}: {', '.join(unknown)}", allowed=", ".join(entries), advice="choose among these"
        )
    return {name: entries[name] for name in names} if names else entries


def check_layers(layers: Sequence[int] | None, n_layers: int) -> None:
    """Raise LayerRangeError unless all layers are inside a model of `n_layers`."""
    if layers and max(layers) >= n_layers:
        raise LayerRangeError(
            given=f"--layers {format_layers(layers)}",
            allowed=f"0:{n_layers} (layers 0 to {n_layers - 1})",
            advice="choose layers of the model",
        )


def _checkpoint(source: Source) -> Checkpoint:
    """Read a checkpoint's config.json, or what a GGUF file declares, without loading anything."""
    if source.is_gguf:
        from mechint.models.gguf_configs import config_of
        from mechint.models.gguf_models import reading_model

        with reading_model(Path(source.location)) as model:
            declared = config_of(model)
        return Checkpoint(declared.num_hidden_layers, "full", declared.hidden_size)
    try:
        config = json.loads(_configuration(source).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # the loader reports what is wrong with it
        config = {}
    declared = config if isinstance(config, dict) else {}
    n_layers = declared.get("num_hidden_layers", declared.get("n_layer"))
    d_model = declared.get("hidden_size", declared.get("n_embd"))
    prompts = str(declared.get("mechint_prompts", "full"))
    return Checkpoint(_size(n_layers), prompts, _size(d_model))


def _size(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _configuration(source: Source) -> Path:
    """Return the path of a checkpoint's configuration; that of a model from the hub is downloaded, if it is not yet."""
    if source.is_local:
        return Path(source.location) / "config.json"
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source.location, "config.json"))


def check_whole(config: Common, why: str) -> None:
    """Raise UsageError for a run in shards, of an analysis whose second step needs the first one of all cases."""
    if config.engine == "ray" or config.shard is not None:
        raise UsageError(
            given=f"--engine ray or --shard: {why}",
            allowed="--engine local, whole; an interrupted run goes on where it stopped",
            advice="divide it by conversations",
        )


def check_marked(config: Common, chats: Sequence[Conversation]) -> None:
    """Raise UsageError for own conversations without a marked turn, where these turns are what is looked into."""
    if plain := [chat.label for chat in chats if not any(message.add_injection for message in chat.messages)]:
        raise UsageError(
            given=f"{config.conversations}: no message of {', '.join(plain[:5])} is marked add_injection",
            allowed="conversations with marked turns",
            advice="mark the turns whose cache is to be filled under the injection",
        )
