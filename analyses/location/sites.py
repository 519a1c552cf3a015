"""Where location injects: sentences, halves of them, early or late layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyses.kit.dose import common_layers
from analyses.kit.option_types import format_layers
from mechint.base.errors import UsageError

if TYPE_CHECKING:
    from analyses.kit.subject import Subject
    from mechint.chat.conversations import Conversation

Layers = tuple[int, ...]
_MESSAGE = 1  # that of the sentences; the system message is before it


@dataclass(frozen=True)
class Site:
    """One place to inject at: layers, and token positions."""

    layers: Layers
    positions: tuple[int, ...]


def sites(subject: Subject, sentences: Sequence[str], chat: Conversation) -> dict[str, list[Site]]:
    """Return the sites of each place, in the order of its options; only tokens of the sentences are touched."""
    from mechint.chat.render import render
    from mechint.chat.spans import positions_of

    text, tokenizer = render(subject.model, chat), subject.model.tokenizer
    by_sentence = [positions_of(tokenizer, text, sentence, message=_MESSAGE) for sentence in sentences]
    half, layers = len(sentences) // 2, subject.dose.layers
    return {
        "half": [Site(layers, _joined(by_sentence[:half])), Site(layers, _joined(by_sentence[half:]))],
        "sentence": [Site(layers, positions) for positions in by_sentence],
        "layer": [Site(depth, _joined(by_sentence)) for depth in _depths(subject)],
    }


def _joined(spans: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(sorted(position for span in spans for position in span))


def _depths(subject: Subject) -> tuple[Layers, Layers]:
    """Return the early and the late layers for which all vectors of a run have a direction."""
    return depth_halves(common_layers({**subject.concepts, **subject.randoms}), subject.model.n_layers)


def depth_halves(layers: Sequence[int], n_layers: int) -> tuple[Layers, Layers]:
    """Return as many of `layers` in the first half of a model as in the second.

    The last block is left out: no later token reads what it writes. Raises UsageError where a half has none.
    """
    middle = n_layers // 2
    early = tuple(layer for layer in layers if layer < min(middle, n_layers - 1))
    late = tuple(layer for layer in layers if middle <= layer < n_layers - 1)
    count = min(len(early), len(late))
    if count == 0:
        raise UsageError(
            given=f"vectors for layers {format_layers(layers)} of {n_layers}",
            allowed="vectors with layers in both halves of the model, the last block not counted",
            advice="make vectors for all layers (leave --vectors out), or take a deeper model",
        )
    return early[:count], late[-count:]


def words(sites_of: dict[str, list[Site]]) -> str:
    """Return at which layers each place is injected, for the record and for figures."""
    layers = format_layers(sites_of["half"][0].layers)
    depths = " or ".join(format_layers(site.layers) for site in sites_of["layer"])
    return f"halves and sentences at layers {layers}, depths at {depths}"
