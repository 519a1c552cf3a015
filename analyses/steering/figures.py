"""The steering table as figures: what is said, how much of it is the concept, and what the vectors are like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analyses.kit import plain_text
from analyses.kit.naming import name_pattern
from analyses.steering import REPLY
from analyses.steering.vectors_figures import cosines, vectors
from mechint import figures as draw
from mechint import stats
from mechint.figures import Panel, TextCell
from mechint.figures.style import MINUS, SERIES
from mechint.figures.words import percent

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from analyses.kit.dose import Dose
    from analyses.steering.vectors import Sanity

_RANDOM_SHOWN = 2  # random vectors whose replies are shown
_LOOKS = {name: SERIES[name] for name in ("clean", "injected", "random")}


def figures(table: pd.DataFrame, sanity: Sanity, dose: Dose, caption: str) -> dict[str, go.Figure]:
    """Return the figures by file name."""
    unit = "|added| / model's median residual norm" if dose.is_relative else "factors on the vectors"
    full_caption = f"{caption}; strengths are {unit}"
    values = effects(table)
    summary = stats.group_means(values, ["panel", "row", "series"], "value", unit="unit")
    rows = list(dict.fromkeys(values["row"]))
    summary = summary.sort_values("row", key=lambda row: row.map(rows.index), kind="stable")
    drawn = {"steering_effect": effect(summary, values, f"{full_caption}. {_counts(table)}")}
    replies = table[table["kind"] == REPLY]
    for mode, name in (("greedy", "steering_talk"), ("sampled", "steering_talk_sampled")):
        if (replies["mode"] == mode).any():
            drawn[name] = talk(
                replies[(replies["mode"] == mode) & (replies["sample"] == 0)], summary, full_caption, mode
            )
    if len(sanity.vectors) > 1:
        drawn["steering_cosines"] = cosines(sanity, caption)
    drawn["steering_vectors"] = vectors(sanity, dose, table, caption)
    return drawn


def effects(table: pd.DataFrame) -> pd.DataFrame:
    """Return panel, row (strength), series, unit (vector), value: what steering does to the concept's name and to text.

    Panels: `log_p`, how much the log-probability of the first token of the name rises over positions of texts; `said`,
    the share of replies that have the name; `rise`, how much the loss of text rises. For a random vector the name is
    that of the concept whose norms it has; for clean replies each concept in turn is a unit.
    """
    read, replies = plain_text.rises(table), table[table["kind"] == REPLY]
    clean = table[(table["kind"] == plain_text.KIND) & (table["series"] == "clean")].set_index("conversation")
    before = [clean.loc[text, f"log_p_{name}"] for text, name in zip(read["conversation"], read["target"], strict=True)]
    now = [row[f"log_p_{row['target']}"] for row in read.to_dict("records")]
    log_p = read.assign(value=np.subtract(now, before))
    keys = ["strength", "series", "unit"]
    kinds = read[keys].drop_duplicates()
    rise = plain_text.worst(read, keys[:2]).rename(columns={"rise": "value"})
    parts = {
        "log_p": stats.strict_means(log_p, keys, "value").reset_index(name="value"),
        "said": stats.strict_means(_named_share(replies), keys, "value").reset_index(name="value"),
        "rise": rise,
    }
    assert len(rise) == len(kinds)
    points = pd.concat([values.assign(panel=panel) for panel, values in parts.items()], ignore_index=True)
    points = points.assign(amount=points["strength"].astype(float))
    points = points.sort_values("amount", kind="stable", ascending=False)
    return points.assign(row=points["strength"].map(_row))


def _named_share(replies: pd.DataFrame) -> pd.DataFrame:
    """Return each reply with 1 if it has the name that is looked for; clean replies once for each concept."""
    concepts = list(dict.fromkeys(replies.loc[replies["series"] == "injected", "unit"]))
    clean = replies[replies["series"] == "clean"]
    every = pd.concat([replies[replies["series"] != "clean"], *(clean.assign(unit=c, target=c) for c in concepts)])
    hits = [target in names.split(", ") for target, names in zip(every["target"], every["said"], strict=True)]
    return every.assign(value=np.array(hits, dtype=float))


def _row(strength: str) -> str:
    return "clean" if float(strength) == 0 else f"{float(strength):+g}".replace("-", MINUS)


def effect(summary: pd.DataFrame, values: pd.DataFrame, caption: str) -> go.Figure:
    """Return what steering does by strength: to the name's probability, to what is said, and to text."""
    panels = [
        Panel("log_p", "The concept's name comes nearer", "rise of log P(name), nats"),
        Panel("said", "It is said", "share of replies with the name", references=()),
        Panel("rise", "Text becomes unlikely", "rise of the loss of text, nats per token"),
    ]
    subtitle = (
        f"{caption}. Large: mean over vectors with its 95% interval; small: single vectors. log P(name): of the first "
        f"token of the concept's name, mean over the positions of texts. {plain_text.CAPTION.split(';')[0]}; the "
        "larger rise of the two. Name of a random vector: that of the concept whose norms it has."
    )
    figure = draw.dots(summary, values, panels, _LOOKS, title=_finding(summary), subtitle=subtitle, packed=True)
    rows = list(dict.fromkeys(summary["row"]))
    return draw.mark_rows(figure, [np.log(plain_text.COHERENT)] * len(rows), "perplexity doubles", column=3)


def _finding(summary: pd.DataFrame) -> str:
    shares = summary[summary["panel"] == "said"].set_index(["row", "series"])["mean"]
    at = _strongest(summary)
    named = percent(shares[at, "injected"])
    text = f"At strength {at.removeprefix('+')} replies name the concept in {named} of cases"
    others = {"random vectors": (at, "random"), "clean": ("clean", "clean")}
    compared = [f"{name}: {percent(shares[key])}" for name, key in others.items() if key in shares.index]
    end = "; at more, text falls apart" if _broken(summary) else ""
    return f"{text} ({', '.join(compared)}){end}"


def _coherent(summary: pd.DataFrame) -> list[str]:
    """Return the rows of positive strengths under which text is coherent, the strongest first."""
    rise = summary[(summary["panel"] == "rise") & (summary["series"] == "injected")]
    kept = rise[rise["mean"] < np.log(plain_text.COHERENT)]
    return [row for row in kept["row"] if row.startswith("+")]


def _strongest(summary: pd.DataFrame) -> str:
    """Return the strongest row with coherent text, else the weakest positive one."""
    positive = [row for row in dict.fromkeys(summary["row"]) if row.startswith("+")]
    return (_coherent(summary) or positive[-1:])[0]


def _broken(summary: pd.DataFrame) -> bool:
    """Whether text falls apart at some positive strengths, and at some not."""
    return 0 < len(_coherent(summary)) < sum(str(row).startswith("+") for row in dict.fromkeys(summary["row"]))


def talk(replies: pd.DataFrame, summary: pd.DataFrame, caption: str, mode: str) -> go.Figure:
    """Return what is said to the first request under each vector: clean, and with both signs at two strengths."""
    request = replies["conversation"].iloc[0]
    answers = replies[replies["conversation"] == request].assign(row=lambda rows: rows["strength"].map(_row))
    columns = _columns(summary)
    clean = answers.loc[answers["series"] == "clean", "text"].iloc[0]
    concepts = list(dict.fromkeys(answers.loc[answers["series"] == "injected", "unit"]))
    random = list(dict.fromkeys(answers.loc[answers["series"] == "random", "unit"]))
    names = [*concepts, *random[:_RANDOM_SHOWN]]
    texts = answers.set_index(["unit", "row"])["text"]
    targets = answers.set_index("unit")["target"].groupby(level=0).first()
    lines = []
    for name in names:
        bold = name_pattern(targets[name])
        quotes = [clean if column == "clean" else str(texts[name, column]) for column in columns]
        lines.append([TextCell(name, ".+"), *(TextCell(_one_line(text), bold) for text in quotes)])
    prompt, prefix = str(answers["prompt"].iloc[0]), answers["prefix"].iloc[0]
    if prefix:
        prompt += f" / {prefix} ..."
    how = "Likeliest replies (greedy)" if mode == "greedy" else "Sampled replies, the first of each"
    return draw.text_table(
        ["vector", *columns],
        lines,
        widths=[0.5, *[1.0] * len(columns)],
        title=f"What comes to mind under steering? \u201c{prompt}\u201d",
        subtitle=f"{caption}. {how}; vectors are added to request and reply, with both signs. Bold: the concept's name "
        "(random vectors: that of the concept whose norms they have). All requests, strengths and samples are in "
        "table.csv.",
        rules=[len(concepts)] if random else [],
    )


def _columns(summary: pd.DataFrame) -> list[str]:
    """Return the strengths that are shown: the strongest with coherent text and the next stronger, with both signs."""
    positive = [row for row in dict.fromkeys(summary["row"]) if row.startswith("+")]  # the strongest first
    at = positive.index(_strongest(summary))
    strongest = positive[max(0, at - 1) : at + 1]
    negative = [MINUS + row.removeprefix("+") for row in strongest]
    return [*negative, "clean", *reversed(strongest)]


def _one_line(text: str) -> str:
    return text.strip().replace("\n", " \u23ce ") or "(nothing)"


def _counts(table: pd.DataFrame) -> str:
    replies = table[table["kind"] == REPLY]
    units = replies.groupby("series")["unit"].nunique()
    each = len(replies[["conversation", "mode", "sample"]].drop_duplicates())
    return f"{units.get('injected', 0)} concepts, {units.get('random', 0)} random vectors, {each} replies each"
