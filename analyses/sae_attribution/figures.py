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
from mechint.figures.panels import SHADE
from mechint.figures.plot.attribution import EFFECT, N_NAMED, attributed_measured, by_verdict, together
from mechint.figures.style import METRICS, MINUS
from mechint.figures.verdicts import VERDICTS
from mechint.figures.waterfall import waterfall
from mechint.stats import intervals

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.kit.dose import Dose

_FAITHFUL = 0.7  # rank correlation from which attribution is said to predict
_NAMED = 3
_LEAST_D = 0.05  # from which on sizes of d are told apart
_OTHERS = {"error": "SAE's error", "cache": "cached prefix of later layers"}
_WORTH_TELLING = 0.1  # share of the shift that passes the features by


@dataclasses.dataclass(frozen=True)
class Subject:
    """What all figures say: the model and its injections, the SAE and what it leaves out."""

    model: str
    dose: Dose
    sae: Mapping[str, JSON]
    quality: Quality
    text: Mapping[str, JSON]
    method: str

    @classmethod
    def of(cls, record: Mapping[str, JSON], dose: Dose, model: str, method: str) -> Subject:
        """Return what a record tells."""
        sae, text = record["sae"], record["text"]
        assert isinstance(sae, Mapping)
        assert isinstance(text, Mapping)
        reconstruction = sae["reconstruction"]
        assert isinstance(reconstruction, Mapping)
        numbers = {name: float(str(reconstruction[name])) for name in ("explained", "error", "l0")}
        return cls(model, dose, sae, Quality(**numbers, positions=int(str(reconstruction["positions"]))), text, method)

    @property
    def layer(self) -> int:
        """The layer whose stream the SAE reads."""
        return int(str(self.sae["layer"]))

    def caption(self, measured: Measured) -> str:
        """Return model, SAE, what it leaves out, and of what the parts are parts."""
        cases = int(measured.concepts.groupby("vector")["conversation"].nunique().max())
        n_concepts, n_randoms = (rows["vector"].nunique() for rows in (measured.concepts, measured.randoms))
        counts = f"{_count(n_concepts, 'concept')}, {_count(cases, 'conversation')}"
        if n_randoms:
            counts += f", {_count(n_randoms, 'random vector')}"
        shift = f"Whole shift of {METRICS['logit_diff']} under concepts: {_with_bounds(measured.shift)} logits"
        whose = f"{self.model}, SAE {self.sae['name']}; {self.dose.caption()}; {counts}"
        return f"{draw.sae_notice(self.quality)} {whose}. {shift}"

    def link(self, feature: int) -> str | None:
        """Return a feature's page on Neuronpedia."""
        source = self.sae["neuronpedia"]
        return None if source is None else f"https://www.neuronpedia.org/{source}/{feature}"


def figures(measured: Measured, subject: Subject) -> dict[str, go.Figure]:
    """Return the figures by file name; that of discrimination only with two concepts or more."""
    drawn = {
        "sae_attribution_features": features(measured, subject),
        "sae_attribution_causes": causes(measured, subject),
        "sae_attribution_faithfulness": faithfulness(measured, subject),
        "sae_attribution_text": text(measured, subject),
        "sae_attribution_components": by_component(measured, subject),
    }
    if measured.single["d"].notna().any():
        drawn["sae_attribution_discrimination"] = discrimination(measured, subject)
    return drawn


def features(measured: Measured, subject: Subject) -> go.Figure:
    """Return the candidates with attribution, measured effect, activation and verdict; error and cache below."""
    table = measured.components
    links = {
        row["component"]: subject.link(row["index"]) for row in table.to_dict("records") if row["kind"] == "feature"
    }
    random = "" if measured.random_shift is None else f"; under random vectors {_with_bounds(measured.random_shift)}"
    subtitle = (
        f"{subject.caption(measured)}{random}. Attributions ({subject.method}) sum to {_with_bounds(measured.total)}. "
        "Large: mean over concepts with its 95% interval; small: single concepts. Verdicts compare a feature with "
        f"others of the same activation mass.{_notes(measured)}"
    )
    return draw.feature_bars(
        table, units=measured.units[measured.units["component"].isin(table["component"])],
        links={name: link for name, link in links.items() if link}, activation="activation at the answer",
        title=_finding(measured, subject), subtitle=subtitle,
    )  # fmt: skip


def _finding(measured: Measured, subject: Subject) -> str:
    verdicts, table = measured.judged[0], measured.components
    if measured.nothing:
        return _no_effect(measured)
    named = verdicts[verdicts["verdict"] == "cause"] if len(verdicts) else verdicts
    tested = int((table["kind"] == "feature").sum())
    if len(named):
        parts = [f"{row['component']} ({_percent(row['lost_fraction'])} of the shift)" for row in _strongest(named)]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        verb = "is a cause" if len(named) == 1 else "are causes"
        title = f"{len(named)} of {tested} features {verb}: {', '.join(parts)}{more}"
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
    return f"There is no effect to explain: the injection shifts logit_diff by {_with_bounds(measured.shift)}"


def _strongest(named: pd.DataFrame) -> list[dict[str, object]]:
    return [] if named.empty else named.nlargest(_NAMED, "lost_fraction").to_dict("records")


def causes(measured: Measured, subject: Subject) -> go.Figure:
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
        f"{subject.caption(measured)}. Features in the order of their attributions under the other concepts. Only "
        "their own directions are changed, at all read positions; caches stay. Bands: 95% intervals over concepts."
    )
    return together(curves, title, subtitle)


def faithfulness(measured: Measured, subject: Subject) -> go.Figure:
    """Return attributed against measured effects of single features."""
    rho = float(measured.correlation.mean)
    how = "predicts" if rho >= _FAITHFUL else "predicts poorly"
    title = f"Attribution ({subject.method}) {how} what a feature does alone"
    if np.isnan(rho):
        title = "Nothing varies enough to compare attribution with what features do"
    subtitle = (
        f"{subject.caption(measured)}. Measured: mean of setting the feature back to clean in the injected run and to "
        "injected in the clean run; for features with the largest attributions and as many drawn at random. 95% "
        "intervals over concepts."
    )
    return attributed_measured(measured.single, measured.correlation, title, subtitle)


def discrimination(measured: Measured, subject: Subject) -> go.Figure:
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
        f"{subject.caption(measured)}. d over concepts, paired, of mean activations at the read positions; shaded: p "
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


def text(measured: Measured, subject: Subject) -> go.Figure:
    """Return where the features that carry most are active in one conversation."""
    excerpt = subject.text
    verdicts = measured.components.set_index("component")["verdict"]
    listed = [
        draw.TextFeature(
            _named(str(feature["component"]), str(verdicts.get(str(feature["component"]), ""))),
            {run: np.array(feature[run], dtype=float) for run in ("clean", "injected")},
        )
        for feature in _listed(excerpt["features"])
    ]
    speakers = [
        draw.Speaker(str(speaker["name"]), int(str(speaker["start"])), int(str(speaker["stop"])))
        for speaker in _listed(excerpt["speakers"])
    ]
    tokens = excerpt["tokens"]
    assert isinstance(tokens, list)
    left_out = int(str(excerpt["first"]))
    subtitle = (
        f"{draw.sae_notice(subject.quality)} {subject.model}, SAE {subject.sae['name']}; conversation "
        f"{excerpt['conversation']}, concept {excerpt['concept']}, the one with the median shift. Features with its "
        f"largest attributions.{f' The first {left_out} tokens are not shown.' if left_out else ''}"
    )
    title = "Where are the features with the largest attributions active?"
    return draw.feature_text([str(token) for token in tokens], speakers, listed, title=title, subtitle=subtitle)


def _named(component: str, verdict: str) -> str:
    return f"{component} (verdict: {verdict})" if verdict else component


def _listed(value: JSON) -> list[dict[str, JSON]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def by_component(measured: Measured, subject: Subject) -> go.Figure:
    """Return what attention and MLPs of every layer write into the shift."""
    table = measured.parts["components"]
    written = table[table["vector_kind"] == "concept"]
    owner = written.drop_duplicates("intervention").set_index("intervention")["vector"]
    frames = {
        name: frame.assign(concept=frame["intervention"].map(owner))
        for name, frame in (("bars", components.by_layer(written)), ("sums", components.cumulative(written)))
    }
    bars, sums = (
        stats.group_means(frames[name], keys, "attribution")
        for name, keys in (("bars", ["layer", "kind"]), ("sums", ["layer"]))
    )
    heads = (
        written[written["kind"] == "head"]
        .groupby(["layer", "index"])["attribution"]
        .mean()
        .rename("mean")
        .reset_index()
    )
    summed = bars[bars["kind"].isin(["attn", "mlp"])]
    best = summed.loc[summed["mean"].abs().idxmax()]
    writer = {"attn": "attention", "mlp": "the MLP"}[str(best["kind"])]
    return waterfall(
        bars, sums, heads=heads if len(heads) else None, injected_layers=subject.dose.layers,
        label="part of the shift, logits",
        title=f"Directly, {writer} of layer {best['layer']} writes most into the shift: {_number(best['mean'])} of "
        f"{_number(float(measured.shift.mean))} logits",
        subtitle=f"{subject.model}; {subject.dose.caption()}. Direct logit attribution at the answer, injected {MINUS} "
        "clean; bars and line: means over concepts with 95% intervals. Shaded: injected layers.",
    )  # fmt: skip


def _notes(measured: Measured) -> str:
    return "".join(f" Note: {note.rstrip('.')}." for note in measured.judged[1])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _percent(share: object) -> str:
    return f"{100 * float(str(share)):.0f}%".replace("-", MINUS)


def _number(value: float) -> str:
    return f"{value:+.2f}".replace("-", MINUS)


def _with_bounds(interval: intervals.Interval) -> str:
    bounds = "" if np.isnan(interval.low) else f" [{_number(float(interval.low))}, {_number(float(interval.high))}]"
    return f"{_number(float(interval.mean))}{bounds}"
