"""What is measured in one case, a conversation under one vector: what features carry, and what they cause."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from analyses.kit import record as run
from analyses.kit import resume
from analyses.kit.study import Condition, Setup
from mechint.base.files import JSON

if TYPE_CHECKING:
    import pandas as pd

    from mechint.attribution.features.attribution import Method
    from mechint.attribution.features.dictionary import Dictionary
    from mechint.attribution.features.feature_reading import FeatureReading
    from mechint.chat.conversations import Conversation

CLEAN, INJECTED = 0, 1  # rows of a reading
STEPS = 16  # points of integrated gradients
DRAWS = 10  # random sets of each size
TEXT_FEATURES = 3
TEXT_TOKENS = 240  # of a longer conversation the last so many are shown


@dataclasses.dataclass(frozen=True)
class Study:
    """What is the same in all cases: the model with what is injected, the SAE, and how is attributed."""

    setup: Setup
    dictionary: Dictionary
    method: Method

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the SAE's weights and of how is attributed."""
        from mechint.base.files import sha256

        weights = [weight.detach().cpu().float().numpy().tobytes() for weight in self.dictionary.sae.parameters()]
        return sha256(self.method.encode(), self.dictionary.name.encode(), str(STEPS).encode(), *weights)

    def cases(self, chats: Sequence[Conversation], kinds: Sequence[str] = ("injected", "random")) -> list[Case]:
        """Return every conversation under every vector of some kinds."""
        return [Case(self, chat, condition) for chat in chats for condition in self.setup.conditions(kinds)]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is tested for being a cause: candidates, features whose effect is measured, and by concept an order."""

    candidates: Sequence[int]
    measured: Sequence[int]
    orders: Mapping[str, Sequence[int]]
    counts: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Case:
    """One conversation under one vector."""

    study: Study
    chat: Conversation
    condition: Condition

    def states(self) -> FeatureReading:
        """Read the conversation clean and injected."""
        from mechint.attribution.features.feature_reading import FeatureReading
        from mechint.attribution.reading import Reading
        from mechint.interventions import specifications as interventions

        under, setup = [interventions.CLEAN, self.condition.intervention], self.study.setup
        reading = Reading.of(setup.model, self.chat, under, batch_size=setup.config.batch_size)
        return FeatureReading.of(reading, self.study.dictionary)

    def attributed(self) -> resume.Chunk:
        """Return what is attributed to features and to components, activations, and how well the SAE rebuilds."""

        def rows(states: FeatureReading) -> dict[str, pd.DataFrame]:
            import pandas as pd

            from mechint.attribution.components import direct_logit_attribution
            from mechint.attribution.features.attribution import attribute
            from mechint.attribution.features.feature_table import feature_table

            attributions = attribute(states, CLEAN, INJECTED, method=self.study.method, steps=STEPS)
            sums = {name: attributions.attrs[name] for name in ("total", "logit_diff_shift")}
            concepts = {self.condition.intervention.name: self.condition.unit}
            acts = feature_table(states, concepts=concepts)
            with warnings.catch_warnings():  # told once, of all cases
                warnings.simplefilter("ignore")
                quality = pd.DataFrame([dataclasses.asdict(states.quality)])
            return {
                "attribution": attributions.assign(**sums),
                "readouts": acts[acts["series"] != "clean"].drop(columns=["concept", "series"]),
                "components": direct_logit_attribution(states.reading, CLEAN, INJECTED),
                "quality": quality,
            }

        return self._chunk(rows)

    def caused(self, plan: Plan) -> resume.Chunk:
        """Return what happens when features are set to what they are in the other run."""
        seed, order = self.study.setup.config.seed, plan.orders[self.condition.unit]

        def rows(states: FeatureReading) -> dict[str, pd.DataFrame]:
            from mechint.attribution.features import cases, necessity
            from mechint.attribution.features import matched_effects as trials

            case = cases.Case(states, CLEAN, INJECTED, self.condition.unit)
            sets = necessity.measure([case], order, plan.counts, n_random=DRAWS, seed=seed)
            return {
                "single": _single(states, plan.measured),
                "sets": sets.drop(columns="concept"),
                "trials": trials.trials([case], plan.candidates, seed=seed).drop(columns=["concept", "features"]),
            }

        return self._chunk(rows, plan.candidates, plan.measured, plan.counts, order, seed)

    def text(self, chosen: Sequence[int]) -> JSON:
        """Return tokens, speakers, and activations of some features at every position, clean and injected.

        Of a long conversation the end: `first` is the first position.
        """
        import torch

        from mechint.attribution.features.attribution import feature_label
        from mechint.attribution.features.steered_turns import prefix_acts

        states, tokenizer = self.states(), self.study.setup.model.tokenizer
        rendered, layer = states.reading.rendered, self.study.dictionary.layer
        first = max(0, len(rendered.tokens) - TEXT_TOKENS)
        acts = torch.cat([prefix_acts(states), states.acts], dim=1)[:, first:, list(chosen)].cpu().tolist()
        speakers: list[JSON] = [
            {
                "name": segment.role + ", injected" * segment.add_injection,
                "start": max(segment.start - first, 0),
                "stop": segment.stop - first,
            }
            for segment in rendered.segments
            if segment.stop > first
        ]
        features: list[JSON] = [
            {
                "component": feature_label(layer, feature),
                "clean": [float(f"{acts_of_run[at]:.4g}") for acts_of_run in acts[CLEAN]],
                "injected": [float(f"{acts_of_run[at]:.4g}") for acts_of_run in acts[INJECTED]],
            }
            for at, feature in enumerate(chosen)
        ]
        tokens: list[JSON] = [str(tokenizer.decode([token])) for token in rendered.tokens[first:]]
        excerpt: dict[str, JSON] = {"conversation": rendered.label, "concept": self.condition.unit, "first": first}
        return {**excerpt, "tokens": tokens, "speakers": speakers, "features": features}

    def _chunk(
        self, rows: Callable[[FeatureReading], Mapping[str, pd.DataFrame]], *dependencies: object
    ) -> resume.Chunk:
        """Return parts as one table, of which `part` says what each row is, that depends on `dependencies`."""
        study, condition = self.study, self.condition
        model = study.setup.model

        def compute() -> pd.DataFrame:
            import pandas as pd

            states = self.states()
            parts = [table.assign(part=name) for name, table in rows(states).items()]
            table = pd.concat(parts, ignore_index=True).assign(
                conversation=self.chat.label, intervention=condition.intervention.name,
                unit=condition.unit, series=condition.series,
            )  # fmt: skip
            receipts = [run.short_receipt(receipt.to_dict()) for receipt in states.reading.prefilled.receipts]
            table.attrs = {"receipts": [receipt | {"model": model.name} for receipt in receipts]}
            return table

        fields = (study.fingerprint, self.chat, condition.series, *dependencies)
        # Shards, for which places would have to be known beforehand, there are none of.
        return resume.Chunk(1, resume.key(model, [condition.intervention], *fields), compute)


def _single(states: FeatureReading, features: Sequence[int]) -> pd.DataFrame:
    """Return what each feature alone, the SAE's error, and all caches above it do in either direction, in logits.

    `removed`: what is lost when the injected run is given what the clean run has; `added`: what the clean run gains.
    """
    import pandas as pd

    from mechint.attribution.features import attribution
    from mechint.attribution.features import patching as effects

    layer, sets = states.dictionary.layer, [[feature] for feature in features]
    shift = float(states.logit_diffs[INJECTED]) - float(states.logit_diffs[CLEAN])
    of_features = pd.DataFrame(
        {
            "kind": "feature", "component": [attribution.feature_label(layer, feature) for feature in features],
            "layer": layer, "index": list(features),
            "removed": -effects.feature_effects(states, INJECTED, CLEAN, sets).numpy(),
            "added": effects.feature_effects(states, CLEAN, INJECTED, sets).numpy(),
        }
    )  # fmt: skip
    others = {
        "error": (-effects.error_effect(states, INJECTED, CLEAN), effects.error_effect(states, CLEAN, INJECTED)),
        # With the stream of one run, what is left of the difference lies in the caches of the other.
        "cache": (
            shift - effects.stream_effect(states, CLEAN, INJECTED),
            shift + effects.stream_effect(states, INJECTED, CLEAN),
        ),
    }
    more = [
        {"kind": kind, "component": kind, "layer": layer, "index": -1, "removed": removed, "added": added}
        for kind, (removed, added) in others.items()
    ]
    return pd.concat([of_features, pd.DataFrame(more)], ignore_index=True)
