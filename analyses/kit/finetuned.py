"""A finetuned model beside the base: which one, the cache it fills, and the contrast vector between the two."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import checks, cli, option_types
from analyses.kit import dose as injected
from analyses.kit import record as run
from analyses.kit.study import Condition
from mechint.base.errors import SwapError, UsageError
from mechint.models.model_names import ADAPTER_CONFIG, adapter_location, check_reachable, resolve
from mechint.vectors import presets

if TYPE_CHECKING:
    from mechint.base.files import JSON
    from mechint.chat.conversations import Conversation
    from mechint.interventions.specifications import Filled, Swap
    from mechint.models.model import Model
    from mechint.prompts.design import PromptDesign
    from mechint.vectors.activations import Activations
    from mechint.vectors.concept_vectors import ConceptVector

EMBEDDED = {"organism": "organism-finetuned"}  # whose finetuned copy is taken where none is named
# Wordings of one question. That of the inaccurate location asks about turns that nobody else has filled.
DESCRIPTIONS = ("injection", "finetuning", "salient-concept", "echo")
WAYS = ("finetuned", "adapter", "filled")
_READ = "activations.safetensors"  # beside the caches of a fill


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(cli.Common):
    """The options of analyses with a finetuned model; at most one of the three is given."""

    finetuned: str | None
    adapter: str | None
    filled: Path | None


def add_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that name a finetuned model."""
    usual = ", ".join(f"{name} for {model}" for model, name in EMBEDDED.items())
    ways = group.add_mutually_exclusive_group()
    ways.add_argument(
        "--finetuned",
        type=option_types.location,
        help=f"finetuned copy of --model: name, directory or hub id (default: {usual})",
    )
    ways.add_argument(
        "--adapter", type=option_types.location, help="LoRA adapter that is run on top of --model's own weights"
    )
    ways.add_argument(
        "--filled", type=option_types.path, help="directory that `analyses.model_swap --fill` has written"
    )


def named(config: Options) -> bool:
    """Whether there is a finetuned model: one that an option names, or an embedded one's own."""
    return _way(config) is not None or config.model in EMBEDDED


def finetuned_name(config: Options) -> str | None:
    """Return the finetuned model that is to be loaded whole, if one is."""
    return config.finetuned or (EMBEDDED.get(config.model) if _way(config) is None else None)


def _way(config: Options) -> str | None:
    return next((way for way in WAYS if getattr(config, way) is not None), None)


def check(config: Options, base: checks.Checkpoint) -> None:
    """Raise for no finetuned model, one that is not to be had or of another depth, and for what is no fill."""
    if not named(config):
        raise UsageError(
            given=f"--model {config.model} without a finetuned copy of it",
            allowed="one of --finetuned, --adapter, --filled",
            advice="name the finetuned model, its LoRA adapter, or what --fill has written",
        )
    if (name := finetuned_name(config)) is not None:
        n_layers = checks.check_model(name).n_layers
        if None not in (n_layers, base.n_layers) and n_layers != base.n_layers:
            raise SwapError(
                given=f"--finetuned {name} with {n_layers} layers",
                allowed=f"a finetuned copy of {config.model}, which has {base.n_layers}",
                advice="name a model that was trained from the same weights",
            )
    if config.adapter is not None and not (Path(adapter_location(config.adapter)) / ADAPTER_CONFIG).is_file():
        check_reachable(resolve(config.adapter))
    if config.filled is not None:
        _read_fill(config.filled)


@dataclasses.dataclass(frozen=True)
class Finetuned:
    """A finetuned model: its name, the intervention in which it fills the cache, and what it reads of some prompts."""

    name: str
    swap: Swap | Filled
    activations: Activations

    @classmethod
    def of(cls, config: Options, model: Model) -> Finetuned:
        """Load the model that the options name, or what it has left in a directory."""
        import mechint as mi

        if config.filled is not None:
            name, read = _read_fill(config.filled)
            return cls(name, mi.Filled(config.filled, name="swap"), read)
        other = model.with_adapter(config.adapter) if config.adapter is not None else load(config)
        return cls(_short(other.name), mi.Swap(other, name="swap"), read_prompts(other))

    def condition(self, **columns: str) -> Condition:
        """Return the swap as a condition."""
        return Condition(self.swap, self.name, "swapped", columns)


def load(config: Options) -> Model:
    """Return the finetuned model, loaded as the base is."""
    return run.load_model(config, finetuned_name(config) or config.model)


def prompts(design: PromptDesign) -> list[Conversation]:
    """Return the chats on which two models are contrasted: open requests and messages that name no concept."""
    from mechint.prompts.questions import top_of_mind
    from mechint.vectors.activations import chat

    neutral = design.extraction
    return [chat(text, begun) for text in neutral.baseline for begun in neutral.beginnings] + top_of_mind(design)


def read_prompts(model: Model) -> Activations:
    """Return a model's activations on the prompts of its own prompt set."""
    from mechint.prompts.design import PromptDesign
    from mechint.vectors.activations import activations

    with run.sparing_threads(model):
        return activations(model, prompts(PromptDesign.load(model.prompts)))


def fill(model: Model, chats: Sequence[Conversation], directory: Path) -> list[Path]:
    """Let the finetuned model leave what `--filled` needs: its caches of some chats, and its activations."""
    import mechint as mi

    with run.sparing_threads(model):
        mi.fill(model, chats, directory, progress=True)
    return [read_prompts(model).save(directory / _READ)]


@dataclasses.dataclass(frozen=True)
class Contrast:
    """The contrast vector between a finetuned model and its base, its usual dose, and random vectors of equal norm."""

    vector: ConceptVector
    dose: injected.Dose
    randoms: Mapping[str, ConceptVector]

    @classmethod
    def of(cls, config: Options, model: Model, finetuned: Finetuned) -> Contrast:
        """Read the base's activations on the same prompts and compare."""
        from mechint.vectors.extract import contrast_of

        vector = contrast_of(finetuned.activations, read_prompts(model))
        return cls(vector, contrast_dose(config, model), injected.random_vectors(config, model, [vector]))

    def conditions(self, kind: str, amount: float | None = None, /, **columns: str) -> list[Condition]:
        """Return conditions of one kind (contrast, random) at a strength in the dose's unit (None: the dose's own)."""
        from mechint.interventions.specifications import Injection

        vectors = {"contrast": self.vector} if kind == "contrast" else self.randoms
        amount = amount_of(self.dose) if amount is None else amount
        absolute, relative = (amount, None) if self.dose.strength is not None else (None, amount)
        label = " ".join(columns.values()) or f"{amount:g}"
        return [
            Condition(
                Injection(vector, self.dose.layers, absolute, relative, name=f"{name} {label}"),
                name, kind, columns,
            )
            for name, vector in vectors.items()
        ]  # fmt: skip


def contrast_dose(config: cli.Common, model: Model) -> injected.Dose:
    """Return where and how strongly a contrast vector is injected: as concepts are, or as a preset says of it."""
    usual, preset = injected.dose(config, model), presets.preset_for(config.model)
    from_options = config.strength is not None or config.relative_strength is not None
    if from_options or preset is None or preset.contrast_strength is None:
        return usual
    return dataclasses.replace(usual, strength=preset.contrast_strength, relative_strength=None, source=preset.source)


def amount_of(dose: injected.Dose) -> float:
    """Return a dose's strength, in whichever unit it has."""
    return dose.amount


def record(finetuned: Finetuned, contrast: Contrast) -> dict[str, JSON]:
    """Return what `run.json` says of the finetuned model and of the contrast vector."""
    provenance = contrast.vector.provenance
    kept = ("method", "direction", "n_prompts", "prompts_sha256", "other_identity")
    return {
        "finetuned": finetuned.name,
        "contrast": {
            **{name: provenance[name] for name in kept},
            "prompts": "baseline messages with every beginning of a reply, and top-of-mind requests, of the prompt set",
            "dose": run.as_json(contrast.dose),
            "vector": contrast.vector.fingerprint(),
        },
    }


def _read_fill(directory: Path) -> tuple[str, Activations]:
    """Return who has filled a directory, and its activations; raises UsageError and StaleArtefactError."""
    from mechint.interventions.fill_files import read_fill
    from mechint.vectors.activations import Activations

    filler, name = read_fill(directory)
    read = Activations.load(directory / _READ)
    if read.provenance["identity"] != filler.model:
        raise UsageError(
            given=f"{directory}: caches of {name} and activations of {read.provenance['model']}",
            allowed="both of one model",
            advice="fill into another directory",
        )
    return _short(name), read


def _short(name: str) -> str:
    """A directory by its last part, any other model by its whole name."""
    return Path(name).name if Path(name).is_absolute() else name
