"""How replies are worded: hedges, claims and refusals counted by lists of phrases, which anyone may edit.

A list is JSON: kinds of phrases, each a list of them in words. "*" ends a word anyhow ("seem*" is seems and seemed),
and "..." is up to three words. `phrases/LANGUAGE.json` are lists of our own wording; a file of yours may replace them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mechint.base.errors import UnknownNameError, UsageError
from mechint.base.files import read_json
from mechint.base.signatures import checked
from mechint.stats.intervals import ratio_interval
from mechint.stats.units import group_means
from mechint.trials.outcomes import Lexicon, mentions

Phrases = Mapping[str, Sequence[str]]
_FOLDER = Path(__file__).resolve().parent / "phrases"
_GAP = r"(?:\W+\w+){0,3}?"


@checked
def load_phrases(language: str = "en", path: Path | None = None) -> dict[str, list[str]]:
    """Return the phrases of a language by kind, or those of a file.

    Raises UnknownNameError for a language without lists, and UsageError for a file that holds something else.
    """
    languages = sorted(file.stem for file in _FOLDER.glob("*.json"))
    if path is None and language not in languages:
        raise UnknownNameError(
            given=f"language {language!r}", allowed=", ".join(languages), advice="give a file of phrases: path=..."
        )
    source = path if path is not None else _FOLDER / f"{language}.json"
    content = read_json(source)
    phrases: dict[str, list[str]] = {}
    for kind, entries in content.items() if isinstance(content, dict) else []:
        phrases[kind] = [entry for entry in entries if isinstance(entry, str)] if isinstance(entries, list) else []
    if not phrases or not all(phrases.values()):
        raise UsageError(
            given=f"{source}: no lists of phrases by kind",
            allowed='an object of lists of texts: {"hedges": ["perhaps", "it seem*"]}',
            advice="see mechint/trials/phrases/en.json",
        )
    return phrases


@checked
def count_phrases(text: str, phrases: Phrases) -> dict[str, int]:
    """Return how often phrases of each kind stand in a text, in any case; those that overlap count once."""
    return {kind: len(_pattern(tuple(entries)).findall(text)) for kind, entries in phrases.items()}


def _pattern(entries: tuple[str, ...]) -> re.Pattern[str]:
    # Longer phrases first: "it seems to me" is one hedge, and not two.
    each = [_one_phrase(entry) for entry in sorted(entries, key=len, reverse=True)]
    return re.compile(rf"(?<!\w)(?:{'|'.join(each)})(?!\w)", re.IGNORECASE)


def _one_phrase(entry: str) -> str:
    text = ""
    for word in entry.split():
        if word == "...":
            text += _GAP
            continue
        text += (r"\W+" if text else "") + re.escape(word.rstrip("*")).replace("'", "['\u2019]")
        text += r"\w*" if word.endswith("*") else ""
    return text


@checked
def phrase_table(
    trials: pd.DataFrame, phrases: Phrases | None = None, *, lexicon: Lexicon | None = None
) -> pd.DataFrame:
    """Return by trial its number of words and of phrases of each kind: `id, words, *kinds, names_concept`.

    `names_concept`: whether the reply has the name of its concept, or a word of the lexicon for it.
    """
    lists = load_phrases() if phrases is None else phrases
    words_of = {} if lexicon is None else lexicon
    rows = []
    for name, reply, concept in zip(trials["id"], trials["reply"], trials["concept"], strict=True):
        concepts = concept.split("+") if concept else []
        counts = count_phrases(reply, lists)
        named = any(mentions(reply, each, words_of) for each in concepts)
        rows.append({"id": name, "words": len(reply.split()), **counts, "names_concept": named})
    return pd.DataFrame(rows, columns=["id", "words", *lists, "names_concept"])


@checked
def language_table(
    trials: pd.DataFrame,
    outcomes: pd.DataFrame,
    by: Sequence[str] = ("model", "outcome"),
    *,
    phrases: Phrases | None = None,
    lexicon: Lexicon | None = None,
) -> pd.DataFrame:
    """Return the means of `phrase_table` by group, over concepts: `*by, judge, measure, mean, low, high, n, n_trials`.

    `outcome` may be one of the columns: hedges of replies that claim, and of those that deny. Clean replies, which have
    no concept, count as one unit: their means have no interval.
    """
    counts = phrase_table(trials, phrases, lexicon=lexicon)
    chosen = outcomes[outcomes["pass_no"] == outcomes["pass_no"].min()]
    table = trials.merge(counts, on="id").merge(chosen[["id", "judge", "outcome"]], on="id")
    if missing := [name for name in by if name not in table.columns]:
        raise UnknownNameError(
            given=f"the columns {', '.join(missing)}", allowed=", ".join(table.columns), advice="name these"
        )
    keys = [*by, "judge"]
    sizes = table.groupby(keys, sort=False, dropna=False).size().rename("n_trials").reset_index()
    each = []
    for measure in counts.columns[1:]:
        means = group_means(table.assign(**{measure: table[measure].astype(float)}), keys, measure)
        each.append(means.assign(measure=measure).merge(sizes, on=keys))
    return pd.concat(each, ignore_index=True)[[*keys, "measure", "mean", "low", "high", "n", "n_trials"]]


@checked
def phrase_rates(
    trials: pd.DataFrame,
    outcomes: pd.DataFrame,
    by: Sequence[str] = ("model", "outcome", "series"),
    *,
    phrases: Phrases | None = None,
    words: int = 100,
) -> pd.DataFrame:
    """Return phrases of each kind in so many words, by group: `*by, judge, measure, value, low, high, n, n_trials`.

    A rate is a ratio of means (phrases over words), its interval Fieller's over `n` concepts; clean replies, which have
    none, are units of their own. The measure "words" is the mean length of a reply. NaN where a group has no words.
    """
    counts = phrase_table(trials, phrases)
    chosen = outcomes[outcomes["pass_no"] == outcomes["pass_no"].min()]
    table = trials.merge(counts, on="id").merge(chosen[["id", "judge", "outcome"]], on="id")
    if missing := [name for name in by if name not in table.columns]:
        raise UnknownNameError(
            given=f"the columns {', '.join(missing)}", allowed=", ".join(table.columns), advice="name these"
        )
    unit = table["concept"].where(table["series"] != "clean", table["id"])
    kinds = [name for name in counts.columns if name not in ("id", "words", "names_concept")]
    rows = []
    for key, group in table.assign(unit=unit).groupby([*by, "judge"], sort=False, dropna=False):
        means = group.groupby("unit", sort=False)[[*kinds, "words"]].mean()
        shared = {**dict(zip([*by, "judge"], key, strict=True)), "n": len(means), "n_trials": len(group)}
        for kind in [*kinds, "words"]:
            under = np.full(len(means), 1.0) if kind == "words" else means["words"].to_numpy(float)
            scale = 1.0 if kind == "words" else float(words)
            rows.append({**shared, "measure": kind, **_ratio(scale * means[kind].to_numpy(float), under)})
    return pd.DataFrame(rows, columns=[*by, "judge", "measure", "value", "low", "high", "n", "n_trials"])


def _ratio(over: np.ndarray, under: np.ndarray) -> dict[str, float]:
    """Return a ratio of means with its interval: none of a single unit, and no bound below 0."""
    whole = float(under.mean())
    if whole <= 0:
        return dict.fromkeys(("value", "low", "high"), float("nan"))
    interval = ratio_interval(over, under)
    low, high = float(np.clip(interval.low, 0.0, None)), float(interval.high)  # clip leaves NaN as it is
    return {"value": float(over.mean()) / whole, "low": low, "high": high}
