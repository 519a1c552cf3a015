"""The command line: which recipes there are, and what a recipe's training would consist of."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from textwrap import indent

from mechint.base.errors import MechintError
from mechint.finetune.answer_tokens import check_tokens
from mechint.finetune.examples import TextExample, example
from mechint.finetune.expansion import counts, distinct, expand
from mechint.finetune.registry import differs_in, load_recipe, recipes
from mechint.finetune.specification import Recipe

LISTED = ("name", "answers", "labels", "vectors", "steps", "seen", "read_at", "title")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table of recipes, or what training by some of them would consist of; return the exit code."""
    command = parser()
    options = command.parse_args(argv)
    if bool(options.names) != options.dry_run or not (options.names or options.list):
        command.error("give --list, or names of recipes with --dry-run")
    try:
        if options.list:
            sys.stdout.write(f"{recipes()[list(LISTED)].to_string(index=False)}\n")
        for name in options.names:
            sys.stdout.write("\n".join(_described(name, options)) + "\n")
    except MechintError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    command = argparse.ArgumentParser(prog="python -m mechint.finetune", description=__doc__)
    command.add_argument("names", nargs="*", metavar="NAME", help="a recipe: published/original, or a .json file")
    command.add_argument("--list", action="store_true", help="show the written recipes")
    command.add_argument("--dry-run", action="store_true", help="expand the recipes' examples and count them")
    command.add_argument("--model", help="adapt them to this model, and check their answers with its tokenizer")
    command.add_argument("--seed", type=int, default=0, help="of the run (default: 0)")
    command.add_argument("--steps", type=int, help="count the first steps alone (default: all that are made)")
    return command


def _described(name: str, options: argparse.Namespace) -> Iterator[str]:
    written = load_recipe(name)
    recipe = _for_model(written, options.model) if options.model else written
    budget = recipe.budget
    yield f"{recipe.name}: {recipe.title}"
    yield f"  settings: {recipe.source or 'of this project'}"
    yield f"  hash: {recipe.hash}"
    yield from (f"  stand-in: {text}" for text in recipe.stand_ins)
    yield from (f"  differs from {recipe.inherits} in {text}" for text in differs_in(name))
    yield f"  steps: {budget.steps_made} of {budget.rows} examples, read at: {budget.read_at}"
    table = expand(recipe, options.seed, options.steps)
    yield from (f"  {number:,} {name}" for name, number in distinct(table).items())
    yield indent(counts(table).to_string(index=False, float_format="{:.3f}".format), "  ")
    yield from _example(example(recipe, options.seed, 0, 0))


def _for_model(recipe: Recipe, name: str) -> Recipe:
    """Return the recipe for a model, of which only configuration and tokenizer are read."""
    from mechint.models.loading import load_config, load_tokenizer
    from mechint.models.model_names import resolve

    source = resolve(name)
    config = load_config(source)
    n_layers = config.get_text_config(decoder=True).num_hidden_layers
    adapted = recipe.for_model(name, n_layers, str(getattr(config, "mechint_prompts", "full")))
    check_tokens(adapted, load_tokenizer(source)[0])
    return adapted


def _example(text: TextExample) -> Iterator[str]:
    where = f" in {text.span!r} alone" if text.span else ""
    added = (
        f"{text.vector} at {text.first_block}:{text.stop_block}, {text.strength:g} each{where}"
        if text.steered
        else "no"
    )
    yield f"  the first example (steered: {added})"
    yield from (f"    {message.role}: {message.content}" for message in text.conversation().messages)
    target = text.target if text.right >= 0 else f"what the model itself answers to {text.object_question!r}"
    yield f"    to be answered: {target}"
