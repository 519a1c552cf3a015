"""Options declared once: parsers are made from fields, and command lines from Python's values, without loss."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.kit import declarations, option_types
from analyses.kit.declarations import option
from analyses.kit.options import Common, Marked
from mechint.base.errors import UnknownNameError, UsageError
from mechint.engine.shards import Shard


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shared:
    GROUP: ClassVar[str] = "shared"
    seed: int = option("of everything", default=0, parse=option_types.whole_number(0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Mixed:
    switch: bool = option("a switch", default=False, drawing=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Config(_Shared, _Mixed):
    GROUP: ClassVar[str] = "own"
    GROUP_TEXT: ClassVar[str] = "these are its own"
    form: Literal["a", "b"] = option("a form", default="a")
    either: bool | None = option("on or off")
    names: tuple[str, ...] | None = option("names", parse=option_types.names)
    strengths: tuple[float, ...] | None = option(
        "strengths", parse=option_types.numbers("numbers", lambda _: True), alternatives="dose"
    )
    strength: float | None = option("one strength", parse=option_types.finite, alternatives="dose")
    paths: tuple[Path, ...] = option("paths", default=(), parse=option_types.path, repeated=True)
    loaded: object = dataclasses.field(default=None)  # no option


def _parsed(argv: list[str]) -> _Config:
    options_parser = declarations.parser(_Config, "x", "what it does", declarations.CallParser)
    return declarations.parse(_Config, options_parser, argv)


def test_help_has_a_group_for_each_title_and_the_text_of_each_option() -> None:
    words = declarations.parser(_Config, "x", "what it does").format_help()
    titles = [line for line in words.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["options:", "shared:", "own:"]
    own_group = words.partition("own:")[2]
    for expected in ("these are its own", "{a,b}", "(default: a)", "--either, --no-either", "--switch"):
        assert expected in own_group
    assert "of everything (default: 0)" in " ".join(words.split())
    assert "loaded" not in words
    assert "(default: None)" not in words


def test_nothing_given_is_every_default() -> None:
    assert _parsed([]) == _Config()
    assert (_Config().seed, _Config().switch, _Config().form, _Config().either) == (0, False, "a", None)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 10**9),
            "switch": st.booleans(),
            "form": st.sampled_from(["a", "b"]),
            "either": st.booleans() | st.none(),
            "names": st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=4, unique=True),
            "strength": st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-20),
        },
    )
)
def test_values_from_python_come_through_a_command_line_as_they_are(python_values: dict[str, object]) -> None:
    config = _parsed(declarations.command_line(_Config, python_values))
    for name, value in python_values.items():
        assert getattr(config, name) == (tuple(value) if isinstance(value, list) else value)
    assert dataclasses.replace(_Config(), **{n: getattr(config, n) for n in python_values}) == config


def test_numbers_of_numpy_and_every_kind_of_sequence_are_values() -> None:
    argv = declarations.command_line(_Config, {"strengths": np.array([0.25, 2.0]), "seed": np.int64(3)})
    assert (_parsed(argv).strengths, _parsed(argv).seed) == ((0.25, 2.0), 3)
    argv = declarations.command_line(Common, {"layers": range(2, 5), "shard": Shard(1, 4), "out": Path("a b")})
    config = declarations.parse(Common, declarations.parser(Common, "x", ""), argv)
    assert (config.layers, config.shard, config.out) == ((2, 3, 4), Shard(1, 4), Path("a b"))
    assert _parsed(["--paths", "a", "--paths", "b"]).paths == (Path("a"), Path("b"))
    assert declarations.command_line(_Config, {"paths": ("a", Path("b"))}) == ["--paths=a", "--paths=b"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sead": 1}, "unknown option: sead"),
        ({"loaded": 1}, "unknown option: loaded"),
        ({"names": ("a,b", "c")}, "'a,b' with a comma in it"),
        ({"seed": object()}, "a object"),
        ({"seed": -1}, "'-1'; allowed: a whole number, 0 or more"),
        ({"seed": True}, "expected one argument"),
        ({"form": "c"}, "invalid choice"),
        ({"strength": float("nan")}, "allowed: a finite number"),
        ({"strength": 1, "strengths": (1, 2)}, "not allowed with"),
    ],
)
def test_a_bad_value_is_one_error(given: dict[str, object], words: str) -> None:
    with pytest.raises((UsageError, UnknownNameError), match=words):
        _parsed(declarations.command_line(_Config, given))


def test_what_changes_figures_alone_is_declared() -> None:
    assert declarations.drawing(_Config) == {"switch"}
    assert declarations.drawing(Marked) == {"uncorrected"}
    assert set(declarations.values(_Config())) == set(declarations.declarations(_Config))
    assert "loaded" not in declarations.values(Common())
