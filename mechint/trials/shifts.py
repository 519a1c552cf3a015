"""How far steering moves the readout where a reply begins: no sampling, no judge, beside what is sampled.

A trial has the logit difference of its first reply token (`first_token_logit_diff`), which a vector in the prompt moves
at once. Where steering begins with the reply (mode "reply"), that token is drawn from clean logits. The same
vector at the same layers and strength is then put into the prompt's turn and read as `mi.score` reads: the cache of the
turn is filled under it, and the reply's first token is read without.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mechint.base.progress import Progress
from mechint.base.signatures import checked
from mechint.models.model import Model
from mechint.readouts.score import score
from mechint.trials.cells import Cell, TrialVectors, cells, conversation, model_of
from mechint.trials.design import TrialDesign
from mechint.trials.prompts import TrialPrompts
from mechint.trials.sweeps import ANSWERS
from mechint.vectors.concept_vectors import ConceptVector

CELL = ("prompt", "series", "concept", "layers", "strength")
OF_REPLIES, IN_PROMPT = "the replies' own first token", "the vector in the prompt (mi.score)"
_STEERED_LATER = "reply"


@checked
def readout_shifts(
    model: Model,
    design: TrialDesign,
    vectors: Mapping[str, ConceptVector],
    *,
    prompts: TrialPrompts | None = None,
    store: str | Path | None = None,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
) -> pd.DataFrame:
    """Return the shift of logit(yes) - logit(no) by cell of a design, each vector in the prompt: `CELL` and `shift`.

    Of the prompts that ask whether something is noticed. A vector in the last block alone, behind which the turn is
    not read again, has none: NaN. `store`, `max_memory` and `progress` are those of `mi.score`, whose errors are
    raised too.
    """
    model = model_of(model, design, vectors)
    needed = TrialVectors.of(model, design, vectors)
    steered = _distinct(model, cells(model, design, needed, prompts or TrialPrompts.load()))
    rows: list[dict[str, object]] = []
    for name in dict.fromkeys(cell.prompt.name for cell in steered):
        of_prompt = [cell for cell in steered if cell.prompt.name == name]
        chat = conversation(of_prompt[0], design.reply_start)
        interventions = [cell.intervention for cell in of_prompt]
        table = score(
            model,
            chat,
            interventions,
            answers=ANSWERS,
            store=store,
            max_memory=max_memory,
            progress=progress,
        )
        shift = table.set_index("intervention")["logit_diff_shift"]
        rows += [{**_place(cell), "shift": float(shift[cell.intervention.name])} for cell in of_prompt]
    return pd.DataFrame(rows, columns=[*CELL, "shift"])


@checked
def logit_shifts(trials: pd.DataFrame, in_prompt: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return by trial how far its cell moves the readout: `id, logit_shift, logit_shift_of`; NaN where nothing says.

    Of modes that act on the prompt it is the difference to the clean replies of the same model and prompt, with
    `OF_REPLIES` in `logit_shift_of`; of steering from the reply on it is that of `in_prompt` (`readout_shifts`), with
    `IN_PROMPT`.
    """
    sources = ["model", "weights_hash", "prompt", "prompt_hash"]
    clean = trials[trials["series"] == "clean"].groupby(sources)["first_token_logit_diff"].mean().rename("clean")
    table = trials.merge(clean.reset_index(), on=sources, how="left")
    is_own = (table["series"] != "clean") & (table["steer"] != _STEERED_LATER)
    shift = (table["first_token_logit_diff"] - table["clean"]).where(is_own)
    text = pd.Series(np.where(is_own & shift.notna(), OF_REPLIES, ""), dtype=object)
    if in_prompt is not None:
        read = table[list(CELL)].merge(in_prompt, on=list(CELL), how="left")["shift"]
        is_read = ~is_own & read.notna()
        shift, text = shift.where(~is_read, read), text.where(~is_read, IN_PROMPT)
    return pd.DataFrame({"id": table["id"], "logit_shift": shift, "logit_shift_of": text})


def _distinct(model: Model, every: list[Cell]) -> list[Cell]:
    """Return the steered cells that ask for introspection, one for each prompt, vector, layers and strength."""
    chosen: dict[tuple[str, str], Cell] = {}
    for cell in every:
        is_asked = cell.place is not None and cell.prompt.question == "introspection"
        if is_asked and cell.place is not None and cell.place.layers != (model.n_layers - 1,):
            chosen.setdefault((cell.prompt.name, cell.intervention.name), cell)
    return list(chosen.values())


def _place(cell: Cell) -> dict[str, object]:
    assert cell.place is not None
    of_cell = {"prompt": cell.prompt.name, "series": cell.series, "concept": cell.concept}
    return {**of_cell, "layers": cell.place.layers_text, "strength": cell.place.strength}
