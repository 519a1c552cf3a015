"""What replies count as, as stacked bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analyses.trials import captions
from analyses.trials.figures.looks import CLASS_WORDS, SERIES_WORDS
from analyses.trials.summaries import class_shares
from mechint import figures as draw
from mechint.figures import Hatch
from mechint.figures.style import BLUE, ORANGE, SKY, VERMILION, YELLOW

if TYPE_CHECKING:
    import plotly.graph_objects as go

# From what cannot be read to what is right; hatchings alternate with plain colours, so that neighbours differ in grey.
_PARTS = {
    "incoherent": Hatch(CLASS_WORDS["incoherent"], "#FFFFFF", "x"),
    "refuses": Hatch(CLASS_WORDS["refuses"], SKY),
    "denies": Hatch(CLASS_WORDS["denies"], "#E3E3E3"),
    "leaks": Hatch(CLASS_WORDS["leaks"], YELLOW, "."),
    "claims": Hatch(CLASS_WORDS["claims"], ORANGE, "/"),
    "names wrongly": Hatch(CLASS_WORDS["names wrongly"], VERMILION),
    "names rightly": Hatch(CLASS_WORDS["names rightly"], BLUE, "", "#FFFFFF"),
}
_QUESTIONS = {
    "mention": "concept mentioned<br>before the prompt",
    "no": "control question,<br>answer no",
    "yes": "control question,<br>answer yes",
    "none": "no question",
}


def classes(table: pd.DataFrame, caption: str) -> go.Figure:
    """Return what replies count as by prompt or control question, and by what was injected."""
    shares = class_shares(table)
    order = {name: at for at, name in enumerate(["introspection", *_QUESTIONS])}
    series = {name: at for at, name in enumerate(SERIES_WORDS)}
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
    rows = ranks.assign(group=groups, row=ranks["series"].map(SERIES_WORDS), part=ranks["outcome"])
    return draw.stacks(
        rows[["group", "row", "part", "share", "n"]],
        _PARTS,
        title=captions.classes_title(table),
        subtitle=f"{caption}. All strengths together; refusals are a class of their own.",
        label="share of replies",
        counted="replies",
        legend_lines=2,
    )
