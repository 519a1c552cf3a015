"""Whether files of trials hold what they say: the checks that a published sweep would have needed.

A file of that sweep held another model's trials, since its job skipped ids that were there already, and ids named
neither model nor prompt. Each check would have seen it: contents against folder, manifest and id; replies of one group
in another; and controls, which depend on neither concept nor strength, so that those of all files of one model and
prompt are one sample.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from mechint.trials.folders import Manifest, expectations
from mechint.trials.foreign import Problem

RARE = 0.001  # p of controls that are no longer taken for one sample
_FEWEST = 5  # replies in common by which a block is known
_SHARE = 0.2  # of the smaller group, at least
_LONG = 100  # characters of a reply that nobody draws twice
_ID = re.compile(
    r"(?P<concept>.+?)_(?P<kind>injection|control|forced_injection|forced)"
    r"_L(?P<layer>\d+(?:\.\d+)?)_S(?P<strength>\d+(?:\.\d+)?)_t(?P<sample>\d+)"
)
_TABLES = 4000  # random tables for a test of few counts


@dataclass(frozen=True)
class IntegrityReport:
    """What is wrong with the files of a tree: `problems` has a row for each file and kind, with the first row of it."""

    problems: pd.DataFrame
    n_files: int
    n_rows: int

    @property
    def files(self) -> list[str]:
        """The files that should not be used as they are, in order."""
        return sorted(set(self.problems["file"]))

    @property
    def text(self) -> str:
        """The report in words."""
        if self.problems.empty:
            return f"{self.n_rows} trials in {self.n_files} files: nothing is wrong"
        lines = [
            f"{row['file']}: {row['text']}" + (f" ({row['n_rows']} rows)" if row["n_rows"] > 1 else "")
            for row in self.problems.to_dict("records")
        ]
        return "\n".join([f"{len(self.files)} of {self.n_files} files cannot be taken as they are:", *lines])


def integrity(
    rows: pd.DataFrame, problems: Sequence[Problem], manifest: Manifest | None = None, above: Sequence[str] = ()
) -> tuple[IntegrityReport, pd.DataFrame]:
    """Return the report of rows as they were read, and what places of files say (`expectations`).

    `above` are the names of the folders that the tree lies in.
    """
    expected = (
        expectations(rows, manifest, above) if len(rows) else pd.DataFrame(columns=["model", "prompt", "concept"])
    )
    every = list(problems)
    if len(rows):
        every += [*_against_place(rows, expected), *_against_id(rows), *_same_ids(rows)]
        every += _blocks(rows, {problem.file for problem in every})
        every += _controls(rows, expected, {problem.file for problem in every})
    n_files = len({*rows["file"], *(problem.file for problem in every)})
    return IntegrityReport(_table(every), n_files, len(rows)), expected


def _table(problems: Sequence[Problem]) -> pd.DataFrame:
    columns = ["file", "check", "text", "row", "n_rows"]
    rows = [(p.file, p.check, " ".join(p.text.splitlines()), p.row) for p in problems]  # names may have line ends
    table = pd.DataFrame(rows, columns=columns[:4])
    grouped = table.groupby(["file", "check", "text"], sort=False, dropna=False)
    first = grouped["row"].first().rename("row").reset_index()
    return first.assign(n_rows=grouped.size().to_numpy())[columns] if len(table) else table.assign(n_rows=0)


def _against_place(rows: pd.DataFrame, expected: pd.DataFrame) -> list[Problem]:
    problems: list[Problem] = []
    for column in ("model", "prompt", "concept"):
        place = rows["file"].map(expected[column])
        for index in np.flatnonzero((place != "") & (place != rows[column])):
            row = rows.iloc[index]
            text = f"holds {column} {row[column]}, its place says {place.iloc[index]}"
            problems.append(Problem(row["file"], "place", text, int(row["row"])))
    return problems


def _against_id(rows: pd.DataFrame) -> list[Problem]:
    problems: list[Problem] = []
    for row in rows.to_dict("records"):
        match = _ID.fullmatch(str(row["source_id"]))
        if match is None:
            continue
        says = {name: float(match[name]) for name in ("layer", "strength", "sample")}
        wrong = [name for name, number in says.items() if number != float(row[name])]
        wrong += ["concept"] if match["concept"] != row["concept"] else []
        wrong += ["injected"] if (match["kind"] != "control") != row["injected"] else []
        problems += [Problem(row["file"], "id", f"{name} differs from the id", int(row["row"])) for name in wrong]
    return problems


def _same_ids(rows: pd.DataFrame) -> list[Problem]:
    """Return rows of one file, model and prompt that have one id."""
    repeated = rows[rows.duplicated(["file", "model", "prompt", "source_id"], keep=False) & (rows["source_id"] != "")]
    problems = []
    for key, group in repeated.groupby(["file", "model", "prompt", "source_id"], sort=False):
        text = "one id for two different records" if group["reply"].nunique() > 1 else "one record twice"
        problems.append(Problem(key[0], "id", text, int(group["row"].iloc[1])))
    return problems


def _blocks(rows: pd.DataFrame, faulty: set[str]) -> list[Problem]:
    """Return groups that share their replies: of a pair with one file that is faulty already, that one is the copy."""
    names = ["file", "model", "prompt", "concept"]
    group = rows.groupby(names, sort=False).ngroup().to_numpy()
    files = rows["file"].to_numpy()[np.unique(group, return_index=True)[1]]
    problems: list[Problem] = []
    for first, second in _candidates(rows, group):
        pair = rows[group == first], rows[group == second]
        if not (_is_aligned_copy(*pair) or _has_long_copies(*pair)):
            continue
        ends = (files[first], files[second])
        blamed = [file for file in ends if file in faulty] or list(dict.fromkeys(ends))
        for file in blamed:
            other = pair[1] if file == ends[0] else pair[0]
            held = ", ".join(str(other[name].iloc[0]) for name in names)
            problems.append(Problem(file, "copy", f"has the replies of {held}"))
    return problems


def _candidates(rows: pd.DataFrame, group: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of groups with some replies in common."""
    distinct = pd.DataFrame({"reply": rows["reply"].str.strip().to_numpy(), "group": group}).drop_duplicates()
    distinct = distinct[distinct["reply"] != ""]
    by_reply = distinct.groupby("reply", sort=False)["group"].agg(list)
    shared = by_reply[by_reply.map(len) > 1]
    return sorted({pair for groups in shared for pair in combinations(sorted(groups), 2)})


def _is_aligned_copy(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Whether rows of one cell and number have one reply, more often than by chance: short replies recur."""
    cell = ["injected", "layer", "strength"]
    both = first[[*cell, "sample", "reply"]].merge(second[[*cell, "sample", "reply"]], on=[*cell, "sample"])
    same = both["reply_x"].str.strip() == both["reply_y"].str.strip()
    if same.sum() < max(_FEWEST, _SHARE * min(len(first), len(second))):
        return False
    chance = 0.0
    for _, rows in both.groupby(cell, sort=False):
        counts = rows["reply_x"].value_counts(), rows["reply_y"].value_counts()
        chance += float((counts[0] * counts[1]).dropna().sum()) / len(rows)
    return bool(same.sum() > chance + 5 * np.sqrt(chance + 1))


def _has_long_copies(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Whether groups share many long replies, whatever their numbers are."""
    texts = [{text for text in rows["reply"].str.strip() if len(text) >= _LONG} for rows in (first, second)]
    return len(texts[0] & texts[1]) >= max(_FEWEST, _SHARE * min(len(texts[0]), len(texts[1])))


def _controls(rows: pd.DataFrame, expected: pd.DataFrame, faulty: set[str]) -> list[Problem]:
    """Return files whose judged controls differ from those of the others of their model and prompt."""
    clean = rows[~rows["injected"].astype(bool) & (rows["claims"] != "") & (rows["error"] == "")]
    names = clean["file"].map(expected["model"]), clean["file"].map(expected["prompt"])
    model = names[0].where(names[0] != "", clean["model"])
    prompt = names[1].where(names[1] != "", clean["prompt"])
    kinds = np.select([~clean["coherent"].astype(bool), clean["refused"].astype(bool)], ["i", "r"], clean["claims"])
    problems: list[Problem] = []
    for key, group in clean.assign(kind=kinds).groupby([model, prompt], sort=False):
        sound = group[~group["file"].isin(faulty)]
        blamed, p = _odd_file(sound)
        if p >= RARE and len(sound) < len(group):
            p = _odd_file(group)[1]
            blamed = sorted(set(group["file"]) & faulty)
        if p < RARE:
            text = f"controls of {key[0]}, {key[1]} differ between files (chi2, p {p:.1g})"
            problems += [Problem(file, "controls", text) for file in blamed]
    return problems


def _odd_file(controls: pd.DataFrame) -> tuple[list[str], float]:
    """Return the file whose controls differ most from those of all, and the p of no difference."""
    counts = pd.crosstab(controls["file"], controls["kind"])
    if counts.shape[0] < 2 or counts.shape[1] < 2:
        return [], 1.0
    observed = counts.to_numpy()
    expected = stats.contingency.expected_freq(observed)
    parts = (observed - expected) ** 2 / expected
    blamed = [str(counts.index[int(parts.sum(axis=1).argmax())])]
    if expected.min() >= 5:
        return blamed, float(stats.chi2.sf(parts.sum(), (counts.shape[0] - 1) * (counts.shape[1] - 1)))
    # Few counts: the same statistic of random tables with these sums.
    tables = stats.random_table(observed.sum(axis=1), observed.sum(axis=0)).rvs(_TABLES, random_state=0)
    drawn = ((tables - expected) ** 2 / expected).sum(axis=(1, 2))
    return blamed, float((1 + (drawn >= parts.sum() - 1e-9).sum()) / (1 + _TABLES))
