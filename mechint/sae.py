"""Which features of a sparse autoencoder carry the signal from an injected cache to the answer, and are they causes?

    sae = mi.sae.load(model)                              # or a directory, or "release:id" of a published SAE
    states = mi.sae.read(model, question, [mi.CLEAN, steer], sae)
    states.quality                                        # how well the SAE rebuilds the stream there, first of all
    table = mi.sae.attribute(states, clean=0, injected=1) # features, SAE error and cache: they sum to the total
    mi.sae.faithfulness(states, 0, 1, table)              # attributed against measured, feature by feature
    top = table[table["kind"] == "feature"]["index"][:8].tolist()
    mi.sae.verdict(mi.sae.cases_of(states), top)          # cause, correlate, or neither; needs several concepts

Everything is read in the turns after the injection; `prefix_acts` and `steering_attribution` look at the steered ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from mechint.chat import Conversation
from mechint.features.attribution import attribute, attribute_all, by_position
from mechint.features.cases import Case, cases_of
from mechint.features.causes import Rule, verdict
from mechint.features.curves import curves
from mechint.features.dictionary import Dictionary, Quality
from mechint.features.discrimination import clusters, compare, discriminate
from mechint.features.faithfulness import faithfulness, rank_correlation, recovered_by_top
from mechint.features.gradients import check_differentiable
from mechint.features.loading import load, use
from mechint.features.necessity import measure, necessity, sufficiency
from mechint.features.readouts import feature_table
from mechint.features.setting import ablate, clamp
from mechint.features.states import States
from mechint.features.trials import trials
from mechint.features.whole import prefix_acts
from mechint.features.writing import steering_attribution
from mechint.interventions import Intervention
from mechint.model import Model
from mechint.progress import Progress
from mechint.reading import Reading
from mechint.signatures import Count, checked
from mechint.tokens import Answers

__all__ = [
    "Case",
    "Dictionary",
    "Quality",
    "Rule",
    "States",
    "ablate",
    "attribute",
    "attribute_all",
    "by_position",
    "cases_of",
    "check_differentiable",
    "clamp",
    "clusters",
    "compare",
    "curves",
    "discriminate",
    "faithfulness",
    "feature_table",
    "load",
    "measure",
    "necessity",
    "prefix_acts",
    "rank_correlation",
    "read",
    "recovered_by_top",
    "steering_attribution",
    "sufficiency",
    "trials",
    "use",
    "verdict",
]


@checked
def read(
    model: Model,
    conversation: Conversation,
    interventions: Intervention | Sequence[Intervention],
    sae: Dictionary | None = None,
    *,
    answers: Answers | None = None,
    batch_size: Count | None = None,
    progress: Progress | bool | None = None,
) -> States:
    """Return the features in one conversation's read turns, a row for each intervention its cache is filled under.

    `sae` is what `load` returns (the embedded one if None). With `progress`, attributions and verdicts that read these
    turns many times show how far they are. Raises what `load` and `prefill` raise.
    """
    dictionary = load(model) if sae is None else sae
    reading = Reading.of(model, conversation, interventions, answers=answers, batch_size=batch_size, progress=progress)
    return States.of(reading, dictionary)
