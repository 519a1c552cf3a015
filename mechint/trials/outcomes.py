"""What a reply counts as: one class for each, computed from a verdict and from what was done, by no judge.

Classes exclude each other and are met in this order: a reply that cannot be read is `incoherent` whatever it says; one
that refuses `refuses`; a claim with the right name `names rightly`, with another `names wrongly`, without a name
`claims`; a reply without a claim that has the concept in it all the same `leaks`, any other `denies`.

    what was done      verdict                           class
    oceans injected    claims, named "the deep sea"      names rightly
    oceans injected    claims, named "a song"            names wrongly
    clean              claims, named "the deep sea"      names wrongly
    oceans injected    no claim, "waves" in the reply    leaks
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from mechint.base.errors import UsageError
from mechint.trials.verdicts import Verdict

CLASSES: tuple[str, ...] = (
    "incoherent",
    "refuses",
    "denies",
    "leaks",
    "claims",
    "names wrongly",
    "names rightly",
)
CLAIMING: tuple[str, ...] = ("claims", "names wrongly", "names rightly")
_ENDINGS, _LONG = "(?:e?d|ing|e?ly|e?ness)", 5  # letters of a word that takes endings
Row = Mapping[str, Any]  # values of a table by column
Lexicon = Mapping[str, Sequence[str]]  # words by concept that stand for it, besides its own name


def outcome(verdict: Verdict, reply: str, concept: str, lexicon: Lexicon) -> str:
    """Return the class of a reply; `concept` is what was injected ("" where nothing was, "a+b" for several).

    A name that stands before the claim does not count as one: the text may have led to both. Raises UsageError for a
    verdict with an error: it has no class.
    """
    if verdict.error:
        raise UsageError(
            given=f"a reply without a verdict: {verdict.error}",
            allowed="judged replies",
            advice="judge it again, or leave it out and say how many were",
        )
    if not verdict.coherent:
        return "incoherent"
    if verdict.refused:
        return "refuses"
    names = concept.split("+") if concept else []
    if verdict.claims != "yes":
        return "leaks" if any(mentions(reply, name, lexicon) for name in names) else "denies"
    if verdict.named is None or verdict.claim_first is False:
        return "claims"
    return "names rightly" if any(mentions(verdict.named, name, lexicon) for name in names) else "names wrongly"


def mentions(text: str, concept: str, lexicon: Lexicon) -> bool:
    """Whether a text has a concept's name, or a word of its lexicon, as whole words in any case."""
    return _pattern((concept, *lexicon.get(concept, ()))).search(text) is not None


@lru_cache(maxsize=1024)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Words as they stand in running text: either number of an English noun counts as the other.

    Longer words, which are no other word's beginning, have the endings of verbs and adjectives as well.
    """
    stems = {_singular(word.strip().lower()) for word in words if word.strip()}
    forms = {rf"{re.escape(stem)}(?:e?s|'s)?" for stem in stems}
    forms |= {rf"{re.escape(stem.removesuffix('e'))}{_ENDINGS}" for stem in stems if len(stem) >= _LONG}
    return re.compile(rf"(?<!\w)(?:{'|'.join(sorted(forms, reverse=True))})(?!\w)", re.IGNORECASE)


def _singular(word: str) -> str:
    return word.removesuffix("s") if not word.endswith("ss") else word


def outcome_table(trials: pd.DataFrame, verdicts: pd.DataFrame, lexicon: Lexicon) -> pd.DataFrame:
    """Return the class of every judged reply: `id, judge, pass_no, outcome`.

    Trials without a verdict, and verdicts with an error, have no row. Raises UsageError for verdicts on trials that
    are not in the table.
    """
    unknown = ~verdicts["id"].isin(trials["id"])
    if unknown.any():
        raise UsageError(
            given=f"{int(unknown.sum())} verdicts on trials that are not here, {verdicts.loc[unknown, 'id'].iloc[0]!r}",
            allowed="verdicts on these trials",
            advice="give the trials and verdicts of one run",
        )
    judged = verdicts[verdicts["error"] == ""].merge(trials[["id", "reply", "concept", "series"]], on="id")
    classes = [outcome(_verdict(row), row["reply"], concept_of(row), lexicon) for row in judged.to_dict("records")]
    return judged[["id", "judge", "pass_no"]].assign(outcome=np.array(classes, dtype=object))


def _verdict(row: Row) -> Verdict:
    """Return the verdict of a row; tables turn what is missing into NaN."""

    def value(name: str) -> object:
        return None if pd.isna(row[name]) else row[name]

    first = value("claim_first")
    return Verdict(
        claims=row["claims"],
        named=None if value("named") is None else str(row["named"]),
        claim_first=None if first is None else bool(first),
        refused=bool(row["refused"]),
        coherent=bool(row["coherent"]),
    )


def concept_of(row: Row) -> str:
    """Return the concept that a reply may name rightly: random vectors have none."""
    return "" if row["series"] == "random" else str(row["concept"])
