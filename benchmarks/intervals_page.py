"""Write `docs/intervals.md` from what `python -m benchmarks.coverage` has measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.common import RESULTS
from mechint.base.files import JSON, write_atomically

PAGE = Path(__file__).resolve().parent.parent / "docs" / "intervals.md"
Result = Mapping[str, JSON]

_HEAD = """# Intervals

How often does a 95% interval hold the mean that it is of? This page is written by `python -m benchmarks.coverage` and
`python -m benchmarks.intervals_page`: {sample:,} draws of each shape and size, in percent of draws. The standard error
of a number is {error:.1f} points at 92%.

An interval of `mi.intervals` is Student's t over units (concepts), whose arm is longer on the side to which the units
are skewed: by the transformation of Hall (1992), with 1 + 8/n times the skewness that n units show, since few show less
than there is, and twice as long at most. The other arm is up to 2% shorter. No seed is needed: every run gives the
same interval.

- **Differences** of two sets of units use Welch's t, with no more degrees of freedom than two sets of the smaller size.
- **Crossed designs** add the variance over items (wordings) to that over units (vectors), with Satterthwaite's degrees
  of freedom, no more than twice those of the smaller side. Of two or three items little is known, and intervals are
  cautious.
- **Ratios** of means are Fieller's, joined with the skewed interval of what the ratio leaves over.
- **Rates** of yes and no have the exact interval of Clopper and Pearson.
- **Shares and probabilities** stay between 0 and 1. Where all units are 0, or all 1, the interval is that of as many
  throws, however many questions stand behind each.
- **Equal units** have an interval of no width: what is measured does not depend on the unit, as with zero strength. If
  your measure has few values, equal units may be chance, and the interval is too narrow.
- **One unit** has no interval. **Fewer than six** have one that covers less than it says where effects are skewed, and
  figures say so.

## Means

"Percentiles" is what figures showed before; "width" is the median width of the interval in units of that of t.
"""

_BANDS = """## Sweeps

Of {cells} cells without an effect some have a single interval that excludes zero in most sweeps. Marks of sweeps are
simultaneous bands: the quantile is that of the largest |t| over all cells when signs of units are
flipped, all cells alike, and skewness is corrected as above. The table has the percentage of sweeps in which *any* cell
is marked, by how much of their variance cells share; {sweeps:,} sweeps each.

**Limits.** Flips of signs take units to be symmetric about the mean. Where units are skewed and cells share little,
more sweeps are wrong than one of twenty: of log-normal cells that share nothing, three or four of ten. Layers and
strengths of one sweep share most of their variance, since they have the same concepts. Bands of differences exchange
units between the sets instead, which holds for any shape if both have the same. A marked cell of a skewed measure
deserves the question whether one concept makes it.

`--uncorrected` marks cells by their own intervals, for sweeps in which one cell was chosen beforehand.
"""


def page(result: Result) -> str:
    """Return the page of a result."""
    sample = int(str(result["sample"]))
    means = _rows(result["means"])
    cells, sweeps = int(str(result["cells"])), int(str(result["sweeps"]))
    parts = [
        _HEAD.format(sample=sample, error=100 * (0.92 * 0.08 / sample) ** 0.5),
        _table("shape, units", means, {"percentiles": "percentiles (before)", "mechint": "**mechint**"}),
        "## Differences\n\nOf two sets of these sizes, of one shape; the spread of the first may be three times the "
        "other's. Log-normal sets of unequal spread are covered least, 90 to 91%.\n",
        _table("shape", _rows(result["differences"])),
        "## Crossed designs\n\nUnits by items, of equal variance each, and a rest with a quarter of it. 'Units alone' "
        "is what an interval over units covers of the mean over all items.\n",
        _table("shape", _rows(result["crossed"])),
        _BANDS.format(cells=cells, sweeps=sweeps),
        _table("shape, variance", _rows(result["bands"])),
    ]
    return "\n".join(parts)


def _rows(value: JSON) -> dict[str, dict[str, JSON]]:
    return {name: row for name, row in value.items() if isinstance(row, dict)} if isinstance(value, dict) else {}


def _table(corner: str, rows: Mapping[str, Mapping[str, JSON]], names: Mapping[str, str] | None = None) -> str:
    columns = list(next(iter(rows.values())))
    head = [corner, *((names or {}).get(name, name) for name in columns)]
    lines: list[Sequence[str]] = [head, ["---", *["---:"] * len(columns)]]
    lines += [[name, *(f"{row[column]}" for column in columns)] for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    """Write the page."""
    result = json.loads((RESULTS / "coverage.json").read_text(encoding="utf-8"))
    sys.stdout.write(f"{write_atomically(PAGE, page(result))}\n")


if __name__ == "__main__":
    main()
