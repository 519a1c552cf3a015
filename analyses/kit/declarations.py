"""Options declared once, as fields of a frozen dataclass: parsers are made from them, and command lines from values.

    @dataclass(frozen=True, kw_only=True)
    class Config(Common):
        GROUP = "detection"
        info: Literal["none", "poem"] = option("info document that the figures show", default="none")

    parse(Config, parser(Config, "analyses.detection", "..."), ["--info", "poem"])  # Config(info="poem", ...)
    command_line(Config, {"info": "poem"})                                         # ["--info=poem"]

A class with a `GROUP` has its options under that title of --help (`GROUP_TEXT` below it); those of a class without one
stand under the title of the class that inherits them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Literal, NoReturn, TypeVar, cast

from mechint.base.arguments import shown
from mechint.base.errors import UnknownNameError, UsageError
from mechint.engine.shards import Shard

Options = TypeVar("Options")
_Value = TypeVar("_Value")
_KEY = "option"
_LONGEST_MESSAGE = 1000  # of argparse, which repeats what was given


@dataclasses.dataclass(frozen=True)
class Declaration:
    """An option: its help, how its text becomes a value, and whether it changes figures alone.

    At most one of all options with the same `alternatives` may be given; a `repeated` one, which takes several values
    and may be given several times, makes a tuple.
    """

    help: str
    parse: Callable[[str], object] | None
    metavar: str | None
    repeated: bool
    drawing: bool
    alternatives: str


def option(
    help: str,
    *,
    default: _Value | None = None,
    parse: Callable[[str], object] | None = None,
    metavar: str | None = None,
    repeated: bool = False,
    drawing: bool = False,
    alternatives: str = "",
) -> _Value:
    """Return the field of an option (see `Declaration`).

    Without `parse` its annotation says what it is: a switch (bool), one that can be switched off too (bool | None), or
    a choice among texts (Literal).
    """
    declaration = Declaration(help, parse, metavar, repeated, drawing, alternatives)
    return cast(_Value, dataclasses.field(default=default, metadata={_KEY: declaration}))


def declarations(options: type) -> dict[str, Declaration]:
    """Return the options of a dataclass by name; its other fields are none."""
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(options) if _KEY in field.metadata}


def values(config: object) -> dict[str, object]:
    """Return the values of the options that a dataclass has."""
    return {name: getattr(config, name) for name in declarations(type(config))}


def drawing(options: type) -> frozenset[str]:
    """Return the names of the options that change figures alone."""
    return frozenset(name for name, declaration in declarations(options).items() if declaration.drawing)


class Parser(argparse.ArgumentParser):
    """Says what is wrong and nothing else; the whole usage would bury it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {_plain(message)}\n  to do:   see {self.prog} --help\n")


class CallParser(Parser):
    """Raises UsageError for what is wrong, as its options come from Python."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(_plain(message), f"the options of {self.prog}", f"see {self.prog} --help")


def _plain(message: str) -> str:
    shortened = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}..."
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in shortened)


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, except where the default is that something else decides, or where the help says it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        names_default = action.default is None or "(default:" in (action.help or "")
        return action.help if names_default else super()._get_help_string(action)


def parser(options: type, module: str, description: str, kind: type[Parser] = Parser) -> Parser:
    """Return the parser of a module's options."""
    command = kind(prog=f"python -m {module}", description=description, formatter_class=_Formatter, allow_abbrev=False)
    declared = declarations(options)
    for title, text, names in _groups(options):
        group = command if title is None else command.add_argument_group(title, text)
        alternatives: dict[str, argparse._ArgumentGroup] = {}
        for name in names:
            several: str = declared[name].alternatives
            target: argparse._ActionsContainer = group
            if several:
                if several not in alternatives:
                    alternatives[several] = group.add_mutually_exclusive_group()
                target = alternatives[several]
            default = getattr(options, name, None)
            argument = _argument(declared[name], _hint(options, name), default)
            target.add_argument(flag(name), dest=name, **argument)
    return command


def parse(options: type[Options], command: Parser, argv: Sequence[str]) -> Options:
    """Return the options of a command line."""
    parsed = vars(command.parse_args(argv))
    repeated = {name for name, declaration in declarations(options).items() if declaration.repeated}
    return options(**{name: tuple(value or ()) if name in repeated else value for name, value in parsed.items()})


def flag(name: str, value: object = None) -> str:
    """Return an option as it is given on a command line; `value` False is what switches it off.

    A word of Python's (import) is the name of an option only with an underscore behind it, which users do not type.
    """
    return f"--{'no-' if value is False else ''}{name.rstrip('_').replace('_', '-')}"


def command_line(options: type, python_values: Mapping[str, object]) -> list[str]:
    """Return the command line that gives options these values; None stands for one that is not given.

    Raises UnknownNameError for a name that is no option's, UsageError for a value that no command line can give.
    """
    declared = declarations(options)
    if unknown := [name for name in python_values if name not in declared]:
        raise UnknownNameError(f"unknown option: {', '.join(unknown)}", ", ".join(declared), "choose among these")
    argv: list[str] = []
    for name, value in python_values.items():
        if value is None or (value is False and _hint(options, name) is bool):
            continue
        if isinstance(value, bool):
            argv.append(flag(name, value))
        elif declared[name].repeated and not isinstance(value, str | os.PathLike):
            argv += [f"{flag(name)}={_text(name, item)}" for item in _items(name, value)]
        else:
            argv.append(f"{flag(name)}={_text(name, value)}")
    return argv


def _groups(options: type) -> Iterator[tuple[str | None, str | None, list[str]]]:
    """Yield title, text and options of each group, those of the analysis itself last; one may have no title."""
    declared, order = declarations(options), _read_in_order(options)
    owners = [cls for cls in order if "GROUP" in vars(cls) or cls is options]
    names: dict[type, list[str]] = {owner: _own(owner, declared) for owner in owners}
    for cls in order:
        if cls not in owners:
            owner = next(owner for owner in owners if issubclass(owner, cls))
            names[owner] += _own(cls, declared)
    for owner in owners:
        if names[owner]:
            yield vars(owner).get("GROUP"), vars(owner).get("GROUP_TEXT"), names[owner]


def _own(cls: type, declared: Mapping[str, Declaration]) -> list[str]:
    return [name for name in vars(cls).get("__annotations__", {}) if name in declared]


def _read_in_order(options: type) -> list[type]:
    """Return a class and those that it inherits from left to right, each after its own."""
    order: dict[type, None] = {}
    for base in options.__bases__:
        order |= dict.fromkeys(_read_in_order(base))
    return [*order, options]


def _hint(options: type, name: str) -> object:
    """Return the annotation of one field, evaluated; those of others may name what only type checkers import."""
    owner = next(base for base in options.__mro__ if name in vars(base).get("__annotations__", {}))
    alone = type("Alone", (), {"__annotations__": {name: owner.__annotations__[name]}, "__module__": owner.__module__})
    return typing.get_type_hints(alone)[name]


def _argument(declaration: Declaration, hint: object, default: object) -> dict[str, typing.Any]:
    """Return the arguments of `add_argument` for an option."""
    if declaration.repeated:
        several = {"action": "extend", "nargs": "+"}
        repeated = {**several, "type": declaration.parse, "metavar": declaration.metavar}
        return {**repeated, "help": declaration.help}
    arguments: dict[str, typing.Any] = {"help": declaration.help, "default": default}
    if hint is bool:
        return {**arguments, "action": "store_true"}
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if bool in kinds:
        return {**arguments, "action": argparse.BooleanOptionalAction}
    for kind in kinds:
        if typing.get_origin(kind) is Literal:
            return {**arguments, "choices": typing.get_args(kind)}
    assert declaration.parse is not None, f"no type for an option of {hint}"
    return {**arguments, "type": declaration.parse, "metavar": declaration.metavar}


def _text(name: str, value: object) -> str:
    """Return a value as a command line writes it."""
    if isinstance(value, str | os.PathLike):
        return str(os.fspath(value))
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(value))
    if isinstance(value, Mapping):
        return json.dumps(value)
    if isinstance(value, Shard):
        return f"{value.index}/{value.count}"
    return ",".join(_without_comma(name, _text(name, item)) for item in _items(name, value))


def _without_comma(name: str, text: str) -> str:
    if "," in text:
        raise UsageError(f"{name}: {shown(text)} with a comma in it", "values without commas", "rename it")
    return text


def _items(name: str, value: object) -> list[object]:
    if not isinstance(value, Iterable):
        raise UsageError(
            given=f"{name}={shown(value)}, a {type(value).__name__}",
            allowed="a text, a number, True or False, a path, a mapping, or a sequence of these",
            advice="give it as one of these",
        )
    return list(value)
