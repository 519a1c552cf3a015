"""Which features of a sparse autoencoder carry the signal from an injected cache to the answer, and are they causes?

    sae = mi.sae.load(model)                              # or a directory, or "release:id" of a published SAE
    sae = mi.sae.train(model)                             # or one that is trained now, on text of the model's own
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

from mechint.attribution.features.attribution import attribute, attribute_all, by_position
from mechint.attribution.features.cases import Case, cases_of
from mechint.attribution.features.clamping import ablate, clamp
from mechint.attribution.features.dictionary import Dictionary, Quality
from mechint.attribution.features.discrimination import clusters, compare, discriminate
from mechint.attribution.features.faithfulness import faithfulness, rank_correlation, recovered_by_top
from mechint.attribution.features.feature_reading import FeatureReading
from mechint.attribution.features.feature_table import feature_table
from mechint.attribution.features.gradients import check_differentiable
from mechint.attribution.features.loading import load, use
from mechint.attribution.features.matched_effects import trials
from mechint.attribution.features.necessity import measure, necessity, sufficiency
from mechint.attribution.features.recovery import curves
from mechint.attribution.features.steered_turns import prefix_acts
from mechint.attribution.features.steering_attribution import steering_attribution
from mechint.attribution.features.trained import train
from mechint.attribution.features.training import SAERecipe
from mechint.attribution.features.verdict import Rule, verdict
from mechint.attribution.reading import Reading
from mechint.base.progress import Progress
from mechint.base.signatures import Count, checked
from mechint.chat.conversations import Conversation
from mechint.chat.tokens import Answers
from mechint.interventions.specifications import Intervention
from mechint.models.model import Model
from mechint.readouts.own_text import TextRecipe

__all__ = [
    "Case",
    "Dictionary",
    "FeatureReading",
    "Quality",
    "Rule",
    "SAERecipe",
    "TextRecipe",
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
    "train",
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
) -> FeatureReading:
    """Return the features in one conversation's read turns, a row for each intervention its cache is filled under.

    `sae` is what `load` returns (the embedded one if None). With `progress`, attributions and verdicts that read these
    turns many times show how far they are. Raises what `load` and `prefill` raise.
    """
    dictionary = load(model) if sae is None else sae
    reading = Reading.of(model, conversation, interventions, answers=answers, batch_size=batch_size, progress=progress)
    return FeatureReading.of(reading, dictionary)
