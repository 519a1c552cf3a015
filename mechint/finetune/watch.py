"""What a training is watched with: detection, criterion, answers and drift at each of its fixed steps.

    watch_run(run, base, step=120)             # a line for the run's `watch.jsonl`
    watch(model, recipe, base=base, seed=0)    # any model, by a recipe that is adapted to it
    first_at(read_watch(run.path), 0.9)        # matched skill, instead of matched steps

Nothing that is watched is trained, and nothing is chosen by it: there is no best checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mechint.base.files import JSON
from mechint.base.progress import Progress
from mechint.base.signatures import Count, Index, Seed, checked
from mechint.chat.tokens import Answers
from mechint.engine.replies import ReplyRequest
from mechint.finetune.drift import kl_from_base, probe
from mechint.finetune.examples import TextExample
from mechint.finetune.injections import concept_vectors
from mechint.finetune.run import Run
from mechint.finetune.specification import Recipe
from mechint.finetune.watch_rows import WatchRow
from mechint.finetune.watched import REFERENCE, steering_of, task_label, watched_examples, watched_recipe
from mechint.interventions.specifications import CLEAN
from mechint.models.model import Model
from mechint.readouts.generate import replies
from mechint.stats.detected import Trials
from mechint.stats.jackknife import NO_UNIT
from mechint.stats.signal_detection import auc, criterion, d_prime, log_linear
from mechint.vectors.concept_vectors import ConceptVector

if TYPE_CHECKING:
    import pandas as pd

TEXTS = 48
_SAME = 1e-5  # relative difference of a probability that is computed in two places


@checked
def watch(
    model: Model,
    recipe: Recipe,
    *,
    base: Model | None = None,
    seed: Seed = 0,
    step: Index = 0,
    n: Count = TEXTS,
    concepts: Mapping[str, ConceptVector] | None = None,
    progress: Progress | bool | None = None,
) -> WatchRow:
    """Return what a model does with up to `n` texts of a recipe that no training has, each clean and steered.

    The recipe is that of the model (`recipe.for_model`). Relative strengths are in the norms of `base`, if it is given,
    so that they stay the same while a model is trained. `concepts` are vectors of `recipe.concepts("validation")`,
    for recipes with such vectors. The same seed gives the same texts and vectors at every step.

    Raises UsageError for fewer than 20 different texts, and what `mi.generate`, `injection_of` and `own_text` raise.
    """
    steered = watched_recipe(recipe, model)
    texts = watched_examples(steered, seed, n)
    table = _read(model, steered, texts, model if base is None else base, concepts, progress)
    questions = probe(model)
    reference = None if base is None else probe(base)
    drift = None if base is None else kl_from_base(model, base)
    return WatchRow(
        recipe=recipe.name,
        recipe_hash=recipe.hash,
        seed=seed,
        step=step,
        examples=step * recipe.budget.rows,
        vectors_of=recipe.name if steered is recipe else REFERENCE,
        texts=len(texts),
        task_auc=_task_auc(table),
        **_detection(table),
        kl=None if drift is None else drift.kl,
        kl_tokens=0 if drift is None else drift.tokens,
        probe_log_odds=questions.log_odds,
        probe_shift=None if reference is None else questions.log_odds - reference.log_odds,
        probe_mass=questions.mass,
        probe_questions=questions.questions,
    )


@checked
def watch_run(run: Run, base: Model, step: Index) -> dict[str, JSON]:
    """Return what a training is watched with after a step, as a line of its `watch.jsonl`; step 0 is its base.

    Vectors of concepts are extracted from the base, by mean difference. Raises what `run.model` and `watch` raise.
    """
    recipe = run.recipe
    model = run.model(base, step) if step else base
    concepts = concept_vectors(base, recipe, "validation")
    return watch(model, recipe, base=base, seed=run.seed, step=step, concepts=concepts).to_dict()


def _read(
    model: Model,
    recipe: Recipe,
    examples: Sequence[TextExample],
    unit: Model,
    concepts: Mapping[str, ConceptVector] | None,
    progress: Progress | bool | None,
) -> pd.DataFrame:
    """Return a row for each trial: `steered`, `label`, `vector`, `text`, `log_odds`, `mass`, `says_it`."""
    import pandas as pd

    steerings = [steering_of(recipe, item, model, unit, concepts) for item in examples]
    requests = [
        ReplyRequest(
            item.conversation(),
            (CLEAN, steering),
            max_new_tokens=1,
            answers=Answers(yes=(item.positive,), no=(item.negative,)),
        )
        for item, steering in zip(examples, steerings, strict=True)
    ]
    table = replies(model, requests, progress=progress)
    is_steered = (table["intervention"] != CLEAN.name).to_numpy()
    by_label = {item.conversation().label: item for item in examples}
    labels = [
        task_label(recipe, by_label[label], steered=bool(flag))
        for label, flag in zip(table["conversation"], is_steered, strict=True)
    ]
    vectors = [
        by_label[label].vector if flag else NO_UNIT
        for label, flag in zip(table["conversation"], is_steered, strict=True)
    ]
    likelier = table[["first_p_yes", "first_p_no"]].max(axis=1)
    return pd.DataFrame(
        {
            "steered": is_steered,
            "label": pd.Series(labels, dtype=object),
            "vector": vectors,
            "text": table["conversation"].to_numpy(str),
            "log_odds": table["first_logit_diff"].to_numpy(),
            "mass": table["first_yes_no_mass"].to_numpy(),
            "says_it": (likelier >= np.exp(table["log_prob"]) * (1 - _SAME)).to_numpy(),
        }
    )


def _detection(table: pd.DataFrame) -> dict[str, float]:
    """Return what steered and clean trials come to, by the names of a row."""
    steered, clean = table[table["steered"]], table[~table["steered"]]
    signal, noise = steered["log_odds"].to_numpy(np.float64), clean["log_odds"].to_numpy(np.float64)
    n_hits, n_alarms = int((signal > 0).sum()), int((noise > 0).sum())
    hits, alarms = log_linear(float(n_hits), len(signal)), log_linear(float(n_alarms), len(noise))
    units = (table["vector"].to_numpy(str), table["text"].to_numpy(str))
    area = Trials(table["log_odds"].to_numpy(np.float64), table["steered"].to_numpy(bool), *units).area()
    row = {
        "auc": float(area.mean),
        "auc_low": float(area.low),
        "auc_high": float(area.high),
        "d_prime": d_prime(hits, alarms),
        "criterion": criterion(hits, alarms),
        "hits": n_hits / len(signal),
        "false_alarms": n_alarms / len(noise),
    }
    for kind, trials in (("steered", steered), ("clean", clean)):
        row |= {f"{name}_{kind}": float(trials[name].mean()) for name in ("log_odds", "mass", "says_it")}
    return row


def _task_auc(table: pd.DataFrame) -> float | None:
    """Return the area of trials whose right label is the positive one against those of the other; None without both."""
    positive = table.loc[table["label"].eq(True), "log_odds"].to_numpy(np.float64)
    negative = table.loc[table["label"].eq(False), "log_odds"].to_numpy(np.float64)
    return auc(positive, negative) if len(positive) and len(negative) else None
