"""Feature activations of one reading: at every read position, under every intervention its cache was filled with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechint.attribution.features.dictionary import Dictionary, Quality, ordinary, quality
from mechint.attribution.reading import Reading


@dataclass(frozen=True, eq=False)
class FeatureReading:
    """The stream after the dictionary's layer while the rest of a conversation is read, and the features in it.

    `resid` and `acts` have one row for each intervention of `reading` and one column for each read position; the last
    position is the one that answers. `resid = acts @ dictionary.decoder + rest`, in float32.
    """

    reading: Reading
    dictionary: Dictionary
    resid: Float[Tensor, "row pos d_model"]
    acts: Float[Tensor, "row pos d_sae"]

    @classmethod
    def of(cls, reading: Reading, dictionary: Dictionary) -> FeatureReading:
        """Read the conversation once under every intervention."""
        resid = reading.residuals([dictionary.layer])[dictionary.layer].float()
        return cls(reading, dictionary, resid, dictionary.encode(resid))

    @property
    def rest(self) -> Float[Tensor, "row pos d_model"]:
        """The part of the stream that features do not hold: the SAE's bias and its error."""
        return self.dictionary.rest(self.resid, self.acts)

    @cached_property
    def logit_diffs(self) -> Float[Tensor, " row"]:
        """logit(yes) - logit(no) at the answer position, by intervention."""
        return self.reading.logit_diffs(range(len(self.resid)), resid=self.resid, layer=self.dictionary.layer)

    @cached_property
    def quality(self) -> Quality:
        """How well the dictionary rebuilds the stream at the read positions that hold no special token."""
        keep = ordinary(self.reading.model, self.reading.rendered, self.reading.positions)
        return quality(self.dictionary, self.resid, keep)

    def with_features(
        self,
        row: int,
        features: Sequence[int],
        to: Float[Tensor, "*set pos_or_one features"],
        positions: Bool[Tensor, " pos"] | None = None,
    ) -> Float[Tensor, "*set pos d_model"]:
        """Return the stream of a row with some features' activations set to `to`, at all or some positions.

        Only what these features write is changed: what other features and the SAE's error hold stays as it is, so
        setting features to what they are changes nothing. Raises UsageError for features out of range.
        """
        self.dictionary.check_features(features)
        chosen = torch.tensor(features, device=self.acts.device)
        change = (to.to(self.acts.device) - self.acts[row][:, chosen]) @ self.dictionary.decoder[chosen]
        if positions is not None:
            change = change * positions.to(change.device)[:, None]
        changed: Tensor = self.resid[row] + change
        return changed
