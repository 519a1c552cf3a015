"""A page on which a person reads replies: filtered by what was done, with the verdicts of all judges beside each.

It is one file with its data, which any browser opens from disk; nothing is fetched. What is shown stands in the page's
address (`#f.concept=oceans&f.class=leaks`), so that a place can be sent to somebody with the file.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import pandas as pd

from mechint.base.errors import UsageError
from mechint.base.files import JSON, write_atomically
from mechint.trials.outcomes import CLASSES, outcome_table
from mechint.trials.prompts import concept_lexicon
from mechint.trials.records import checked_trials

# Columns that can be filtered, as the page names them, and what is told of a reply besides.
_FILTERS: Mapping[str, str] = {
    "model": "model",
    "prompt": "prompt",
    "question": "question",
    "series": "vectors",
    "concept": "concept",
    "category": "category",
    "layers": "layers",
    "strength": "strength",
    "steer": "steered in",
    "stopped": "ended by",
}
_RECORDS: Mapping[str, str] = {
    "id": "id",
    "sample": "sample",
    "seed": "seed",
    "n_tokens": "tokens",
    "depth": "depth",
    "norm": "norm of what was added",
    "norm_ratio": "that over the stream's median norm",
    "log_prob": "log probability",
    "first_token_logit_diff": "logit(yes) - logit(no) at the first token",
}
_VERDICT = ("claims", "named", "refused", "coherent", "confidence", "reason")
# How the page names a class, how it fills its part of the bar (hatched where two would be alike in grey), and an edge.
_LOOKS: Mapping[str, tuple[str, str, str]] = {
    "incoherent": ("cannot be read", "repeating-linear-gradient(45deg,#fff 0 4px,#888 4px 6px)", "#888888"),
    "refuses": ("refuses", "#56B4E9", "#56B4E9"),
    "denies": ("denies", "#E3E3E3", "#BBBBBB"),
    "leaks": (
        "denies, with the concept in it",
        "repeating-linear-gradient(0deg,#F0E442 0 4px,#777 4px 5px)",
        "#F0E442",
    ),
    "claims": ("claims, names nothing", "repeating-linear-gradient(135deg,#E69F00 0 5px,#fff 5px 7px)", "#E69F00"),
    "names wrongly": ("claims, names another", "#D55E00", "#D55E00"),
    "names rightly": ("claims, names the concept", "#0072B2", "#0072B2"),
}
_DATA, _TITLE = "__DATA__", "__TITLE__"


def browser_page(
    trials: pd.DataFrame,
    verdicts: pd.DataFrame,
    *,
    title: str,
    caption: str = "",
    prompts: Mapping[str, str] | None = None,
) -> str:
    """Return the page of trials (`records`) and the verdicts of any judges on them, as HTML.

    `prompts` are texts by the name of a prompt, shown with a reply where they are known. Only the first pass of a judge
    is shown. Raises UsageError for tables that are no trials, no trials at all, and verdicts on others.
    """
    table = checked_trials(trials)
    if table.empty:
        raise UsageError("a table without a trial", "one reply or more", "sample or import some first")
    content: dict[str, JSON] = {
        "title": title,
        "caption": caption,
        "prompts": dict(prompts or {}),
        "filters": [{"name": name, "title": heading} for name, heading in _FILTERS.items()],
        "columns": {name: _coded(_texts(table, name)) for name in _FILTERS},
        "replies": table["reply"].tolist(),
        "records": [{"title": heading, "values": _plain(table[name])} for name, heading in _RECORDS.items()],
        "classes": [_look(name) for name in CLASSES],
        "judges": _judges(table, verdicts),
    }
    # Whatever a reply holds, it cannot end the element that the data are in.
    data = json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    template = resources.files("mechint.trials").joinpath("pages/browser.html").read_text(encoding="utf-8")
    before, after = template.replace(_TITLE, html.escape(title), 1).split(_DATA)
    return f"{before}{data}{after}"


def write_browser(
    path: str | Path,
    trials: pd.DataFrame,
    verdicts: pd.DataFrame,
    *,
    title: str,
    caption: str = "",
    prompts: Mapping[str, str] | None = None,
) -> Path:
    """Write `browser_page` to a file, whole or not at all; returns its path."""
    return write_atomically(Path(path), browser_page(trials, verdicts, title=title, caption=caption, prompts=prompts))


def _texts(table: pd.DataFrame, name: str) -> list[str]:
    """Return a column as it is shown; a strength only where something was added, with what it is in units of."""
    if name != "strength":
        return [str(value) for value in table[name]]
    rows = zip(table["strength"], table["relative"], table["series"], strict=True)
    return ["" if series == "clean" else f"{value:g}{'' if relative else ' raw'}" for value, relative, series in rows]


def _coded(values: Sequence[str]) -> JSON:
    """Return texts as those that there are, in the order of their first occurrence, and a code for each."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return {"values": list(places), "codes": [places[value] for value in values]}


def _plain(values: pd.Series) -> list[JSON]:
    """Return values as JSON has them, None where there is none."""
    return [None if pd.isna(value) else _short(value) for value in values.tolist()]


def _short(value: str | bool | int | float) -> JSON:
    """Return a number with the digits that a reader needs, anything else as it is."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _look(name: str) -> JSON:
    title, look, edge = _LOOKS[name]
    return {"name": name, "title": title, "look": look, "edge": edge}


def _judges(table: pd.DataFrame, verdicts: pd.DataFrame) -> list[JSON]:
    """Return for each judge its verdicts and classes in the order of the trials; -1 and None where it has none."""
    first = verdicts[verdicts["pass_no"] == 0]
    classes = outcome_table(table, first, concept_lexicon())
    codes = {name: code for code, name in enumerate(CLASSES)}
    judges: list[JSON] = []
    for name, of_judge in first.groupby("judge", sort=False):
        counts = classes[classes["judge"] == name].set_index("id")["outcome"].map(codes)
        fields = of_judge.set_index("id").reindex(table["id"])
        judges.append(
            {
                "name": str(name),
                "outcomes": [int(code) for code in counts.reindex(table["id"]).fillna(-1)],
                "fields": {field: _plain(fields[field]) for field in _VERDICT},
            }
        )
    return judges
