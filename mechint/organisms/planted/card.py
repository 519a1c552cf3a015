"""The card of `organism-planted`: what was planted, and what was measured on the very files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Float

import mechint as mi
from mechint.attribution.reading import Reading
from mechint.organisms import DATA, concepts
from mechint.organisms.planted.planting import Planted
from mechint.organisms.planted.sae import SAE_LAYER, THRESHOLD
from mechint.organisms.record import parameters, weights_path
from mechint.organisms.truth.wording import Wording
from mechint.stats import intervals

LAYERS, STRENGTH = range(2, 5), 0.4
CONCEPTS = concepts("all")[::4]
WORDINGS = 4


def card(directory: Path) -> str:
    """Return the card of the planted model in `directory`; what it tells of shifts is measured now."""
    planted = Planted.read(directory)
    record = {name.removesuffix("_dimension"): value for name, value in asdict(planted).items()}
    template = (DATA / "planted.md").read_text(encoding="utf-8")
    return template.format(
        **record,
        parameters=parameters(weights_path(directory)),
        threshold=THRESHOLD,
        n_concepts=len(CONCEPTS),
        n_chats=len(_chats()),
        table=_table(directory, planted),
    )


def injections(model: mi.Model, words: Sequence[str] = CONCEPTS) -> list[mi.Injection]:
    """Return the injections of words that the card is measured with."""
    return [_injection(vector, word) for word, vector in mi.extract.mean_difference(model, words).items()]


def controls(model: mi.Model, like: mi.ConceptVector, n: int = 8) -> list[mi.Injection]:
    """Return injections of random vectors with the norms of another."""
    return [_injection(vector, vector.name) for vector in mi.extract.random_controls(model, n, like=like)]


def shifts(
    model: mi.Model,
    injected: Sequence[mi.Injection],
    chats: Sequence[mi.Conversation],
    layer: int = SAE_LAYER,
    removed: Sequence[int | None] = (None,),
) -> Float[np.ndarray, "removed chat injection"]:
    """Return logit_diff(injected) - logit_diff(clean), with one dimension after another taken away (None: none).

    It is set to zero after block `layer`, at all read positions of the injected run.
    """
    differences = np.empty((len(removed), len(chats), len(injected)))
    for at, chat in enumerate(chats):
        reading = Reading.of(model, chat, [mi.CLEAN, *injected])
        rows, resid = range(1, 1 + len(injected)), reading.residuals([layer])[layer]
        clean = reading.logit_diffs([0], resid=resid[:1], layer=layer)
        for which, dimension in enumerate(removed):
            stream = resid[1:].clone()
            if dimension is not None:
                stream[..., dimension] = 0
            differences[which, at] = (reading.logit_diffs(rows, resid=stream, layer=layer) - clean).double()
    return differences


def _table(directory: Path, planted: Planted) -> str:
    model, base, chats = mi.load(directory), mi.load(planted.base), _chats()
    injected = injections(model)
    random = controls(model, injected[0].vector)
    others = injections(model, Wording.load().extra_concepts[: len(CONCEPTS)])
    removed = (None, planted.cause_dimension, planted.correlate_dimension)
    whole, without_cause, without_correlate = shifts(model, injected, chats, removed=removed)
    rows = {
        "concepts": whole,
        "concepts, without the cause": without_cause,
        "concepts, without the correlate": without_correlate,
        "random directions of equal norm": shifts(model, random, chats)[0],
        "words that carry no mark": shifts(model, others, chats)[0],
        f"{planted.base}, its own vectors of the concepts": shifts(base, injections(base), chats)[0],
    }
    lines = ["| shift of logit_diff | mean | 95% interval | by vector |", "|---|---|---|---|"]
    return "\n".join([*lines, *(_line(name, values.mean(0)) for name, values in rows.items())])


def _line(name: str, values: Float[np.ndarray, " vector"]) -> str:
    mean = intervals.mean_interval(values)
    return (
        f"| {name} | {mean.mean:.2f} | {mean.low:.2f} to {mean.high:.2f} | {values.min():.2f} to {values.max():.2f} |"
    )


def _chats() -> list[mi.Conversation]:
    wording = Wording.load()
    return [chat for info in ("introspection", "none") for chat in wording.detection(info, "yes-no", WORDINGS)]


def _injection(vector: mi.ConceptVector, name: str) -> mi.Injection:
    return mi.Injection(vector, LAYERS, relative_strength=STRENGTH, name=name)
