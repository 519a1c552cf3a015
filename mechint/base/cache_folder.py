"""The folder for what can be made again at any time; it may be removed whenever nothing runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return `$MECHINT_CACHE`, else the folder `mechint` in `$XDG_CACHE_HOME` or `~/.cache`; it need not exist.

    Raises RuntimeError for a user without a home folder.
    """
    if named := os.environ.get("MECHINT_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mechint"
