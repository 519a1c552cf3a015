"""What is measured in one case, a conversation under one vector: what features carry, and what they cause."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from analyses.kit.cases import CLEAN, INJECTED, Case
from analyses.sae_attribution.facts import Excerpt, ExcerptTurn, FeatureActivations

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from analyses.kit.resume import Chunk
    from analyses.kit.subject import Subject
    from mechint.attribution.features.attribution import Method
    from mechint.attribution.features.dictionary import Dictionary
    from mechint.attribution.features.feature_reading import FeatureReading
    from mechint.attribution.reading import Reading
    from mechint.chat.conversations import Conversation
    from mechint.chat.render import Segment

STEPS = 16  # points of integrated gradients
DRAWS = 10  # random sets of each size
TEXT_FEATURES = 3
TEXT_TOKENS = 240  # of a longer conversation the last so many are shown


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is tested for being a cause: candidates, features whose effect is measured, and by concept an order."""

    candidates: Sequence[int]
    measured: Sequence[int]
    orders: Mapping[str, Sequence[int]]
    counts: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Study:
    """What is the same in all cases: the model with what is injected, the SAE, and how is attributed."""

    subject: Subject
    dictionary: Dictionary
    method: Method

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the SAE's weights and of how is attributed."""
        from mechint.base.files import sha256

        weights = [weight.detach().cpu().float().numpy().tobytes() for weight in self.dictionary.sae.parameters()]
        return sha256(self.method.encode(), self.dictionary.name.encode(), str(STEPS).encode(), *weights)

    def cases(self, chats: Sequence[Conversation]) -> list[Case]:
        """Return every conversation under every vector."""
        return [Case(self.subject, chat, condition) for chat in chats for condition in self.subject.conditions()]

    def attributed(self, case: Case) -> Chunk:
        """Return what is attributed to features and to components, activations, and how well the SAE rebuilds."""

        def parts(states: FeatureReading) -> dict[str, pd.DataFrame]:
            import pandas as pd

            from mechint.attribution.components import direct_logit_attribution
            from mechint.attribution.features.attribution import attribute
            from mechint.attribution.features.feature_table import feature_table

            attributions = attribute(states, CLEAN, INJECTED, method=self.method, steps=STEPS)
            sums = {name: attributions.attrs[name] for name in ("total", "logit_diff_shift")}
            acts = feature_table(states, concepts={case.condition.intervention.name: case.condition.unit})
            with warnings.catch_warnings():  # told once, of all cases
                warnings.simplefilter("ignore")
                quality = pd.DataFrame([dataclasses.asdict(states.quality)])
            return {
                "attribution": attributions.assign(**sums),
                "readouts": acts[acts["series"] != "clean"].drop(columns=["concept", "series"]),
                "components": direct_logit_attribution(states.reading, CLEAN, INJECTED),
                "quality": quality,
            }

        return self._chunk(case, parts)

    def caused(self, case: Case, plan: Plan) -> Chunk:
        """Return what happens when features are set to what they are in the other run."""
        seed, order = self.subject.config.seed, plan.orders[case.condition.unit]

        def parts(states: FeatureReading) -> dict[str, pd.DataFrame]:
            from mechint.attribution.features import cases, necessity
            from mechint.attribution.features import matched_effects as trials

            pair = cases.Case(states, CLEAN, INJECTED, case.condition.unit)
            sets = necessity.measure([pair], order, plan.counts, n_random=DRAWS, seed=seed)
            return {
                "single": _single(states, plan.measured),
                "sets": sets.drop(columns="concept"),
                "trials": trials.trials([pair], plan.candidates, seed=seed).drop(columns=["concept", "features"]),
            }

        return self._chunk(case, parts, plan.candidates, plan.measured, plan.counts, order, seed)

    def excerpt(self, case: Case, chosen: Sequence[int]) -> Excerpt:
        """Return the text of a case, a long one's end, with activations of some features at every position."""
        states, tokenizer = self._states(case.reading()), self.subject.model.tokenizer
        rendered = states.reading.rendered
        first = max(1, len(rendered.tokens) - TEXT_TOKENS)  # the very first is a sink of attention, larger than all
        return Excerpt(
            conversation=rendered.label,
            concept=case.condition.unit,
            first=first,
            tokens=tuple(str(tokenizer.decode([token])) for token in rendered.tokens[first:]),
            speakers=tuple(_turn(segment, first) for segment in rendered.segments if segment.stop > first),
            features=_activations(states, chosen, first),
        )

    def _states(self, reading: Reading) -> FeatureReading:
        from mechint.attribution.features.feature_reading import FeatureReading

        return FeatureReading.of(reading, self.dictionary)

    def _chunk(
        self, case: Case, parts: Callable[[FeatureReading], Mapping[str, pd.DataFrame]], *dependencies: object
    ) -> Chunk:
        """Return parts as one table, of which `part` says what each row is, that depends on `dependencies`."""

        def rows(reading: Reading) -> pd.DataFrame:
            import pandas as pd

            tables = [table.assign(part=name) for name, table in parts(self._states(reading)).items()]
            table = pd.concat(tables, ignore_index=True)
            return table.assign(conversation=case.chat.label, intervention=case.condition.intervention.name)

        return case.chunk(rows, self.fingerprint, *dependencies)


def _turn(segment: Segment, first: int) -> ExcerptTurn:
    """Return who speaks in a segment of a text that is shown from token `first` on."""
    name = f"{segment.role}, injected" if segment.add_injection else segment.role
    return ExcerptTurn(name, max(segment.start - first, 0), segment.stop - first)


def _activations(states: FeatureReading, chosen: Sequence[int], first: int) -> tuple[FeatureActivations, ...]:
    """Return activations of some features from token `first` on, to four digits."""
    import torch

    from mechint.attribution.features.attribution import feature_label
    from mechint.attribution.features.steered_turns import prefix_acts

    acts = torch.cat([prefix_acts(states), states.acts], dim=1)[:, first:, list(chosen)].cpu()
    layer = states.dictionary.layer
    return tuple(
        FeatureActivations(
            feature_label(layer, feature), _four_digits(acts[CLEAN, :, at]), _four_digits(acts[INJECTED, :, at])
        )
        for at, feature in enumerate(chosen)
    )


def _four_digits(acts: Tensor) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in acts.tolist())


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
            "kind": "feature",
            "component": [attribution.feature_label(layer, feature) for feature in features],
            "layer": layer,
            "index": list(features),
            "removed": -effects.feature_effects(states, INJECTED, CLEAN, sets).numpy(),
            "added": effects.feature_effects(states, CLEAN, INJECTED, sets).numpy(),
        }
    )
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
