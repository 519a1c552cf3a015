"""The page on which the replies of a run are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from analyses.trials.captions import caption
from mechint.trials.browser import browser_page
from mechint.trials.records import COLUMNS
from mechint.trials.verdicts import VERDICT_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from analyses.trials.options import Config, Facts

FILE = "trials_replies"


def pages(table: pd.DataFrame, config: Config, facts: Facts) -> Mapping[str, str]:
    """Return the browser of a run's replies, by the name of its file."""
    trials, verdicts = table[list(COLUMNS)], table[list(VERDICT_COLUMNS)].dropna(subset=["judge"])
    model = facts.model.name if facts.model is not None else facts.source
    title = f"{len(trials):,} replies of {model}"
    return {FILE: browser_page(trials, verdicts, title=title, caption=caption(table, facts), prompts=facts.prompts)}
