"""The ordinary chats of a step: a function of recipe, seed and step alone, as its examples are.

replay_texts(Recipe.load("matched/replay"), seed=0, step=17)
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Int

from mechint.base.signatures import Index, Seed, checked
from mechint.chat.conversations import Conversation
from mechint.finetune.sampling import generator
from mechint.finetune.specification import Recipe


@checked
def replay_texts(recipe: Recipe, seed: Seed, step: Index) -> tuple[Conversation, ...]:
    """Return the chats that are read beside the examples of a step, none where the recipe has no replay.

    Each comes once before any comes again, in an order that is drawn for each round. Nothing in them is marked, and
    they end with a closed reply.
    """
    if not recipe.replay.share:
        return ()
    chats, rows = recipe.chats.conversations, recipe.replay_rows
    rounds = [divmod(place, len(chats)) for place in range(step * rows, (step + 1) * rows)]
    return tuple(chats[_order(len(chats), seed, epoch)[within]] for epoch, within in rounds)


@lru_cache(maxsize=8)
def _order(count: int, seed: int, epoch: int) -> Int[np.ndarray, " chat"]:
    return generator(seed, "replay", 0, epoch).permutation(count)
