"""Tables that a run keeps for later, with a checksum of all that is in them: what was altered is never believed."""

from __future__ import annotations

import json
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from mechint.base.artefacts import FileKind, reading
from mechint.base.files import replace_atomically, sha256

if TYPE_CHECKING:
    import pandas as pd

_CHECKSUM = "checksum"


def write(table: pd.DataFrame, path: Path) -> Path:
    """Write a table with its `attrs`; returns the path."""
    import pandas as pd

    # Types may change on the way to a file and back (columns of nothing but None), and then stay.
    content = BytesIO()
    table.to_parquet(content, index=False)
    summed = pd.read_parquet(content)
    summed.attrs = {**summed.attrs, _CHECKSUM: _sum(summed)}
    return replace_atomically(path, partial(summed.to_parquet, index=False))


def read(path: Path, kind: FileKind) -> pd.DataFrame:
    """Return a table as `write` was given it; raises the error of `kind` for what was altered or is none of these."""
    import pandas as pd

    with reading(path, kind):
        table = pd.read_parquet(path)
        checksum = table.attrs.pop(_CHECKSUM, None)
        if checksum is None:
            raise ValueError("it has no checksum: an earlier version wrote it, or something else")
        if checksum != _sum(table):
            raise ValueError("it was altered or damaged: its checksum is not the one that it was written with")
    return table


def _sum(table: pd.DataFrame) -> str:
    """Return a hash of names, types and values, and of what is said of them all."""
    import pandas as pd

    columns = [[str(name), str(dtype)] for name, dtype in table.dtypes.items()]
    each = [pd.util.hash_pandas_object(table[name], index=False).to_numpy().tobytes() for name in table.columns]
    description = json.dumps([columns, table.attrs], sort_keys=True)
    return sha256(*each, description.encode())
