"""Finetuning: recipes as data, their examples, and the training of LoRA adapters with PEFT on a model that is loaded.

A recipe says what is added to the first turns, what is asked, what is right and how much is trained (`specification`,
`registry`); its examples are a function of seed and step (`examples`), drawn from pools whose held-out members are
never trained (`pools`). `train` makes a run of it, a folder with adapters at fixed steps (`training`, `run`); `verify`
shows that what was trained is what is read, and `watch` reads a model that is being trained with texts and vectors that
are there for it alone. `sibling` trains the adapter that a swap needs.

`mi.finetune` is this package. It imports floors up to `attribution`; no floor but `evals`, `figures` and the roof
imports it.
"""

from mechint.finetune.answer_tokens import check_tokens
from mechint.finetune.behaviour import Behaviour, behaviour_of
from mechint.finetune.examples import TextExample, example, step_examples
from mechint.finetune.expansion import counts, expand, specifications
from mechint.finetune.pools import Pools
from mechint.finetune.published_rows import read_published
from mechint.finetune.registry import differs_in, recipes
from mechint.finetune.replay import replay_texts
from mechint.finetune.run import Run
from mechint.finetune.specification import Recipe
from mechint.finetune.training import train
from mechint.finetune.verification import verify
from mechint.finetune.watch import watch, watch_run
from mechint.finetune.watch_rows import WatchRow, first_at, read_watch

__all__ = [
    "Behaviour",
    "Pools",
    "Recipe",
    "Run",
    "TextExample",
    "WatchRow",
    "behaviour_of",
    "check_tokens",
    "counts",
    "differs_in",
    "example",
    "expand",
    "first_at",
    "read_published",
    "read_watch",
    "recipes",
    "replay_texts",
    "specifications",
    "step_examples",
    "train",
    "verify",
    "watch",
    "watch_run",
]
