"""What tests of analyses share: whole runs without pictures, direct calls to hold them against, refused options."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from conftest import load_once, make_analyses_quick

import mechint as mi
from mechint.attribution.reading import Reading

# The tiny tokenizer merges " 0" and " 1", which it saw, and no other digit.
DIGITS = pytest.mark.filterwarnings("ignore::mechint.base.errors.TokenizationWarning")


def whole_run(analysis: ModuleType, argv: Sequence[str], out: Path) -> Path:
    """Run an analysis without pictures; return where its results are."""
    with pytest.MonkeyPatch.context() as patch:
        make_analyses_quick(patch)
        assert analysis.main([*argv, "--out", str(out)]) == 0
    return out / analysis.NAME


def leave_undrawn(analysis: ModuleType, patch: pytest.MonkeyPatch) -> None:
    """Let an analysis draw no figures, in tests that read its table and record alone."""
    patch.setitem(vars(analysis.ANALYSIS), "draw", lambda *_: ({}, {}))


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command by its module's name: an analysis, or one of the tools beside them."""
    module = importlib.import_module(f"analyses.{name}")
    return module.ANALYSIS.parser() if hasattr(module, "ANALYSIS") else module.parser()


def without(inputs: Sequence[str], *names: str) -> list[str]:
    """Return the options of a command line but for some; each has one value."""
    pairs = zip(inputs[::2], inputs[1::2], strict=True)
    return [word for name, value in pairs if name not in names for word in (name, value)]


def model_and_cats(inputs: Sequence[str]) -> tuple[mi.Model, mi.ConceptVector]:
    """Return the model and the vector of cats that a command line names, for direct calls."""
    options = dict(zip(inputs[::2], inputs[1::2], strict=True))
    return load_once(options["--model"]), mi.ConceptVector.load(Path(options["--vectors"]) / "cats.safetensors")


def refusal(analysis: ModuleType, argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one error with which a command line is refused."""
    try:
        code = analysis.main(list(argv))
    except SystemExit as stop:  # argparse
        code = stop.code
    assert code == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    return message


@dataclass
class Readings:
    """Counts readings of conversations, and stops a run with an interruption after `limit` of them."""

    limit: int
    done: int = 0

    @classmethod
    def counted(cls, patch: pytest.MonkeyPatch, limit: int) -> Readings:
        """Count from now on."""
        count, real = cls(limit), Reading.of

        def of(*arguments: object, **options: object) -> Reading:
            if count.done == count.limit:
                raise KeyboardInterrupt
            count.done += 1
            return real(*arguments, **options)

        patch.setattr(Reading, "of", of)
        return count
