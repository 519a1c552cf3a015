"""The feature attribution as figures: bars with verdicts, attributed against measured, curves, the text, components."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.sae_attribution.measures import FDR, Measured
from mechint import figures as draw
from mechint import stats
from mechint.attribution import components
from mechint.figures.panels import SHADE
from mechint.figures.plot.attribution import EFFECT, N_NAMED, attributed_measured, by_verdict, together
from mechint.figures.style import METRICS, MINUS
from mechint.figures.verdicts import VERDICTS
from mechint.figures.waterfall import waterfall
from mechint.figures.words import bounded, counted, percent, signed

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.sae_attribution.facts import Facts
    from mechint.stats.intervals import Interval

_FAITHFUL = 0.7  # rank correlation from which attribution is said to predict
_NAMED = 3
_LEAST_D = 0.05  # from which on sizes of d are told apart
_OTHERS = {"error": "SAE's error", "cache": "cached prefix of later layers"}
_SINK = " The first token is not shown: attention parks large values there, whatever the text."
_WORTH_TELLING = 0.1  # share of the shift that passes the features by


def figures(measured: Measured, facts: Facts, method: str) -> dict[str, go.Figure]:
    """Return the figures by file name, of an attribution by `method`; discrimination needs two concepts or more."""
    drawn = {
        "sae_attribution_features": features(measured, facts, method),
        "sae_attribution_causes": causes(measured, facts),
        "sae_attribution_faithfulness": faithfulness(measured, facts, method),
        "sae_attribution_text": text(measured, facts),
        "sae_attribution_components": by_component(measured, facts),
    }
    if measured.single["d"].notna().any():
        drawn["sae_attribution_discrimination"] = discrimination(measured, facts)
    return drawn


def _caption(measured: Measured, facts: Facts) -> str:
    """Return model, SAE, what it leaves out, and of what the parts are parts."""
    conversations = int(measured.concepts.groupby("unit")["conversation"].nunique().max())
    counts = [counted(measured.concepts["unit"].nunique(), "concept"), counted(conversations, "conversation")]
    if len(measured.randoms):
        counts.append(counted(measured.randoms["unit"].nunique(), "random vector"))
    shift = f"Whole shift of {METRICS['logit_diff']} under concepts: {_with_bounds(measured.shift)} logits"
    run = f"{_model_and_sae(facts)}; {facts.dose.caption()}; {', '.join(counts)}"
    return f"{draw.sae_notice(facts.sae.reconstruction.quality)} {run}. {shift}"


def _model_and_sae(facts: Facts) -> str:
    return f"{facts.model.short_name}, {facts.sae.caption}"


def features(measured: Measured, facts: Facts, method: str) -> go.Figure:
    """Return the candidates with attribution, measured effect, activation and verdict; error and cache below."""
    table = measured.components
    rows = table[table["kind"] == "feature"]
    links = {name: facts.sae.link(index) for name, index in zip(rows["component"], rows["index"], strict=True)}
    random = "" if measured.random_shift is None else f"; under random vectors {_with_bounds(measured.random_shift)}"
    subtitle = (
        f"{_caption(measured, facts)}{random}. Attributions ({method}) sum to {_with_bounds(measured.total)}. "
        "Large: mean over concepts with its 95% interval; small: single concepts. Verdicts compare a feature with "
        f"others of the same activation mass.{_notes(measured)}"
    )
    return draw.feature_bars(
        table,
        units=measured.units[measured.units["component"].isin(table["component"])],
        links={name: link for name, link in links.items() if link},
        activation="activation at the answer",
        title=_finding(measured),
        subtitle=subtitle,
    )


def _finding(measured: Measured) -> str:
    if measured.nothing:
        return _no_effect(measured)
    outside = measured.components[measured.components["kind"].isin(["error", "cache"])]
    shares = outside["measured"] / float(measured.shift.mean)
    carried = [
        f"the {name} carries {percent(share)}"
        for name, share in zip(outside["component"], shares, strict=True)
        if abs(share) >= _WORTH_TELLING
    ]
    return "; ".join([_named_causes(measured), *carried])


def _named_causes(measured: Measured) -> str:
    verdicts = measured.judged[0]
    tested = int((measured.components["kind"] == "feature").sum())
    named = verdicts[verdicts["verdict"] == "cause"]
    if named.empty:
        return f"None of {counted(tested, 'feature')} is called a cause"
    largest = named.nlargest(_NAMED, "lost_fraction")
    parts = [
        f"{name} ({percent(lost)} of the shift)"
        for name, lost in zip(largest["component"], largest["lost_fraction"], strict=True)
    ]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    verb = "is a cause" if len(named) == 1 else "are causes"
    return f"{len(named)} of {tested} features {verb}: {', '.join(parts)}{more}"


def _no_effect(measured: Measured) -> str:
    return f"There is no effect to explain: the injection shifts logit_diff by {_with_bounds(measured.shift)}"


def causes(measured: Measured, facts: Facts) -> go.Figure:
    """Return the curves of necessity and sufficiency."""
    curves = measured.curves
    top = curves[curves["kind"] == "top"].set_index(["test", "k"])["fraction"]
    title = _no_effect(measured)
    if measured.nothing:  # shares of next to nothing say nothing
        curves = curves.assign(fraction=np.nan, fraction_low=np.nan, fraction_high=np.nan)
    elif top.notna().any():
        k = min((k for _, k in top.index), key=lambda k: abs(k - 10))
        gone, come = percent(top["necessity", k]), percent(top["sufficiency", k])
        others = curves[(curves["kind"] != "top") & (curves["k"] == k)]["fraction"].max()
        rest = "" if np.isnan(others) else f"; random sets at most {percent(others)}"
        title = (
            f"{counted(k, 'feature')} set back to clean: {gone} of the shift goes; set to injected: {come} comes{rest}"
        )
    subtitle = (
        f"{_caption(measured, facts)}. Features in the order of their attributions under the other concepts. Only "
        "their own directions are changed, at all read positions; caches stay. Bands: 95% intervals over concepts."
    )
    return together(curves, title, subtitle)


def faithfulness(measured: Measured, facts: Facts, method: str) -> go.Figure:
    """Return attributed against measured effects of single features."""
    rho = float(measured.correlation.mean)
    how = "predicts" if rho >= _FAITHFUL else "predicts poorly"
    title = f"Attribution ({method}) {how} what a feature does alone"
    if np.isnan(rho):
        title = "Nothing varies enough to compare attribution with what features do"
    subtitle = (
        f"{_caption(measured, facts)}. Measured: mean of setting the feature back to clean in the injected run and to "
        "injected in the clean run; for features with the largest attributions and as many drawn at random. 95% "
        "intervals over concepts."
    )
    return attributed_measured(measured.single, measured.correlation, title, subtitle)


def discrimination(measured: Measured, facts: Facts) -> go.Figure:
    """Return how well features tell injected from clean runs against what they do alone."""
    rows, single = measured.discrimination, measured.single
    compared = rows[(rows["sets"] == "injected, clean") & rows["d"].notna()]
    sure = compared[compared["q"] < FDR]
    limit = float(sure["d"].abs().min()) if len(sure) else None
    tell = single[single["q"] < FDR]
    small = tell[tell["measured"].abs() < 0.1 * abs(float(measured.shift.mean))]
    which = f"{len(small)} of {len(tell)} measured features that tell injected from clean runs"
    title = f"{which} carry less than 10% of the shift"
    if measured.nothing or tell.empty:
        title = _no_effect(measured) if measured.nothing else "No measured feature tells injected from clean runs"
    subtitle = (
        f"{_caption(measured, facts)}. d over concepts, paired, of mean activations at the read positions; shaded: p "
        f"does not survive a false discovery rate of {FDR:.0%} over {len(compared)} features."
        f"{_missed(rows)}{_undrawn(single)}"
    )
    points = by_verdict(single.drop(columns=["d_low", "d_high"], errors="ignore"), "d")
    size, effect = np.log10(points["x"].abs().clip(lower=_LEAST_D)), points["y"].abs()
    drawn = points["x"].notna() & points["y"].notna()
    out = (size / max(size[drawn].max(), 1.0) + effect / max(effect[drawn].max(), 1e-9))[drawn]
    figure = draw.scatter(
        points,
        VERDICTS,
        x_label="size of Cohen's d, injected against clean",
        y_label=EFFECT,
        smallest=_LEAST_D,
        named=list(points.loc[out.nlargest(N_NAMED).index, "unit"]),
        title=title,
        subtitle=subtitle,
    )
    if limit is not None:
        figure.add_vrect(figure.layout.xaxis.range[0], np.log10(max(limit, _LEAST_D)), **SHADE)
    return figure


def _undrawn(single: pd.DataFrame) -> str:
    left_out = int(single["d"].isna().sum())
    return f" Without d, as they do not vary, and so not drawn: {left_out} of {len(single)}." if left_out else ""


def _missed(rows: pd.DataFrame) -> str:
    compared = rows[rows["sets"] == "detected, missed"]
    if compared.empty:
        return " Detected and missed injections cannot be compared: there are not two concepts of each."
    return f" {int((compared['q'] < FDR).sum())} of {len(compared)} features tell detected from missed injections."


def text(measured: Measured, facts: Facts) -> go.Figure:
    """Return where the features that carry most are active in one conversation."""
    excerpt = facts.text
    verdicts = measured.components.set_index("component")["verdict"]
    listed = [
        draw.TextFeature(
            _judged(feature.component, str(verdicts.get(feature.component, ""))),
            {"clean": np.array(feature.clean), "injected": np.array(feature.injected)},
        )
        for feature in excerpt.features
    ]
    left_out = f" The first {excerpt.first} tokens are not shown." if excerpt.first > 1 else _SINK
    return draw.feature_text(
        excerpt.tokens,
        [draw.Speaker(turn.name, turn.start, turn.stop) for turn in excerpt.speakers],
        listed,
        title="Where are the features with the largest attributions active?",
        subtitle=f"{draw.sae_notice(facts.sae.reconstruction.quality)} {_model_and_sae(facts)}; conversation "
        f"{excerpt.conversation}, concept {excerpt.concept}, the one with the median shift. Features with its "
        f"largest attributions.{left_out}",
    )


def _judged(component: str, verdict: str) -> str:
    return f"{component} (verdict: {verdict})" if verdict else component


def by_component(measured: Measured, facts: Facts) -> go.Figure:
    """Return what attention and MLPs of every layer write into the shift."""
    table = measured.parts["components"]
    written = table[table["series"] == "injected"]
    concept_of = written.drop_duplicates("intervention").set_index("intervention")["unit"]
    by_layer, sums = components.by_layer(written), components.cumulative(written)
    bars = stats.group_means(
        by_layer.assign(concept=by_layer["intervention"].map(concept_of)), ["layer", "kind"], "attribution"
    )
    line = stats.group_means(sums.assign(concept=sums["intervention"].map(concept_of)), ["layer"], "attribution")
    heads = written[written["kind"] == "head"].groupby(["layer", "index"])["attribution"].mean()
    summed = bars[bars["kind"].isin(["attn", "mlp"])]
    best = summed.loc[summed["mean"].abs().idxmax()]
    writer = {"attn": "attention", "mlp": "the MLP"}[str(best["kind"])]
    return waterfall(
        bars,
        line,
        heads=heads.rename("mean").reset_index() if len(heads) else None,
        injected_layers=facts.dose.layers,
        label="part of the shift, logits",
        title=f"Directly, {writer} of layer {best['layer']} writes most into the answer: {signed(best['mean'])} "
        f"logits, where all together shift it by {_with_bounds(measured.shift)}",
        subtitle=f"{facts.caption}. Direct logit attribution at the answer, injected {MINUS} clean; bars and line: "
        "means over concepts with 95% intervals. Shaded: injected layers.",
    )


def _notes(measured: Measured) -> str:
    return "".join(f" Note: {note.rstrip('.')}." for note in measured.judged[1])


def _with_bounds(interval: Interval) -> str:
    return bounded(float(interval.mean), float(interval.low), float(interval.high))
