"""The readout at the answer position, as a tidy table: one row for each conversation and intervention."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mechint.answers import Row, add_shifts, answer_ids, read_rows
from mechint.chat import Conversation
from mechint.engine import Progress, run
from mechint.errors import UsageError
from mechint.files import JSON
from mechint.interventions import CLEAN, Clean, Intervention
from mechint.model import Model
from mechint.render import render
from mechint.tokens import Answers


def score(
    model: Model,
    conversations: Conversation | Sequence[Conversation],
    interventions: Intervention | Sequence[Intervention],
    *,
    answers: Answers | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return one row per (conversation, intervention), read at the last position of the conversation.

    Columns: `conversation`, `intervention`; `p_yes`, `p_no`, `logit_yes`, `logit_no`, `logit_diff` (natural units),
    `yes_no_mass`, `entropy` (nats, over the whole vocabulary); `p_yes_shift`, `p_no_shift`, `logit_diff_shift` against
    the clean cell of the same conversation, which is computed where it was not asked for. An option list gives
    `p_<option>` and `logit_<option>` instead. Answers are the conversation's own unless `answers` is given; columns
    without an answer are NaN. `table.attrs["receipts"]` holds the receipt of every prefill.

    Raises what `render`, `prefill` and `tokens.single_token` raise, before the first pass where it can be known then.
    """
    return table(model, conversations, interventions, (model.n_layers - 1,), answers, batch_size, progress)


def table(
    model: Model,
    conversations: Conversation | Sequence[Conversation],
    interventions: Intervention | Sequence[Intervention],
    layers: Sequence[int],
    answers: Answers | None,
    batch_size: int | None,
    progress: Progress | None,
) -> pd.DataFrame:
    """Return one row per (conversation, intervention, layer), ordered as given; the column `layer` holds numbers."""
    asked = [conversations] if isinstance(conversations, Conversation) else list(conversations)
    wanted = [interventions] if isinstance(interventions, Intervention) else list(interventions)
    if not asked or not wanted:
        raise UsageError("no conversations or no interventions", "one or more of each", "pass at least one")
    reference = next((i for i in wanted if isinstance(i, Clean)), CLEAN)
    complete = wanted if reference in wanted else [reference, *wanted]
    rendered = [render(model.tokenizer, conversation) for conversation in asked]
    ids = [answer_ids(model.tokenizer, item, answers) for item in rendered]
    rows: dict[tuple[int, int, int], Row] = {}
    receipts: list[JSON] = []
    for batch in run(model, rendered, complete, layers, batch_size, progress):
        receipts += [receipt.to_dict() for receipt in batch.receipts]
        for layer, resid in zip(layers, batch.resid, strict=True):
            found = read_rows(model.readout, resid, [ids[c] for c, _ in batch.cells])
            for (c, i), row in zip(batch.cells, found, strict=True):
                names: Row = {"conversation": asked[c].label, "intervention": complete[i].name}
                rows[c, i, layer] = {**names, "layer": layer, **row}
    result = pd.DataFrame([rows[key] for key in sorted(rows, key=lambda k: (k[0], k[1], layers.index(k[2])))])
    result = add_shifts(result, ("conversation", "layer"), reference.name)
    if reference not in wanted:
        result = result[result["intervention"] != reference.name].reset_index(drop=True)
    result.attrs["receipts"] = receipts
    return result if len(layers) > 1 else result.drop(columns="layer")
