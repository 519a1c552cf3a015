"""The measurements of a verdict on features: each candidate removed and inserted, beside others of its mass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mechint.attribution.features.attribution import feature_label, layer_label
from mechint.attribution.features.cases import Case, check_cases
from mechint.attribution.features.clamping import Positions, mask_of
from mechint.attribution.features.necessity import TESTS, exchange
from mechint.attribution.features.random_sets import NEAR, Features, MassBy, active_features, mass, matched_sets
from mechint.base.errors import UsageError
from mechint.base.signatures import Seed, checked

Candidates = Sequence[int] | Mapping[str, Sequence[int]]


@checked
def trials(
    cases: Sequence[Case],
    candidates: Candidates,
    *,
    positions: Positions = "read",
    n_random: int = NEAR,
    mass_by: MassBy = "change",
    seed: Seed = 0,
) -> pd.DataFrame:
    """Return one row per case and candidate: a feature, or (with names, as a mapping) a set of them.

    Columns besides conversation, intervention, concept, component, layer, index (-1 for sets) and features, in logits:
    - logit_diff_shift: injected - clean;
    - lost: what of it is lost when the candidate is set to clean in the injected run;
    - gained: what is gained when the candidate is set to injected in the clean run;
    - lost_matched, gained_matched: the same, mean over up to `n_random` sets of as many other active features that are
      matched in mass (see `random_sets.matched_sets`).
    And mass and matched_mass, to see whether a match was possible; clean and injected, the candidate's activations
    (summed over its features, mean over the positions). Raises UsageError for bad cases, features and positions, and
    where no other features are active to hold a candidate against.
    """
    check_cases(cases)
    sets = named_sets(cases[0], candidates)
    if n_random < 1:
        raise UsageError(f"n_random={n_random}", "1 or more", "a verdict needs features to compare with")
    return pd.concat([_of(case, sets, positions, n_random, mass_by, seed) for case in cases], ignore_index=True)


def named_sets(case: Case, candidates: Candidates) -> dict[str, Features]:
    """Return candidates as sets by label; raises UsageError for none, and for features that are not there."""
    dictionary = case.states.dictionary
    if isinstance(candidates, Mapping):
        sets = {name: tuple(features) for name, features in candidates.items()}
    else:
        dictionary.check_features(candidates)
        sets = {feature_label(dictionary.layer, int(feature)): (int(feature),) for feature in candidates}
    if not sets:
        raise UsageError("no candidates", "one feature or set, or more", "take the first rows of an attribution")
    for features in sets.values():
        dictionary.check_features(features)
    return sets


def _of(
    case: Case, sets: Mapping[str, Features], positions: Positions, n_random: int, mass_by: MassBy, seed: int
) -> pd.DataFrame:
    mask = mask_of(case.states, positions)
    masses, active = mass(case, mask, mass_by), active_features(case, mask)
    rng = np.random.default_rng(seed)
    matches = {
        name: matched_sets(np.setdiff1d(active, features), features, masses, n_random, rng)
        for name, features in sets.items()
    }
    controls = [control for drawn in matches.values() for control in drawn]
    effects = {
        name: exchange(case, test, [*sets.values(), *controls], positions)[1]
        for name, test in (("lost", TESTS[0]), ("gained", TESTS[1]))
    }
    ends = np.cumsum([len(sets), *(len(drawn) for drawn in matches.values())])
    acts = [case.states.acts[row][mask.to(case.states.acts.device)].mean(0) for row in (case.clean, case.injected)]
    rows = [
        {
            "features": features,
            **{effect: values[at] for effect, values in effects.items()},
            **{f"{effect}_matched": values[ends[at] : ends[at + 1]].mean() for effect, values in effects.items()},
            "mass": masses[list(features)].sum(),
            "matched_mass": np.mean([masses[list(match)].sum() for match in matches[name]]),
            **{
                run: float(run_acts[list(features)].sum())
                for run, run_acts in zip(("clean", "injected"), acts, strict=True)
            },
        }
        for at, (name, features) in enumerate(sets.items())
    ]
    return _labels(case, sets).join(pd.DataFrame(rows))


def _labels(case: Case, sets: Mapping[str, Features]) -> pd.DataFrame:
    layer = case.states.dictionary.layer
    single = {name: features[0] for name, features in sets.items() if name == feature_label(layer, features[0])}
    return pd.DataFrame(
        {
            "conversation": case.conversation,
            "intervention": case.intervention,
            "concept": case.concept,
            "kind": "feature",
            "component": [name if name in single else f"{layer_label(layer)} {name}" for name in sets],
            "layer": layer,
            "index": [single.get(name, -1) for name in sets],
            "logit_diff_shift": case.shift,
        }
    )
