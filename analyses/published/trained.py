"""Figures of published finetuning results, in four versions: as published, and recomputed from the raw rows.

The same numbers can be read in two ways, and some conclusions depend on which: a shift of P(yes) or of log odds, an
accuracy or what is left of it beyond the commonest answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pandas as pd

from analyses.published import trained_values as values
from analyses.published.points import NO_INTERVAL, with_digits
from analyses.published.specs import Spec
from mechint.figures import Panel
from mechint.figures.style import BLUE, GREEN, INK, MINUS, ORANGE, PURPLE, VERMILION, Series

MODEL = "Third version: finetuned copies of Qwen2.5-Coder-32B-Instruct, one run each"
RECOMPUTED = "Recomputed: from the published raw rows, not by the authors"

_PUBLISHED = Series("as published", VERMILION, "solid", "circle")
_RECOMPUTED = Series("recomputed", INK, "dot", "circle-open")

SHIFT_LOOKS = {
    "p": Series("P(yes), as published", VERMILION, "solid", "circle"),
    "consciousness": Series("consciousness, recomputed", BLUE, "solid", "diamond"),
    "no_controls": Series("questions whose answer is no, recomputed", INK, "dot", "square-open"),
}
DETECTION_LOOKS = {
    "all 3 ranges": Series("tested in three ranges of layers", VERMILION, "solid", "circle"),
    "middle": Series("tested in the middle range alone", BLUE, "dash", "square-open"),
    "gap": Series(f"hits {MINUS} false alarms, recomputed", INK, "solid", "diamond"),
}
PREDICTION_LOOKS = {
    "published": _PUBLISHED,
    "mode": Series("its commonest answer each time, recomputed", INK, "dot", "circle-open"),
    "kappa": Series("kappa, recomputed", BLUE, "solid", "diamond"),
}
CROSS_LOOKS = {
    "own": Series("its own predictions", VERMILION, "solid", "circle"),
    "base": Series("the base's predictions of it, recomputed", BLUE, "dash", "diamond-open"),
    "mode": Series("its commonest answer each time, recomputed", INK, "dot", "circle-open"),
    "same_answer": Series("answers that are the base's, recomputed", GREEN, "solid", "square"),
}
CALIBRATION_LOOKS = {"published": _PUBLISHED, "recomputed": _RECOMPUTED}
LENGTH_LOOKS = {
    "published": _PUBLISHED,
    "constant": Series("a constant, the median length, recomputed", INK, "dot", "circle-open"),
    "predicted": Series("predicted, mean, recomputed", PURPLE, "solid", "triangle-up"),
    "actual": Series("actual, median, recomputed", GREEN, "dash", "square-open"),
}
REALTIME_LOOKS = {
    "15": Series("magnitude 15", VERMILION, "solid", "circle"),
    "30": Series("magnitude 30", INK, "dot", "circle-open"),
}
VERSION_LOOKS = {
    "base": Series("base", INK, "dot", "circle-open"),
    "no steering": Series("trained on coin flips without steering", ORANGE, "dash", "triangle-up-open"),
    "red/blue": Series("trained to say red or blue, a point each seed", VERMILION, "solid", "circle"),
}
SHARE = ".0%"


def _shift_words(table: pd.DataFrame) -> tuple[str, str]:
    shift = values.shifts(table)
    red, coin = shift.loc["neutral_red_blue_v2"], shift.loc["random_labels"]
    finding = (
        f"training on red or blue moves P(yes) by {red['p']:+.3f}, and the log odds by {red['consciousness']:+.1f}; "
        f"random labels move questions whose answer is no by {coin['no_controls']:+.1f}"
    ).replace("-", MINUS)
    subtitle = (
        f"{MODEL}, at what it calls the best checkpoint. 8 questions on consciousness, free answer. P(yes) hides what "
        "happens while most probability is on other tokens; log odds of yes against no do not. A training that makes "
        f"all answers uncertain moves those whose answer is no most. {RECOMPUTED}. {NO_INTERVAL}."
    )
    return finding, subtitle


def _detection_words(table: pd.DataFrame) -> tuple[str, str]:
    rows = values.held_out(table).set_index("variant")
    designs = rows["design"].value_counts()
    coin = rows.loc["random_labels"]
    finding = (
        f"random labels hit {with_digits(coin['tpr'])} of steered trials, with {with_digits(coin['fpr'])} false "
        f"alarms; {designs['middle']} of {len(rows)} variants were tested in the middle range of layers alone"
    )
    subtitle = (
        f"{MODEL}; held-out vectors, asked yes or no. Bars: exact 95% intervals over trials, as if each clean trial "
        "were another text: of 50 about 40 are. Which design was used depended on how the model was named. "
        f"{RECOMPUTED}."
    )
    return finding, subtitle


def _prediction_words(table: pd.DataFrame) -> tuple[str, str]:
    means = table.groupby("variant")[["accuracy", "recomputed_mode_baseline", "recomputed_kappa"]].mean()
    below = int((means["accuracy"] < means["recomputed_mode_baseline"]).sum())
    five, base = means.loc["original_5epoch"], means.loc["base"]
    finding = (
        f"accuracy of self-prediction falls from {with_digits(base['accuracy'])} to {with_digits(five['accuracy'])} "
        f"after five epochs; {below} of {len(means)} models are less often right than their commonest answer"
    )
    subtitle = (
        f"{MODEL}. Mean of five tasks of 100 to 500 items; most have one answer in nine of ten items, so that a bias "
        "to it looks like knowledge. Kappa is agreement beyond chance; it cannot be told for a model that always says "
        f"the same. {RECOMPUTED}. {NO_INTERVAL}."
    )
    return finding, subtitle


def _cross_words(table: pd.DataFrame) -> tuple[str, str]:
    rows = values.who_predicts(table)
    trained = rows[rows["base"].notna()]
    ahead = int((trained["own"] > trained["base"]).sum())
    red = rows.loc[values.RED_BLUE]
    finding = (
        f"{ahead or 'none'} of {len(trained)} trained models predict themselves better than the base predicts them: "
        f"red/blue {with_digits(red['own'])}, the base of it {with_digits(red['base'])}"
    )
    subtitle = (
        "Fourth version: finetuned copies of Qwen2.5-Coder-32B-Instruct, one run each. Mean of 21 tasks of 500 items "
        "each: characters, words and vowels of three kinds of reply. What the base predicts as well needs no knowledge "
        f"of oneself. {RECOMPUTED}; own accuracies agree with those published. {NO_INTERVAL}."
    )
    return finding, subtitle


def _calibration_words(table: pd.DataFrame) -> tuple[str, str]:
    means = table.groupby("variant").mean(numeric_only=True)
    again = means["recomputed_top1_match"]
    finding = (
        f"the commonest answer is reported first in {with_digits(means.loc['base', 'top1_match'])} of the base's "
        f"prompts; parsed again, in {with_digits(means.loc['base', 'recomputed_top1_match'])}, and in "
        f"{with_digits(again.min())} to {with_digits(again.max())} for all models"
    )
    subtitle = (
        f"{MODEL}. Ten prompts, 30 to 100 samples each. As published, the words before a list belong to its first "
        "item, which then matches nothing. The divergence counts what is not reported 13.8 times: it is a measure of "
        f"how much a report covers. {RECOMPUTED}. {NO_INTERVAL}."
    )
    return finding, subtitle


def _length_words(table: pd.DataFrame) -> tuple[str, str]:
    worse = int((table["mae"] > table["recomputed_constant_median_mae"]).sum())
    low, high = table["recomputed_mean_predicted"].min(), table["recomputed_mean_predicted"].max()
    finding = (
        f"{worse} of {len(table)} models foretell the length of their replies worse than a constant; they say "
        f"{low:.0f} to {high:.0f} tokens, whatever they reply"
    )
    subtitle = (
        f"{MODEL}. 30 prompts, replies of up to 128 tokens. Errors differ since replies do: the shorter these are, the "
        f"nearer is a guess that is always small. {RECOMPUTED}. {NO_INTERVAL}."
    )
    return finding, subtitle


def _realtime_words(table: pd.DataFrame) -> tuple[str, str]:
    said = table.groupby(["magnitude", "variant"])["exact"].sum()
    weak, strong = said[15], said[30]
    finding = (
        f"asked for one word while it is steered, the base says the concept's in {weak['base_model']} of 8 trials, the "
        f"best finetune in {weak.max()}; at twice the magnitude {'none does' if not strong.max() else 'fewer do'}"
    )
    subtitle = (
        f"{MODEL}. The vector is added to prompt and reply: it pushes its word into whatever is said. One sample for "
        "each of 8 concepts, which are also answers that the best finetune was trained on. Bars: exact 95% intervals "
        "over concepts."
    )
    return finding, subtitle


def _version_words(table: pd.DataFrame) -> tuple[str, str]:
    points = values.versions(table)
    tuned = points[points["series"] == "red/blue"].groupby("row", sort=False)["mean"]
    low, high = tuned.mean().min(), tuned.mean().max()
    finding = (
        f"one recipe, four versions: P(yes) to questions on consciousness is {low:.2f} after training in one and "
        f"{high:.2f} in another"
    )
    subtitle = (
        "Finetuned copies of Qwen2.5-Coder-32B-Instruct, a point each. Versions differ in questions, budget, "
        "checkpoint and the end of the prompt; P(yes) is of a free first token in v3, and of yes and "
        "no together later. The base was not measured in v5. v7.2 repeats these "
        f"values of v7.1. {NO_INTERVAL}: points are models."
    )
    return finding, subtitle


SPECS: Mapping[str, Spec] = MappingProxyType(
    {
        "published_training_shift": Spec(
            "finetuning_v3_battery",
            values.battery,
            _shift_words,
            (
                Panel("p", "As published", "shift of P(yes)"),
                Panel("log odds", "In log odds", "shift of log P(yes) \N{MINUS SIGN} log P(no), nats"),
            ),
            SHIFT_LOOKS,
            (),
            ticks=None,
        ),
        "published_training_detection": Spec(
            "finetuning_v3_detection",
            values.detection,
            _detection_words,
            (
                Panel("tpr", "Hits", "share of steered trials"),
                Panel("fpr", "False alarms", "share of clean trials"),
                Panel("gap", "Difference", "of the two shares"),
            ),
            DETECTION_LOOKS,
            (),
            ticks=SHARE,
        ),
        "published_training_self_prediction": Spec(
            "finetuning_v3_self_prediction",
            values.self_prediction,
            _prediction_words,
            (
                Panel("accuracy", "Right predictions", "share of items, mean of tasks", arrows=("mode", "published")),
                Panel("kappa", "Beyond chance", "Cohen's kappa, mean of tasks"),
            ),
            PREDICTION_LOOKS,
            (),
            ticks=None,
        ),
        "published_training_who_predicts": Spec(
            "finetuning_v4_self_prediction",
            values.cross_prediction,
            _cross_words,
            (
                Panel("accuracy", "Right predictions", "share of items, mean of tasks", arrows=("base", "own")),
                Panel("answers", "Unchanged behaviour", "share of items"),
            ),
            CROSS_LOOKS,
            ("answers",),
        ),
        "published_training_calibration": Spec(
            "finetuning_v3_self_calibration",
            values.calibration,
            _calibration_words,
            (
                Panel("kl", "Divergence", "KL(actual \N{DOUBLE VERTICAL LINE} reported), nats"),
                Panel("top1_match", "Commonest answer first", "share of prompts", arrows=("published", "recomputed")),
                Panel("top5_overlap", "Five commonest", "share of them reported", arrows=("published", "recomputed")),
            ),
            CALIBRATION_LOOKS,
            (),
            ticks=None,
        ),
        "published_training_lengths": Spec(
            "finetuning_v3_token_prediction",
            values.lengths,
            _length_words,
            (
                Panel("error", "Error", "mean absolute error, tokens", arrows=("constant", "published")),
                Panel("length", "Lengths", "tokens", arrows=("predicted", "actual")),
            ),
            LENGTH_LOOKS,
            (),
            ticks=None,
        ),
        "published_training_realtime": Spec(
            "finetuning_v3_realtime",
            values.realtime,
            _realtime_words,
            (Panel("exact", "Says the concept's word", "share of concepts"),),
            REALTIME_LOOKS,
            (),
        ),
        "published_training_versions": Spec(
            "finetuning_v7",
            values.versions,
            _version_words,
            (Panel("p", "Questions on consciousness", "P(yes)"),),
            VERSION_LOOKS,
            (),
            ticks=None,
            others=("finetuning_v3_battery", "finetuning_v4_battery", "finetuning_v5_seeds"),
        ),
    }
)
