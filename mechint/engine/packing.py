"""Continuations of one past that are run as one row: the past is joined once for all of them, and none is padded.

Questions after the same first turns, under the same interventions, need the same rows at every level. Their tokens
stand one after another, each at its own positions, with a mask that lets them see the past and themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mechint.engine.footprint import Load
from mechint.engine.plan import Step

# A row's tokens at most: each pays for attention to all others. And tokens of all rows that are worth a pass.
_LONGEST, _WORTH = 128, 256


def packs_of(steps: Sequence[Step], most_tokens: int) -> tuple[list[list[Step]], list[Step]]:
    """Return packs of steps, at most so many tokens each if there are several rows, and all steps that are in none."""
    packs, rest = list[list[Step]](), list[Step]()
    alike: dict[object, list[Step]] = {}
    for step in steps:
        if is_plain(step):
            alike.setdefault(_rows_key(step), []).append(step)
        else:
            rest.append(step)
    for siblings in alike.values():
        for pack in _divided(siblings, most_tokens):
            load = Load.packed(pack)
            if len(pack) > 1 and int(load.counts.max()) * load.n_pos >= min(_WORTH, most_tokens // 2):
                packs.append(pack)
            else:
                rest += pack
    return packs, rest


def is_plain(step: Step) -> bool:
    """Whether a step continues another, and nothing is added or filled in it."""
    swapped = any(state.swapped >> step.node.start & 1 for state in step.states)
    return step.parent is not None and not swapped and not any(step.rows.steered)


def _rows_key(step: Step) -> object:
    return id(step.parent), step.to_parent.tobytes(), step.rows.level.tobytes(), step.rows.level.shape


def _divided(siblings: Sequence[Step], most_tokens: int) -> Iterator[list[Step]]:
    """Yield steps in groups, as long as a row may be."""
    longest = min(_LONGEST, most_tokens // max(siblings[0].rows.counts))
    pack: list[Step] = []
    for step in siblings:
        if pack and sum(member.n_tokens for member in pack) + step.n_tokens > longest:
            yield pack
            pack = []
        pack.append(step)
    yield pack
