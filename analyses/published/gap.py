"""The figures of "The 32B Introspection Gap": what the gap is made of, new concepts and their categories, prompts."""

from __future__ import annotations

import pandas as pd

from analyses.published.scaling import NET, detection
from analyses.published.specs import (
    BASE,
    INSECURE,
    MODELS,
    NO_INTERVAL,
    Picture,
    citation,
    in_points,
    labelled,
    points,
    points_by,
    share_dots,
    signed,
    source,
    with_digits,
    with_room,
)
from mechint import figures as draw
from mechint.figures import Panel, published
from mechint.figures.style import INK, MINUS, PURPLE, VERMILION, Series

DIGIT = 0.0006  # what rounding to a tenth of a percent can make of a published number
EXACT = "Bars: exact 95% intervals over trials, which do not count that trials share concepts"


def pictures() -> dict[str, Picture]:
    """Return the figures by file name."""
    return {
        "published_gap": gap(),
        "published_hedging": hedging(),
        "published_new_concepts": new_concepts(),
        "published_categories": categories(),
        "published_prompts": prompts(),
    }


def gap() -> Picture:
    """Return the steps of the gap: from what to what, and the difference beside the one the write-up names."""
    table = published.load("gap_decomposition")
    table = table.assign(
        row=[_step(row) for row in table.to_dict("records")],
        difference=table["to_net_detection"] - table["from_net_detection"],
    )
    values = pd.concat(
        [
            points(table, panel="steps", row="row", series="from", value="from_net_detection"),
            points(table, panel="steps", row="row", series="to", value="to_net_detection"),
            points(table, panel="difference", row="row", series="difference", value="difference"),
            points(table, panel="difference", row="row", series="named", value="published_difference"),
        ],
        ignore_index=True,
    )
    looks = {
        "from": Series("from", INK, "dot", "circle-open"),
        "to": Series("to", VERMILION, "solid", "circle"),
        "difference": Series("difference of the two", INK, "solid", "diamond"),
        "named": Series("difference that the write-up names", PURPLE, "solid", "star-open"),
    }
    panels = [
        Panel("steps", "From one condition to another", "net detection", arrows=("from", "to")),
        Panel("difference", "Difference", "difference of net detection, percentage points"),
    ]
    size = table.set_index("step")["difference"].map(in_points)
    title = (
        f"{citation('gap_decomposition')}: excluding refusals lifts 32B-Base by {size['refusals']}; it stays "
        f"{size['core gap']} below 14B and {size['fine-tuning']} below 32B-Coder"
    )
    subtitle = f"{BASE}. {NO_INTERVAL}.{_disagreeing(table)}"
    return share_dots(values, panels, looks, title=title, subtitle=subtitle, numbers=["difference"], of=source(table))


def _step(row: dict[str, object]) -> str:
    ends = (
        f"{row[f'{end}_model']}{', no refusals' if row[f'{end}_refusals'] == 'excluded' else ''} "
        f"({signed(float(str(row[f'{end}_net_detection'])))})"
        for end in ("from", "to")
    )
    return f"<b>{row['step']}</b><br>{' →<br>'.join(ends)}"


def _disagreeing(table: pd.DataFrame) -> str:
    """Return which named differences are not those of the values, beyond whole percents."""
    far = table[(table["published_difference"] - table["difference"]).abs() > 10 * DIGIT]
    sentences = [
        f" The write-up names {in_points(row['published_difference'])} for {row['step']}; its values differ by "
        f"{in_points(row['difference'])}."
        for row in far.to_dict("records")
    ]
    return "".join(sentences)


def hedging() -> Picture:
    """Return how passing injection trials are worded, by model."""
    table = published.load("hedging")
    labels = {"hedges_per_trial": "Hedges", "strong_claims_per_trial": "Strong claims of detection"}
    values = pd.concat(
        [points(table, panel=name, row="model", series=name, value=name) for name in labels], ignore_index=True
    )
    looks = {
        "hedges_per_trial": Series("hedging phrases", INK, "dot", "circle-open"),
        "strong_claims_per_trial": Series("strong detection language", VERMILION, "solid", "circle"),
    }
    wide = table.set_index("model")["hedges_per_trial"]
    panels = [Panel(name, label, "phrases per trial") for name, label in labels.items()]
    figure = draw.dots(
        values, labelled(values, "{:.2f}".format), panels, looks,
        title=f"{citation('hedging')}: where 32B-Base detects it hedges {wide['32B-Base']:.2f} times a trial, "
        f"14B {wide['14B']:.2f} times",
        subtitle=f"Passing injection trials only. {NO_INTERVAL}: the number of passing trials "
        "is not given.", packed=True,
    )  # fmt: skip
    with_room(figure, values, panels, list(labels))
    return Picture(figure, values, source(table))


def new_concepts() -> Picture:
    """Return detection of the eight new concepts together, by model."""
    table = published.load("new_concepts")
    net = table.set_index("model")["net_detection"]
    title = (
        f"{citation('new_concepts')}: on eight new concepts net detection is {signed(net['14B'])} for 14B, "
        f"{signed(net['32B-Base'])} for 32B-Base and {signed(net['32B-Coder'])} for 32B-Coder"
    )
    subtitle = (
        f"{BASE}{INSECURE}. {EXACT}; {table['n_injected'].max():.0f} trials of each kind. Without one: net "
        "detection, and pass and false positive rates of 32B-Base, whose trials without refusals are not told."
    )
    trials = {"injected": "n_injected", "control": "n_control", "refusals": "n_trials"}
    return detection(table, title=title, subtitle=subtitle, trials=trials)


def categories() -> Picture:
    """Return net detection by category of concept, and how far 32B-Base is from 14B and 32B-Coder."""
    table = published.load("concept_categories")
    row = table["category"] + "<br>" + table["concepts"]
    table = table.assign(row=row)
    wide = table.pivot(index="row", columns="model", values="net_detection").loc[list(dict.fromkeys(row))]
    gaps = {"behind": ("32B-Base", "14B"), "ahead": ("32B-Coder", "32B-Base")}
    parts = [points_by(table, "model", panel="net", row="row", value="net_detection")]
    for series, (model, other) in gaps.items():
        difference = (wide[model] - wide[other]).rename("difference").reset_index()
        parts.append(points(difference, panel="gaps", row="row", series=series, value="difference"))
    values = pd.concat(parts, ignore_index=True)
    looks = MODELS | {
        name: Series(f"{model} {MINUS} {other}", style.color, "solid", symbol)
        for (name, (model, other)), style, symbol in zip(
            gaps.items(), (MODELS["32B-Base"], MODELS["32B-Coder"]), ("circle-open", "diamond-open"), strict=True
        )
    }
    panels = [NET, Panel("gaps", "Differences between models", "difference of net detection, percentage points")]
    behind = values[values["series"] == "behind"].set_index("row")["mean"].rename(_first_line)
    title = (
        f"{citation('concept_categories')}: 32B-Base is furthest behind 14B on {behind.idxmin()} concepts "
        f"({in_points(behind.min())}), not on alignment concepts ({in_points(behind['alignment'])})"
    )
    subtitle = (
        f"{BASE}. Two concepts a category. {NO_INTERVAL}: only net detection is given by category. Differences are of "
        f"the values as published{_rounded(behind)}."
    )
    return share_dots(values, panels, looks, title=title, subtitle=subtitle, numbers=("net", "gaps"), of=source(table))


def _first_line(label: str) -> str:
    return label.partition("<br>")[0]


def _rounded(behind: pd.Series) -> str:
    """Return where the write-up's own difference, made before rounding, is another one."""
    named = published.load("category_gaps")
    named = named[named["model"] == "32B-Base"].set_index("category")["net_detection_difference"]
    other = [name for name in named.index if abs(named[name] - behind[name]) > DIGIT / 10]
    return "".join(f"; the write-up has {signed(named[name])} for {name}" for name in other)


def prompts() -> Picture:
    """Return net detection of two models under five prompts, and the refusals of one of them."""
    table = published.load("prompt_versions")
    table = table.assign(row=table["prompt"] + " " + table["wording"])
    values = _prompt_values(table)
    looks = MODELS | {
        "refused_injected": Series("32B-Base, injection trials", VERMILION, "solid", "triangle-up"),
        "refused_control": Series("32B-Base, control trials", INK, "dot", "triangle-up-open"),
    }
    panels = [NET, Panel("refusals", "Refusals of 32B-Base", "share of trials")]
    false = [
        f"{row['model']} under {row['prompt']} {with_digits(row['control_false_positive'])}"
        for row in table[table["control_false_positive"].notna()].to_dict("records")
    ]
    subtitle = (
        f"{BASE}. False positives named in the text: {', '.join(false)}. {EXACT}, where the design gives their number "
        "(720 of each kind; not for v2, nor for net detection)."
    )
    return share_dots(
        values, panels, looks, title=f"{citation('prompt_versions')}: {_asymmetry(table)}", subtitle=subtitle,
        numbers=["net"], of=source(table, published.load("scaling")),
    )  # fmt: skip


def _prompt_values(table: pd.DataFrame) -> pd.DataFrame:
    """Return net detection by model, that of 14B from the other write-up under the one prompt it had, and refusals."""
    standard = table.loc[table["prompt"] == "v2", "row"].iloc[0]
    scaling = published.load("scaling")
    net = pd.concat([table, scaling[scaling["model"] == "14B"].assign(row=standard)])
    base = table[table["model"] == "32B-Base"]
    parts = [points_by(net, "model", panel="net", row="row", value="net_detection")]
    for kind in ("injected", "control"):
        value, trials = f"refusal_rate_{kind}", f"n_{kind}"
        parts.append(points(base, panel="refusals", row="row", series=f"refused_{kind}", value=value, trials=trials))
    return pd.concat(parts, ignore_index=True)


def _asymmetry(table: pd.DataFrame) -> str:
    """Return which prompt is best for each model, and what it does to the other one."""
    net = table.pivot(index="prompt", columns="model", values="net_detection")
    clauses = []
    for model, other in (("32B-Base", "32B-Coder"), ("32B-Coder", "32B-Base")):
        best = net[model].idxmax()
        best_net, other_net = net.loc[best, [model, other]]
        clauses.append(f"{best} is best for {model} ({signed(best_net)}) and gives {other} {signed(other_net)}")
    return ", ".join(clauses)
