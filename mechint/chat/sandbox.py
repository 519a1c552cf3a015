"""Where chat templates run: transformers' own sandbox, in which a template also has to come to an end.

Chat templates are programs that come with a checkpoint. Jinja's sandbox keeps them from the machine; this one also
counts what they do, so that a template that would loop, recurse or grow without end is told from one that is long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from typing import TYPE_CHECKING

from jinja2 import meta, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from jinja2 import Template

# Far more than any published template needs for a hundred messages, and done in seconds.
MAX_STEPS = 400_000
MAX_SIZE = 20_000_000  # characters of a text, items of a list
_MAX_BITS = 10_000  # of a number
CLOCK = "strftime_now"  # by which templates ask for the date
_GROWING = frozenset({"+", "*", "**", "%"})


class EndlessTemplateError(TemplateRuntimeError):
    """A template that has done more, or written more, than any chat needs."""


class _CountingCode(CodeGenerator):
    """Code in which every turn of a loop is counted, and texts that are joined are measured."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:
        counted = nodes.ExprStmt(nodes.Call(nodes.EnvironmentAttribute("step"), [], [], None, None))
        node.body.insert(0, counted.set_lineno(node.lineno))
        counted.set_environment(self.environment)
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.concat(map(str, (")
        for operand in node.nodes:
            self.visit(operand, frame)
            self.write(", ")
        self.write(")))")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a budget of steps (turns of loops, calls, sums and products) for each rendering."""

    code_generator_class = _CountingCode
    intercepted_binops = _GROWING

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.optimized = False  # constants are worked out while rendering, where they are bounded
        self.steps = 0

    def step(self) -> None:
        """Count one step. Raises EndlessTemplateError beyond the budget."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise EndlessTemplateError(f"it does not end within {MAX_STEPS:,} steps")

    def concat(self, parts: Iterable[str]) -> str:
        """Join texts. Raises EndlessTemplateError for a text that no chat has."""
        listed = list(parts)
        _check_size(sum(map(len, listed)))
        return "".join(listed)

    def call(self, context: Context, function: Callable[..., object], *args: object, **kwargs: object) -> object:
        """Call a function for a template."""
        self.step()
        _check_numbers((*args, *kwargs.values()))
        _check_replacement(getattr(function, "__self__", None), getattr(function, "__name__", ""), args)
        return super().call(context, function, *args, **kwargs)

    def wrap_str_format(self, value: object) -> Callable[..., str] | None:
        """Return the safe `format` of a text, whose widths are bounded too."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_widths(getattr(value, "__self__", ""))
        return wrapped

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """Work out a sum, product, power or remainder."""
        self.step()
        _CHECKS[operator](left, right)
        return super().call_binop(context, operator, left, right)


@cache
def compiled(source: str) -> Template:
    """Return a template that `rendered` can run; errors of syntax are raised as Jinja does."""
    return _environment().from_string(source)


@cache
def names_read(source: str) -> frozenset[str]:
    """Return the variables that a template reads without setting them in every case, and the clock if it reads it."""
    tree = _environment().parse(source)
    clock = {name.name for name in tree.find_all(nodes.Name) if name.name == CLOCK}
    return frozenset(meta.find_undeclared_variables(tree) | clock)


def rendered(template: Template, variables: Mapping[str, object]) -> str:
    """Return the text that a template writes; its errors are let through, EndlessTemplateError among them."""
    environment = template.environment
    assert isinstance(environment, BoundedEnvironment)
    environment.steps = 0
    return template.render(**variables)


@cache
def _environment() -> BoundedEnvironment:
    """Return the environment that transformers renders chat templates in, bounded."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    reference = _compile_jinja_template("").environment
    kinds = [type(extension) for extension in reference.extensions.values()]
    environment = BoundedEnvironment(
        trim_blocks=reference.trim_blocks, lstrip_blocks=reference.lstrip_blocks, extensions=kinds
    )
    for name in ("filters", "tests", "globals"):
        getattr(environment, name).update(getattr(reference, name))
    environment.filters.update({name: _bounded(environment, use) for name, use in environment.filters.items()})
    del environment.globals["lipsum"]  # endless filler text, which no chat template writes
    return environment


def _bounded(environment: BoundedEnvironment, use: Callable[..., object]) -> Callable[..., object]:
    """Return a filter whose uses are counted and whose numbers are bounded."""

    @wraps(use)  # with its marks: some filters are given the environment as well
    def counted(*args: object, **kwargs: object) -> object:
        environment.step()
        _check_numbers((*args[1:], *kwargs.values()))
        if use.__name__ == "do_format":
            _check_widths(args[0])
        if use.__name__ == "do_replace":
            _check_replacement(args[1], "replace", args[2:])  # the first is its context
        return use(*args, **kwargs)

    return counted


def _check_size(size: int) -> None:
    if size > MAX_SIZE:
        raise EndlessTemplateError(f"it writes more than {MAX_SIZE:,} characters")


def _check_sum(left: object, right: object) -> None:
    if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
        _check_size(len(left) + len(right))


def _check_product(left: object, right: object) -> None:
    for times, sequence in ((left, right), (right, left)):
        if isinstance(times, int) and isinstance(sequence, str | list | tuple):
            _check_size(len(sequence) * max(times, 0))
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())


def _check_power(left: object, right: object) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() * max(right, 0))


def _check_remainder(left: object, right: object) -> None:
    _check_widths(left)


def _check_widths(form: object) -> None:
    """Refuse a form (`%9d`, `{:9}`) with a width of more digits than the length of any chat has."""
    if isinstance(form, str) and any(len(digits) > len(str(MAX_SIZE)) for digits in _numbers(form)):
        raise EndlessTemplateError(f"it pads a text to more than {MAX_SIZE:,} characters")


def _check_numbers(values: Iterable[object]) -> None:
    """Refuse numbers given to functions and filters that could be widths or counts beyond any chat."""
    for value in values:
        if isinstance(value, int) and value > MAX_SIZE:
            raise EndlessTemplateError(
                f"it asks for {value:.3g} of something" if value < 1e300 else "it counts without end"
            )


def _check_replacement(text: object, method: str, args: Sequence[object]) -> None:
    """Refuse a replacement whose result is longer than any chat."""
    if method == "replace" and isinstance(text, str) and len(args) > 1:
        old, new = str(args[0]), str(args[1])
        _check_size(len(text) + text.count(old) * len(new))


def _numbers(text: str) -> list[str]:
    return "".join(letter if letter.isdecimal() else " " for letter in text).split()


def _check_bits(bits: int) -> None:
    if bits > _MAX_BITS:
        raise EndlessTemplateError(f"it works out a number of more than {_MAX_BITS:,} bits")


_CHECKS = {"+": _check_sum, "*": _check_product, "**": _check_power, "%": _check_remainder}
