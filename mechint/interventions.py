"""What to do during a prefill: nothing, add concept vectors, or let another model fill the cache (now, or before).

Specifications only: frozen, composable, hashable by content. `prefill` carries them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from mechint.errors import ConversationError, LayerRangeError, UsageError
from mechint.files import sha256
from mechint.fill_files import Filler, Prefix, StoredPrefix, read_fill
from mechint.vectors import ConceptVector, check_not_zero

if TYPE_CHECKING:
    from mechint.model import Model
    from mechint.render import Rendered


@dataclass(frozen=True)
class Clean:
    """The cache as the model itself fills it."""

    name: str = "clean"

    @property
    def key(self) -> str:
        """Hash of what this does to a cache."""
        return sha256(b"clean")


CLEAN = Clean()


class _Addable:
    """`+` composes injections."""

    terms: tuple[Injection, ...]
    name: str

    def __add__(self, other: Injection | InjectionSum) -> InjectionSum:
        if not isinstance(other, Injection | InjectionSum):
            return NotImplemented
        return InjectionSum((*self.terms, *other.terms))


@dataclass(frozen=True, eq=False)
class Injection(_Addable):
    """Add `vector` to `resid_post` of `layers` at the marked positions.

    With `strength`, strength x vector is added. With `relative_strength` r, the vector's direction at each layer is
    given the norm r x (mean norm of the clean residual at that layer over the marked positions). `layers` defaults to
    all that the vector has. `positions` (absolute token positions) or `segments` (0 = that of the first message) narrow
    what is touched; both must lie in marked segments.

    Raises UsageError unless exactly one strength is given, LayerRangeError, InvalidVectorError for a zero vector.
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
            object.__setattr__(self, attribute, None if value is None else _integers(attribute, value))
        if self.layers is None:
            object.__setattr__(self, "layers", self.vector.layers)
        _check_injection(self)
        if not self.name:
            object.__setattr__(self, "name", _default_name(self))
        object.__setattr__(self, "terms", (self,))

    @property
    def key(self) -> str:
        """Hash of what this does to a cache (its name does not count)."""
        what = (self.layers, self.strength, self.relative_strength, self.positions, self.segments)
        return sha256(b"injection", self.vector.fingerprint().encode(), repr(what).encode())

    def amount(self, layer: int, norm: float) -> Float[Tensor, " d_model"]:
        """Return what is added at a layer; `norm` is the clean residual's mean norm there, if the strength needs it."""
        vector: Tensor = self.vector.vectors[layer]
        if self.strength is not None:
            return vector * self.strength
        scaled: Tensor = vector * ((self.relative_strength or 0.0) * norm / vector.norm().clamp_min(1e-30))
        return scaled

    def renamed(self, name: str) -> Injection:
        """Return the same injection under another name."""
        return replace(self, name=name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Injection) and (self.key, self.name) == (other.key, other.name)

    def __hash__(self) -> int:
        return hash((self.key, self.name))


@dataclass(frozen=True)
class InjectionSum(_Addable):
    """Several injections at once; made with `a + b`."""

    terms: tuple[Injection, ...]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", " + ".join(term.name for term in self.terms))

    @property
    def key(self) -> str:
        """Hash of what this does to a cache; the order of the terms does not count."""
        return sha256(b"sum", *(key.encode() for key in sorted(term.key for term in self.terms)))

    def renamed(self, name: str) -> InjectionSum:
        """Return the same injections under another name."""
        return replace(self, name=name)


@dataclass(frozen=True)
class Swap:
    """Let `model` fill the marked segments; the unmarked ones are filled by the model that is asked."""

    model: Model = field(compare=False)
    name: str = ""
    identity: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "identity", self.model.identity)
        if not self.name:
            object.__setattr__(self, "name", f"swap({self.model.name})")

    @property
    def key(self) -> str:
        """Hash of what this does to a cache."""
        return sha256(b"swap", self.identity.encode())


@dataclass(frozen=True)
class Filled:
    """Let the caches that `mi.fill` has left in `directory` stand for the marked segments: a swap's second phase.

    Every conversation that is asked must have its prefix there (ConversationError), filled by a model of the same
    backend, dtype, shape and vocabulary (CacheMismatchError). Files are read layer by layer, and checked as they are.
    Raises UsageError for a directory that is no fill, StaleArtefactError for damaged files and for several fillers.
    """

    directory: str | Path
    name: str = ""
    filler: Filler = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", Path(self.directory).expanduser().resolve())
        filler, name = read_fill(Path(self.directory))
        object.__setattr__(self, "filler", filler)
        if not self.name:
            object.__setattr__(self, "name", f"filled({name})")

    @property
    def key(self) -> str:
        """Hash of what this does to a cache: of the filling model, its intervention, backend and dtype."""
        return sha256(b"filled", self.filler.fingerprint().encode())

    def stored(self, rendered: Rendered) -> StoredPrefix:
        """Return the file with the marked prefix of a conversation; raises ConversationError if there is none."""
        found = StoredPrefix(Path(self.directory), self.filler, Prefix.of(rendered))
        if not found.path.is_file():
            raise ConversationError(
                given=f"{self.name} has no cache of the first turns of conversation {rendered.label!r}",
                allowed="conversations that mi.fill was given, with the same marks and as the same tokens",
                advice="run mi.fill with this conversation too: only what is missing is filled",
            )
        return found


Intervention = Clean | Injection | InjectionSum | Swap | Filled


def _integers(name: str, value: Iterable[int]) -> tuple[int, ...]:
    found = tuple(int(v) for v in value)
    if not found or len(set(found)) != len(found):
        raise UsageError(
            f"{name}={list(found)}", f"one or more {name}, each once", "check the range: a reversed one is empty"
        )
    return tuple(sorted(found)) if name == "layers" else found


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
