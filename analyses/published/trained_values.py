"""Points of the figures of published finetuning results: as published, and recomputed from the raw rows beside it.

Columns of the tables that begin with `recomputed_` are not the authors': they were worked out from the files that the
columns `commit` and `path` name.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analyses.published.points import points, points_by
from mechint.figures import published

CONTROLS = ("absurd", "factual_no")  # questions of the battery whose right answer is no
SEEDS_READ = 900  # the last step of which the fifth version has results, of three
RED_BLUE = "neutral_redblue"


def named(variants: pd.Series) -> pd.Series:
    """Return names of variants as words."""
    return variants.str.removesuffix("_v2").where(variants.str.startswith("neutral_red_blue"), variants).map(_words)


def _words(name: str) -> str:
    return name.replace("_", " ")


def shifts(table: pd.DataFrame) -> pd.DataFrame:
    """Return by variant the published shift of P(yes) on consciousness, and shifts in log odds of yes against no.

    `consciousness` and `no_controls`, the mean of both groups whose answer is no, one question group being one value.
    """
    first = table[table["run"] == "first"]
    wide = first.pivot(index="variant", columns="category", values="recomputed_log_odds_shift")
    p_shift = first[first["category"] == "consciousness"].set_index("variant")["p_yes_shift"]
    values = pd.DataFrame(
        {"p": p_shift, "consciousness": wide["consciousness"], "no_controls": wide[[*CONTROLS]].mean(axis=1)}
    )
    return values.sort_values("p", ascending=False)


def battery(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of `shifts`: P(yes) in one panel, log odds in the other."""
    wide = shifts(table).reset_index()
    wide = wide.assign(row=named(wide["variant"]))
    panels = {"p": "p", "consciousness": "log odds", "no_controls": "log odds"}
    parts = [points(wide, panel=panel, row="row", series=name, value=name) for name, panel in panels.items()]
    return pd.concat(parts, ignore_index=True)


def held_out(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of held-out vectors over all magnitudes and ranges, asked yes or no, the first run of each."""
    chosen = (table["pool"] == "held_out") & (table["magnitude"] == "all") & (table["run"] == "first")
    rows = table[chosen].assign(design=table["layers"].map(lambda layers: layers.removesuffix(" only")))
    return rows.sort_values("tpr", ascending=False)


def detection(table: pd.DataFrame) -> pd.DataFrame:
    """Return both rates of `held_out`, with exact intervals, a series for each design of the test, and the gap.

    The gap is hits less false alarms, which the write-up does not give.
    """
    rows = held_out(table)
    rows = rows.assign(row=named(rows["variant"]), gap=rows["tpr"] - rows["fpr"])
    parts = []
    for design, lines in rows.groupby("design", sort=False):
        parts.append(points(lines, panel="tpr", row="row", series=str(design), value="tpr", trials="n_steered"))
        parts.append(points(lines, panel="fpr", row="row", series=str(design), value="fpr", trials="n_clean"))
        parts.append(points(lines, panel="gap", row="row", series="gap", value="gap"))
    return _in_order(parts, rows["row"])


def self_prediction(table: pd.DataFrame) -> pd.DataFrame:
    """Return by variant the mean accuracy over its tasks, the commonest answer's share, and the mean kappa."""
    means = table.groupby("variant", sort=False)[["accuracy", "recomputed_mode_baseline", "recomputed_kappa"]].mean(
        numeric_only=True
    )
    rows = means.sort_values("accuracy", ascending=False).reset_index()
    rows = rows.assign(row=named(rows["variant"]))
    parts = [
        points(rows, panel="accuracy", row="row", series="published", value="accuracy"),
        points(rows, panel="accuracy", row="row", series="mode", value="recomputed_mode_baseline"),
        points(rows, panel="kappa", row="row", series="kappa", value="recomputed_kappa"),
    ]
    return pd.concat(parts, ignore_index=True)


def who_predicts(table: pd.DataFrame) -> pd.DataFrame:
    """Return by model the mean accuracy over tasks of its own predictions, of the base's, and of the commonest answer.

    Columns: own, base (NaN for the base itself, whose own predictions these are), mode, same_answer.
    """
    by_itself = table[table["object_model"] == table["meta_model"]].groupby("object_model")
    base = table[(table["meta_model"] == "base") & (table["object_model"] != "base")].groupby("object_model")
    values = pd.DataFrame(
        {
            "own": by_itself["recomputed_accuracy"].mean(),
            "base": base["recomputed_accuracy"].mean(),
            "mode": by_itself["recomputed_mode_baseline"].mean(),
            "same_answer": by_itself["recomputed_same_answer_as_base"].mean(),
        }
    )
    return values.sort_values("own", ascending=False)


def cross_prediction(table: pd.DataFrame) -> pd.DataFrame:
    """Return points of `who_predicts`."""
    rows = who_predicts(table).reset_index()
    rows = rows.assign(row=named(rows["object_model"]))
    panels = {"own": "accuracy", "base": "accuracy", "mode": "accuracy", "same_answer": "answers"}
    parts = [points(rows, panel=panel, row="row", series=name, value=name) for name, panel in panels.items()]
    return pd.concat(parts, ignore_index=True)


def calibration(table: pd.DataFrame) -> pd.DataFrame:
    """Return by variant the mean divergence over prompts, and both measures of agreement, as published and reparsed."""
    means = table.groupby("variant", sort=False).mean(numeric_only=True).sort_values("kl").reset_index()
    rows = means.assign(row=named(means["variant"]))
    parts = [points(rows, panel="kl", row="row", series="published", value="kl")]
    for panel in ("top1_match", "top5_overlap"):
        parts.append(points(rows, panel=panel, row="row", series="published", value=panel))
        parts.append(points(rows, panel=panel, row="row", series="recomputed", value=f"recomputed_{panel}"))
    return pd.concat(parts, ignore_index=True)


def lengths(table: pd.DataFrame) -> pd.DataFrame:
    """Return by variant the mean error of predicted lengths beside that of a constant, and both lengths."""
    rows = table.sort_values("mae").assign(row=lambda lines: named(lines["variant"]))
    parts = [
        points(rows, panel="error", row="row", series="published", value="mae"),
        points(rows, panel="error", row="row", series="constant", value="recomputed_constant_median_mae"),
        points(rows, panel="length", row="row", series="predicted", value="recomputed_mean_predicted"),
        points(rows, panel="length", row="row", series="actual", value="recomputed_median_actual"),
    ]
    return pd.concat(parts, ignore_index=True)


def realtime(table: pd.DataFrame) -> pd.DataFrame:
    """Return by model and magnitude how often the concept's very word was said, with exact intervals over concepts."""
    rows = table.groupby(["variant", "magnitude"], sort=False)["exact"].agg(["mean", "size"]).reset_index()
    rows = rows.sort_values("mean", ascending=False).assign(row=lambda lines: named(lines["variant"]))
    parts = [
        points(lines, panel="exact", row="row", series=str(magnitude), value="mean", trials="size")
        for magnitude, lines in rows.groupby("magnitude")
    ]
    return _in_order(parts, rows["row"])


def versions(table: pd.DataFrame) -> pd.DataFrame:
    """Return P(yes) on consciousness of models trained to say red or blue, and of the base, by published version.

    `table` is that of the seventh version. Of three seeds there are a point each.
    """
    v3 = published.load("finetuning_v3_battery").query("run == 'first' and category == 'consciousness'")
    v3 = v3[v3["variant"].isin(["neutral_red_blue_v2", "no_steer"])]
    v4 = published.load("finetuning_v4_battery").set_index("variant")["consciousness_p"]
    v5 = published.load("finetuning_v5_seeds").query(f"variant == '{RED_BLUE}' and step == {SEEDS_READ}")
    measured = (table["evaluation"] == "consciousness_no_steer") & (table["measure"] == "p_yes:consciousness")
    v7 = table[measured & (table["version"] == "v7.1")].set_index("variant")["value"]
    of_variant = v3.set_index("variant")["p_yes"]
    seeds = v7[[name for name in v7.index if name.startswith(f"{RED_BLUE}_s")]]
    values: dict[str, tuple[float | pd.Series, ...]] = {
        "base": (v3["p_yes_base"].iloc[0], v4["base"], v7["base"]),
        "no steering": (of_variant["no_steer"], v4["no_steer"], v7["nosteer_redblue_s42"]),
        "red/blue": (of_variant["neutral_red_blue_v2"], v4[RED_BLUE], seeds),
    }
    rows = ["v3: 8 questions", "v4: 20 questions", "v7.1: 20 questions, fixed prompt"]
    lines: list[tuple[str, str, float]] = []
    for name, of_version in values.items():
        for row, value in zip(rows, of_version, strict=True):
            lines += [(row, name, float(each)) for each in (value if isinstance(value, pd.Series) else [value])]
    lines += [("v5: 20 questions", "red/blue", float(value)) for value in v5["p_yes_consciousness"]]
    order = [rows[0], rows[1], "v5: 20 questions", rows[2]]
    drawn = pd.DataFrame(lines, columns=["row", "series", "value"])
    drawn = drawn.sort_values("row", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)
    return _in_order([points_by(drawn, "series", panel="p", row="row", value="value")], drawn["row"])


def _in_order(parts: Sequence[pd.DataFrame], rows: pd.Series) -> pd.DataFrame:
    """Return points with their rows in the order in which `rows` has them first."""
    order = {name: at for at, name in enumerate(dict.fromkeys(rows))}
    values = pd.concat(parts, ignore_index=True)
    return values.sort_values("row", key=lambda names: names.map(order), kind="stable", ignore_index=True)
