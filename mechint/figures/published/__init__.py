"""Tables of published results, as data with their source: overlays of our figures, never mixed with our own numbers."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from mechint.base.errors import UnknownNameError

if TYPE_CHECKING:
    import pandas as pd


def available() -> list[str]:
    """Return the names of the tables."""
    folder = resources.files(__name__)
    return sorted(item.name.removesuffix(".csv") for item in folder.iterdir() if item.name.endswith(".csv"))


def load(name: str) -> pd.DataFrame:
    """Return a table; its column `source` says who has published a row. Raises UnknownNameError."""
    import pandas as pd

    if name not in available():
        raise UnknownNameError(f"unknown published table {name!r}", ", ".join(available()), "choose one of these")
    with resources.as_file(resources.files(__name__) / f"{name}.csv") as path:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
