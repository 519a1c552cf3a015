"""The logit lens: the same readout of the residual stream at every layer.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020). The model's own final norm is applied once.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mechint.capture import EMBED, check_layers
from mechint.chat import Conversation
from mechint.engine import Progress
from mechint.interventions import Intervention
from mechint.model import Model
from mechint.score import table
from mechint.tokens import Answers

EMBED_LABEL = "embed"


def logit_lens(
    model: Model,
    conversations: Conversation | Sequence[Conversation],
    interventions: Intervention | Sequence[Intervention],
    *,
    answers: Answers | None = None,
    layers: Sequence[int] | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return one row per (conversation, intervention, layer) with the columns of `score` and `layer`.

    `layer` is "embed" for the stream before the first block, then 0, 1, ... for `resid_post` of each block; `layers`
    chooses blocks to read ("embed" is then left out). The last block's row equals the output. Shifts are against the
    clean cell at the same layer. Raises what `score` raises, and LayerRangeError.
    """
    chosen = (EMBED, *range(model.n_layers)) if layers is None else tuple(layers)
    check_layers(chosen, model.n_layers, lowest=EMBED)
    result = table(model, conversations, interventions, chosen, answers, batch_size, progress)
    if "layer" not in result:
        result.insert(2, "layer", chosen[0])
    labels = [EMBED_LABEL if layer == EMBED else int(layer) for layer in result["layer"]]
    result["layer"] = pd.Series(labels, index=result.index, dtype=object)
    return result
