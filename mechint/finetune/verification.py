"""Whether what is trained is what is read: logits of training beside those of `mi.score` on the adapter it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mechint.base.errors import ReceiptError, UsageError
from mechint.base.signatures import Count, Index, Seed, checked
from mechint.chat.tokens import Answers
from mechint.engine.job import Request
from mechint.finetune.answer_batch import AnswerBatch, Prompt, Prompts
from mechint.finetune.axes import Fill
from mechint.finetune.examples import step_examples
from mechint.finetune.forward import answer_logits
from mechint.finetune.injections import concept_vectors, fixed_dose
from mechint.finetune.lora import Trainee, with_adapter
from mechint.finetune.run import Run
from mechint.finetune.specification import Recipe
from mechint.models.model import Model
from mechint.models.rounding import ROUNDING
from mechint.readouts.tables import tables
from mechint.vectors.concept_vectors import ConceptVector

if TYPE_CHECKING:
    import pandas as pd


@checked
def verify(
    run: Run | str | Path,
    model: Model,
    recipe: Recipe | None = None,
    *,
    seed: Seed = 0,
    step: Index = 0,
    rows: Count = 8,
    concepts: Mapping[str, ConceptVector] | None = None,
) -> pd.DataFrame:
    """Return logits of answers in training beside those that `mi.score` reads from the adapter, a row for each.

    `run` is a run, whose final adapter is taken, or the folder of an adapter with the recipe that it was trained by;
    `model` is its base. Examples are those of a step of training. Columns: `index` and `steered` of the example,
    `answer`, its logits `trained` and `scored`, their absolute `difference`, and `spread`, the standard deviation of
    the logits over the vocabulary.

    `mi.score` runs the bridge, fills a cache under the injection and reads from it without; training passes the plain
    model under PEFT. Raises ReceiptError where they differ by more than rounding.
    """
    if isinstance(run, Run):
        adapter, written, seed = run.adapter(), run.recipe, run.seed
    elif recipe is not None:
        adapter, written = Path(run), recipe
    else:
        raise UsageError(f"the adapter {run} without its recipe", "an adapter and a recipe, or a run", "give recipe=")
    adapted = written.for_model(model.name, model.n_layers, model.prompts)
    prompts = Prompts(model, adapted, concept_vectors(model, adapted) if concepts is None else concepts)
    examples = prompts.of(step_examples(adapted, seed, step)[:rows])
    return compared(with_adapter(model, adapter), examples, model, adapter, adapted.fill)


def compared(trainee: Trainee, prompts: Sequence[Prompt], model: Model, adapter: Path, fill: Fill) -> pd.DataFrame:
    """Return what `verify` returns, of prompts and of what is in training."""
    import pandas as pd

    batch = AnswerBatch.of(model, prompts, split=fill.gradient == "stopped")
    with torch.no_grad(), answer_logits(trainee, batch, fill) as logits:
        trained = logits.cpu().gather(1, batch.answers)
    requests = [
        Request(
            prompt.example.conversation(),
            fixed_dose(prompt.intervention, model),
            Answers.options(prompt.example.answers),
        )
        for prompt in prompts
    ]
    scored = tables(model.with_adapter(adapter), requests)
    rows = [
        {
            "index": prompt.example.index,
            "steered": prompt.example.steered,
            "answer": word,
            "trained": float(trained[at, place]),
            "scored": float(scored[at][f"logit_{word}"].iloc[-1]),  # the clean cell, if it is another, is the first
            "spread": float(logits[at].std()),
        }
        for at, prompt in enumerate(prompts)
        for place, word in enumerate(prompt.example.answers)
    ]
    table = pd.DataFrame(rows)
    table["difference"] = (table["trained"] - table["scored"]).abs()
    _check(table, model)
    return table


def _check(table: pd.DataFrame, model: Model) -> None:
    limit = ROUNDING[model.backend.dtype]
    wrong = table[~(table["difference"] <= limit * table["spread"])]
    if len(wrong):
        raise ReceiptError(
            given=f"{model.name}: logits of training and of mi.score differ by {wrong['difference'].max():.3g} in "
            f"{len(wrong)} of {len(table)} answers, {int(wrong['steered'].sum())} of them steered",
            allowed=f"at most {limit:g} of the logits' spread ({table['spread'].mean():.3g}): rounding",
            advice="report this architecture: what would be trained is not what is read",
        )
