"""Command lines: what they write, and their exit codes."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mechint.base.errors import MechintError, MemoryLimitError

INTERRUPTED = 130  # what shells give for Ctrl-C


def run(argv: Sequence[str] | None, execute: Callable[[Sequence[str]], Sequence[Path]]) -> int:
    """Run a command line (None: the process's) and list the figures that it has written; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    return guarded(lambda: list_figures(execute(arguments)))


def list_figures(paths: Sequence[Path]) -> None:
    """Write the paths of figures, or of everything where there are none."""
    listed = [path for path in paths if path.suffix == ".html"] or paths
    sys.stdout.write("".join(f"{path}\n" for path in listed))


def guarded(run: Callable[[], None]) -> int:
    """Run a command line; returns its exit code: 0, 2 after one message about bad input, 130 after Ctrl-C."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        with _plain_warnings():
            run()
    except MechintError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; what is done is kept, and the same command goes on from there\n")
        return INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        from mechint.models.device_memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        sys.stderr.write(f"error: {_memory_error(error)}\n")
        return 2
    return 0


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Write the toolkit's own warnings as a line for users, without the place in the code that others have."""
    usual = warnings.formatwarning

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        from_mechint = category.__module__.startswith("mechint")
        return f"warning: {message}\n" if from_mechint else usual(message, category, filename, lineno, line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _memory_error(error: BaseException) -> MemoryLimitError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else "no details"
    return MemoryLimitError(
        given=f"out of memory ({first})",
        allowed="what fits on the device",
        advice="try less --max-memory or --batch-tokens (finished work is kept), a smaller --dtype, another --device",
    )
