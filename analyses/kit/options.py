"""The options that all analyses share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from analyses.kit import option_types
from analyses.kit.declarations import option
from mechint.base.files import JSON
from mechint.chat.templates import DATE, TemplateOptions
from mechint.engine.shards import Shard

if TYPE_CHECKING:
    from mechint.models.model import Model

Config = TypeVar("Config", bound="Common")


@dataclass(frozen=True, kw_only=True)
class TemplateUse:
    """How chat templates are used."""

    thinking: Literal["on", "off"] | None = option("in chat templates that have a switch (default: off)")
    date: str | None = option(f"told to chat templates that write today's (default: {DATE})", parse=option_types.date)
    template_variables: Mapping[str, JSON] | None = option(
        'others that the chat template reads: {"reasoning_effort": "low"}', parse=option_types.variables
    )

    @property
    def template(self) -> TemplateOptions:
        """The options as the library takes them. Raises UsageError for a date that is none."""
        return TemplateOptions(self.thinking == "on", self.date, self.template_variables or {})


TEMPLATE = ("thinking", "date", "template_variables")


@dataclass(frozen=True, kw_only=True)
class ModelOptions(TemplateUse):
    """The model of a run; `loaded` is one that a caller from Python has loaded already."""

    GROUP: ClassVar[str] = "model"

    model: str = option(
        "embedded model, smollm2, hub id, checkpoint directory, or GGUF file",
        default="organism",
        parse=option_types.location,
    )
    backend: Literal["bridge", "hooked"] = option("TransformerLens class", default="bridge")
    device: str = option("cpu, cuda, cuda:1, mps; auto: over all GPUs", default="cpu", parse=option_types.device)
    dtype: Literal["float32", "bfloat16", "float16"] = option("of the weights; readouts are float32", default="float32")
    loaded: Model | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class InjectionOptions:
    """What is injected, where, and how strongly; None means that the model, a preset or the prompt set decides."""

    GROUP: ClassVar[str] = "injection"

    layers: tuple[int, ...] | None = option(
        "21:43, 3, or 2,4,6 (default: as --dose says)", parse=option_types.parse_layers
    )
    strength: float | None = option(
        "factor on the vectors as they are", parse=option_types.finite, alternatives="strength"
    )
    relative_strength: float | None = option(
        "norm added at each layer, in units of the model's median residual norm there (default: as --dose says)",
        parse=option_types.finite,
        alternatives="strength",
    )
    concepts: tuple[str, ...] | None = option(
        "a,b,c (default: those of the prompt set or of --vectors)", parse=option_types.names
    )
    vectors: Path | None = option("a .gguf or .safetensors file, or a directory of them", parse=option_types.path)
    method: str | None = option(
        "how vectors are extracted: paired_pca, mean_difference, or with where they are read and against what, "
        "mean_difference/concept/others; or lindsey, open-introspection (default: as the dose was calibrated with, "
        "else as published, paired_pca; embedded models: mean_difference)",
        parse=option_types.extraction,
    )
    dose: Literal["auto", "default"] | None = option(
        "auto: layers, strength and method are calibrated on the model (analyses.dose), once; default: fixed ones, for "
        "want of better the middle third and 0.05 (default: fixed where they are published for the model or it is "
        "embedded, else auto)"
    )
    n_random: int = option(
        "random vectors of equal norm", default=8, parse=option_types.whole_number(0, option_types.MOST_VECTORS)
    )


@dataclass(frozen=True, kw_only=True)
class Out:
    """Where results are written, and whether those of another run may be replaced."""

    out: Path = option("where results are written", default=Path("figures"), parse=option_types.path)
    overwrite: bool = option("replace the results of another run in --out (default: refuse to)", default=False)


@dataclass(frozen=True, kw_only=True)
class RunOptions(Out):
    """Which conversations a run asks, from which seed, and where its results go."""

    GROUP: ClassVar[str] = "run"

    conversations: Path | None = option("a conversation file or a directory of them", parse=option_types.path)
    limit: int | None = option(
        "control questions per group (default: all, 3 in a sweep); of --conversations, the first",
        parse=option_types.whole_number(1),
    )
    seed: int = option("of random vectors, orders and permutations", default=0, parse=option_types.seed)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How the table is computed; none of it changes its numbers."""

    GROUP: ClassVar[str] = "engine"
    GROUP_TEXT: ClassVar[str] = "how the table is computed; none of it changes its numbers"

    batch_tokens: int | None = option(
        "tokens computed at once (default: what fits)", parse=option_types.whole_number(1)
    )
    batch_size: int | None = option("rows computed at once (default: what fits)", parse=option_types.whole_number(1))
    offload: bool = option("keep caches in the computer's memory, not the device's", default=False)
    max_memory: int | None = option(
        "most that the process may hold, weights included: 4GB (default: a quarter of what is free besides)",
        parse=option_types.memory,
    )
    shard: Shard | None = option("i/n: compute part i of n; analyses.merge joins the parts", parse=option_types.shard)
    engine: Literal["local", "ray"] = option("this process, or Ray workers", default="local")
    workers: int = option(
        "Ray workers, each with a model of its own", default=2, parse=option_types.whole_number(1, 1000)
    )


@dataclass(frozen=True, kw_only=True)
class Common(ModelOptions, InjectionOptions, RunOptions, EngineOptions):
    """The options of every analysis."""


@dataclass(frozen=True, kw_only=True)
class Marked:
    """The option of analyses whose figures mark cells of a sweep."""

    uncorrected: bool = option(
        "mark each cell of a sweep by its own 95%% interval, not by bands that hold for all cells at once",
        default=False,
        drawing=True,
    )
