"""The effect of an intervention on each position of a conversation at each layer, as keys that can be compared.

Two cells whose keys agree up to a position and below a layer have the same activations there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mechint.chat.render import Rendered
from mechint.interventions.fill_files import StoredPrefix
from mechint.interventions.fillers import ModelFiller
from mechint.interventions.prefill import injected_positions
from mechint.interventions.specifications import Injection, Intervention

# What is added at one layer: positions as bits, with a key of the vector and its strength.
LayerKey = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Term:
    """One injection with a key of the vector that it adds at each layer, layers with a zero vector left out."""

    injection: Injection
    keys: Mapping[int, str]


@dataclass(frozen=True)
class Effect:
    """The effect of an intervention on one conversation.

    `positions[k]` are those that term k touches, as bits; `swapped` those that another model fills, or has filled.
    """

    terms: tuple[Term, ...] = ()
    positions: tuple[int, ...] = ()
    filler: ModelFiller | StoredPrefix | None = None
    swapped: int = 0

    def before(self, stop: int) -> tuple[int, ...]:
        """Return all touched positions before `stop`, as bits; with `filler_key` they tell one spec's states apart."""
        below = (1 << stop) - 1
        return (self.swapped & below, *(bits & below for bits in self.positions))

    def added(self, stop: int) -> dict[int, LayerKey]:
        """Return the keys of all additions before position `stop`, by layer; layers without one are left out."""
        _, *touched = self.before(stop)
        by_layer: dict[int, list[tuple[int, str]]] = {}
        for term, bits in zip(self.terms, touched, strict=True):
            if bits:
                for layer, key in term.keys.items():
                    by_layer.setdefault(layer, []).append((bits, key))
        return {layer: tuple(sorted(keys)) for layer, keys in by_layer.items()}

    def is_stored(self, position: int) -> bool:
        """Whether keys and values at a position are in a file that was filled, so that nothing is computed there."""
        return isinstance(self.filler, StoredPrefix) and bool(self.swapped >> position & 1)

    def filler_key(self, stop: int) -> str | None:
        """Return a key of the filler and of the positions that it fills before `stop`; None if it fills none."""
        where = self.before(stop)[0]
        return f"{self.filler.identity}/{where:x}" if self.filler is not None and where else None


def terms_of(intervention: Intervention) -> tuple[Term, ...]:
    """Return the injections of an intervention with their keys; hashing vectors takes time, so do it once for each."""
    return tuple(_keyed(injection) for injection in intervention.terms)


def state_of(rendered: Rendered, intervention: Intervention, terms: tuple[Term, ...]) -> Effect:
    """Return the effect of `intervention`, whose terms are those of `terms_of`, on `rendered`.

    Raises UsageError for positions that are not marked, ConversationError where nothing was filled for `rendered`.
    """
    if intervention.filler is not None:
        return Effect(filler=intervention.filler.for_conversation(rendered), swapped=rendered.marked_bits)
    return Effect(terms, tuple(_touched(rendered, term.injection) for term in terms))


def _touched(rendered: Rendered, injection: Injection) -> int:
    if injection.positions is None and injection.segments is None:
        return rendered.marked_bits
    return as_bits(injected_positions(rendered, injection).tolist())


def as_bits(flags: Sequence[bool]) -> int:
    """Return positions whose flag is set, as bits of a number."""
    return int.from_bytes(np.packbits(np.asarray(flags, dtype=bool), bitorder="little").tobytes(), "little")


def as_positions(bits: int) -> list[int]:
    """Return the positions of a number's bits, ascending."""
    return [position for position in range(bits.bit_length()) if bits >> position & 1]


def _keyed(injection: Injection) -> Term:
    amount = injection.relative_strength if injection.strength is None else injection.strength
    assert amount is not None  # exactly one of the two is given
    vector = injection.vector.directions() if injection.is_relative else injection.vector
    name = f"{'rel' if injection.is_relative else 'x'}{amount!r}/{injection.vector.fingerprint()}"
    # Adding nothing is no state of its own: a strength of zero, or one that rounds to it, is the clean run itself.
    added = {n: vector.vectors[n] * amount for n in injection.layers or ()}
    return Term(injection, {n: f"{name}/{n}" for n, change in added.items() if bool(change.ne(0).any())})
