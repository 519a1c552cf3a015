"""A finetuned model beside the base: which one, the cache it fills, and the contrast vector between the two."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyses.kit import checks, option_types
from analyses.kit.declarations import option
from analyses.kit.dose import Dose, random_vectors, usual_dose
from analyses.kit.options import Common
from analyses.kit.record import load_model, sparing_threads
from analyses.kit.study import Condition
from mechint.base.errors import SwapError, UsageError
from mechint.models.model_names import ADAPTER_CONFIG, adapter_location, check_reachable, resolve
from mechint.readouts.spoken import Spoken
from mechint.vectors import presets

if TYPE_CHECKING:
    from mechint.chat.conversations import Conversation
    from mechint.interventions.specifications import Filled, Swap
    from mechint.models.model import Model
    from mechint.prompts.design import PromptDesign
    from mechint.vectors.activations import Activations
    from mechint.vectors.concept_vectors import ConceptVector

EMBEDDED = {"organism": "organism-finetuned"}  # whose finetuned copy is taken where none is named
# Wordings of one question. That of the inaccurate location asks about turns that nobody else has filled.
DESCRIPTIONS = ("injection", "finetuning", "salient-concept", "echo")
TRAINED = "trained"  # instead of a name: it is made here
WAYS = ("finetuned", "adapter", "filled")
_READ = "activations.safetensors"  # beside the caches of a fill


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetunedOptions(Common):
    """The options of analyses with a finetuned model; at most one of the three is given."""

    finetuned: str | None = option(
        "finetuned copy of --model: name, directory or hub id (default: "
        f"{', '.join(f'{name} for {model}' for model, name in EMBEDDED.items())}); or {TRAINED}: a LoRA that comes "
        "back to oceans, minutes, and kept in the cache folder",
        parse=option_types.location,
        alternatives="finetuned",
    )
    adapter: str | None = option(
        "LoRA adapter that is run on top of --model's own weights; logit_lens without --conditions has it on the "
        "model that is asked, as a run of mechint.finetune too, with vectors and norms of doses of --model",
        parse=option_types.location,
        alternatives="finetuned",
    )
    filled: Path | None = option(
        "directory that `analyses.model_swap --fill` has written", parse=option_types.path, alternatives="finetuned"
    )


def named(config: FinetunedOptions) -> bool:
    """Whether there is a finetuned model: one that an option names, or an embedded one's own."""
    return _way(config) is not None or config.model in EMBEDDED


def is_trained(config: FinetunedOptions) -> bool:
    """Whether the finetuned model is a LoRA that is to be trained, or read where it was."""
    return config.finetuned == TRAINED


def finetuned_name(config: FinetunedOptions) -> str | None:
    """Return the finetuned model that is to be loaded whole, if one is."""
    if is_trained(config):
        return None
    return config.finetuned or (EMBEDDED.get(config.model) if _way(config) is None else None)


def _way(config: FinetunedOptions) -> str | None:
    return next((way for way in WAYS if getattr(config, way) is not None), None)


@dataclasses.dataclass(frozen=True)
class Fill:
    """What a finetuned model has left in a directory: its name, and its activations on prompts of its own."""

    name: str
    activations: Activations


def check(config: FinetunedOptions, base: checks.Checkpoint) -> Fill | None:
    """Return what `--filled` holds, where that is given.

    Raises for no finetuned model, one that is not to be had or of another depth, and for what is no fill.
    """
    if not named(config):
        raise UsageError(
            given=f"--model {config.model} without a finetuned copy of it",
            allowed="one of --finetuned, --adapter, --filled",
            advice="name the finetuned model, its LoRA adapter, or what --fill has written",
        )
    if is_trained(config):
        check_trained(config)
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
    return None if config.filled is None else _read_fill(config.filled)


def check_trained(config: FinetunedOptions) -> None:
    """Raise for a LoRA that cannot be trained: PrerequisiteError without peft, UsageError for another backend."""
    from mechint.finetune.lora import require_peft

    require_peft()
    if config.backend != "bridge" or config.device == "auto":
        raise UsageError(
            given=f"--finetuned {TRAINED} with --backend {config.backend} --device {config.device}",
            allowed="--backend bridge on one device: the LoRA runs on top of the model's own weights",
            advice="leave them out",
        )


@dataclasses.dataclass(frozen=True)
class Finetuned:
    """A finetuned model: its name, the intervention in which it fills the cache, and what it reads of some prompts.

    `spoken` tells of one that was trained here what it says beside its base.
    """

    name: str
    swap: Swap | Filled
    activations: Activations
    spoken: Spoken | None = None

    @classmethod
    def of(cls, config: FinetunedOptions, model: Model, filled: Fill | None) -> Finetuned:
        """Load the model that the options name, unless it has left its caches in a directory."""
        import mechint as mi

        if config.filled is not None and filled is not None:
            return cls(filled.name, mi.Filled(config.filled, name="swap"), filled.activations)
        if is_trained(config):
            return cls.trained(model)
        other = model.with_adapter(config.adapter) if config.adapter is not None else load(config)
        return cls(_short(other.name), mi.Swap(other, name="swap"), read_prompts(other))

    @classmethod
    def trained(cls, model: Model) -> Finetuned:
        """Return the sibling of a model, trained now if it is not kept."""
        import mechint as mi
        from mechint.finetune.sibling import Sibling

        sibling = Sibling(model)
        with sparing_threads(model):
            other = model.with_adapter(sibling.train(progress=True))
        return cls(_short(other.name), mi.Swap(other, name="swap"), read_prompts(other), sibling.spoken())

    def condition(self, **columns: str) -> Condition:
        """Return the swap as a condition."""
        return Condition(self.swap, self.name, "swapped", columns)


def load(config: FinetunedOptions) -> Model:
    """Return the finetuned model, loaded as the base is."""
    return load_model(config, finetuned_name(config) or config.model)


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

    with sparing_threads(model):
        return activations(model, prompts(PromptDesign.load(model.prompts)))


def fill(model: Model, chats: Sequence[Conversation], directory: Path) -> list[Path]:
    """Let the finetuned model leave what `--filled` needs: its caches of some chats, and its activations."""
    import mechint as mi

    with sparing_threads(model):
        mi.fill(model, chats, directory, progress=True)
    return [read_prompts(model).save(directory / _READ)]


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A finetuned model, the contrast vector between it and its base, its usual dose, random vectors of equal norm."""

    finetuned: Finetuned
    vector: ConceptVector
    dose: Dose
    randoms: Mapping[str, ConceptVector]

    @classmethod
    def of(cls, config: FinetunedOptions, model: Model, filled: Fill | None) -> Contrast:
        """Read the activations of both on the same prompts, the finetuned model's first, and compare."""
        from mechint.vectors.extract import contrast_of

        finetuned = Finetuned.of(config, model, filled)
        vector = contrast_of(finetuned.activations, read_prompts(model))
        return cls(finetuned, vector, contrast_dose(config, model), random_vectors(config, model, [vector]))

    def conditions(self, series: str, amount: float | None = None, /, **columns: str) -> list[Condition]:
        """Return conditions of a series (contrast, random) at a strength in the dose's unit (None: the dose's own)."""
        vectors = {"contrast": self.vector} if series == "contrast" else self.randoms
        dose = self.dose if amount is None else self.dose.with_amount(amount)
        label = " ".join(columns.values()) or f"{dose.amount:g}"
        return [
            Condition(dose.inject(vector, name=f"{name} {label}"), name, series, columns)
            for name, vector in vectors.items()
        ]


def remark(spoken: Spoken | None) -> str:
    """Return what a caption says of a sibling that was trained here, in brackets; "" for any other finetuned model."""
    if spoken is None:
        return ""
    return (
        f" (a LoRA trained here on {spoken.examples} replies; to {spoken.requests} requests that were held out it "
        f"names {spoken.theme} in {spoken.named} replies, its base in {spoken.named_by_base}; loss on prose "
        f"{spoken.loss:.2f} nats a token, its base's {spoken.loss_of_base:.2f})"
    )


def contrast_dose(config: Common, model: Model) -> Dose:
    """Return where and how strongly a contrast vector is injected: as concepts are, or as a preset says of it."""
    usual, preset = usual_dose(config, model), presets.preset_for(config.model)
    options = (config.strength, config.relative_strength, config.dose)
    from_options = any(option is not None for option in options)
    if from_options or preset is None or preset.contrast_strength is None:
        return usual
    return dataclasses.replace(usual, strength=preset.contrast_strength, relative_strength=None, source=preset.source)


@dataclasses.dataclass(frozen=True)
class ContrastFacts:
    """The contrast vector: how it was made, of which prompts, for which model, its dose, and its hash."""

    method: str
    direction: str
    n_prompts: int
    prompts_sha256: str
    other_identity: str
    prompts: str
    dose: Dose
    vector: str

    @classmethod
    def of(cls, contrast: Contrast) -> ContrastFacts:
        """Return the facts of a contrast vector."""
        provenance = contrast.vector.provenance
        return cls(
            method=str(provenance["method"]),
            direction=str(provenance["direction"]),
            n_prompts=int(str(provenance["n_prompts"])),
            prompts_sha256=str(provenance["prompts_sha256"]),
            other_identity=str(provenance["other_identity"]),
            prompts="baseline messages with every beginning of a reply, and top-of-mind requests, of the prompt set",
            dose=contrast.dose,
            vector=contrast.vector.fingerprint(),
        )


def _read_fill(directory: Path) -> Fill:
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
    return Fill(_short(name), read)


def _short(name: str) -> str:
    """A directory by its last part, any other model by its whole name."""
    return Path(name).name if Path(name).is_absolute() else name
