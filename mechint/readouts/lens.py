"""The logit lens: the same readout of the residual stream at every layer.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020). The model's own final norm is applied once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mechint.base.progress import Progress
from mechint.base.signatures import Count, checked
from mechint.chat.conversations import Conversation
from mechint.chat.tokens import Answers
from mechint.engine.job import Job, Options, Request, finish
from mechint.engine.shards import Shard
from mechint.interventions.specifications import Intervention
from mechint.models.capture import EMBED, check_layers
from mechint.models.model import Model
from mechint.readouts.tables import reporting

EMBED_LABEL = "embed"


@checked
def logit_lens(
    model: Model,
    conversations: Conversation | Sequence[Conversation],
    interventions: Intervention | Sequence[Intervention],
    *,
    answers: Answers | None = None,
    layers: Sequence[int] | None = None,
    batch_size: Count | None = None,
    batch_tokens: Count | None = None,
    offload: bool = False,
    max_memory: int | str | None = None,
    progress: Progress | bool | None = None,
    store: str | Path | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Return one row per (conversation, intervention, layer) with the columns of `score` and `layer`.

    `layer` is "embed" for the stream before the first block, then 0, 1, ... for `resid_post` of each block; `layers`
    chooses blocks to read ("embed" is then left out). The last block's row equals the output. Shifts are against the
    clean cell at the same layer. The other arguments are those of `score`. Raises what `score` raises, and
    LayerRangeError.
    """
    chosen = (EMBED, *range(model.n_layers)) if layers is None else tuple(layers)
    check_layers(chosen, model.n_layers, lowest=EMBED)
    job = Job.of(model, [Request(conversations, interventions, answers, chosen)])
    options = Options(batch_size, batch_tokens, None, store, shard, offload, max_memory)
    with reporting(job, options, progress) as reported:
        (rows,) = job.rows(reported)
    return with_labels(finish(rows))


def with_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its layers named: "embed" for the stream before the first block."""
    labels = [EMBED_LABEL if layer == EMBED else int(layer) for layer in table["layer"]]
    return table.assign(layer=pd.Series(labels, index=table.index, dtype=object))
