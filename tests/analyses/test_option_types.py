"""Every option of every command line, given hostile texts: a value within bounds, or one message and exit code 2."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_runs import parser_of

from analyses import ANALYSES
from analyses.__main__ import TOOLS
from analyses.kit import cli, declarations, option_types
from analyses.kit.options import Common
from mechint.base.errors import LayerRangeError
from mechint.engine.shards import Shard

_DIGITS = "9" * 5000
HOSTILE = (
    "", " ", "-", "--", ",", "a,,b", "a,a", "x", "yes", "None", "null", "[]", "{}", "{", '{"a": NaN}', "[" * 100_000,
    '{"a": "\\ud800"}', "0", "-0", "-1", "1", "+5", "--5", "1.5", "1_000", "\N{FULLWIDTH DIGIT THREE}",
    "\N{SUPERSCRIPT TWO}", "nan", "inf", "-inf", "Infinity", "1e309", "-1e400", "1e8", "1e-400", ".", ".5", "5.",
    "0x10", "1+1j", "1/0", str(2**63 - 1), str(2**63), str(-(2**63)), "1e6", "100000000", _DIGITS, f"-{_DIGITS}",
    f"0:{_DIGITS}", f"{_DIGITS}/2", "0:99999999999", "5:2", "3:3", "1:2:3", ":", "0:", ":4", "0,1,1", "3/2", "0/0",
    "-1/2", "1/2/3", "0/99999999999", "cpu:", "meta", "meta:0", "cuda:-1", "cuda:99999", "abacus", "2026-13-01",
    "yesterday", "0001-01-01", "99999-01-01", "4GB", "-4GB", "999999999TB", "/dev/null", "/dev/zero", "/dev/stdin",
    "/proc/self/mem", "a\0b", "\0", "a\nb", "a\x1b[2J", "\ud800", "x" * 300, "x" * 5000, "/x" * 3000, "../" * 2000,
    "a/b", ".", "..", "%s%d%(prog)s", "{0.__class__}", "=", ",".join(map(str, range(3000))),
    ",".join(["0.5"] * 3000), "1,1.00000001", "\N{RIGHT-TO-LEFT OVERRIDE}x",
)  # fmt: skip
COMMANDS = (*ANALYSES, *TOOLS)


def _options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options that take a text of their own, and places of which there may be several."""
    for action in parser._actions:
        if action.nargs != 0:
            yield action


def _argv(parser: argparse.ArgumentParser, action: argparse.Action, text: str) -> list[str]:
    """A command line with one option, and something harmless at every other place that must be filled."""
    places = [one for one in parser._actions if not one.option_strings]
    others = [text if one is action else "tests" for one in places if one is action or one.nargs is None]
    given = [f"{action.option_strings[0]}={text}"] if action.option_strings else []
    return [*given, "--", *others]


def _within_bounds(value: object) -> bool:
    """Whether something can be computed with, hashed, written as JSON, and named in a path."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) < 2**63
    if isinstance(value, Shard):
        return value.count <= 10**6
    if isinstance(value, str | Path):
        text = str(value)
        text.encode()
        return not set(text) & set("\0\n\r\x1b") and 0 < len(text.strip()) < 4096
    if isinstance(value, tuple):
        return len(value) <= option_types.MOST_LAYERS and all(map(_within_bounds, value))
    return value is None or isinstance(value, dict | list)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_becomes_a_value_within_bounds_or_one_message(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = parser_of(name)
    shared = declarations.declarations(Common)  # `all` has them and no other
    options = [one for one in _options(parser) if name == "all" or one.dest not in shared]
    begun, refused = time.monotonic(), 0
    for action in options:
        for text in HOSTILE:
            where = (name, action.dest, text[:40])
            parsed: list[argparse.Namespace] = []
            argv = _argv(parser, action, text)
            try:
                code = cli.guarded(lambda argv=argv, into=parsed: into.append(parser.parse_args(argv)))
            except SystemExit as stop:  # argparse
                code = stop.code
            told = capsys.readouterr().err
            if code == 0:
                value = getattr(parsed[0], action.dest)
                assert all(map(_within_bounds, value if isinstance(value, list) else [value])), where
                assert told == "", where
            else:
                refused += 1
                assert code == 2, where
                assert told.startswith("error: "), where
                assert told.count("error: ") == 1, where
                assert len(told) < 2000, where
                assert "Traceback" not in told, where
    assert refused >= len(options) * 20, "hardly anything is refused: the test cannot fail"
    assert time.monotonic() - begun < 20, "something was made from a number without a bound"


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (option_types.whole_number(0, 10), ("11", "-1", "1e1", "1_0", "", _DIGITS)),
        (option_types.seed, (str(2**63), "-1")),
        (option_types.finite, ("nan", "inf", "1e309", "1e38", "1e-38", "1_0", "")),
        (option_types.positive, ("0", "-1", "1e-400")),
        (option_types.share, ("0", "1.01")),
        (
            option_types.numbers("numbers", lambda values: min(values) > 0),
            ("1,1", "1,1.00000001", "0.999999,1", "0,1", "1,", "1,nan"),
        ),
        (option_types.indices, ("1,1", "1,-1", "")),
        (option_types.names, ("a,a", "a,", "a/b", "..", "x" * 101, "a\nb")),
        (option_types.words, ("", " ", "a\0", "a\nb", "\ud800")),
        (option_types.path, ("", "a\0b", "x" * 256, "/dev/null", "\ud800")),
        (option_types.device, ("meta", "", "cuda:", "cuda:1:2", "gpu", "CPU")),
        (option_types.date, ("2026-02-30", "today", "")),
        (option_types.shard, ("3/2", "2/2", "0/0", "-1/2", "0/99999999999", _DIGITS + "/2")),
        (option_types.memory, ("0", "-1GB", "lots", "999999999TB")),
        (option_types.variables, ("[]", '{"a": NaN}', "[" * 100_000, '{"a": "\\ud800"}')),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_no_run_could_use_is_refused(parse, texts: tuple[str, ...]) -> None:
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match="allowed: "):
            parse(text)


@pytest.mark.parametrize("text", ["0:99999999999", "10001", "5:2", "", "1,", "a", "1:2:3", _DIGITS, "-1"])
def test_layers_beyond_any_model_are_no_lack_of_memory(text: str) -> None:
    with pytest.raises(LayerRangeError, match="--layers"):
        option_types.parse_layers(text)


@settings(max_examples=200, deadline=None)
@given(value=st.floats(1e-30, 1e30) | st.floats(-1e30, -1e-30) | st.just(0.0))
def test_finite_numbers_come_back_as_they_were(value: float) -> None:
    assert option_types.finite(repr(value)) == value


@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=30))
def test_any_text_at_all_is_parsed_or_refused(text: str) -> None:
    for parse in (
        option_types.finite, option_types.seed, option_types.share, option_types.names, option_types.words,
        option_types.path, option_types.source, option_types.device, option_types.date, option_types.shard,
        option_types.memory, option_types.variables, option_types.indices, option_types.parse_layers,
    ):  # fmt: skip
        try:
            value = parse(text)
        except (argparse.ArgumentTypeError, LayerRangeError):
            continue
        assert _within_bounds(value)


def test_pipes_are_neither_read_nor_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for name in COMMANDS:
        parser = parser_of(name)
        for action in _options(parser):
            if action.type is option_types.path:
                with pytest.raises(SystemExit):
                    parser.parse_args(_argv(parser, action, str(pipe)))
                assert "a pipe" in capsys.readouterr().err
