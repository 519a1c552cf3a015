"""The figures of published values as one table: what each is drawn from, its panels, and what its words say.

They are of "Introspection at scale" (by model, strength and concept) and of "The 32B Introspection Gap" (what the gap
is made of, how answers are worded, new concepts and their categories, prompts).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import pandas as pd

from analyses.published import points
from analyses.published.points import (
    NO_INTERVAL,
    Picture,
    citation,
    in_points,
    labelled,
    signed_percent,
    source,
    with_digits,
    with_room,
)
from mechint import figures as draw
from mechint.figures import Panel, published
from mechint.figures.style import BLUE, GREEN, INK, MINUS, ORANGE, PURPLE, VERMILION, Series
from mechint.figures.words import percent, plain

HOLLOW = "some files hold other trials"
MIXED = (
    "Hollow, without a bar: some of the published files behind the value hold trials of another model or prompt than "
    "their folder says (seen in their own records); the value that was meant is not known"
)
DIGIT = 0.0006  # what rounding to a tenth of a percent can make of a published number
EXACT = "Bars: exact 95% intervals over trials, which do not count that trials share concepts"
BASE = "32B-Base is Qwen2.5-32B-Instruct, 32B-Coder is Qwen2.5-Coder-32B-Instruct"
INSECURE = ", 32B-Insecure a finetune of the latter"

RATES = Panel("rates", "Both kinds of trial", "share of trials", arrows=("control", "injected"))
RATES_MIXED = replace(RATES, arrows=(*RATES.arrows, *map(points.mixed, RATES.arrows)))
NET = Panel("net", "Net detection", "passed less false positives")
REFUSALS = Panel("refusals", "Refusals", "share of trials")
REFUSED_BASE = Panel("refusals", "Refusals of 32B-Base", "share of trials")
STEPS = Panel("steps", "From one condition to another", "net detection", arrows=("from", "to"))
DIFFERENCE = Panel("difference", "Difference", "difference of net detection, percentage points")
HEDGES = Panel("hedges_per_trial", "Hedges", "phrases per trial")
CLAIMS = Panel("strong_claims_per_trial", "Strong claims of detection", "phrases per trial")
GAPS = Panel("gaps", "Differences between models", "difference of net detection, percentage points")

SENSITIVITY = Panel("sensitivity", "Sensitivity", "share of what labels pass")
SPECIFICITY = Panel("specificity", "Specificity", "share of what labels fail")
KAPPA = Panel("kappa", "Agreement beyond chance", "Cohen's kappa")

TRIALS = {
    "control": Series("control trials: false positives", INK, "dot", "circle-open"),
    "injected": Series("injection trials: passed", VERMILION, "solid", "circle"),
    "net": Series(f"net detection: passed {MINUS} false positives", BLUE, "solid", "diamond"),
    "refusals": Series("refusals", ORANGE, "dash", "triangle-up"),
}
MODELS = {
    "mean of 3B, 7B, 14B": Series("mean of 3B, 7B and 14B", INK, "solid", "circle-open"),
    "14B": Series("14B", GREEN, "dash", "square"),
    "32B-Base": Series("32B-Base, refusals excluded", VERMILION, "solid", "circle"),
    "32B-Coder": Series("32B-Coder", BLUE, "dashdot", "diamond"),
    "32B-Insecure": Series("32B-Insecure", PURPLE, "dot", "triangle-down"),
}
BETWEEN = {
    **MODELS,
    "behind": Series(f"32B-Base {MINUS} 14B", VERMILION, "solid", "circle-open"),
    "ahead": Series(f"32B-Coder {MINUS} 32B-Base", BLUE, "solid", "diamond-open"),
}
PROMPTED = {
    **MODELS,
    "refused_injected": Series("32B-Base, injection trials", VERMILION, "solid", "triangle-up"),
    "refused_control": Series("32B-Base, control trials", INK, "dot", "triangle-up-open"),
}
# Where files hold other trials: open and crossed, so that what was open before is told apart too.
NEW = {
    **TRIALS,
    **{
        points.mixed(name): replace(look, label=f"{look.label}; {HOLLOW}", symbol=symbol)
        for (name, look), symbol in zip(
            TRIALS.items(), ("circle-x-open", "circle-open", "diamond-open", "triangle-up-open"), strict=True
        )
    },
}
PROMPTED |= {
    points.mixed(name): replace(PROMPTED[name], label=f"{PROMPTED[name].label}; {HOLLOW}", symbol=symbol)
    for name, symbol in {
        "32B-Base": "circle-open",
        "32B-Coder": "diamond-open",
        "refused_injected": "triangle-down-open",
        "refused_control": "circle-x-open",
    }.items()
}
LABELLED = {
    "revised": Series("labels as published, after revision", VERMILION, "solid", "circle"),
    "as first given": Series("labels as first given, counted from the published files", INK, "dot", "circle-open"),
}
REFUSED = {
    "injected": Series("injection trials", VERMILION, "solid", "circle"),
    "control": Series("control trials", INK, "dot", "circle-open"),
}
ENDS = {
    "from": Series("from", INK, "dot", "circle-open"),
    "to": Series("to", VERMILION, "solid", "circle"),
    "difference": Series("difference of the two", INK, "solid", "diamond"),
    "named": Series("difference that the write-up names", PURPLE, "solid", "star-open"),
}
PHRASES = {
    "hedges_per_trial": Series("hedging phrases", INK, "dot", "circle-open"),
    "strong_claims_per_trial": Series("strong detection language", VERMILION, "solid", "circle"),
}


@dataclass(frozen=True)
class Spec:
    """A figure of rows of dots.

    `values` makes the points of a published `table`; `words` what the title says of it after its citation, and the
    subtitle. Dots of the panels `numbers` have their value beside them, as `form` writes it. `others` are tables that
    some points are from besides.
    """

    table: str
    values: Callable[[pd.DataFrame], pd.DataFrame]
    words: Callable[[pd.DataFrame], tuple[str, str]]
    panels: Sequence[Panel]
    looks: Mapping[str, Series]
    numbers: Sequence[str]
    form: Callable[[float], str] = with_digits
    ticks: str | None = ".0%"
    others: tuple[str, ...] = ()
    legend_lines: int = 1

    def picture(self) -> Picture:
        """Return the figure and its values."""
        table = published.load(self.table)
        values = self.values(table)
        finding, subtitle = self.words(table)
        units = labelled(values[values["panel"].isin(self.numbers)], self.form)
        title = f"{citation(self.table)}: {finding}"
        figure = draw.dots(
            values,
            units,
            self.panels,
            self.looks,
            title=title,
            subtitle=subtitle,
            legend_lines=self.legend_lines,
            packed=True,
        )
        with_room(figure, values, self.panels, self.numbers)
        if self.ticks is not None:
            figure.update_xaxes(tickformat=self.ticks)
        return Picture(figure, values, source(table, *(published.load(name) for name in self.others)))


def _scaling_words(table: pd.DataFrame) -> tuple[str, str]:
    net = table.set_index(points.row_names(table))["net_detection"].map(signed_percent)
    finding = (
        f"net detection is {net['0.5B']} at 0.5B and {net['14B']} at 14B, {net['32B-Base']} at 32B with refusals and "
        f"{net['32B-Base, refusals excluded']} without them"
    )
    subtitle = (
        f"{BASE}{INSECURE}. A refusal counts as failed in both kinds of trial unless it is excluded. {NO_INTERVAL}: "
        "trials are not given by model."
    )
    return finding, subtitle


def _refusals_words(table: pd.DataFrame) -> tuple[str, str]:
    injected = table[table["trials"] == "injected"]["refusal_rate"]
    control = table[table["trials"] == "control"]["refusal_rate"]
    finding = (
        f"as the injection grows stronger refusals fall from {percent(injected.iloc[0], 1)} to "
        f"{percent(injected.iloc[-1], 1)}; in control trials they stay at {percent(control.min(), 1)} to "
        f"{percent(control.max(), 1)}"
    )
    subtitle = (
        "32B-Base (Qwen2.5-32B-Instruct); strength as the write-up gives it. Control trials are those listed beside "
        f"the injection trials of a strength. {NO_INTERVAL}."
    )
    return finding, subtitle


def _concepts_words(table: pd.DataFrame) -> tuple[str, str]:
    mean = table[table["model"].str.startswith("mean")].set_index("concept")["net_detection"]
    finding = (
        f"of the four concepts of the first write-up {mean.idxmax()} is detected best ({signed_percent(mean.max())}) "
        f"and {mean.idxmin()} worst ({signed_percent(mean.min())})"
    )
    subtitle = (
        "Of the eight concepts of the second write-up only these values are given. Net detection: passed injection "
        f"trials less false positives. {NO_INTERVAL}."
    )
    return finding, subtitle


def _gap_words(table: pd.DataFrame) -> tuple[str, str]:
    steps = table.assign(difference=points.differences(table))
    size = steps.set_index("step")["difference"].map(in_points)
    finding = (
        f"excluding refusals lifts 32B-Base by {size['refusals']}; it stays {size['core gap']} below 14B and "
        f"{size['fine-tuning']} below 32B-Coder"
    )
    # Named differences that are not those of the values, beyond whole percents.
    far = steps[(steps["published_difference"] - steps["difference"]).abs() > 10 * DIGIT]
    sentences = [
        f" The write-up names {in_points(row['published_difference'])} for {row['step']}; its values differ by "
        f"{in_points(row['difference'])}."
        for row in far.to_dict("records")
    ]
    grids = published.load("prompt_versions").set_index(["model", "prompt"])["grid"]["32B-Base"]
    unequal = (
        f" 32B-Base under v2 was measured on {grids['v2']}, under v3a, and 32B-Coder, on {grids['v3a']}: these steps "
        "are not of the prompt or the finetuning alone."
    )
    return finding, f"{BASE}. {NO_INTERVAL}.{''.join(sentences)}{unequal}"


def _hedging_words(table: pd.DataFrame) -> tuple[str, str]:
    hedges = table.set_index("model")["hedges_per_trial"].map(plain)
    finding = f"where 32B-Base detects it hedges {hedges['32B-Base']} times a trial, 14B {hedges['14B']} times"
    return finding, f"Passing injection trials only. {NO_INTERVAL}: the number of passing trials is not given."


def _new_concepts_words(table: pd.DataFrame) -> tuple[str, str]:
    net = table.set_index("model")["net_detection"].map(signed_percent)
    finding = (
        f"on eight new concepts net detection is {net['14B']} for 14B, {net['32B-Base']} for 32B-Base and "
        f"{net['32B-Coder']} for 32B-Coder"
    )
    subtitle = (
        f"{BASE}{INSECURE}. {EXACT}; {table['n_injected'].max():.0f} trials of each kind. Without one: net "
        "detection, and pass and false positive rates of 32B-Base, whose trials without refusals are not told. "
        f"{MIXED}."
    )
    return finding, subtitle


def _categories_words(table: pd.DataFrame) -> tuple[str, str]:
    net = table.pivot(index="category", columns="model", values="net_detection")
    behind = net["32B-Base"] - net["14B"]
    finding = (
        f"32B-Base is furthest behind 14B on {behind.idxmin()} concepts ({in_points(behind.min())}), not on alignment "
        f"concepts ({in_points(behind['alignment'])})"
    )
    subtitle = (
        f"{BASE}. Two concepts a category. {NO_INTERVAL}: only net detection is given by category. Differences are of "
        f"the values as published{_rounded(behind)}."
    )
    return finding, subtitle


def _rounded(behind: pd.Series) -> str:
    """Return where the write-up's own difference, made before rounding, is another one."""
    named = published.load("category_gaps")
    named = named[named["model"] == "32B-Base"].set_index("category")["net_detection_difference"]
    other = [name for name in named.index if abs(named[name] - behind[name]) > DIGIT / 10]
    return "".join(f"; the write-up has {signed_percent(named[name])} for {name}" for name in other)


def _prompts_words(table: pd.DataFrame) -> tuple[str, str]:
    """Return which values rest on files of their own, as only these can be compared."""
    is_clean = ~points.is_mixed(table)
    kept = table[is_clean & (table["model"] == "32B-Coder")]
    clean = [f"{row['prompt']} ({signed_percent(row['net_detection'])})" for row in kept.to_dict("records")]
    finding = (
        f"{int((~is_clean).sum())} of {len(table)} values rest on mixed files; of 32B-Coder only {' and '.join(clean)} "
        "are of its own trials, so that prompts act on the two models in opposite ways cannot be read from them"
    )
    grids = table.set_index(["model", "prompt"])["grid"]["32B-Base"]
    false = [
        f"{row['model']} under {row['prompt']} {with_digits(row['control_false_positive'])}"
        for row in table[table["control_false_positive"].notna()].to_dict("records")
    ]
    subtitle = (
        f"{BASE}. False positives named in the text: {', '.join(false)}. {EXACT}, where the design gives their number "
        f"(720 of each kind; not for v2, nor for net detection). {MIXED}. v2 of 32B-Base is on another grid than the "
        f"rest: {grids['v2']}, not {grids['v1']}."
    )
    return finding, subtitle


def _judge_words(table: pd.DataFrame) -> tuple[str, str]:
    counts = points.judge(table).set_index(["panel", "row", "series"])["mean"]
    row = next(name for name in counts.index.get_level_values("row") if name.startswith("test"))
    specificity = [percent(counts["specificity", row, labels]) for labels in LABELLED]
    kappa = [plain(counts["kappa", row, labels]) for labels in LABELLED]
    finding = (
        f"on the test set the judge's specificity is {specificity[0]} and kappa {kappa[0]} by labels that were "
        f"revised, {specificity[1]} and {kappa[1]} by the labels as first given"
    )
    subtitle = (
        "Verdicts of gpt-5-mini, which is told what was injected, on labelled replies of five models under prompt v2. "
        "10 of 51 labels of the test set were changed afterwards, all towards the judge. Bars: exact 95% intervals "
        "over replies, which share concepts and models; of kappa none. Rates are of the counts in the published files."
    )
    return finding, subtitle


SPECS: Mapping[str, Spec] = MappingProxyType(
    {
        "published_scaling": Spec(
            "scaling", points.scaling, _scaling_words, (RATES, NET, REFUSALS), TRIALS, ("net", "refusals")
        ),
        "published_refusal_by_strength": Spec(
            "refusal_by_strength", points.refusals, _refusals_words, (REFUSALS,), REFUSED, ("refusals",)
        ),
        "published_concepts": Spec("concept_difficulty", points.concepts, _concepts_words, (NET,), MODELS, ("net",)),
        "published_gap": Spec("gap_decomposition", points.gap, _gap_words, (STEPS, DIFFERENCE), ENDS, ("difference",)),
        "published_hedging": Spec(
            "hedging", points.hedging, _hedging_words, (HEDGES, CLAIMS), PHRASES, tuple(PHRASES), form=plain, ticks=None
        ),
        "published_new_concepts": Spec(
            "new_concepts",
            points.new_concepts,
            _new_concepts_words,
            (RATES_MIXED, NET, REFUSALS),
            NEW,
            ("net", "refusals"),
            legend_lines=5,
        ),
        "published_categories": Spec(
            "concept_categories", points.categories, _categories_words, (NET, GAPS), BETWEEN, ("net", "gaps")
        ),
        "published_prompts": Spec(
            "prompt_versions",
            points.prompts,
            _prompts_words,
            (NET, REFUSED_BASE),
            PROMPTED,
            ("net",),
            others=("scaling",),
            legend_lines=5,
        ),
        "published_judge": Spec(
            "judge_agreement",
            points.judge,
            _judge_words,
            (SENSITIVITY, SPECIFICITY, KAPPA),
            LABELLED,
            ("kappa",),
            form=plain,
            ticks=None,
        ),
    }
)
