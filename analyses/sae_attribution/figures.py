"""The feature attribution as figures: bars with verdicts, attributed against measured, curves, the text, components."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.sae_attribution.measures import FDR, Measured
from mechint import figures as draw
from mechint import stats
from mechint.attribution import components
from mechint.attribution.features.dictionary import Quality
from mechint.base.files import JSON
from mechint.figures.style import METRICS, MINUS
from mechint.figures.waterfall import waterfall
from mechint.stats import intervals

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.kit.dose import Dose

_FAITHFUL = 0.7  # rank correlation from which attribution is said to predict
_NAMED = 3
_OTHERS = {"error": "SAE's error", "cache": "cached prefix of later layers"}
_WORTH_TELLING = 0.1  # share of the shift that passes the features by


@dataclasses.dataclass(frozen=True)
class About:
    """What all figures say: the model and its injections, the SAE and what it leaves out."""

    model: str
    dose: Dose
    sae: Mapping[str, JSON]
    quality: Quality
    text: Mapping[str, JSON]
    method: str

    @classmethod
    def of(cls, found: Mapping[str, JSON], dose: Dose, model: str, method: str) -> About:
        """Return what a record tells."""
        sae, text = found["sae"], found["text"]
        assert isinstance(sae, Mapping)
        assert isinstance(text, Mapping)
        known = sae["reconstruction"]
        assert isinstance(known, Mapping)
        numbers = {name: float(str(known[name])) for name in ("explained", "error", "l0")}
        return cls(model, dose, sae, Quality(**numbers, positions=int(str(known["positions"]))), text, method)

    @property
    def layer(self) -> int:
        """The layer whose stream the SAE reads."""
        return int(str(self.sae["layer"]))

    def told(self, measured: Measured) -> str:
        """Return model, SAE, what it leaves out, and of what the parts are parts."""
        cases = int(measured.concepts.groupby("vector")["conversation"].nunique().max())
        n_concepts, n_randoms = (rows["vector"].nunique() for rows in (measured.concepts, measured.randoms))
        counts = f"{_count(n_concepts, 'concept')}, {_count(cases, 'conversation')}"
        if n_randoms:
            counts += f", {_count(n_randoms, 'random vector')}"
        shift = f"Whole shift of {METRICS['logit_diff']} under concepts: {_told(measured.shift)} logits"
        whose = f"{self.model}, SAE {self.sae['name']}; {self.dose.told()}; {counts}"
        return f"{draw.sae_notice(self.quality)} {whose}. {shift}"

    def link(self, feature: int) -> str | None:
        """Return a feature's page on Neuronpedia."""
        known = self.sae["neuronpedia"]
        return None if known is None else f"https://www.neuronpedia.org/{known}/{feature}"


def figures(measured: Measured, about: About) -> dict[str, go.Figure]:
    """Return the figures by file name; that of discrimination only with two concepts or more."""
    found = {
        "sae_attribution_features": features(measured, about),
        "sae_attribution_causes": causes(measured, about),
        "sae_attribution_faithfulness": faithfulness(measured, about),
        "sae_attribution_text": text(measured, about),
        "sae_attribution_components": by_component(measured, about),
    }
    if measured.single["d"].notna().any():
        found["sae_attribution_discrimination"] = discrimination(measured, about)
    return found


def features(measured: Measured, about: About) -> go.Figure:
    """Return the candidates with attribution, measured effect, activation and verdict; error and cache below."""
    table = measured.components
    links = {row["component"]: about.link(row["index"]) for row in table.to_dict("records") if row["kind"] == "feature"}
    random = "" if measured.random_shift is None else f"; under random vectors {_told(measured.random_shift)}"
    subtitle = (
        f"{about.told(measured)}{random}. Attributions ({about.method}) sum to {_told(measured.total)}. Large: mean "
        "over concepts with its 95% interval; small: single concepts. Verdicts compare a feature with others "
        f"of the same activation mass.{_notes(measured)}"
    )
    return draw.feature_bars(
        table, units=measured.units[measured.units["component"].isin(table["component"])],
        links={name: link for name, link in links.items() if link}, activation="activation at the answer",
        title=_finding(measured, about), subtitle=subtitle,
    )  # fmt: skip


def _finding(measured: Measured, about: About) -> str:
    verdicts, table = measured.judged[0], measured.components
    if measured.nothing:
        return _no_effect(measured)
    found = verdicts[verdicts["verdict"] == "cause"] if len(verdicts) else verdicts
    tested = int((table["kind"] == "feature").sum())
    if len(found):
        parts = [f"{row['component']} ({_percent(row['lost_fraction'])} of the shift)" for row in _strongest(found)]
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        verb = "is a cause" if len(found) == 1 else "are causes"
        title = f"{len(found)} of {tested} features {verb}: {', '.join(parts)}{more}"
    else:
        title = f"None of {_count(tested, 'feature')} is called a cause"
    outside = table[table["kind"].isin(["error", "cache"])].set_index("component")["measured"] / float(
        measured.shift.mean
    )
    carried = [
        f"the {name} carries {_percent(share)}" for name, share in outside.items() if abs(share) >= _WORTH_TELLING
    ]
    return "; ".join([title, *carried])


def _no_effect(measured: Measured) -> str:
    return f"There is no effect to explain: the injection shifts logit_diff by {_told(measured.shift)}"


def _strongest(found: pd.DataFrame) -> list[dict[str, object]]:
    return [] if found.empty else found.nlargest(_NAMED, "lost_fraction").to_dict("records")


def causes(measured: Measured, about: About) -> go.Figure:
    """Return the curves of necessity and sufficiency."""
    curves = measured.curves
    top = curves[curves["kind"] == "top"].set_index(["test", "k"])["fraction"]
    title = _no_effect(measured)
    if measured.nothing:  # shares of next to nothing say nothing
        curves = curves.assign(fraction=np.nan, fraction_low=np.nan, fraction_high=np.nan)
    elif top.notna().any():
        k = min((k for _, k in top.index), key=lambda k: abs(k - 10))
        gone, come = (_percent(top[test, k]) for test in ("necessity", "sufficiency"))
        others = curves[(curves["kind"] != "top") & (curves["k"] == k)]["fraction"].max()
        rest = "" if np.isnan(others) else f"; random sets at most {_percent(others)}"
        title = (
            f"{_count(k, 'feature')} set back to clean: {gone} of the shift goes; set to injected: {come} comes{rest}"
        )
    subtitle = (
        f"{about.told(measured)}. Features in the order of their attributions under the other concepts. Only their own "
        "directions are changed, at all read positions; caches stay. Bands: 95% intervals over concepts."
    )
    return draw.cause_curves(curves, title=title, subtitle=subtitle)


def faithfulness(measured: Measured, about: About) -> go.Figure:
    """Return attributed against measured effects of single features."""
    rho = float(measured.correlation.mean)
    how = "predicts" if rho >= _FAITHFUL else "predicts poorly"
    title = f"Attribution ({about.method}) {how} what a feature does alone"
    if np.isnan(rho):
        title = "Nothing varies enough to compare attribution with what features do"
    subtitle = (
        f"{about.told(measured)}. Measured: mean of setting the feature back to clean in the injected run and to "
        "injected in the clean run; for features with the largest attributions and as many drawn at random. 95% "
        "intervals over concepts."
    )
    return draw.attribution_scatter(measured.single, correlation=measured.correlation, title=title, subtitle=subtitle)


def discrimination(measured: Measured, about: About) -> go.Figure:
    """Return how well features tell injected from clean runs against what they do alone."""
    rows, single = measured.discrimination, measured.single
    known = rows[(rows["sets"] == "injected, clean") & rows["d"].notna()]
    sure = known[known["q"] < FDR]
    limit = float(sure["d"].abs().min()) if len(sure) else None
    tell = single[single["q"] < FDR]
    small = tell[tell["measured"].abs() < 0.1 * abs(float(measured.shift.mean))]
    which = f"{len(small)} of {len(tell)} measured features that tell injected from clean runs"
    title = f"{which} carry less than 10% of the shift"
    if measured.nothing or tell.empty:
        title = _no_effect(measured) if measured.nothing else "No measured feature tells injected from clean runs"
    subtitle = (
        f"{about.told(measured)}. d over concepts, paired, of mean activations at the read positions; shaded: p does "
        f"not survive a false discovery rate of {FDR:.0%} over {len(known)} features.{_missed(rows)}{_undrawn(single)}"
    )
    return draw.discrimination_scatter(
        single, x_label="size of Cohen's d, injected against clean", d_limit=limit, title=title, subtitle=subtitle
    )


def _undrawn(single: pd.DataFrame) -> str:
    left_out = int(single["d"].isna().sum())
    return f" Without d, as they do not vary, and so not drawn: {left_out} of {len(single)}." if left_out else ""


def _missed(rows: pd.DataFrame) -> str:
    mine = rows[rows["sets"] == "detected, missed"]
    if mine.empty:
        return " Detected and missed injections cannot be compared: there are not two concepts of each."
    return f" {int((mine['q'] < FDR).sum())} of {len(mine)} features tell detected from missed injections."


def text(measured: Measured, about: About) -> go.Figure:
    """Return where the features that carry most are active in one conversation."""
    known = about.text
    verdicts = measured.components.set_index("component")["verdict"]
    found = [
        draw.TextFeature(
            _named(str(one["component"]), str(verdicts.get(str(one["component"]), ""))),
            {run: np.array(one[run], dtype=float) for run in ("clean", "injected")},
        )
        for one in _listed(known["features"])
    ]
    speakers = [
        draw.Speaker(str(one["name"]), int(str(one["start"])), int(str(one["stop"])))
        for one in _listed(known["speakers"])
    ]
    tokens = known["tokens"]
    assert isinstance(tokens, list)
    left_out = int(str(known["first"]))
    subtitle = (
        f"{draw.sae_notice(about.quality)} {about.model}, SAE {about.sae['name']}; conversation "
        f"{known['conversation']}, concept {known['concept']}, the one with the median shift. Features with its "
        f"largest attributions.{f' The first {left_out} tokens are not shown.' if left_out else ''}"
    )
    title = "Where are the features with the largest attributions active?"
    return draw.feature_text([str(token) for token in tokens], speakers, found, title=title, subtitle=subtitle)


def _named(component: str, verdict: str) -> str:
    return f"{component} (verdict: {verdict})" if verdict else component


def _listed(value: JSON) -> list[dict[str, JSON]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def by_component(measured: Measured, about: About) -> go.Figure:
    """Return what attention and MLPs of every layer write into the shift."""
    table = measured.parts["components"]
    mine = table[table["vector_kind"] == "concept"]
    owner = mine.drop_duplicates("intervention").set_index("intervention")["vector"]
    frames = {
        name: found.assign(concept=found["intervention"].map(owner))
        for name, found in (("bars", components.by_layer(mine)), ("sums", components.cumulative(mine)))
    }
    bars, sums = (
        stats.group_means(frames[name], keys, "attribution")
        for name, keys in (("bars", ["layer", "kind"]), ("sums", ["layer"]))
    )
    heads = mine[mine["kind"] == "head"].groupby(["layer", "index"])["attribution"].mean().rename("mean").reset_index()
    shown = bars[bars["kind"].isin(["attn", "mlp"])]
    best = shown.loc[shown["mean"].abs().idxmax()]
    what = {"attn": "attention", "mlp": "the MLP"}[str(best["kind"])]
    return waterfall(
        bars, sums, heads=heads if len(heads) else None, injected_layers=about.dose.layers,
        label="part of the shift, logits",
        title=f"Directly, {what} of layer {best['layer']} writes most into the shift: {_number(best['mean'])} of "
        f"{_number(float(measured.shift.mean))} logits",
        subtitle=f"{about.model}; {about.dose.told()}. Direct logit attribution at the answer, injected {MINUS} clean; "
        "bars and line: means over concepts with 95% intervals. Shaded: injected layers.",
    )  # fmt: skip


def _notes(measured: Measured) -> str:
    return "".join(f" Note: {note.rstrip('.')}." for note in measured.judged[1])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _percent(share: object) -> str:
    return f"{100 * float(str(share)):.0f}%".replace("-", MINUS)


def _number(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS)


def _told(interval: intervals.Interval) -> str:
    bounds = "" if np.isnan(interval.low) else f" [{_number(float(interval.low))}, {_number(float(interval.high))}]"
    return f"{_number(float(interval.mean))}{bounds}"
