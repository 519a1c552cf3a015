"""The trial of doses as figures: all places, all extractions, and what is said at the proposed dose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.kit import dose_rule, plain_text
from analyses.kit.dose_trial import REPLY, speech
from analyses.kit.naming import name_pattern
from analyses.kit.option_types import format_layers
from mechint import figures as draw
from mechint import stats
from mechint.figures import HeatPanel, Panel, Scale, TextCell
from mechint.figures.heatmaps import WARNING
from mechint.figures.style import SERIES
from mechint.figures.words import bounded, counted, percent, plain

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.dose import Facts
    from analyses.kit.dose_proposal import Measured, Proposal
    from analyses.kit.dose_rule import Places

_WORST = 100.0  # times the clean perplexity, beyond which colours say no more
_UNIT = "|added| / model's median residual norm"


def figures(table: pd.DataFrame, facts: Facts) -> dict[str, go.Figure]:
    """Return the figures by file name."""
    drawn = {"dose_grid": grid(table, facts)}
    if table["extraction"].nunique() > 2:  # "" is that of clean rows and random vectors
        drawn["dose_extractions"] = extractions(table, facts)
    return drawn | {"dose_replies": talk(table, facts)}


def grid(table: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return what the usual extraction does at all layers and strengths, the proposed place framed."""
    effects = dose_rule.effects(table[table["step"] == "choice"])
    extraction, places = next(iter(dose_rule.places(effects).items()))
    panels = [
        HeatPanel("Own name rises above others", places.specific, "specific", mark="bold"),
        HeatPanel("Perplexity of text / clean", places.perplexity, "text", mark=""),
    ]
    figure = draw.heatmap(
        panels,
        {
            "specific": Scale("nats, net<br>of random", *_limits(places)),
            "text": Scale("perplexity<br>/ clean", 1.0, _WORST, WARNING, log=True),
        },
        rows=[format_layers(layers) for layers in places.layers],
        columns=[f"{strength:g}" for strength in places.strengths],
        row_label="layers",
        column_label=_UNIT,
        title=_finding(facts.dose.proposal),
        subtitle=f"{facts.model.short_name}; {_counts(table)}; vectors of {extraction}, added at every position of "
        f"texts. Bold: the lower end of the 95% interval is above 0. Hatched: the upper end of perplexity is "
        f"{plain_text.COHERENT:g} or more, there or at a smaller strength. {plain_text.CAPTION}."
        f"{_framed(places, facts)}",
        upward=True,
        digits=None,
    )
    draw.hatch(figure, ~places.coherent)
    at = _place(places, facts.dose.proposal)
    return figure if at is None else draw.frame(figure, *at)


def _limits(places: Places) -> tuple[float, float]:
    """Return the ends of colours: those of places with coherent text, where there are any."""
    values = np.abs(places.specific.mean)
    visible = values[places.coherent] if places.coherent.any() else values
    limit = max(float(np.nanmax(visible)), 1e-3)
    return -limit, limit


def _place(places: Places, proposal: Proposal) -> tuple[int, int] | None:
    if proposal.layers not in places.layers or proposal.relative_strength not in places.strengths:
        return None
    return places.layers.index(proposal.layers), places.strengths.index(proposal.relative_strength)


def _framed(places: Places, facts: Facts) -> str:
    proposal = facts.dose.proposal
    if _place(places, proposal) is None:
        return ""
    return f" Framed: the proposed dose, for vectors of {proposal.extraction}; the rule: {proposal.rule}."


def _finding(proposal: Proposal) -> str:
    where = f"layers {format_layers(proposal.layers)}, relative strength {proposal.relative_strength:g}"
    perplexity = f"perplexity is {_bounded(proposal.measured['perplexity'])} times the clean one"
    if not proposal.coherent:
        return f"Text is coherent at no strength that holds on other texts; the least harm is at {where}: {perplexity}"
    if not proposal.works:
        return f"Vectors are NOT FELT while text is coherent; the largest coherent strength is at {where}: {perplexity}"
    specific = bounded(*_numbers(proposal.measured["specific"]))
    effect = f"on other texts own names rise {specific} nats above others', {perplexity}"
    return f"Vectors work and text is coherent at {where}: {effect}"


def _numbers(of: Measured) -> tuple[float, float, float]:
    return of.mean, np.nan if of.low is None else of.low, np.nan if of.high is None else of.high


def _bounded(of: Measured) -> str:
    return bounded(*_numbers(of), plain)


def extractions(table: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return what vectors of each extraction do at the layers and strength that were chosen, on held-out texts."""
    proposal = facts.dose.proposal
    values, strength = compared(table, facts)
    summary = stats.group_means(values, ["panel", "row", "series"], "value", unit="unit", within=_within(values))
    chance, clean = 1 / _n_names(table), proposal.measured["named_clean"].mean
    panels = [
        Panel("specific", "Own name above others", "net of random, nats"),
        Panel("own_first", "Own name rises most", "share of concepts", references=(chance,)),
        Panel("named", "Replies name it", "share of replies", references=(clean,)),
        Panel("cosine", "Vectors are alike", "mean cosine of pairs"),
    ]
    return draw.dots(
        summary,
        values[values["unit"] != ""],
        panels,
        {"injected": SERIES["injected"]},
        title=_rank(summary, proposal),
        subtitle=f"{facts.model.short_name}; {_counts(table)}; at layers {format_layers(proposal.layers)}, relative "
        f"strength {strength:g}. Texts that had no part in the choice, and greedy replies (at "
        f"{proposal.relative_strength:g}). Large: means over concepts with 95% intervals; small: single concepts. "
        "Cosines at these layers. Dotted: chance, and clean replies.",
    )


def compared(table: pd.DataFrame, facts: Facts) -> tuple[pd.DataFrame, float]:
    """Return panel, row (extraction), series, unit, value of every extraction, and the strength of texts."""
    effects = dose_rule.effects(table[table["step"] == "held out"])
    effects = effects[effects["series"] == "injected"]
    everywhere = effects.groupby("strength")["extraction"].nunique()
    strength = float(everywhere[everywhere == everywhere.max()].index[-1])
    effects = effects[effects["strength"] == strength]
    replies = table[(table["kind"] == REPLY) & (table["series"] == "injected")]
    replies = replies[replies["strength"] == f"{facts.dose.proposal.relative_strength:g}"]
    parts = [
        effects.assign(panel=name, row=effects["extraction"], value=effects[name]) for name in ("specific", "own_first")
    ]
    for extraction, rows in replies.groupby("extraction", sort=False):
        units = list(dict.fromkeys(rows["unit"]))
        parts.append(pd.DataFrame({"panel": "named", "row": extraction, "unit": units, "value": speech(rows)["named"]}))
    cosines = {"row": list(facts.cosines), "value": list(facts.cosines.values())}
    parts.append(pd.DataFrame({"panel": "cosine", "unit": "", **cosines}))
    values = pd.concat(parts, ignore_index=True)[["panel", "row", "unit", "value"]]
    marked = values["row"].where(values["row"] != facts.dose.proposal.extraction, values["row"] + " (chosen)")
    return values.assign(series="injected", row=marked), strength


def _within(values: pd.DataFrame) -> dict[str, tuple[float, float]]:
    return {name: stats.PROBABILITY for name in values["panel"].unique() if name in ("own_first", "named")}


def _rank(summary: pd.DataFrame, proposal: Proposal) -> str:
    specific = summary[summary["panel"] == "specific"].set_index("row")["mean"].sort_values(ascending=False)
    rank = 1 + list(specific.index).index(f"{proposal.extraction} (chosen)")
    place = "the most" if rank == 1 else f"number {rank}"
    text = (
        f"{proposal.extraction}, chosen on other texts, is {place} specific of {counted(len(specific), 'extraction')}"
    )
    return f"{text} on held-out ones" + (
        "" if proposal.works else "; none is chosen by an effect, as vectors do not work"
    )


def talk(table: pd.DataFrame, facts: Facts) -> go.Figure:
    """Return what is said to the first request under each vector: clean, at the proposed dose, and beside it."""
    proposal = facts.dose.proposal
    replies = table[table["kind"] == REPLY]
    first = replies[replies["conversation"] == replies["conversation"].iloc[0]]
    steered = first[first["extraction"] == proposal.extraction]
    clean = str(first.loc[first["series"] == "clean", "text"].iloc[0])
    strengths = sorted(set(steered["strength"]), key=float)
    texts = steered.set_index(["unit", "strength"])["text"]
    lines = [
        [TextCell(name, ".+")]
        + [
            TextCell(_one_line(text), name_pattern(name))
            for text in (clean, *(str(texts[name, strength]) for strength in strengths))
        ]
        for name in proposal.concepts
    ]
    at = f"{proposal.relative_strength:g}"
    headings = [f"{strength} (proposed)" if strength == at else strength for strength in strengths]
    return draw.text_table(
        ["vector", "clean", *headings],
        lines,
        widths=[0.4, *[1.0] * (1 + len(strengths))],
        title=_talk_finding(proposal, str(first["prompt"].iloc[0])),
        subtitle=f"{facts.model.short_name}; vectors of {proposal.extraction}, added at layers "
        f"{format_layers(proposal.layers)} to request and reply; strengths are {_UNIT}. Likeliest replies (greedy). "
        "Bold: the concept's name. All requests and extractions are in table.csv.",
    )


def _talk_finding(proposal: Proposal, prompt: str) -> str:
    named, clean = proposal.measured["named"], proposal.measured["named_clean"]
    repeats = percent(proposal.measured["repeated"].mean)
    clean_repeats = percent(proposal.measured["repeated_clean"].mean)
    return (
        f"At the proposed dose {percent(named.mean)} of replies name their concept (clean: {percent(clean.mean)}), "
        f"and {repeats} of what they say is repeated (clean: {clean_repeats}): \u201c{prompt}\u201d"
    )


def _one_line(text: str) -> str:
    return text.strip().replace("\n", " \u23ce ") or "(nothing)"


def _n_names(table: pd.DataFrame) -> int:
    return sum(str(column).startswith("log_p_") for column in table.columns)


def _counts(table: pd.DataFrame) -> str:
    text = table[(table["kind"] == plain_text.KIND) & (table["step"] == "choice")]
    units = text.groupby("series")["unit"].nunique()
    random = int(units.get("random", 0))
    return f"{counted(int(units['injected']), 'concept')}, {counted(random, 'random vector')}"
