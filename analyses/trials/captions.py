"""What figures of trials say of a run: counts, controls, the judge; and titles that its numbers carry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from analyses.trials.summaries import difficulty
from mechint.figures.words import counted, percent
from mechint.stats.intervals import binomial_interval
from mechint.trials.outcomes import CLAIMING
from mechint.trials.pilot import OF_PILOT, left_by_pilot

if TYPE_CHECKING:
    from analyses.trials.options import Facts

_MANY = 3  # groups, whose names would fill a title
LEFT = ", where a pilot dropped no cell,"
IN = "refusals count as denials"
_QUESTIONS = {"no": "questions with answer no", "yes": "with answer yes", "none": "no question"}


def caption(table: pd.DataFrame, facts: Facts) -> str:
    """Return model, numbers of concepts and replies, controls, and the judge with its errors."""
    return f"{facts.caption}; {numbers(table[table['outcome'].notna()])}; {facts.judge.caption}"


def numbers(judged: pd.DataFrame) -> str:
    """Return the numbers of concepts and of replies, and of controls."""
    asking = judged[judged["question"] == "introspection"]
    injected, random = asking[asking["series"] == "injected"], asking[asking["series"] == "random"]
    clean = asking[asking["series"] == "clean"]
    concepts = counted(injected["concept"].nunique(), "concept")
    controls = [f"{len(clean):,} clean replies"]
    if len(random):
        controls.append(f"{counted(random['concept'].nunique(), 'random vector')} of equal norm ({len(random):,})")
    questions = judged["question"].value_counts()
    controls += [f"{text} ({questions[name]:,})" for name, text in _QUESTIONS.items() if name in questions]
    if "mention" in questions:
        controls.append(f"concept mentioned ({questions['mention']:,})")
    return f"{concepts} injected, {len(injected):,} replies; controls: {', '.join(controls)}"


def classes_title(table: pd.DataFrame) -> str:
    """Return how often injected and clean replies claim something, and how often they cannot be read."""
    asking = table[(table["question"] == "introspection") & table["outcome"].notna()]
    texts = []
    for series, name in (("injected", "replies under an injected concept"), ("clean", "clean replies")):
        outcome = asking.loc[asking["series"] == series, "outcome"]
        if len(outcome):
            claims, broken = outcome.isin(CLAIMING).mean(), (outcome == "incoherent").mean()
            left = LEFT if series == "injected" and left_by_pilot(table) else ""
            texts.append(f"{percent(claims)} of {name}{left} claim something, {percent(broken)} cannot be read")
    text = "; ".join(texts) or "No replies to the question"
    return text[0].upper() + text[1:]


def net_title(rates: pd.DataFrame) -> str:
    """Return under which prompts injected concepts are noticed: net detection above zero, refusals in and out.

    Of a judge whose errors were counted, it is the corrected one; prompts where it cannot be told are named as such.
    """
    noticed = _above(rates, "injected")
    if noticed is None:
        return "Net detection needs steered and clean replies to one prompt"
    above, below, others = noticed
    if not above and not below:
        return "Net detection cannot be told from zero under any prompt"
    texts = []
    if above:
        random = (_above(rates, "random") or ([], [], []))[0]
        also = ", and so are random vectors" if random else ""
        also += f" under {_listed(random)}" if random and not set(above) <= set(random) else ""
        texts.append(f"Injected concepts are noticed under {_listed(above) if below or others else _all(above)}{also}")
    if below:
        texts.append(
            f"injected concepts are claimed less often than clean replies claim anything under {_listed(below)}"
        )
    if others:
        texts.append(f"net detection cannot be told from zero under {_listed(others)}")
    text = "; ".join(texts)
    return text[0].upper() + text[1:]


def _above(rates: pd.DataFrame, series: str) -> tuple[list[str], list[str], list[str]] | None:
    """Return the prompts with net detection above zero, below, and neither; None where there is none."""
    net = rates[(rates["measure"] == "net") & (rates["series"] == series) & (rates["prompt"] != "")]
    net = net[net["refusals"].isin(["in", "out"]) & (net["question"] == "introspection")]
    if net.empty:
        return None
    estimate = "corrected" if (net["estimate"] == "corrected").any() else "raw"
    above: list[str] = []
    below: list[str] = []
    others: list[str] = []
    for key, rows in net[net["estimate"] == estimate].groupby(["model", "prompt"], sort=False):
        name = group_name(rates, *map(str, key))
        chosen = above if (rows["low"] > 0).all() else below if (rows["high"] < 0).all() else others
        chosen.append(name)
    return above, below, others


def d_prime_title(detection: pd.DataFrame, rates: pd.DataFrame) -> str:
    """Return under which prompts d' is above zero."""
    clear = detection[(detection["measure"] == "d_prime") & (detection["low"] > 0)]
    names = [group_name(rates, model, prompt) for model, prompt in zip(clear["model"], clear["prompt"], strict=True)]
    if not names:
        return "Hits are not clearly more frequent than false alarms: no d' can be told from zero"
    is_all = len(names) == (detection["measure"] == "d_prime").sum()
    return (
        f"Hits are more frequent than false alarms under {_all(names) if is_all else _listed(names)}: d' is above zero"
    )


def strengths_title(rates: pd.DataFrame) -> str:
    """Return what becomes of coherence, refusals and claims from the weakest to the strongest injection."""
    rows = rates[rates["strength"].notna() & (rates["series"] == "injected") & (rates["refusals"] == "in")]
    weak, strong = rows["strength"].min(), rows["strength"].max()
    texts = []
    for measure, name in (("coherence", "coherent"), ("refusal", "refusing"), ("hits", "claiming")):
        values = rows[rows["measure"] == measure].groupby("strength")["value"].mean()
        ends = dict.fromkeys(percent(values[strength]) for strength in (weak, strong))
        texts.append(f"{name} {' to '.join(ends)}")
    where = f"At strength {weak:g}" if weak == strong else f"From strength {weak:g} to {strong:g}"
    # Coherence of what was chosen by coherence is no finding.
    where += LEFT if rows["warning"].str.contains(OF_PILOT, regex=False).any() else ""
    return f"{where} replies are: {', '.join(texts)}"


def concepts_title(table: pd.DataFrame) -> str:
    """Return whether concepts differ in how often they are claimed; intervals hold for all of them at once."""
    claims = difficulty(table)
    claims = claims[claims["measure"] == "claims"]
    if len(claims) < 2:
        return "How often is the concept claimed?"
    low, high = claims.loc[claims["value"].idxmin()], claims.loc[claims["value"].idxmax()]
    ends = [
        binomial_interval(round(row["value"] * row["n"]), int(row["n"]), level=1 - 0.05 / len(claims))
        for row in (low, high)
    ]
    span = f"{percent(low['value'])} ({low['concept']}) to {percent(high['value'])} ({high['concept']})"
    if float(ends[0].high) < float(ends[1].low):
        return f"Concepts differ: claims range from {span}"
    return f"Concepts cannot be told apart: claims range from {span}"


def group_name(table: pd.DataFrame, model: str, prompt: str) -> str:
    """Return the name of a prompt's group, with its model where a table has several."""
    return prompt if table["model"].nunique() == 1 else f"{prompt} ({model})"


def _all(names: Sequence[str]) -> str:
    """Return all groups that there are, in short where they are many."""
    return _listed(names) if len(names) < _MANY else "every prompt"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
