"""Replies for people to code who cannot know which model they are of, and how far coders agree.

key = blinded({"base": first, "red-blue": second}, "replies.csv", seed=0)     # keep the key to yourself
codes = read_codes(key, {"A": "replies-A.csv", "B": "replies-B.csv"})         # when the coders are done
coder_agreement(codes)       # kappa for each pair of coders
code_shares(codes)           # how often each code was given, by arm and coder
"""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from mechint.base.artefacts import FileKind, reading
from mechint.base.errors import UsageError
from mechint.base.files import sha256, write_atomically
from mechint.base.signatures import Seed, checked
from mechint.stats.agreement import kappa_interval, mode_baseline
from mechint.stats.intervals import PROBABILITY, mean_interval

_KEY = ("id", "arm", "prompt", "sample")
SHEET = ("id", "question", "reply", "code")
_FILE = FileKind("codes", "the file of `blinded` with codes filled in", "open it in a spreadsheet, and save it as CSV")


@checked
def blinded(arms: Mapping[str, pd.DataFrame], path: str | Path, *, seed: Seed = 0) -> pd.DataFrame:
    """Write the replies of all arms into one CSV file in a drawn order, and return the key: which is of which arm.

    The file has `id`, `question`, `reply` and an empty `code`; an id says nothing of the arm. Give each coder a copy,
    and the key to none. `arms` are tables of `talk` by name. Raises UsageError for fewer than two arms, and where they
    were asked different prompts, which would give them away.
    """
    prompts = {arm: set(table["prompt"]) for arm, table in arms.items()}
    if len(arms) < 2 or any(of_arm != next(iter(prompts.values())) for of_arm in prompts.values()):
        raise UsageError(
            given=f"{len(arms)} arms, or arms with different prompts",
            allowed="two arms or more, each with replies to the same prompts",
            advice="reply to the same prompts with every model",
        )
    rows = pd.concat([table.assign(arm=arm) for arm, table in arms.items()], ignore_index=True)
    order = np.random.default_rng(seed).permutation(len(rows))
    rows = rows.iloc[order].reset_index(drop=True)
    rows["id"] = [sha256(f"{seed} {place}".encode())[:10] for place in range(len(rows))]
    sheet = rows[["id", "question", "reply"]].assign(code="")
    write_atomically(Path(path), sheet[list(SHEET)].to_csv(index=False))
    return rows[list(_KEY)]


@checked
def read_codes(key: pd.DataFrame, files: Mapping[str, str | Path]) -> pd.DataFrame:
    """Return a row for each reply and coder: the key's columns, `coder` and `code` ("" where none was given).

    Raises UsageError for a file that lacks replies of the key, or has others, and for one without any code.
    """
    parts = []
    for coder, path in files.items():
        with reading(Path(path), _FILE):
            sheet = pd.read_csv(StringIO(Path(path).read_text(encoding="utf-8-sig")), dtype=str, keep_default_na=False)
        if not {"id", "code"} <= set(sheet.columns) or sorted(sheet["id"]) != sorted(key["id"]):
            raise UsageError(
                given=f"{path}: other replies than those of the key",
                allowed="the file of `blinded`, every line once, with codes filled in",
                advice="give the key that belongs to it",
            )
        codes = sheet.set_index("id")["code"].str.strip().str.lower()
        if not codes.ne("").any():
            raise UsageError(f"{path}: no reply has a code", "codes, a word for each reply", "wait for the coder")
        parts.append(key.assign(coder=coder, code=key["id"].map(codes).to_numpy()))
    return pd.concat(parts, ignore_index=True)


@checked
def coder_agreement(codes: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Return Cohen's kappa of each pair of coders over the replies that both have coded, with intervals over prompts.

    `accuracy` is how often they say the same, `baseline` how often one would who always gives the first coder's
    commonest code. Raises UsageError for a single coder: there is nothing that a code was checked by.
    """
    coders = list(dict.fromkeys(codes["coder"]))
    if len(coders) < 2:
        raise UsageError(f"{len(coders)} coder", "two or more, each without the key", "have somebody else code them")
    wide = codes.pivot(index=["prompt", "id"], columns="coder", values="code")
    rows = []
    for first, second in combinations(coders, 2):
        both = wide[(wide[first] != "") & (wide[second] != "")]
        if both.empty:
            raise UsageError(f"{first} and {second}, who coded no reply both", "replies that both coded", "code more")
        labels, others = both[first].to_numpy(dtype=str), both[second].to_numpy(dtype=str)
        prompts = both.index.get_level_values("prompt").to_numpy(dtype=str)
        interval = kappa_interval(labels, others, [prompts], level=level)
        ends = {"kappa": float(interval.mean), "low": float(interval.low), "high": float(interval.high)}
        counts = {"accuracy": float((labels == others).mean()), "baseline": mode_baseline(labels), "n": len(both)}
        rows.append({"first": first, "second": second, **ends, **counts})
    return pd.DataFrame(rows)


@checked
def code_shares(codes: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Return how often each code was given, by arm and coder, with intervals over prompts; replies without are out."""
    coded = codes[codes["code"] != ""]
    rows = []
    for (arm, coder), group in coded.groupby(["arm", "coder"], sort=False):
        for code in sorted(set(coded["code"])):
            shares = (group["code"] == code).groupby(group["prompt"]).mean().to_numpy(dtype=float)
            interval = mean_interval(shares, level=level, within=PROBABILITY)
            ends = {"share": float(interval.mean), "low": float(interval.low), "high": float(interval.high)}
            rows.append({"arm": arm, "coder": coder, "code": code, **ends, "n": len(group)})
    return pd.DataFrame(rows)
