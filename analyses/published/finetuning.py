"""The tables of "Introspection Finetuning: Project Status": what finetuning changed, and what was evaluated."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from analyses.published.points import COLUMNS, NO_INTERVAL, Picture, citation, source, with_digits
from mechint import figures as draw
from mechint.figures import published

_NONE = "\N{EM DASH}"


def pictures() -> dict[str, Picture]:
    """Return the figures by file name."""
    return {"published_finetuning": results(), "published_finetuning_variants": variants()}


def results() -> Picture:
    """Return every published result by number of epochs, and how many models each evaluation covers."""
    table, covered = published.load("finetuning_results"), published.load("finetuning_evaluations")
    cause = table[table["epochs"].isna()].iloc[0]
    trained = table[table["epochs"].notna()].astype({"epochs": int})
    wide = trained.pivot(index=["evaluation", "measure", "unit"], columns="epochs", values="value")
    wide = wide.reindex(list(dict.fromkeys(zip(*(trained[name] for name in wide.index.names), strict=True))))
    coverage = covered.set_index("evaluation")
    lines = [_line(keys, row, coverage) for keys, row in zip(wide.index, wide.to_dict("records"), strict=True)]
    headings = ["evaluation", "measure", *(f"{epochs} epochs" for epochs in wide.columns), "models evaluated"]
    shift = wide.xs("consciousness shift", level="measure").iloc[0]
    accuracy = wide.xs("overall accuracy", level="measure").iloc[0]
    title = (
        f"{citation('finetuning_results')}: from 2 to 5 epochs the shift on consciousness questions grows from "
        f"{shift[2]:+.3f} to {shift[5]:+.3f}, self-prediction falls from "
        f"{with_digits(accuracy[2])} to {with_digits(accuracy[5])}"
    )
    subtitle = (
        "Qwen2.5-Coder-32B-Instruct with LoRA r=16, original_v3 for 2 epochs and for 5. Shift: of P(Yes). The write-up "
        f"puts about {cause['value']:.0%} of it down to suggestive question framing. {_NONE}: not given. {NO_INTERVAL}."
    )
    figure = draw.text_table(headings, lines, title=title, subtitle=subtitle)
    epochs = table["epochs"].map("{:g} epochs".format).where(table["epochs"].notna(), table["variant"])
    values = pd.DataFrame(
        {"panel": table["evaluation"], "row": table["measure"], "series": epochs, "mean": table["value"]}
    )
    return Picture(figure, values.reindex(columns=COLUMNS), source(table))


def _line(keys: tuple[str, str, str], row: Mapping[int, float], coverage: pd.DataFrame) -> list[str]:
    evaluation, measure, unit = keys
    models = f"{coverage.loc[evaluation, 'models_covered']} {coverage.loc[evaluation, 'covers']}"
    return [evaluation, measure, *(_written(value, unit) for value in row.values()), models]


def _written(value: float, unit: str) -> str:
    if pd.isna(value):
        return _NONE
    return {"share": with_digits(value), "P(Yes)": f"{value:+.3f}"}.get(unit, f"{value:g}")


def variants() -> Picture:
    """Return the variants, and which evaluations the write-up has of each."""
    table = published.load("finetuning_variants")
    lines = []
    for row in table.to_dict("records"):
        answers = f" (answers {row['answers']})" if isinstance(row["answers"], str) else ""
        named = [str(row[name]) for name in ("training", "detection", "logprobs")]
        lines.append([str(row["number"]), str(row["variant"]), f"{row['epochs']:g}", *named[:2], named[2] + answers])
    counts = {name: int((table[name] == "run").sum()) for name in ("detection", "logprobs")}
    title = (
        f"{citation('finetuning_variants')}: of {len(table)} finetuned variants detection was run on "
        f"{counts['detection']} and log-probabilities on {counts['logprobs']}"
    )
    subtitle = (
        "Variants of Qwen2.5-Coder-32B-Instruct. Not run: the write-up says so; every other variant counts as run, "
        "which gives the numbers it tells."
    )
    figure = draw.text_table(
        ["", "variant", "epochs", "training", "detection", "log-probabilities"], lines, title=title, subtitle=subtitle
    )
    values = pd.DataFrame({"panel": "epochs", "row": table["variant"], "series": "epochs", "mean": table["epochs"]})
    return Picture(figure, values.reindex(columns=COLUMNS), source(table))
