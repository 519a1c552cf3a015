"""Detection: does the model tell steered first turns from clean ones, on texts and vectors that it was not trained on?

    table = mi.evals.detection(run.model(base), run.recipe, base=base)
    mi.evals.detection_rates(table)            # by pool; by=("pool", "layers", "dose") for each cell

One row for each trial and question: "own" is what was trained, "control" another question in the same words for its
answers, asked after the same first turns under the same injection. What moves both is a push, and no detection. Clean
trials are texts, each once: a clean trial is a function of its text, so repeating it tells nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from mechint.base.progress import Progress
from mechint.base.signatures import Count, Seed, checked
from mechint.engine.job import Request
from mechint.engine.shards import Shard
from mechint.evals.added import NULL, Added, Adding, check_signal
from mechint.evals.responders import Responder, Running, answered
from mechint.evals.texts import CONTROL, OWN, Text, distinct_texts, long, odd
from mechint.finetune.sampling import generator
from mechint.finetune.signal import Signal
from mechint.finetune.specification import Recipe
from mechint.interventions.specifications import CLEAN
from mechint.models.model import Model
from mechint.vectors.concept_vectors import ConceptVector

CLEAN_POOLS = ("clean", "dev", "seen", "odd", "long")
CONTROLS = ("keyed-neutral", "keyed-food")
_LONGER = 3  # other texts that a long one goes on with


@dataclass(frozen=True)
class Trial:
    """A text with what is added to it, and the names of its cells in the tables."""

    text: Text
    added: Added | None

    @property
    def kind(self) -> str:
        """What was done: steered, null, or the pool of clean texts."""
        if self.added is None:
            return self.text.pool
        return NULL if self.added.pool == NULL else "steered"

    def record(self, question: str) -> dict[str, str | float]:
        """Return the columns that describe the trial, with the keys of its cell."""
        source, added = self.text.source, self.added
        return {
            "kind": self.kind,
            "pool": added.pool if added else self.text.pool,
            "question": question,
            "text": self.text.unit,
            "vector": "" if added is None or self.kind == NULL else added.vector,
            "layers": added.layers if added else "",
            "dose": added.dose if added else 0.0,
            "wording": source.question if question == OWN else self.text.control,
            "positive": source.positive,
            "negative": source.negative,
            "conversation": self.text.label(question),
            "intervention": (added.intervention if added else CLEAN).name,
        }


@checked
def detection(
    model: Responder,
    recipe: Recipe,
    *,
    pools: Sequence[str] = ("trained", "held-out"),
    vectors: Count = 16,
    texts: Count = 40,
    dev_texts: Count = 100,
    concepts: Mapping[str, ConceptVector] | None = None,
    signal: Signal | None = None,
    base: Model | None = None,
    controls: Sequence[str] = CONTROLS,
    seed: Seed = 0,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row for each trial and question.

    Steered trials: each of `vectors` of each pool (`mechint.evals.added`), at each range of layers and dose of the
    recipe's signal, or of `signal`, on a text whose opener, reply and wording are held out; where a signal is at single
    blocks, at one of the range. Clean ones, by `kind`: the same texts ("clean"), texts of the validation pools for
    thresholds ("dev"), of training ("seen"), the clean texts with their words in another order ("odd"), with more turns
    ("long"), and with an injection of strength 0 ("null").

    Columns: `recipe`, `kind`, `pool`, `question`, `text`, `vector`, `layers`, `dose`, `wording`, `positive`, `negative`
    (the answers by meaning), `logit_a` and `logit_b` of these (float32), `score`, their difference: the log odds of
    having been steered; `mass`, the probability of both; `says`, which of them has more than half of all probability,
    so that it would be said ("" for neither). Doses in norms of the stream are measured on `base`, or on the model
    itself. `recipe` is adapted to the model (`Recipe.adapted`). The other arguments are those of `mi.score`; of a shard
    the table has the trials that the store has by then.

    Raises UsageError for recipes without a signal, more vectors or texts than there are, and what `mi.score` raises.
    """
    recipe = recipe if signal is None else replace(recipe, signal=signal, labels=replace(recipe.labels, rule="steered"))
    check_signal(recipe, pools)
    trials = _trials(Adding(recipe, model, concepts or {}, base), pools, (vectors, texts, dev_texts), controls, seed)
    running = Running(batch_size, batch_tokens, offload, max_memory, progress, store, shard)
    return _rows(recipe, trials, answered(model, _requests(trials), running))


def _trials(
    adding: Adding, pools: Sequence[str], counts: tuple[int, int, int], controls: Sequence[str], seed: int
) -> list[Trial]:
    recipe, (vectors, count, dev_count) = adding.recipe, counts
    texts = distinct_texts(recipe, count, seed, "clean", controls)
    by_pool: Mapping[str, Sequence[Text]] = {
        "clean": texts,
        "dev": distinct_texts(recipe, dev_count, seed, "dev", controls, "validation"),
        "seen": distinct_texts(recipe, count, seed, "seen", controls, "train"),
        "odd": [odd(text, seed) for text in texts],
        "long": [
            long(text, [texts[(at + 1 + more) % count] for more in range(_LONGER)]) for at, text in enumerate(texts)
        ],
    }
    clean = [Trial(text, None) for pool in CLEAN_POOLS for text in by_pool[pool]]
    steered, number = [], 0
    for pool in pools:
        order = generator(seed, f"texts of {pool}", 0, 0).permutation(count)
        for added in adding.pool(pool, texts[0].source, vectors, seed):
            steered.append(Trial(texts[order[number % count]], added))
            number += 1
    assert steered[0].added is not None  # no pool is empty
    null = adding.null(steered[0].added)
    return [*clean, *[Trial(text, null) for text in texts], *steered]


def _requests(trials: Sequence[Trial]) -> list[Request]:
    """Return a request for each text: both questions under all that is added to it, so that they share its passes."""
    by_text: dict[tuple[str, int], list[Trial]] = {}
    for trial in trials:
        by_text.setdefault((trial.text.pool, trial.text.number), []).append(trial)
    return [
        Request(
            [members[0].text.conversation(question) for question in _questions(members[0])],
            [trial.added.intervention if trial.added else CLEAN for trial in members],
        )
        for members in by_text.values()
    ]


def _questions(trial: Trial) -> tuple[str, ...]:
    """The control question is for what is steered, and for the clean trials that it is compared with."""
    return (OWN, CONTROL) if trial.text.pool == "clean" else (OWN,)


def _rows(recipe: Recipe, trials: Sequence[Trial], read: pd.DataFrame) -> pd.DataFrame:
    keys = ["conversation", "intervention"]
    described = pd.DataFrame([trial.record(question) for trial in trials for question in _questions(trial)])
    receipts = read.attrs["receipts"]
    read.attrs = {}
    columns = ["logit_yes", "logit_no", "logit_diff", "yes_no_mass", "p_yes", "p_no"]
    table = described.merge(read[[*keys, *columns]], on=keys, how="inner", validate="one_to_one")
    says = table["positive"].where(table["p_yes"] > 0.5, table["negative"].where(table["p_no"] > 0.5, ""))
    names = {"logit_yes": "logit_a", "logit_no": "logit_b", "logit_diff": "score", "yes_no_mass": "mass"}
    table = table.assign(says=says).rename(columns=names).drop(columns=[*keys, "p_yes", "p_no"])
    table.insert(0, "recipe", recipe.name)
    table.attrs["receipts"] = receipts
    return table
