"""The scorecard: every declared contrast with what it is on, and what has become of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analyses.trial_contrasts import captions
from analyses.trial_contrasts.drawing import COLUMNS, Drawing
from mechint import figures as draw
from mechint.figures import TextCell
from mechint.figures.words import bounded

if TYPE_CHECKING:
    from analyses.trial_contrasts.material import Material

_HEADINGS = (
    "contrast",
    "points [95% interval]",
    "Holm p",
    "smallest p",
    "cells: matched, dropped",
    "concepts",
    "verdict",
)
_WIDTHS = (26.0, 17.0, 8.0, 10.0, 11.0, 9.0, 34.0)
_MEASURES = {"net": "net detection"}
_REFUSALS = {"in": "", "out": ", refusals left out", "lowest": ", lowest bound", "highest": ", highest bound"}


def scorecard(material: Material) -> Drawing:
    """Return the scorecard as a table of texts."""
    card = material.scorecard
    effects = sorted({f"{100 * effect:g}" for effect in card["smallest_effect"]})
    subtitle = (
        f"{captions.caption(material)}. {material.facts.declared}. Differences of shares in percentage points, on "
        "cells that all groups have, over concepts, as counted by the judge. Holm's correction is over the contrasts "
        "that can be tested; not testable: the design has no p below .05, whatever is seen. Smallest difference that "
        f"would matter: {', '.join(effects)} points."
    )
    kinds = list(card["kind"])
    rules = [at for at in range(1, len(kinds)) if kinds[at] != kinds[at - 1]]
    figure = draw.text_table(
        _HEADINGS,
        [_line(row) for row in card.to_dict("records")],
        title=captions.scorecard_title(card),
        subtitle=subtitle,
        widths=_WIDTHS,
        rules=rules,
    )
    columns = {"panel": card["kind"], "row": card["name"], "series": card["verdict"], "mean": card["value"]}
    points = pd.DataFrame({**columns, "low": card["low"], "high": card["high"], "n": card["n_concepts"]})
    return Drawing(figure, points[COLUMNS])


def _line(row: dict[str, object]) -> list[str | TextCell]:
    numbers = {name: float(str(row[name])) for name in ("value", "low", "high")}
    measure = _MEASURES.get(str(row["measure"]), str(row["measure"])) + _REFUSALS[str(row["refusals"])]
    reasons = "; ".join(text for text in (str(row["reason"]), str(row["note"])) if text)
    return [
        f"{row['name']}\n({measure})",
        bounded(numbers["value"], numbers["low"], numbers["high"], captions.points),
        captions.p_words(float(str(row["p_holm"]))),
        captions.p_words(float(str(row["smallest_p"]))),
        f"{row['cells_matched']}, {row['cells_dropped']}",
        str(row["n_concepts"]),
        TextCell(f"{row['verdict']}: {reasons}", "^(?:not )?(?:supported|testable)(?=:)"),
    ]
