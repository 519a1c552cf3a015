"""A conversation read whole, steered on the way: the stream of the steered turns, which a cache does not hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.reading import Edit, Reading
from mechint.base.errors import UsageError
from mechint.base.signatures import checked
from mechint.interventions.addition import Term
from mechint.interventions.prefill import Prefilled, injected_positions
from mechint.interventions.specifications import Intervention
from mechint.models.cache import KVCache


@checked
def prefix_acts(states: FeatureReading) -> Float[Tensor, "row pos d_sae"]:
    """Return the feature activations at the prefix positions (the steered turns), one row for each intervention.

    They are those of the stream as it was while the cache was filled. Raises UsageError for caches that another model
    filled (swaps).
    """
    layer, whole = states.dictionary.layer, unsplit(states.reading)
    steered = [Steered.of(states.reading, intervention) for intervention in states.reading.interventions]
    streams = torch.cat([run.streams(whole, [1.0], [layer])[layer] for run in steered])
    return states.dictionary.encode(streams[:, : states.reading.rendered.prefix_length].float())


def unsplit(reading: Reading) -> Reading:
    """Return the reading of the same tokens with nothing cached: all positions are read positions."""
    segments = tuple(replace(segment, add_injection=False) for segment in reading.rendered.segments)
    rendered = replace(reading.rendered, segments=segments)
    return replace(reading, prefilled=Prefilled(rendered, KVCache(), ()))


@dataclass(frozen=True, eq=False)
class Steered:
    """The additions of an intervention to the stream of a whole conversation (none, if it is clean)."""

    terms: tuple[Term, ...]
    touched: Bool[Tensor, " pos"]

    @classmethod
    def of(cls, reading: Reading, intervention: Intervention) -> Steered:
        """Work out amounts and positions as a prefill does. Raises UsageError for swaps."""
        if intervention.filler is not None:
            raise UsageError(
                given=f"{intervention.name}, whose steered turns went through another model",
                allowed="clean runs and injections",
                advice="look at the read positions instead: States.acts",
            )
        terms = []
        for injection in intervention.terms:
            amounts = {layer: injection.amount(layer, reading.model) for layer in injection.layers or ()}
            terms.append(Term(0, injected_positions(reading.rendered, injection), amounts))
        touched = torch.zeros(len(reading.rendered.tokens), dtype=torch.bool)
        for term in terms:
            touched |= term.positions
        return cls(tuple(terms), touched)

    @property
    def layers(self) -> list[int]:
        """The layers with an addition."""
        return sorted({layer for term in self.terms for layer in term.vectors})

    def added(self, layer: int) -> Float[Tensor, "pos d_model"]:
        """Return the sum of the additions at one of `layers`."""
        parts = [term.positions[:, None] * term.vectors[layer].cpu() for term in self.terms if layer in term.vectors]
        return torch.stack(parts).sum(0)

    def edit(self, layer: int, scales: Float[Tensor, " row"]) -> Edit:
        """Return an edit that adds to each row its scale times the additions at a layer."""
        added = self.added(layer)

        def add(resid: Tensor, rows: Sequence[int]) -> Tensor:
            changed: Tensor = resid + scales[list(rows)].to(resid)[:, None, None] * added.to(resid)
            return changed

        return add

    def streams(
        self, whole: Reading, scales: Sequence[float], keep: Sequence[int]
    ) -> dict[int, Float[Tensor, "row pos d_model"]]:
        """Return `resid_post` of layers `keep` under the injection times each scale, one row for each scale."""
        every = torch.tensor(scales)
        edits = {layer: self.edit(layer, every) for layer in self.layers if layer <= max(keep)}
        return whole.run(range(len(scales)), edits=edits, keep=keep)
