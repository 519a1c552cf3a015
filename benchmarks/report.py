"""Write `docs/benchmarks.md` and its figure from the results that are there."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

import mechint as mi
from benchmarks.common import RESULTS
from mechint.base.files import JSON, write_atomically
from mechint.figures.style import BLUE, GREEN, VERMILION, finish

DOCS = Path(__file__).resolve().parent.parent / "docs"
_SYMBOLS = {"concepts": ("circle", BLUE), "prompts": ("square", VERMILION), "layer ranges": ("diamond", GREEN)}
Result = dict[str, JSON]


def results() -> dict[str, Result]:
    """Return all results by benchmark."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*.json"))}


def page(by_benchmark: dict[str, Result]) -> str:
    """Return the page of all results that are there."""
    parts = [
        "# Benchmarks\n",
        "Written by `make bench` (`python -m benchmarks.report` alone writes it again) from `benchmarks/results/`. "
        "Every ratio compares two things that were timed in one run on one machine; the naive loop is timed on a "
        "sample of cells and scaled to all of them by its tokens.\n",
    ]
    for name, section in (
        ("real_model", _real_model),
        ("published_suite", _suite),
        ("layer_ranges", _ranges),
        ("scaling", _scaling),
        ("sampling", _sampling),
        ("embedded_recipes", _recipes),
        ("memory", _memory),
        ("precision", _precision),
        ("batches", _batches),
        ("gpu_32b", _gpu),
    ):
        if name in by_benchmark:
            parts += [section(by_benchmark[name]), f"`python -m benchmarks.{name}`; {_machine(by_benchmark[name])}.\n"]
    return "\n".join(parts)


def _mapping(value: JSON) -> dict[str, JSON]:
    return value if isinstance(value, dict) else {}


def _number(value: JSON) -> float:
    return float(str(value))


def _machine(result: Result) -> str:
    machine = _mapping(result["machine"])
    where = machine["gpu"] or f"{machine['cores']} cores ({machine['cpu']}), {machine['threads']} of them used"
    return f"Python {machine['python']}, torch {machine['torch']}, {where}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _suite(result: Result) -> str:
    naive = _number(result["naive_seconds"])
    engine = _number(result["engine_seconds"])
    floor = _number(result["floor_seconds"])
    rows = [
        ["naive loop", f"{result['naive_tokens']:,}", f"{naive:.0f}", f"{naive / engine:.1f}"],
        ["engine", f"{result['passed_tokens']:,}", f"{engine:.0f}", "1"],
        [
            "plain passes over the distinct tokens",
            f"{result['distinct_tokens']:,}",
            f"{floor:.0f}",
            f"{floor / engine:.2f}",
        ],
    ]
    heading = (
        "## The published suite's shape\n\n40 yes/no prompts, 1,360 control prompts, 20 lens prompts and 100 ten-way "
        f"prompts under 9 concepts: {result['cells']:,} rows on a random Qwen2 of {result['parameters']:,} parameters. "
        "The naive loop runs one row at a time, clean and injected for every concept. The last row is the floor: plain "
        "Hugging Face forward passes in the fastest of several batch shapes. "
        f"Seconds are {result['clock']} time.\n\n"
    )
    return heading + _table(["", "tokens", "seconds", "of the engine's time"], rows)


def _real_model(result: Result) -> str:
    tables = {name: _mapping(table) for name, table in _mapping(result["tables"]).items()}
    rows = [line for name, row in tables.items() for line in _real_rows(name, row)]
    sizes = " and ".join(
        f"{row['prompts']:,} prompts ({name}) x {row['vectors']} vectors" for name, row in tables.items()
    )
    heading = (
        f"## A real chat model\n\nSmolLM2-135M-Instruct: {sizes}, and clean. Naive loop and plain passes take turns "
        f"between the engine's passes; controls are measured on {tables['controls']['measured_prompts']:,} prompts "
        f"({result['sample']} of 20 first turns) and scaled by their distinct work. Tokens are (token x block) work by "
        f"the number of blocks; padding counts for the engine alone. Seconds are {result['clock']} time. The floor is "
        "plain Hugging Face over the distinct work: in the fastest batch shape, whose short rows attend to little, and "
        "with the attention of this table, first turns as long as they are and questions that continue a cache.\n\n"
    )
    return heading + _table(["", "tokens", "seconds", "of the engine's time"], rows)


def _real_rows(name: str, row: dict[str, JSON]) -> list[list[str]]:
    """Return the lines of one table; the published loop runs the clean row again beside each vector's."""
    vectors, naive = _number(row["vectors"]), _number(row["naive_seconds"])
    again = 2 * vectors / (vectors + 1)
    lines = [
        ("naive loop, as published: clean again for each vector", again * _number(row["naive_tokens"]), again * naive),
        ("naive loop, each cell once", _number(row["naive_tokens"]), naive),
        ("engine", _number(row["passed_tokens"]), _number(row["engine_seconds"])),
        (f"plain passes, {_shape(row)} tokens", _number(row["distinct_tokens"]), _number(row["floor_seconds"])),
        ("plain passes with its attention", _number(row["distinct_tokens"]), _number(row["attending_seconds"])),
    ]
    engine = _number(row["engine_seconds"])
    return [
        [f"{name}: {label}", f"{tokens:,.0f}", f"{seconds:,.0f}", f"{seconds / engine:.2f}"]
        for label, tokens, seconds in lines
    ]


def _shape(row: dict[str, JSON]) -> str:
    shape = row["floor_shape"]
    return " x ".join(str(size) for size in shape) if isinstance(shape, list) else ""


def _ranges(result: Result) -> str:
    rows = [
        [unit, f"{naive:,.0f}", f"{engine:,.0f}", f"{engine / naive:.3f}"]
        for unit, naive, engine in (
            (unit, _number(result[f"naive_{key}"]), _number(result[f"engine_{key}"]))
            for unit, key in (("token x block", "blocks"), ("seconds", "seconds"))
        )
    ]
    heading = (
        f"## All layer ranges\n\nOne vector in all {result['ranges']} ranges of {result['layers']} layers, on "
        f"{result['prompts']} prompts, steered from their first token on, so that only layers can be shared.\n\n"
    )
    return heading + _table(["", "naive", "engine", "engine / naive"], rows)


def _sampling(result: Result) -> str:
    rows = []
    for name, value in _mapping(result["models"]).items():
        times = _mapping(value)
        naive, engine = _number(times["naive_seconds"]), _number(times["engine_seconds"])
        counts = [f"{times[key]:,}" for key in ("trials", "prompt_tokens", "reply_tokens", "prefills")]
        seconds = [f"{_number(times[key]):.0f}" for key in ("naive_prompt_seconds", "naive_reply_seconds")]
        rows.append([name, *counts, *seconds, f"{engine:.0f}", f"{naive / engine:.1f}"])
    head = ["", "trials", "tokens of the prompt", "tokens of replies", "prefills", "naive: prompts, s", "replies, s"]
    heading = (
        "## Sampled replies\n\nA sweep of vectors, layers and strengths with controls on one prompt, steered from the "
        "first token of the reply on, temperature 1, up to 100 tokens. The naive loop reads the prompt again for "
        f"each trial and says one reply after the other (timed on {result['sample']} trials); `mi.replies` reads it "
        "once and says 64 at a time.\n\n"
    )
    return heading + _table([*head, "engine, s", "naive / engine"], rows)


def _recipes(result: Result) -> str:
    rows = [_mapping(row) for row in _listed(result["rows"])]
    total = sum(_number(row["seconds"]) for row in rows)
    heading = (
        f"## Published recipes on an embedded model\n\nAll {len(rows)} trainings on `{result['model']}`, one after "
        f"another on one thread: {total / 60:.0f} minutes of CPU time, without what they are watched with. Areas are "
        "of steered against clean texts, and of the recipe's own labels, on vectors and texts that are never trained; "
        "a recipe of several options has none.\n\n"
    )
    lines = [
        [
            f"`{row['recipe']}`",
            f"{row['steps']:,}",
            f"{row['examples']:,}",
            f"{_number(row['seconds']):.0f}",
            *(_area(row, key) for key in ("base_auc", "last_auc", "last_task_auc")),
            f"{_number(row['right_last']):.2f}",
        ]
        for row in rows
    ]
    head = ["", "steps", "examples", "seconds", "area: base", "area: trained", "own labels", "right in training"]
    return heading + _table(head, lines)


def _area(row: dict[str, JSON], key: str) -> str:
    value = row.get(key)
    return "" if value is None or math.isnan(_number(value)) else f"{_number(value):.2f}"


def _listed(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []


def _points(result: Result) -> list[dict[str, JSON]]:
    return [_mapping(point) for point in _listed(result["points"])]


def _scaling(result: Result) -> str:
    rows = [
        [
            f"{point['size']} {point['axis']}",
            *(f"{point[key]:,}" for key in ("cells", "alone_tokens", "distinct_tokens", "distinct_blocks")),
            f"{_number(point['seconds']):.2f}",
        ]
        for point in _points(result)
    ]
    head = ["", "cells", "tokens, each cell by itself", "distinct tokens", "token x block", "seconds"]
    return "## How time grows\n\n![Seconds against cells, and against distinct work](benchmarks.png)\n\n" + _table(
        head, rows
    )


def _memory(result: Result) -> str:
    rows = [
        [
            f"a sweep, {allowed} allowed" if (allowed := point.get("allowed")) else f"{point['batch_tokens']:,}",
            *(f"{_number(point[key]) / 1e6:.0f}" for key in ("caches", "largest_pass", "foretold", "peak")),
            f"{_number(point['peak']) / _number(point['foretold']):.2f}",
        ]
        for point in _points(result)
    ]
    head = ["batch tokens", "caches", "largest pass", "foretold", "measured", "measured / foretold"]
    return "## Memory\n\nPeak of a table against what `mi.explain` says beforehand, in MB.\n\n" + _table(head, rows)


def _precision(result: Result) -> str:
    keys = ("p_yes_max", "p_yes_padding_max", "logit_diff_max", "logit_diff_padding_max")
    rows = [
        [name, *(f"{_number(_mapping(differences)[key]):.1e}" for key in keys)]
        for name, differences in _mapping(result["models"]).items()
    ]
    head = ["", "P(yes): engine", "plain, padded", "logit_diff: engine", "plain, padded"]
    return (
        "## Precision\n\nLargest differences to plain passes over one row at a time, in the same dtype: of the engine, "
        "and of plain passes over the same row with 17 masked tokens before it, which change nothing but the order of "
        f"sums. {result['sample']} cells each.\n\n" + _table(head, rows)
    )


def _batches(result: Result) -> str:
    keys = ("logit_diff_max", "shift_max", "shift_mean_size")
    rows = [
        [name, *(f"{_number(_mapping(row)[key]):.1e}" for key in keys)]
        for name, row in _mapping(result["models"]).items()
    ]
    head = ["", "logit_diff: largest difference", "its shift: largest difference", "its shift: mean size"]
    return (
        "## What a batch does to a row\n\nThe same cells in one table and each conversation in a table of its own, in "
        f"small random models ({result['sample']} conversations, clean and steered). `table.attrs['dtype']` says the "
        "dtype of a table.\n\n" + _table(head, rows)
    )


def _gpu(result: Result) -> str:
    rows = [
        [name, f"{_number(result[key]) / scale:,.{digits}f}"]
        for name, key, scale, digits in (
            ("tokens per second, plain passes", "plain_tokens_per_second", 1, 0),
            ("tokens per second, engine", "engine_tokens_per_second", 1, 0),
            ("seconds for the table", "table_seconds", 1, 1),
            ("GB of weights", "weights_bytes", 1e9, 1),
            ("GB at most while loading", "loading_peak_bytes", 1e9, 1),
            ("GB at most, table", "table_peak_bytes", 1e9, 1),
            ("GB foretold", "foretold_bytes", 1e9, 1),
        )
    ]
    heading = f"## 32B on one GPU\n\nRandom weights, bfloat16; {result['prompts']} prompts x 9 concepts and clean.\n\n"
    return heading + _table(["", ""], rows)


def figure(result: Result) -> go.Figure:
    """Return seconds against cells, and against the distinct work, which they should be proportional to."""
    drawn = make_subplots(rows=1, cols=2, shared_yaxes=True, subplot_titles=["<b>asked for</b>", "<b>distinct</b>"])
    for axis, (symbol, color) in _SYMBOLS.items():
        points = [point for point in _points(result) if point["axis"] == axis]
        for column, key in ((1, "cells"), (2, "distinct_blocks")):
            trace = go.Scatter(
                x=[point[key] for point in points],
                y=[point["seconds"] for point in points],
                mode="lines+markers",
                name=f"more {axis}",
                legendgroup=axis,
                showlegend=column == 1,
                marker={"symbol": symbol, "size": 11, "color": color},
                line={"color": color},
            )
            drawn.add_trace(trace, row=1, col=column)
    drawn.update_xaxes(type="log", dtick="D2", tickformat="~s")
    drawn.update_yaxes(type="log", dtick="D2", tickformat="~g")
    drawn.update_xaxes(title="cells of the table", row=1, col=1)
    drawn.update_xaxes(title="distinct work, token x block", row=1, col=2)
    drawn.update_yaxes(title="seconds", row=1, col=1)
    title = "Time follows the distinct work rather than the cells that are asked for"
    return finish(drawn, title, "Tables of growing size along three axes, on a random Qwen2 of 9 layers.", height=320)


def main() -> None:
    """Write the page and the figure."""
    by_benchmark = results()
    paths = [write_atomically(DOCS / "benchmarks.md", page(by_benchmark))]
    if "scaling" in by_benchmark:
        paths += mi.figures.save(figure(by_benchmark["scaling"]), DOCS / "benchmarks")
    sys.stdout.write("".join(f"{path}\n" for path in paths))


if __name__ == "__main__":
    main()
