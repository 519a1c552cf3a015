"""What a model really says at the answer: the likeliest token of all, whether or not it is one of both answers.

    table = mi.evals.first_tokens(run.model(base), run.recipe, base=base)
    mi.evals.token_shares(table)               # the commonest tokens of clean and of steered trials

Log odds compare two answers; a model that was trained on their odds alone may say neither of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.progress import Progress
from mechint.base.signatures import Count, Seed, checked
from mechint.chat.tokens import Answers
from mechint.engine.replies import ReplyRequest
from mechint.engine.shards import Shard
from mechint.evals.added import Added, Adding, check_signal
from mechint.evals.detection import CONTROLS
from mechint.evals.responders import Responder, Running
from mechint.evals.spoken import spoken
from mechint.evals.texts import Text, distinct_texts
from mechint.finetune.sampling import generator
from mechint.finetune.specification import Recipe
from mechint.interventions.specifications import CLEAN
from mechint.models.model import Model
from mechint.vectors.concept_vectors import ConceptVector

COLUMNS = (
    *("recipe", "kind", "text", "vector", "layers", "dose", "wording", "positive", "negative"),
    *("token", "p_token", "p_positive", "p_negative"),
)
OTHER = "other"
ANSWERS = ("positive", "negative")


@checked
def first_tokens(
    model: Responder,
    recipe: Recipe,
    *,
    vectors: Count = 2,
    texts: Count = 24,
    concepts: Mapping[str, ConceptVector] | None = None,
    base: Model | None = None,
    seed: Seed = 0,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row for each text of `detection`, clean and under a held-out vector at one range of layers and dose.

    Columns: `recipe`, `kind` ("clean" or "steered"), `text`, `vector`, `layers`, `dose`, `wording`, `positive` and
    `negative` (the answers by meaning); `token`, the likeliest of the whole vocabulary, as text, with its probability
    `p_token`, and those of both answers, `p_positive` and `p_negative`. Of an oracle, whose replies are words, `token`
    is the first word, and its probability is not known (NaN). The other arguments are those of `detection`.
    """
    check_signal(recipe, ("held-out",))
    listed = distinct_texts(recipe, texts, seed, "clean", CONTROLS)
    adding = Adding(recipe, model, concepts or {}, base)
    pool = adding.pool("held-out", listed[0].source, vectors, seed)
    order = generator(seed, "first tokens", 0, 0).permutation(len(pool))
    trials = [(text, pool[order[at % len(pool)]]) for at, text in enumerate(listed)]
    table = spoken(
        model,
        [_request(*trial) for trial in trials],
        Running(batch_size, batch_tokens, offload, max_memory, progress, store, shard),
    )
    by_label = {text.conversation().label: (text, added) for text, added in trials}
    rows = [_row(recipe, record, *by_label[str(record["conversation"])]) for record in table.to_dict("records")]
    receipts = table.attrs["receipts"]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table.attrs["receipts"] = receipts
    return table


def _request(text: Text, added: Added) -> ReplyRequest:
    source = text.source
    answers = Answers(yes=(source.positive,), no=(source.negative,))
    return ReplyRequest(text.conversation(), (CLEAN, added.intervention), max_new_tokens=1, answers=answers)


def _row(recipe: Recipe, record: dict[str, object], text: Text, added: Added) -> dict[str, object]:
    is_clean = record["intervention"] == CLEAN.name
    log_prob = record.get("log_prob", float("nan"))
    return {
        "recipe": recipe.name,
        "kind": "clean" if is_clean else "steered",
        "text": text.unit,
        "vector": "" if is_clean else added.vector,
        "layers": "" if is_clean else added.layers,
        "dose": 0.0 if is_clean else added.dose,
        "wording": text.source.question,
        "positive": text.source.positive,
        "negative": text.source.negative,
        "token": str(record["text"]),
        "p_token": float(np.exp(float(str(log_prob)))),
        "p_positive": record["first_p_yes"],
        "p_negative": record["first_p_no"],
    }


@checked
def token_shares(table: pd.DataFrame, *, tokens: Count = 4) -> pd.DataFrame:
    """Return one row for each kind of trial and what is said there, of a table of `first_tokens`, with its share.

    `said` is "positive" or "negative" where the likeliest token is this answer, else the token itself, where it is one
    of the commonest `tokens` that are no answer, or "other"; `share` of the trials of a kind, `n_trials` of them, and
    `p`, the mean probability of the likeliest token. Raises UsageError for an empty table.
    """
    if table.empty:
        raise UsageError("a table without trials", "a table of mi.evals.first_tokens", "compute it first")
    spoken_as = _meanings(table, tokens)
    names = [*ANSWERS, *sorted(set(spoken_as) - {*ANSWERS, OTHER}), *([OTHER] if (spoken_as == OTHER).any() else [])]
    rows = []
    for kind in table["kind"].drop_duplicates():
        of_kind = spoken_as[table["kind"] == kind]
        for name in names:
            p = table.loc[of_kind.index[of_kind == name], "p_token"].mean()
            row = {"kind": kind, "said": name, "share": float((of_kind == name).mean()), "p": float(p)}
            rows.append(row | {"n_trials": len(of_kind)})
    return pd.DataFrame(rows)


def _meanings(table: pd.DataFrame, tokens: int) -> pd.Series:
    """Return the answer, token or "other" that is said in each trial."""
    words = table["token"].str.strip()
    meanings = words.copy()
    for name in ANSWERS:
        meanings = meanings.mask(words == table[name].str.strip(), name)
    others = meanings[~meanings.isin(ANSWERS)]
    rare = others[~others.isin(others.value_counts().index[:tokens])]
    meanings.loc[rare.index] = OTHER
    return meanings
