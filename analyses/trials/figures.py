"""The tables of a sweep of trials as figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.trials import captions
from analyses.trials.tables import STEERED, class_shares, difficulty
from mechint import figures as draw
from mechint.figures import Hatch, Panel
from mechint.figures.style import BLUE, BROWN, INK, ORANGE, SERIES, SKY, VERMILION, YELLOW, Series
from mechint.trials.detection import detection_table
from mechint.trials.outcomes import CLAIMING

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.kit.analysis import Drawn
    from analyses.trials.options import Facts

# From what cannot be read to what is right; hatchings alternate with plain colours, so that neighbours differ in grey.
_PARTS = {
    "incoherent": Hatch("cannot be read", "#FFFFFF", "x"),
    "refuses": Hatch("refuses", SKY),
    "denies": Hatch("denies", "#E3E3E3"),
    "leaks": Hatch("denies, with the concept in it", YELLOW, "."),
    "claims": Hatch("claims, names nothing", ORANGE, "/"),
    "names wrongly": Hatch("claims, names another", VERMILION),
    "names rightly": Hatch("claims, names the concept", BLUE, "", "#FFFFFF"),
}
_SERIES_WORDS = {"clean": "clean", "random": "random vector", "injected": "concept injected"}
_QUESTIONS = {
    "mention": "concept mentioned<br>before the prompt",
    "no": "control question,<br>answer no",
    "yes": "control question,<br>answer yes",
    "none": "no question",
}
_REFUSALS = {
    "in": Series("refusals as denials", VERMILION, "solid", "circle"),
    "out": Series("refusals left out of both arms", BLUE, "solid", "square"),
    "lowest": Series("bound: refusals hide the worst answer", INK, "dot", "triangle-left-open"),
    "highest": Series("bound: refusals hide the best answer", INK, "dot", "triangle-right-open"),
}
_CLAIMS = {
    "claims": Series("claims something", VERMILION, "solid", "circle"),
    "names rightly": Series("claims and names it rightly", BROWN, "solid", "diamond-open"),
}
_CURVES = {"refusal": ("clean refusal", "Refuses"), "coherence": ("clean coherence", "Can be read")}
_CURVES |= {"hits": ("false alarms", "Claims something")}
_LOOKS = {name: SERIES[name] for name in ("clean", "injected", "random")}


def figures(table: pd.DataFrame, rates: pd.DataFrame, facts: Facts) -> Drawn:
    """Return the figures by file name, and the titles that their numbers carry."""
    caption = captions.caption(table, facts)
    drawn = {"trials_classes": classes(table, caption)}
    if (rates["measure"] == "net").any():
        drawn["trials_net"] = net(table, rates, caption)
        drawn["trials_hits"] = hits(table, rates, caption)
    if rates["strength"].notna().any():
        drawn["trials_strengths"] = strengths(table, rates, caption)
    if len(difficulty(table)):
        drawn["trials_concepts"] = concepts(table, caption)
    titles = {name: figure.layout.title.text for name, figure in drawn.items()}
    return drawn, {"titles": {name: title.replace("<b>", "").replace("</b>", "") for name, title in titles.items()}}


def classes(table: pd.DataFrame, caption: str) -> go.Figure:
    """Return what replies count as by prompt or control question, and by what was injected."""
    shares = class_shares(table)
    order = {name: at for at, name in enumerate(["introspection", *_QUESTIONS])}
    series = {name: at for at, name in enumerate(_SERIES_WORDS)}
    ranks = shares.assign(at_question=shares["question"].map(order), at_series=shares["series"].map(series))
    prompts = {key: at for at, key in enumerate(dict.fromkeys(zip(shares["model"], shares["prompt"], strict=True)))}
    ranks["at_prompt"] = [prompts[key] for key in zip(ranks["model"], ranks["prompt"], strict=True)]
    ranks = ranks.sort_values(["at_question", "at_prompt", "at_series"], kind="stable")
    several = table["model"].nunique() > 1
    names = [
        prompt if question == "introspection" else _QUESTIONS[question]
        for prompt, question in zip(ranks["prompt"], ranks["question"], strict=True)
    ]
    groups = [f"{name}<br>{model}" if several else name for name, model in zip(names, ranks["model"], strict=True)]
    rows = ranks.assign(group=groups, row=ranks["series"].map(_SERIES_WORDS), part=ranks["outcome"])
    return draw.stacks(
        rows[["group", "row", "part", "share", "n"]],
        _PARTS,
        title=captions.classes_title(table),
        subtitle=f"{caption}. All strengths together; refusals are a class of their own.",
        label="share of replies",
        counted="replies",
        legend_lines=2,
    )


def net(table: pd.DataFrame, rates: pd.DataFrame, caption: str) -> go.Figure:
    """Return net detection by prompt: raw beside corrected, with refusals in, out and their bounds."""
    rows = rates[(rates["measure"] == "net") & (rates["prompt"] != "")]
    bounds = rows["refusals"].isin(["lowest", "highest"])
    summary = rows.assign(
        panel=rows["estimate"],
        row=[_row(rates, *key) for key in zip(rows["model"], rows["prompt"], rows["series"], strict=True)],
        mean=rows["value"],
        low=rows["low"].mask(bounds),
        high=rows["high"].mask(bounds),
        n=rows["n_concepts"],
    )
    summary = summary.assign(series=summary["refusals"]).sort_values(
        "row", key=lambda row: row.map(list(dict.fromkeys(_rows(rates))).index), kind="stable"
    )
    arrows = ("lowest", "highest")
    label = "share of claims above that of clean replies"
    panels = [Panel("raw", "As the judge has counted", label, arrows=arrows)]
    if (rows["estimate"] == "corrected").any():
        panels.append(Panel("corrected", "Corrected for the judge's errors", label))
    subtitle = (
        f"{caption}. Large: means over concepts or random vectors with 95% intervals; small: single ones, refusals as "
        "denials. Net detection: claims less those of clean replies. The bounds have no interval of their own."
    )
    figure = draw.dots(
        summary[["panel", "row", "series", "mean", "low", "high", "n"]],
        _single_nets(table, rates),
        panels,
        _REFUSALS,
        title=captions.net_title(rates),
        subtitle=subtitle,
        legend_lines=2,
    )
    return figure.update_xaxes(matches="x")  # raw and corrected are to be compared


def _single_nets(table: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """Return by prompt and vector the share of claims less that of clean replies."""
    asking = table[(table["question"] == "introspection") & table["outcome"].notna()]
    asking = asking.assign(claims=asking["outcome"].isin(CLAIMING).astype(float))
    keys = ["model", "prompt"]
    clean = asking[asking["series"] == "clean"].groupby(keys)["claims"].mean().rename("alarms").reset_index()
    steered = asking[asking["series"].isin(STEERED)].groupby([*keys, "series", "concept"], sort=False)["claims"].mean()
    both = steered.reset_index().merge(clean, on=keys)
    names = [_row(rates, *key) for key in zip(both["model"], both["prompt"], both["series"], strict=True)]
    points = {"panel": "raw", "row": names, "series": "in", "unit": both["concept"]}
    return pd.DataFrame({**points, "value": both["claims"] - both["alarms"]})


def _rows(rates: pd.DataFrame) -> list[str]:
    """Return the rows of net detection, prompt by prompt."""
    rows = rates[(rates["measure"] == "net") & (rates["prompt"] != "")]
    keys = dict.fromkeys(zip(rows["model"], rows["prompt"], strict=True))
    return [_row(rates, *key, series) for key in keys for series in STEERED]


def _row(rates: pd.DataFrame, model: str, prompt: str, series: str) -> str:
    return f"{captions.group_name(rates, model, prompt)}: {_SERIES_WORDS[series]}"


def hits(table: pd.DataFrame, rates: pd.DataFrame, caption: str) -> go.Figure:
    """Return hits against false alarms of each prompt, of concepts and of random vectors."""
    rows = rates[(rates["prompt"] != "") & (rates["estimate"] == "raw") & (rates["refusals"] == "in")]
    keys = ["model", "prompt", "series"]
    y = rows[rows["measure"] == "hits"].set_index(keys)
    x = rows[rows["measure"] == "false alarms"].set_index(keys)
    alarms = x[["value", "low", "high"]].add_suffix("_x")
    both = y.join(alarms, how="inner").reset_index()
    points = pd.DataFrame(
        {
            "series": both["series"],
            "unit": [captions.group_name(rates, *key) for key in zip(both["model"], both["prompt"], strict=True)],
            "x": both["value_x"],
            "x_low": both["low_x"],
            "x_high": both["high_x"],
            "y": both["value"],
            "y_low": both["low"],
            "y_high": both["high"],
            "low": both["low"],
            "n": both["n_concepts"],
        }
    )
    sensitivity = detection_table(table, table.dropna(subset=["outcome"]), unmatched=True)
    return draw.hits_and_alarms(
        points,
        _LOOKS,
        title=captions.d_prime_title(sensitivity, rates),
        subtitle=f"{caption}. As counted, {captions.IN}; 95% intervals over "
        "concepts (hits) and replies (false alarms).",
        x_label="false alarms: clean replies that claim something",
        y_label="hits: steered replies that claim something",
    )


def strengths(table: pd.DataFrame, rates: pd.DataFrame, caption: str) -> go.Figure:
    """Return refusals, coherence and claims by strength; those of clean replies across."""
    rows = rates[rates["strength"].notna() & (rates["refusals"] == "in")]
    models = list(dict.fromkeys(rows["model"]))
    panels: list[Panel] = []
    curves: list[pd.DataFrame] = []
    levels: list[pd.DataFrame] = []
    for model in models:
        for measure, (clean, title) in _CURVES.items():
            key = f"{model} {measure}"
            panels.append(Panel(key, title if len(models) == 1 else f"{title}, {model}", "share", references=()))
            of_model = rows[rows["model"] == model].assign(panel=key, mean=rows["value"], n=rows["n_concepts"])
            curves.append(of_model[of_model["measure"] == measure])
            levels.append(of_model[of_model["measure"] == clean].head(1).assign(series="clean", n=np.nan))
    is_relative = bool(table.loc[table["series"] != "clean", "relative"].all())
    figure = draw.curves(
        pd.concat(curves, ignore_index=True),
        panels,
        _LOOKS,
        title=captions.strengths_title(rates),
        subtitle=f"{caption}. All prompts together; {captions.IN}. Bands: 95% intervals over vectors, of clean "
        "ones over replies.",
        x="strength",
        x_label="|added| / model's median residual norm" if is_relative else "factor on the vectors",
        columns=len(_CURVES),
        levels=pd.concat(levels, ignore_index=True),
    )
    return figure.update_yaxes(range=[-0.03, 1.03], tickformat=".0%")


def concepts(table: pd.DataFrame, caption: str) -> go.Figure:
    """Return concepts in the order in which they are claimed, with how often each is named."""
    rates = difficulty(table)
    claims = rates[rates["measure"] == "claims"].groupby("concept")["value"].mean().sort_values(ascending=False)
    rows = rates.assign(panel=rates["model"], row=rates["concept"], series=rates["measure"], mean=rates["value"])
    rows = rows.sort_values("row", key=lambda row: row.map(list(claims.index).index), kind="stable")
    models = list(dict.fromkeys(rows["model"]))
    titles = [model if len(models) > 1 else "" for model in models]
    label = "share of replies to all prompts at all strengths"
    figure = draw.dots(
        rows[["panel", "row", "series", "mean", "low", "high"]],
        pd.DataFrame(columns=["panel", "row", "series", "unit", "value"]),
        [Panel(model, title, label, references=()) for model, title in zip(models, titles, strict=True)],
        _CLAIMS,
        title=captions.concepts_title(table),
        subtitle=f"{caption}. As counted, {captions.IN}; exact 95% intervals over the replies of a concept, "
        "which hold for its vector alone.",
    )
    asking = table[(table["question"] == "introspection") & table["outcome"].notna()]
    for column, model in enumerate(models, start=1):
        clean = asking[(asking["model"] == model) & (asking["series"] == "clean")]
        if len(clean):
            level = float(clean["outcome"].isin(CLAIMING).mean())
            draw.mark_rows(figure, [level] * len(claims), "clean replies that claim something", column=column)
    return figure.update_xaxes(tickformat=".0%", range=[-0.02, 1.02])
