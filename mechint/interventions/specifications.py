"""Interventions on a prefill: none, injected concept vectors, or a cache that another model fills (now, or before).

Specifications only: frozen, composable, hashable by content. `prefill` carries them out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from mechint.base import arguments, html
from mechint.base.errors import LayerRangeError, NumericalError, UsageError
from mechint.base.files import sha256
from mechint.base.signatures import checked
from mechint.interventions.fill_files import read_fill
from mechint.interventions.fillers import Filler, ModelFiller, StoredFiller
from mechint.models.model import Model
from mechint.models.residual_scale import unit_key
from mechint.vectors.concept_vectors import ConceptVector, check_not_zero, unit_norm

Kind = Literal["clean", "injected", "swapped"]


class Intervention(ABC):
    """Base class of interventions: how the marked segments of a conversation are filled in its cache.

    An intervention either adds injections (`terms`) or has another fill the cache (`filler`); one with neither leaves
    it clean. All else follows from these two, so a new kind of intervention is a frozen dataclass with a name, a key
    and one of them.
    """

    name: str
    terms: tuple[Injection, ...] = ()
    filler: Filler | None = None

    @property
    @abstractmethod
    def key(self) -> str:
        """Hash of what this does to a cache (its name does not count)."""

    @property
    def kind(self) -> Kind:
        """The word for it in receipts and tables."""
        if self.filler is not None:
            return "swapped"
        return "injected" if self.terms else "clean"


@dataclass(frozen=True)
class Clean(Intervention):
    """The cache as the model itself fills it; nothing else may have its name."""

    name: str = field(default="clean", init=False)

    @property
    def key(self) -> str:
        """Hash of what this does to a cache: nothing."""
        return sha256(b"clean")


CLEAN = Clean()


class _Addable(Intervention):
    """`+` composes injections."""

    def __add__(self, other: Injection | InjectionSum) -> InjectionSum:
        if not isinstance(other, _Addable):
            return NotImplemented
        return InjectionSum((*self.terms, *other.terms))


@checked
@dataclass(frozen=True, eq=False)
class Injection(_Addable):
    """Add `vector` to `resid_post` of `layers` at the marked positions.

    With `strength`, strength x vector is added. With `relative_strength` r, the vector's direction at each layer is
    given the norm r x `model.residual_norms[layer]`, which is the same in every conversation; nothing is added at a
    layer where the vector is zero. `layers` defaults to all that the vector has. `positions` (absolute token positions)
    or `segments` (0 = that of the first message) narrow what is touched; both must lie in marked segments.

    Raises UsageError unless exactly one strength is given and it is a finite number, and for the name "clean";
    LayerRangeError, InvalidVectorError for a zero vector.
    """

    vector: ConceptVector
    layers: Sequence[int] | None = None
    strength: float | None = None
    relative_strength: float | None = None
    name: str = ""
    positions: Sequence[int] | None = None
    segments: Sequence[int] | None = None
    terms: tuple[Injection, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for attribute in ("layers", "positions", "segments"):
            value = getattr(self, attribute)
            object.__setattr__(self, attribute, None if value is None else _each_once(attribute, value))
        if self.layers is None:
            object.__setattr__(self, "layers", self.vector.layers)
        _check_injection(self)
        _set_name(self, _default_name(self))
        object.__setattr__(self, "terms", (self,))

    @property
    def key(self) -> str:
        """Hash of what this does to a cache (its name does not count)."""
        settings = (self.layers, self.strength, self.relative_strength, self.positions, self.segments)
        return sha256(b"injection", self.vector.fingerprint().encode(), repr(settings).encode())

    @property
    def is_relative(self) -> bool:
        """Whether its strength is in units of the model's typical residual norm."""
        return self.relative_strength is not None

    def amount(self, layer: int, model: Model) -> Float[Tensor, " d_model"]:
        """Return the vector that is added to the residual stream of `model` at a layer.

        Raises NumericalError for more than float32 can hold the square of, and what `model.residual_norms` raises.
        """
        return self.amount_in(layer, model.residual_norms[layer] if self.is_relative else 1.0)

    def amount_in(self, layer: int, unit: float) -> Float[Tensor, " d_model"]:
        """Return the vector that is added at a layer whose typical residual norm is `unit`; see `amount`."""
        vector: Tensor = self.vector.vectors[layer]
        if self.strength is not None:
            return _within_float32(self, layer, vector * self.strength)
        assert self.relative_strength is not None  # exactly one of the two is given
        return _within_float32(self, layer, unit_norm(vector) * (self.relative_strength * unit))

    def renamed(self, name: str) -> Injection:
        """Return the same injection under another name."""
        return replace(self, name=name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Injection) and (self.key, self.name) == (other.key, other.name)

    def __hash__(self) -> int:
        return hash((self.key, self.name))


@checked
@dataclass(frozen=True)
class InjectionSum(_Addable):
    """Several injections at once; made with `a + b`."""

    terms: tuple[Injection, ...]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.terms:
            raise arguments.wrong("terms", self.terms, "one or more injections")
        _set_name(self, " + ".join(term.name for term in self.terms))

    @property
    def key(self) -> str:
        """Hash of what this does to a cache; the order of the terms does not count."""
        return sha256(b"sum", *(key.encode() for key in sorted(term.key for term in self.terms)))

    def renamed(self, name: str) -> InjectionSum:
        """Return the same injections under another name."""
        return replace(self, name=name)


@checked
@dataclass(frozen=True)
class Swap(Intervention):
    """Let `model` fill the marked segments; the unmarked ones are filled by the model that is asked."""

    model: Model = field(compare=False)
    name: str = ""
    identity: str = field(init=False, repr=False)
    filler: ModelFiller = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", self.model.identity)
        _set_name(self, f"swap({self.model.name})")
        object.__setattr__(self, "filler", ModelFiller(self.name, self.model, self.identity))

    def renamed(self, name: str) -> Swap:
        """Return the same swap under another name."""
        return replace(self, name=name)

    @property
    def key(self) -> str:
        """Hash of what this does to a cache: of the other model's weights."""
        return sha256(b"swap", self.identity.encode())


@checked
@dataclass(frozen=True)
class Filled(Intervention):
    """Let the caches that `mi.fill` has left in `directory` stand for the marked segments: a swap's second phase.

    Every conversation that is asked must have its prefix there (ConversationError), filled by a model of the same
    backend, dtype, shape and vocabulary (CacheMismatchError). Files are read layer by layer, and checked as they are.
    Raises UsageError for a directory that is no fill, StaleArtefactError for damaged files and for several sources.
    """

    directory: str | Path
    name: str = ""
    filler: StoredFiller = field(init=False, repr=False)

    def __post_init__(self) -> None:
        directory = Path(self.directory).expanduser().resolve()
        object.__setattr__(self, "directory", directory)
        source, source_name = read_fill(directory)
        _set_name(self, f"filled({source_name})")
        object.__setattr__(self, "filler", StoredFiller(self.name, directory, source))

    @property
    def key(self) -> str:
        """Hash of what this does to a cache: of the filling model, its intervention, backend and dtype."""
        return sha256(b"filled", self.filler.source.fingerprint().encode())


def terms_among(interventions: Iterable[Intervention]) -> list[Injection]:
    """Return the injections of some interventions, those of sums one by one."""
    return [term for intervention in interventions for term in intervention.terms]


def key_for(model: Model, intervention: Intervention) -> str:
    """Hash of what an intervention does to a cache of `model`: its key, with the unit if a strength is relative."""
    if not any(term.is_relative for term in intervention.terms):
        return intervention.key
    return sha256(intervention.key.encode(), unit_key(model).encode())


def dose_text(intervention: Intervention) -> str:
    """Return an intervention's name with the strength and layers of every injection in it, for messages."""
    if not intervention.terms:
        return intervention.name
    doses = [
        f"relative_strength={term.relative_strength:g} at layers {html.spans(term.layers or ())}"
        if term.strength is None
        else f"strength={term.strength:g} at layers {html.spans(term.layers or ())}"
        for term in intervention.terms
    ]
    return f"{intervention.name} ({', '.join(doses)})"


def check_form(intervention: Intervention) -> None:
    """Raise UsageError for the clean one's name on another intervention, and for terms beside a filler."""
    if intervention.name == CLEAN.name and intervention != CLEAN:
        raise UsageError(
            given=f"{type(intervention).__name__} with the name {CLEAN.name!r}",
            allowed=f"any name but {CLEAN.name!r}, which is that of the unsteered runs that shifts are taken against",
            advice="give it another name (name=...; a vector that is called so can have its file renamed)",
        )
    if intervention.terms and intervention.filler is not None:
        raise UsageError(
            given=f"{intervention.name}: terms and a filler",
            allowed="injections into the model itself, or a cache that another fills",
            advice="give one of the two",
        )


def _each_once(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if not values or len(set(values)) != len(values):
        raise UsageError(
            f"{name}={arguments.shown(list(values))}",
            f"one or more {name}, each once",
            "check the range: a reversed one is empty",
        )
    return tuple(sorted(values) if name == "layers" else values)


def _set_name(intervention: Intervention, default: str) -> None:
    """Give an intervention its default name if it has none; raises UsageError for the name of the clean one."""
    object.__setattr__(intervention, "name", intervention.name or default)
    check_form(intervention)


def _check_injection(injection: Injection) -> None:
    strengths = (injection.strength, injection.relative_strength)
    if sum(value is not None for value in strengths) != 1:
        raise UsageError(
            f"strength={strengths[0]}, relative_strength={strengths[1]}", "exactly one of the two", "give one of them"
        )
    if injection.positions is not None and injection.segments is not None:
        raise UsageError("both positions and segments", "one of them", "give one of them")
    layers = injection.layers or ()
    if min(layers) < 0:
        raise LayerRangeError(f"layers {list(layers)}", "layers from 0 on", "count layers from the first block")
    injection.vector.at(layers)
    check_not_zero(injection.vector.at(layers))


def _within_float32(injection: Injection, layer: int, amount: Tensor) -> Tensor:
    norm = amount.norm().item()
    if not math.isfinite(norm):
        raise NumericalError(
            given=f"{injection.name}: at layer {layer} it adds a vector of norm {norm} "
            f"(strength={injection.strength}, relative_strength={injection.relative_strength})",
            allowed="amounts whose square float32 can hold, and relative ones where the clean residual is finite",
            advice="lower the strength; in float16, load the model with dtype='bfloat16' or 'float32'",
        )
    return amount


def _default_name(injection: Injection) -> str:
    layers = injection.layers or ()
    span = f"{layers[0]}:{layers[-1] + 1}" if len(layers) == layers[-1] - layers[0] + 1 else ",".join(map(str, layers))
    amount = f"{injection.strength:g}" if injection.strength is not None else f"{injection.relative_strength:g}|resid|"
    where = ""
    if injection.positions is not None:
        where = f" positions {','.join(map(str, injection.positions))}"
    elif injection.segments is not None:
        where = f" segments {','.join(map(str, injection.segments))}"
    return f"{injection.vector.name or 'vector'} x{amount} @{span}{where}"
